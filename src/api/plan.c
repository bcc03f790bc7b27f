/* graft_plan: what a fine-tune costs, from config.json, the weights' headers and the recipe. */
#include "api/open.h"
#include "api/report.h"
#include "api/train_settings.h"

#include "base/memory.h"
#include "train/free_memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct plan_facts {
    data_shape shape; /* of the data, else one row of max_length */
    int64_t rows;     /* 0: no data given */
    int64_t tokens, supervised;
    int64_t limit_bytes; /* memory_limit, else what the machine has free */
    bool fits;
    graft_error reason; /* why it does not */
} plan_facts;

/* The longest row, of training and evaluation data alike, decides the step's memory. */
static graft_status measure_data(plan_facts *out, opened *o, graft_error *err) {
    int32_t longest = (int32_t)recipe_integer(o->recipe, "max_length");
    if (longest > o->spec.max_positions)
        longest = o->spec.max_positions;
    out->shape = (data_shape){.longest_row = longest, .longest_trained = longest};
    if (!recipe_list_count(o->recipe, "data"))
        return GRAFT_OK;
    dataset *data = NULL, *eval_data = NULL;
    graft_status status = open_text(o, err);
    if (status == GRAFT_OK)
        status = open_data(&data, o, "data", false, err);
    if (status == GRAFT_OK && recipe_list_count(o->recipe, "eval_data"))
        status = open_data(&eval_data, o, "eval_data", true, err);
    if (status == GRAFT_OK) {
        dataset_counts counts = dataset_count(data);
        out->rows = counts.rows;
        out->tokens = counts.tokens;
        out->supervised = counts.supervised;
        out->shape = data_shape_of(data, eval_data);
    }
    dataset_close(&eval_data);
    dataset_close(&data);
    return status;
}

/* Bytes that a run maps: those of the weight files, or, where a config stands alone, what it says
 * the tensors are. */
static graft_status measure_weights(size_t *out, const opened *o, graft_error *err) {
    *out = (size_t)model_parameters(&o->spec) * dtype_bytes(o->spec.stored);
    if (!folder_has(o->folder, "model.safetensors") &&
        !folder_has(o->folder, "model.safetensors.index.json"))
        return GRAFT_OK;
    safetensors *files = NULL;
    graft_status status = safetensors_open_model(&files, o->folder, &o->messages, err);
    if (status == GRAFT_OK)
        *out = safetensors_bytes(files);
    safetensors_close(&files);
    return status;
}

/* Not fitting is an answer, not a failure. */
static graft_status make_plan(memory_plan *plan, plan_facts *facts, const train_config *config,
                              opened *o, graft_error *err) {
    size_t mapped;
    graft_status status = measure_weights(&mapped, o, err);
    if (status != GRAFT_OK)
        return status;
    cpu_features features = cpu_features_detect();
    int32_t threads = (int32_t)recipe_integer(o->recipe, "threads");
    facts->limit_bytes =
        config->memory_limit_bytes ? config->memory_limit_bytes : free_memory_bytes("");
    status = train_plan(plan, &o->spec, o->adapter, config, facts->shape,
                        threads ? threads : features.threads, mapped, &facts->reason);
    facts->fits = status == GRAFT_OK;
    if (status == GRAFT_E_MEMORY && plan->total > (size_t)facts->limit_bytes)
        return GRAFT_OK;
    if (status != GRAFT_OK && err)
        *err = facts->reason;
    return status;
}

/* ---- JSON ---- */

static json_t *components_json(const size_t bytes[N_COMPONENTS]) {
    json_t *object = json_object();
    for (int i = 0; i < N_COMPONENTS; i++)
        report_set(&object, component_name((component)i), json_integer((json_int_t)bytes[i]));
    return object;
}

static json_t *bytes_json(const memory_plan *p) {
    json_t *object = json_object();
    report_set(&object, "weights_mapped", json_integer((json_int_t)p->model_mapped));
    report_set(&object, "weights_uploaded", json_integer((json_int_t)p->model_uploaded));
    report_set(&object, "trainer", components_json(p->trainer));
    report_set(&object, "step", components_json(p->step));
    report_set(&object, "backend_workspace", json_integer((json_int_t)p->backend_workspace));
    report_set(&object, "host", json_integer((json_int_t)p->host));
    report_set(&object, "total", json_integer((json_int_t)p->total));
    return object;
}

static json_t *plan_json(const memory_plan *p, const plan_facts *facts,
                         const train_config *config) {
    json_t *object = json_object();
    report_set(&object, "parameters", json_integer((json_int_t)p->parameters));
    report_set(&object, "trained_parameters", json_integer((json_int_t)p->trained));
    report_set(&object, "rows", json_integer((json_int_t)facts->rows));
    report_set(&object, "row_tokens", json_integer(facts->shape.longest_row));
    report_set(&object, "per_device_train_batch_size",
               json_integer(config->per_device_train_batch_size));
    report_set(&object, "gradient_accumulation_steps",
               json_integer(config->gradient_accumulation_steps));
    report_set(&object, "gradient_checkpointing",
               json_boolean(p->layers_from_input > 0 || p->layers_without_mlp > 0));
    report_set(&object, "micro_batch_tokens", json_integer(p->max_tokens));
    report_set(&object, "fits", json_boolean(facts->fits));
    report_set(&object, "memory_limit_bytes", json_integer((json_int_t)facts->limit_bytes));
    report_set(&object, "bytes", bytes_json(p));
    return object;
}

/* ---- Text ---- */

static void add_bar(strbuf *text, const char *label, size_t bytes, size_t total, const char *note) {
    enum { WIDTH = 30 };
    int filled = total ? (int)((double)bytes / (double)total * WIDTH + 0.5) : 0;
    strbuf_printf(text, "  %-13s %10s", label, size_text((double)bytes));
    strbuf_add_text(text, filled || *note ? "  " : "");
    for (int i = 0; i < filled; i++)
        strbuf_add_text(text, "█");
    strbuf_printf(text, "%s%s\n", filled && *note ? " " : "", note);
}

static void add_memory(strbuf *text, const memory_plan *p, const plan_facts *facts) {
    strbuf_add_text(text, "\nMemory\n");
    add_bar(text, "weights", p->model_mapped + p->model_uploaded + p->trainer[COMPONENT_WEIGHTS],
            p->total,
            p->trainer[COMPONENT_WEIGHTS] ? "mapped from disk, and f32 copies that train"
                                          : "mapped from disk, shared");
    add_bar(text, "adapter", p->trainer[COMPONENT_ADAPTER], p->total, "");
    add_bar(text, "gradients", p->trainer[COMPONENT_GRADIENTS], p->total, "");
    add_bar(text, "optimizer", p->trainer[COMPONENT_OPTIMIZER], p->total, "two moments");
    add_bar(text, "activations", p->step[COMPONENT_ACTIVATIONS], p->total, "");
    add_bar(text, "workspace", p->step[COMPONENT_WORKSPACE] + p->backend_workspace + p->host,
            p->total, "");
    strbuf_printf(text, "  %-13s %10s\n\n", "total", size_text((double)p->total));
    if (facts->fits)
        strbuf_printf(text, "It fits: %s %s.\n", size_text((double)facts->limit_bytes),
                      "may be used");
    else
        strbuf_printf(text, "It does not fit: %s.\n", facts->reason.message);
}

static void plan_text(strbuf *text, const opened *o, const memory_plan *p, const plan_facts *facts,
                      const train_config *config) {
    strbuf_printf(text, "%s (%s), %s\n", recipe_text(o->recipe, "model"), o->spec.model_type,
                  o->adapter->method->name);
    report_line(text, "parameters", "%s", count_text(p->parameters));
    report_line(text, "trained", "%s (%.3f%%), %s in f32 on disk", count_text(p->trained),
                100.0 * (double)p->trained / (double)p->parameters,
                size_text(4.0 * (double)p->trained));
    if (facts->rows)
        report_line(text, "data", "%s rows, %s tokens, of them supervised %s",
                    count_text(facts->rows), count_text(facts->tokens),
                    count_text(facts->supervised));
    report_line(text, "longest row", "%s tokens%s", count_text(facts->shape.longest_row),
                facts->rows ? ""
                            : " (--max-length and the model's context; --data tells the real one)");
    report_line(text, "step", "%s rows, in micro-batches of at most %s tokens",
                count_text((int64_t)config->per_device_train_batch_size *
                           config->gradient_accumulation_steps),
                count_text(p->max_tokens));
    char keep[KEEP_TEXT];
    report_line(text, "checkpointing", "%s", memory_plan_keep_text(keep, p));
    add_memory(text, p, facts);
}

graft_status graft_plan(const graft_sink *sink, graft_format format, const graft_recipe *recipe,
                        const graft_observer *observer, graft_error *err) {
    opened o = opened_begin(recipe, observer);
    plan_facts facts = {0};
    train_config config = {0};
    memory_plan plan = {0};
    train_config_shapes(&config, recipe);
    graft_status status = open_spec(&o, err);
    if (status == GRAFT_OK)
        status = open_new_adapter(&o, err);
    if (status == GRAFT_OK)
        status = measure_data(&facts, &o, err);
    if (status == GRAFT_OK)
        status = make_plan(&plan, &facts, &config, &o, err);
    if (status == GRAFT_OK && format.json) {
        status = report_finish_json(sink, plan_json(&plan, &facts, &config), err);
    } else if (status == GRAFT_OK) {
        strbuf text = {0};
        plan_text(&text, &o, &plan, &facts, &config);
        status = report_finish(sink, &text, err);
    }
    opened_close(&o);
    return status;
}
