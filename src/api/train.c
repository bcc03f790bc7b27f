/* graft_train: from a recipe to a trained adapter. */
#include "api/adapter_options.h"
#include "api/open.h"
#include "api/profile.h"
#include "api/report.h"
#include "api/train_settings.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/strbuf.h"
#include "train/optimizer_kind.h"
#include "train/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static checkpointing_mode checkpointing_of(const graft_recipe *recipe) {
    const char *text = recipe_text(recipe, "gradient_checkpointing");
    return !strcmp(text, "on")    ? CHECKPOINTING_ON
           : !strcmp(text, "off") ? CHECKPOINTING_OFF
                                  : CHECKPOINTING_AUTO;
}

static void config_shapes(train_config *out, const graft_recipe *recipe) {
    out->per_device_train_batch_size =
        (int32_t)recipe_integer(recipe, "per_device_train_batch_size");
    out->gradient_accumulation_steps =
        (int32_t)recipe_integer(recipe, "gradient_accumulation_steps");
    out->optimizer = optimizer_find(recipe_text(recipe, "optim"));
    out->packing = recipe_flag(recipe, "packing");
    out->checkpointing = checkpointing_of(recipe);
    out->memory_limit_bytes = recipe_size(recipe, "memory_limit");
}

static void config_steps(train_config *out, const graft_recipe *recipe) {
    out->num_train_epochs = recipe_number(recipe, "num_train_epochs");
    out->max_steps = recipe_integer(recipe, "max_steps");
    out->learning_rate = recipe_number(recipe, "learning_rate");
    out->weight_decay = recipe_number(recipe, "weight_decay");
    out->adam_beta1 = recipe_number(recipe, "adam_beta1");
    out->adam_beta2 = recipe_number(recipe, "adam_beta2");
    out->adam_epsilon = recipe_has(recipe, "adam_epsilon") ? recipe_number(recipe, "adam_epsilon")
                                                           : out->optimizer->adam_epsilon;
    out->max_grad_norm = recipe_number(recipe, "max_grad_norm");
    out->loraplus_lr_ratio = recipe_number(recipe, "loraplus_lr_ratio");
    out->warmup_steps = recipe_integer(recipe, "warmup_steps");
    out->warmup_ratio = recipe_number(recipe, "warmup_ratio");
    out->seed = (uint64_t)recipe_integer(recipe, "seed");
    out->shuffle = recipe_flag(recipe, "shuffle");
    if (recipe_flag(recipe, "streaming"))
        out->shuffle_buffer = recipe_integer(recipe, "shuffle_buffer");
    out->save_steps = recipe_integer(recipe, "save_steps");
    out->eval_steps = recipe_integer(recipe, "eval_steps");
    out->logging_steps = recipe_integer(recipe, "logging_steps");
    out->save_total_limit = (int32_t)recipe_integer(recipe, "save_total_limit");
}

void train_config_numbers(train_config *out, const graft_recipe *recipe) {
    config_shapes(out, recipe);
    config_steps(out, recipe);
}

static graft_status config_from_recipe(train_config *out, const opened *o, graft_error *err) {
    const graft_recipe *recipe = o->recipe;
    *out = (train_config){0};
    train_config_numbers(out, recipe);
    graft_status status = need_option(recipe, "output_dir", err);
    if (status != GRAFT_OK)
        return status;
    out->output_dir = recipe_text(recipe, "output_dir");
    out->resume = recipe_has(recipe, "resume") ? recipe_text(recipe, "resume") : NULL;
    out->base_name = recipe_text(recipe, "model");
    out->model_folder = o->folder;
    const char *schedule = recipe_text(recipe, "lr_scheduler_type");
    while (
        strcmp(schedule_name(out->schedule), schedule)) /* the option's choices are these names */
        out->schedule++;
    return GRAFT_OK;
}

/* ---- Watching ---- */

typedef struct watcher {
    const graft_observer *observer;
    double *losses;
    size_t n, capacity;
} watcher;

static void on_metrics(void *context, train_event kind, const train_metrics *m) {
    watcher *w = context;
    if (kind == TRAIN_EVENT_STEP &&
        mem_reserve(&w->losses, &w->capacity, w->n + 1, sizeof *w->losses))
        w->losses[w->n++] = m->loss;
    if (!w->observer || !w->observer->on_event)
        return;
    graft_event event = {
        .kind = kind == TRAIN_EVENT_STEP ? GRAFT_EVENT_STEP : GRAFT_EVENT_EVALUATION,
        .step = m->step,
        .total_steps = m->total_steps,
        .epoch = m->epoch,
        .loss = m->loss,
        .grad_norm = m->grad_norm,
        .learning_rate = m->learning_rate,
        .tokens = m->tokens,
        .supervised_tokens = m->supervised_tokens,
        .tokens_per_second = m->tokens_per_second,
        .step_time_s = m->step_time_s,
        .eta_s = m->eta_s,
        .peak_memory_bytes = m->peak_memory_bytes,
        .eval_loss = m->eval_loss,
        .eval_perplexity = m->eval_perplexity,
    };
    w->observer->on_event(w->observer->context, &event);
}

static void on_saved(void *context, const char *path) {
    watcher *w = context;
    graft_event event = {.kind = GRAFT_EVENT_SAVED, .text = path};
    if (w->observer && w->observer->on_event)
        w->observer->on_event(w->observer->context, &event);
}

/* ---- The run ---- */

/* The recipe of a run says what is trained, not that this process went on with it: run again, it
 * begins anew. */
static graft_status write_repeatable(const graft_recipe *recipe, const graft_sink *to,
                                     graft_error *err) {
    graft_recipe *repeatable = NULL;
    graft_status status = recipe_copy(&repeatable, recipe, err);
    if (status == GRAFT_OK) {
        recipe_omit(repeatable, "resume");
        adapter_options_omit(repeatable);
        status = graft_recipe_write(repeatable, to, err);
    }
    graft_recipe_destroy(&repeatable);
    return status;
}

static graft_status open_inputs(train_inputs *in, opened *o, graft_error *err) {
    graft_status status = open_weights(o, err);
    if (status == GRAFT_OK)
        status = open_new_adapter(o, err);
    if (status == GRAFT_OK)
        status = open_text(o, err);
    if (status == GRAFT_OK)
        status = open_start_text(o, err);
    if (status == GRAFT_OK)
        status = recipe_flag(o->recipe, "streaming") ? open_stream(&in->stream, o, "data", err)
                                                     : open_data(&in->data, o, "data", false, err);
    if (status == GRAFT_OK)
        status = open_held_out(&in->eval_data, in->data, o, err);
    if (!in->stream)
        close_text(o); /* the rows are tokens by now */
    in->dev = o->dev;
    in->spec = &o->spec;
    in->weights = o->weights;
    in->adapter = o->adapter;
    in->init_adapter = recipe_text(o->recipe, "init_adapter");
    in->stop = o->observer ? o->observer->stop : NULL;
    return status;
}

static void result_from_run(graft_train_result *out, const train_result *run, watcher *w) {
    *out = (graft_train_result){
        .steps = run->steps,
        .tokens = run->tokens,
        .supervised_tokens = run->supervised_tokens,
        .skipped_steps = run->skipped_steps,
        .first_loss = run->first_loss,
        .last_loss = run->last_loss,
        .eval_loss = run->eval_loss,
        .seconds = run->wall_s,
        .tokens_per_second = run->tokens_per_second,
        .peak_memory_bytes = run->peak_memory_bytes,
        .planned_memory_bytes = (int64_t)run->plan.total,
        .trained_parameters = run->plan.trained,
        .parameters = run->plan.parameters,
        .losses = w->losses,
        .n_losses = w->n,
    };
    w->losses = NULL;
}

/* The clock of templates is part of a run: it is fixed at its start, and a resumed run keeps it. */
static graft_status fix_clock(graft_recipe *recipe, graft_error *err) {
    if (recipe_has(recipe, "now"))
        return GRAFT_OK;
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)time(NULL));
    graft_recipe *begun = NULL;
    char *path = path_join(recipe_text(recipe, "output_dir"), "recipe.yaml");
    graft_status status =
        path ? graft_recipe_create(&begun, GRAFT_VERB_TRAIN, err) : error_memory(err, 0, "a path");
    if (status == GRAFT_OK && recipe_has(recipe, "resume") && path_exists(path))
        status = graft_recipe_read(begun, path, err);
    if (status == GRAFT_OK)
        status = graft_recipe_set(recipe, "now",
                                  recipe_has(begun, "now") ? recipe_text(begun, "now") : text, err);
    graft_recipe_destroy(&begun);
    free(path);
    return status;
}

static graft_status train_recipe(graft_train_result *out, const graft_recipe *recipe,
                                 const graft_observer *observer, graft_error *err) {
    opened o = opened_begin(recipe, observer);
    train_inputs in = {0};
    train_config config;
    watcher w = {.observer = observer};
    train_observer watching = {on_metrics, on_saved, o.messages, &w};
    strbuf resolved = {0};
    graft_sink to_text = strbuf_sink(&resolved);
    train_result run;
    graft_status status = open_inputs(&in, &o, err);
    if (status == GRAFT_OK)
        status = config_from_recipe(&config, &o, err);
    if (status == GRAFT_OK)
        status = write_repeatable(recipe, &to_text, err);
    if (status == GRAFT_OK && resolved.failed)
        status = error_memory(err, resolved.length, "a recipe");
    if (status == GRAFT_OK) {
        config.recipe = strbuf_text(&resolved);
        in.config = &config;
        in.observer = &watching;
        status = train_run(&run, &in, err);
    }
    if (status == GRAFT_OK) {
        result_from_run(out, &run, &w);
        profile_take(&out->profile, &o, run.wall_s);
    }
    free(w.losses);
    strbuf_free(&resolved);
    dataset_close(&in.eval_data);
    dataset_close(&in.data);
    data_stream_close(&in.stream);
    opened_close(&o);
    return status;
}

graft_status graft_train(graft_train_result *out, const graft_recipe *given,
                         const graft_observer *observer, graft_error *err) {
    *out = (graft_train_result){0};
    graft_recipe *recipe = NULL;
    /* What needs no file is checked first. */
    graft_status status = need_option(given, "output_dir", err);
    if (status == GRAFT_OK)
        status = need_option(given, "data", err);
    if (status == GRAFT_OK)
        status = recipe_copy(&recipe, given, err);
    if (status == GRAFT_OK)
        status = fix_clock(recipe, err);
    if (status == GRAFT_OK)
        status = train_recipe(out, recipe, observer, err);
    graft_recipe_destroy(&recipe);
    return status;
}

void graft_train_result_free(graft_train_result *result) {
    free((void *)result->losses);
    *result = (graft_train_result){0};
}
