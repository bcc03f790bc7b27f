/* graft_plan: what a fine-tune costs, from config.json, the weights' headers and the recipe. */
#include "api/plan_report.h"

#include "api/adapter_options.h"
#include "api/report.h"
#include "api/train_settings.h"
#include "generate/kv_cache.h"
#include "train/free_memory.h"
#include "train/schedule.h"

#include <stdlib.h>
#include <unistd.h>

/* Rows that stand for data nobody has given: full, and all supervised. */
enum { MADE_ROWS_MAX = 64, MADE_TOKENS_MAX = 1 << 20 };

/* ---- The model ---- */

/* --model, or --model-config alone; both: text from the one, shapes from the other. */
static graft_status open_model(opened *o, graft_error *err) {
    const char *config = recipe_text(o->recipe, "model_config");
    graft_status status = GRAFT_OK;
    if (!config)
        return open_spec(o, err);
    if (recipe_has(o->recipe, "model"))
        status = model_folder_find(&o->folder, recipe_text(o->recipe, "model"), err);
    else if (recipe_list_count(o->recipe, "data"))
        return error_set(err, GRAFT_E_USAGE,
                         "--data needs a tokenizer, and --model-config has none: name its model "
                         "with --model, too, or leave --data out");
    if (status == GRAFT_OK)
        status = model_spec_read(&o->spec, config, &o->messages, err);
    return status;
}

/* Bytes that a run maps: those of the weight files, or, where a config stands alone, what it says
 * the tensors are. */
static graft_status measure_weights(size_t *out, const opened *o, graft_error *err) {
    *out = (size_t)model_parameters(&o->spec) * dtype_bytes(o->spec.stored);
    if (recipe_text(o->recipe, "model_config") ||
        (!folder_has(o->folder, "model.safetensors") &&
         !folder_has(o->folder, "model.safetensors.index.json")))
        return GRAFT_OK;
    safetensors *files = NULL;
    graft_status status = safetensors_open_model(&files, o->folder, &o->messages, err);
    if (status == GRAFT_OK)
        *out = safetensors_bytes(files);
    safetensors_close(&files);
    return status;
}

/* ---- The data ---- */

static graft_status make_rows(dataset **out, const plan_facts *f, graft_error *err) {
    int64_t rows =
        (int64_t)f->config->per_device_train_batch_size * f->config->gradient_accumulation_steps;
    int32_t n = f->shape.longest_row;
    rows = rows > MADE_ROWS_MAX ? MADE_ROWS_MAX : rows;
    while (rows > 1 && rows * n > MADE_TOKENS_MAX)
        rows--;
    int32_t *ids = calloc((size_t)n, sizeof *ids);
    if (!ids)
        return error_memory(err, (size_t)n * sizeof *ids, "a plan");
    graft_status status = dataset_create(out, err);
    for (int64_t i = 0; i < rows && status == GRAFT_OK; i++)
        status = dataset_add(*out, ids, NULL, n, (data_source){0}, err);
    free(ids);
    return status;
}

/* Rows that are streamed are known by their limit alone. */
static graft_status shape_made_rows(dataset **data, plan_facts *f, opened *o, bool is_streamed,
                                    graft_error *err) {
    dataset *eval_data = NULL;
    graft_status status = GRAFT_OK;
    f->steps = f->config->max_steps > 0 ? f->config->max_steps : 0;
    if (is_streamed && recipe_list_count(o->recipe, "eval_data")) {
        status = open_text(o, err);
        if (status == GRAFT_OK)
            status = open_held_out(&eval_data, NULL, o, err);
    }
    f->shape = data_shape_of_stream(f->shape.longest_row, eval_data);
    if (status == GRAFT_OK)
        status = make_rows(data, f, err);
    dataset_close(&eval_data);
    return status;
}

/* The longest row, of training and evaluation data alike, decides the step's memory. */
static graft_status measure_data(dataset **data, plan_facts *f, opened *o, graft_error *err) {
    int32_t longest = (int32_t)recipe_integer(o->recipe, "max_length");
    bool has_files = recipe_list_count(o->recipe, "data") > 0;
    bool is_streamed = has_files && recipe_flag(o->recipe, "streaming");
    if (longest > o->spec.max_positions && !is_streamed)
        longest = o->spec.max_positions;
    f->shape = (data_shape){.longest_row = longest, .longest_trained = longest};
    f->has_data = has_files && !is_streamed;
    if (!f->has_data)
        return shape_made_rows(data, f, o, is_streamed, err);
    dataset *eval_data = NULL;
    graft_status status = open_text(o, err);
    if (status == GRAFT_OK)
        status = open_data(data, o, "data", false, err);
    if (status == GRAFT_OK)
        status = open_held_out(&eval_data, *data, o, err);
    if (status == GRAFT_OK) {
        dataset_counts counts = dataset_count(*data);
        f->tokens = counts.tokens;
        f->supervised = counts.supervised;
        f->shape = data_shape_of(*data, eval_data);
        f->steps = step_count_of(f->config, dataset_epoch_rows(*data)).total;
    }
    dataset_close(&eval_data);
    return status;
}

/* ---- Memory ---- */

static int64_t machine_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (int64_t)pages * page : 0;
}

static graft_status find_advice(plan_facts *f, opened *o, int32_t threads, size_t mapped,
                                graft_error *err) {
    adapter_config asked = {0};
    graft_status status = adapter_config_from_recipe(&asked, o->recipe, &o->messages, err);
    const advice_request request = {.spec = &o->spec,
                                    .adapter = &asked,
                                    .config = f->config,
                                    .data = f->shape,
                                    .n_threads = threads,
                                    .mapped_bytes = mapped,
                                    .limit_bytes = (size_t)f->limit_bytes};
    if (status == GRAFT_OK)
        status = advice_find(f->advice, &f->n_advice, &request, err);
    adapter_config_free(&asked);
    return status;
}

/* Not fitting is an answer, not a failure. */
static graft_status plan_memory(plan_facts *f, opened *o, graft_error *err) {
    size_t mapped;
    graft_status status = measure_weights(&mapped, o, err);
    if (status != GRAFT_OK)
        return status;
    int32_t threads = (int32_t)recipe_integer(o->recipe, "threads");
    if (threads == 0)
        threads = cpu_features_detect().threads;
    f->machine_bytes = machine_memory();
    f->limit_bytes =
        f->config->memory_limit_bytes ? f->config->memory_limit_bytes : free_memory_bytes("");
    f->kv_token_bytes = kv_cache_bytes(&o->spec, 1, sizeof(float));
    status = train_plan(&f->memory, &o->spec, o->adapter, f->config, f->shape, threads, mapped,
                        &f->reason);
    f->fits = status == GRAFT_OK;
    if (status == GRAFT_E_MEMORY && f->memory.total > (size_t)f->limit_bytes)
        return find_advice(f, o, threads, mapped, err);
    if (status != GRAFT_OK && err)
        *err = f->reason;
    return status;
}

/* ---- Work and time ---- */

static graft_status plan_work(plan_facts *f, opened *o, const dataset *data, graft_error *err) {
    const step_cost_request request = {.spec = &o->spec,
                                       .adapter = o->adapter,
                                       .config = f->config,
                                       .data = data,
                                       .plan = &f->memory,
                                       .shape = f->shape};
    graft_status status = step_cost_count(&f->cost, &request, err);
    if (status == GRAFT_OK)
        status = open_backend(o, err);
    if (status == GRAFT_OK)
        status = time_estimate_measure(&f->time, o->dev, &o->spec, o->adapter, &f->cost, err);
    return status;
}

graft_status graft_plan(const graft_sink *sink, graft_format format, const graft_recipe *recipe,
                        const graft_observer *observer, graft_error *err) {
    opened o = opened_begin(recipe, observer);
    train_config config = {0};
    dataset *data = NULL;
    const char *model = recipe_text(recipe, "model");
    plan_facts facts = {.opened = &o,
                        .title = model ? model : recipe_text(recipe, "model_config"),
                        .config = &config};
    train_config_numbers(&config, recipe);
    graft_status status = open_model(&o, err);
    if (status == GRAFT_OK)
        status = open_new_adapter(&o, err);
    if (status == GRAFT_OK)
        status = measure_data(&data, &facts, &o, err);
    if (status == GRAFT_OK)
        status = plan_memory(&facts, &o, err);
    if (status == GRAFT_OK)
        status = plan_work(&facts, &o, data, err);
    if (status == GRAFT_OK && format.json) {
        status = report_finish_json(sink, plan_json(&facts), err);
    } else if (status == GRAFT_OK) {
        strbuf text = {0};
        plan_text(&text, &facts);
        status = report_finish(sink, &text, err);
    }
    dataset_close(&data);
    opened_close(&o);
    return status;
}
