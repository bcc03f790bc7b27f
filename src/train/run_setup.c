#include "train/run.h"

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/memory.h"
#include "train/base_identity.h"
#include "train/folder.h"
#include "train/optimizer.h"
#include "train/settings.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

enum { INIT_STREAM = 1 << 30 }; /* of the run's seed; the epochs of the sampler are the low ones */

bool run_is_stopped(const run *r) {
    return r->in->stop && *r->in->stop;
}

const message_sink *run_messages(const run *r) {
    return r->in->observer ? &r->in->observer->messages : NULL;
}

/* ---- Data ---- */

static graft_status open_order(run *r, graft_error *err) {
    sampler_group *groups = NULL;
    size_t n = 0;
    graft_status status = dataset_groups(&groups, &n, r->in->data, err);
    if (status == GRAFT_OK)
        status =
            sampler_create_groups(&r->order, groups, n, r->config->seed, r->config->shuffle, err);
    free(groups);
    return status;
}

int32_t run_longest_row(const run *r) {
    return r->in->stream ? data_stream_max_length(r->in->stream)
                         : dataset_count(r->in->data).longest;
}

const char *run_data_path(const run *r, int32_t file) {
    return r->in->stream ? data_stream_path(r->in->stream, file) : dataset_path(r->in->data, file);
}

/* How many rows there are, and so how many steps an epoch has, shows at its end. */
static graft_status count_streamed(run *r, graft_error *err) {
    if (r->config->max_steps <= 0)
        return error_set(err, GRAFT_E_USAGE,
                         "--streaming: how many rows there are is not known before they are read; "
                         "give --max-steps");
    r->count = step_count_of(r->config, 1);
    return GRAFT_OK;
}

static graft_status count_rows(run *r, graft_error *err) {
    if (dataset_rows(r->in->data) == 0 || dataset_count(r->in->data).supervised == 0)
        return error_set(err, GRAFT_E_INPUT,
                         "the training data: expected rows with supervised tokens, found none");
    graft_status status = open_order(r, err);
    if (status != GRAFT_OK)
        return status;
    r->count = step_count_of(r->config, sampler_rows_per_epoch(r->order));
    return GRAFT_OK;
}

static graft_status open_data(run *r, graft_error *err) {
    graft_status status = r->in->stream ? count_streamed(r, err) : count_rows(r, err);
    if (status != GRAFT_OK)
        return status;
    r->warmup = schedule_warmup(r->config, r->count.total);
    if (!r->in->eval_data)
        return GRAFT_OK;
    dataset_counts eval = dataset_count(r->in->eval_data);
    if (eval.supervised == 0)
        return error_set(err, GRAFT_E_INPUT,
                         "the evaluation data: expected supervised tokens, found none in %" PRId64
                         " rows",
                         eval.rows);
    return GRAFT_OK;
}

/* ---- What a resumed run must agree with ---- */

static graft_status check_same_inputs(const run *r, const checkpoint_state *then, const char *path,
                                      graft_error *err) {
    const checkpoint_state *now = &r->state;
    if (!r->in->stream && then->data_hash != now->data_hash)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: the training data has changed since this checkpoint: expected hash "
                         "%016" PRIx64 ", found %016" PRIx64
                         "; put the old files back, or start anew",
                         path, then->data_hash, now->data_hash);
    if (then->base_hash != now->base_hash)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: another base model than this checkpoint's: expected hash %016" PRIx64
                         ", found %016" PRIx64 "; give the model it was trained on, or start anew",
                         path, then->base_hash, now->base_hash);
    if (then->progress.step > r->count.total)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected a checkpoint of at most %" PRId64
                         " steps (max_steps, num_train_epochs), found %" PRId64 "; raise max_steps",
                         path, r->count.total, then->progress.step);
    return GRAFT_OK;
}

/* Finds the checkpoint that config.resume means, checks it, and takes over its progress. */
static graft_status choose_checkpoint(run *r, char **path, graft_error *err) {
    const train_config *c = r->config;
    checkpoint_state then = {0};
    char run_id[RUN_ID_BYTES];
    graft_status status;
    if (*c->resume) {
        *path = mem_text(c->resume, strlen(c->resume));
        if (!*path)
            return error_memory(err, strlen(c->resume), "a file name");
        if (!path_is_folder(*path))
            return error_set(err, GRAFT_E_INPUT,
                             "%s: expected the folder of a checkpoint, found %s", *path,
                             path_exists(*path) ? "a file" : "nothing");
        status = manifest_verify(NULL, *path, err);
    } else {
        status = run_id_read(run_id, c->output_dir, err);
        if (status == GRAFT_OK)
            status = checkpoint_newest(path, c->output_dir, run_id, run_messages(r), err);
    }
    if (status == GRAFT_OK)
        status = checkpoint_read(&then, *path, err);
    if (status == GRAFT_OK)
        status = settings_compare(then.settings, r->state.settings, *path, run_messages(r), err);
    if (status == GRAFT_OK)
        status = check_same_inputs(r, &then, *path, err);
    if (status == GRAFT_OK)
        status = r->in->stream
                     ? data_stream_seek(r->in->stream, then.progress.cursor, then.data_hash, err)
                     : sampler_seek(r->order, then.progress.cursor, err);
    if (status == GRAFT_OK) {
        /* From a named checkpoint a new run begins: what the folder has of later steps is another
         * one's. */
        if (!*c->resume)
            memcpy(r->state.run_id, then.run_id, RUN_ID_BYTES);
        r->progress = then.progress;
        r->state.data_hash = then.data_hash;
        r->saved_step = then.progress.step;
        message_emit(run_messages(r), MESSAGE_INFO,
                     "resuming after step %" PRId64 " of %" PRId64 ": %s", r->progress.step,
                     r->count.total, *path);
    }
    checkpoint_state_free(&then);
    return status;
}

static graft_status describe_run(run *r, graft_error *err) {
    r->state = (checkpoint_state){
        .total_steps = r->count.total,
        .seed = r->config->seed,
        .data_hash = r->in->stream ? data_stream_hash(r->in->stream) : dataset_hash(r->in->data),
        .base_hash = base_identity(r->in->spec, r->in->weights),
        .settings = settings_json(r->config, r->in->adapter, r->in->dev),
    };
    run_id_create(r->state.run_id);
    return r->state.settings ? GRAFT_OK : error_memory(err, sizeof r->state, "the settings");
}

/* ---- Memory ---- */

/* A stream's rows are checked as they come. */
static graft_status check_tasks(const run *r, graft_error *err) {
    const train_inputs *in = r->in;
    graft_status status = GRAFT_OK;
    if (!in->stream)
        status = dataset_check_tasks(in->data, r->hooks.n_tasks, err);
    if (status == GRAFT_OK && in->eval_data)
        status = dataset_check_tasks(in->eval_data, r->hooks.n_tasks, err);
    return status;
}

static graft_status plan_memory(run *r, arena_shape *shape, graft_error *err) {
    const train_inputs *in = r->in;
    graft_status status = optimizer_shape(in->adapter, r->config, err);
    if (status != GRAFT_OK)
        return status;
    adapter_bind(in->adapter, &r->hooks);
    model_hooks_finish(&r->hooks, in->spec);
    status = check_tasks(r, err);
    if (status != GRAFT_OK)
        return status;
    const plan_request request = {
        .spec = in->spec,
        .adapter = in->adapter,
        .hooks = &r->hooks,
        .config = r->config,
        .data = in->stream ? data_shape_of_stream(data_stream_max_length(in->stream), in->eval_data)
                           : data_shape_of(in->data, in->eval_data),
        .element_bytes = in->dev->element_bytes,
        .workspace_bytes = in->dev->workspace_bytes,
        .mapped_bytes = weight_source_mapped_bytes(in->weights),
        .uploaded_bytes = weight_source_uploaded_bytes(in->weights),
    };
    return memory_plan_choose(&r->plan, shape, &request, err);
}

static size_t sum(const size_t parts[N_COMPONENTS]) {
    size_t total = 0;
    for (int i = 0; i < N_COMPONENTS; i++)
        total += parts[i];
    return total;
}

static graft_status take_memory(run *r, const arena_shape *shape, graft_error *err) {
    backend *dev = r->in->dev;
    size_t trainer_bytes = sum(r->plan.trainer), step_bytes = sum(r->plan.step);
    r->trainer_memory = dev->ops->alloc(dev, trainer_bytes);
    if (!r->trainer_memory)
        return error_memory(err, trainer_bytes, "the adapter, its gradients and moments");
    r->step_memory = dev->ops->alloc(dev, step_bytes);
    if (!r->step_memory)
        return error_memory(err, step_bytes, "the activations of a step");
    r->host_memory = aligned_alloc(LAYOUT_ALIGNMENT, r->plan.host);
    r->arenas.saved = mem_array((size_t)r->in->spec->n_layers, sizeof *r->arenas.saved);
    if (!r->host_memory || !r->arenas.saved)
        return error_memory(err, r->plan.host, "the batches of a step");
    memset(r->host_memory, 0, r->plan.host);
    layout trainer = layout_over(r->trainer_memory, trainer_bytes);
    layout step = layout_over(r->step_memory, step_bytes);
    layout host = layout_over(r->host_memory, r->plan.host);
    graft_status status = run_arenas_layout(&r->arenas, &trainer, &step, &host, shape, err);
    assert(status != GRAFT_OK ||
           (trainer.high_water == trainer_bytes && step.high_water == step_bytes &&
            host.high_water == r->plan.host));
    return status;
}

/* Binds again, now to memory, and gives the adapter its values. */
static graft_status start_adapter(run *r, const char *checkpoint, graft_error *err) {
    const train_inputs *in = r->in;
    model_hooks_free(&r->hooks);
    graft_status status = model_hooks_create(&r->hooks, in->spec, err);
    if (status != GRAFT_OK)
        return status;
    adapter_bind(in->adapter, &r->hooks);
    model_hooks_finish(&r->hooks, in->spec);
    r->model = (model_run){in->dev, in->spec, in->weights, &r->hooks};
    rng random = rng_create(r->config->seed, INIT_STREAM);
    if (checkpoint)
        status = checkpoint_load(in->adapter, in->dev, checkpoint, err);
    else if (in->init_adapter && (status = adapter_check_training(in->adapter, err)) == GRAFT_OK)
        status = adapter_load(in->adapter, in->dev, in->weights, in->init_adapter, err);
    else if (!in->init_adapter)
        status = adapter_init(in->adapter, in->dev, in->weights, &random, err);
    return status == GRAFT_OK ? adapter_prepare(in->adapter, in->dev, in->weights, err) : status;
}

/* ---- The output folder ---- */

/* Says now what would fail hours later. */
static void check_disk(const run *r) {
    struct statvfs disk;
    if (statvfs(r->config->output_dir, &disk) != 0)
        return;
    double element = (double)r->in->dev->element_bytes;
    double one = (double)r->plan.trained * element * 4; /* value, two moments, the adapter file */
    double kept = r->config->save_steps <= 0 ? 1
                  : r->config->save_total_limit > 0
                      ? (double)r->config->save_total_limit + 1
                      : (double)(r->count.total / r->config->save_steps + 1);
    double needed = one * (kept < 2 ? 2 : kept);
    double there = (double)disk.f_bavail * (double)disk.f_frsize;
    char need[BYTES_TEXT], have[BYTES_TEXT];
    if (there < needed)
        message_emit(run_messages(r), MESSAGE_WARNING,
                     "%s: %s free, and this run will write about %s: free some space, or lower "
                     "save_total_limit",
                     r->config->output_dir, bytes_text(have, there), bytes_text(need, needed));
}

static graft_status lock_early(run *r, graft_error *err) {
    char *path = path_join(r->config->output_dir, ".lock");
    if (!path)
        return error_memory(err, strlen(r->config->output_dir), "a file name");
    graft_status status = GRAFT_OK;
    if (path_exists(path))
        status = run_lock_take(&r->lock, r->config->output_dir, err);
    free(path);
    return status;
}

static graft_status open_output(run *r, bool is_resumed, graft_error *err) {
    const train_config *c = r->config;
    graft_status status = folder_create(c->output_dir, err);
    if (status == GRAFT_OK && r->lock.fd < 0)
        status = run_lock_take(&r->lock, c->output_dir, err);
    if (status == GRAFT_OK)
        status = run_id_write(c->output_dir, r->state.run_id, err);
    /* Not at the end: a run that is killed can be repeated too. */
    if (status == GRAFT_OK && c->recipe)
        status = folder_write(c->output_dir, "recipe.yaml", c->recipe, strlen(c->recipe), err);
    if (status != GRAFT_OK)
        return status;
    checkpoint_sweep(c->output_dir);
    check_disk(r);
    int64_t logging = c->logging_steps > 0 ? c->logging_steps : 1;
    int64_t n_evaluations = c->eval_steps > 0 ? r->count.total / c->eval_steps + 2 : 2;
    return metrics_open(&r->log, c->output_dir, is_resumed ? r->progress.step : -1,
                        r->count.total / logging + 2, n_evaluations, run_messages(r), err);
}

graft_status run_open(run *r, const train_inputs *in, graft_error *err) {
    *r = (run){.in = in,
               .config = in->config,
               .lock = {-1},
               .log = {.fd = -1},
               .saved_step = -1,
               .started_s = clock_seconds()};
    char *checkpoint = NULL;
    arena_shape shape;
    graft_status status = settings_check(in->config, err);
    if (status == GRAFT_OK)
        status = model_hooks_create(&r->hooks, in->spec, err);
    if (status == GRAFT_OK)
        status = open_data(r, err);
    if (status == GRAFT_OK)
        status = describe_run(r, err);
    if (status == GRAFT_OK)
        status = lock_early(r, err);
    if (status == GRAFT_OK && in->config->resume)
        status = choose_checkpoint(r, &checkpoint, err);
    if (status == GRAFT_OK)
        status = plan_memory(r, &shape, err);
    if (status == GRAFT_OK)
        status = take_memory(r, &shape, err);
    if (status == GRAFT_OK)
        status = start_adapter(r, checkpoint, err);
    if (status == GRAFT_OK)
        status = open_output(r, checkpoint != NULL, err);
    r->saved_path = checkpoint;
    return status;
}

void run_close(run *r) {
    backend *dev = r->in->dev;
    metrics_close(&r->log);
    checkpoint_state_free(&r->state);
    sampler_destroy(&r->order);
    model_hooks_free(&r->hooks);
    free(r->arenas.saved);
    free(r->host_memory);
    if (r->step_memory)
        dev->ops->release(dev, r->step_memory);
    if (r->trainer_memory)
        dev->ops->release(dev, r->trainer_memory);
    free(r->saved_path);
    run_lock_release(&r->lock);
}
