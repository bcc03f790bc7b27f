/* Multitask prompt tuning (Wang et al., 2023; as PEFT's tuners/multitask_prompt_tuning): virtual
 * tokens that all tasks share, times a matrix of low rank of each task: P * (cols_t rows_t),
 * elementwise. A row says its task ("task_id"). */
#include "adapter/methods.h"
#include "adapter/prompt_encoder.h"
#include "adapter/virtual_tokens.h"
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>

static const config_key multitask_keys[] = {
    VIRTUAL_TOKEN_KEYS,
    {.name = "num_ranks", .kind = KEY_INTEGER, .fallback = "1", .min = 1, .max = 65536},
    {.name = "num_tasks", .kind = KEY_INTEGER, .fallback = "1", .min = 1, .max = 65536},
    {.name = "prompt_tuning_init",
     .kind = KEY_CHOICE,
     .fallback = "\"RANDOM\"",
     .choices = "RANDOM"},
    {.name = "prompt_tuning_init_state_dict_path",
     .kind = KEY_LACKED,
     .fallback = "null",
     .lacks = "a start from another adapter's prompts (init_adapter goes on from one)"},
    {.name = "prompt_tuning_init_task", .kind = KEY_STATED, .fallback = "0"},
    {.name = "prompt_tuning_init_text", .kind = KEY_STATED, .fallback = "null"},
    {.name = "tokenizer_kwargs", .kind = KEY_STATED, .fallback = "null"},
    {.name = "tokenizer_name_or_path", .kind = KEY_ANY, .fallback = "null"},
    {.name = NULL},
};

static const char cols_name[] = "prefix_task_cols", rows_name[] = "prefix_task_rows";

typedef struct multitask_state {
    size_t prompts; /* derived: [tasks, tokens, hidden], with gradients */
    size_t factor;  /* derived: cols rows of one task, [tokens, hidden] */
} multitask_state;

typedef struct sizes {
    int64_t tasks, tokens, ranks, hidden;
} sizes;

static sizes sizes_of(const adapter *a) {
    return (sizes){.tasks = config_integer(&a->config, "num_tasks"),
                   .tokens = virtual_tokens_count(a),
                   .ranks = config_integer(&a->config, "num_ranks"),
                   .hidden = a->spec->hidden};
}

static adapter_tensor *tensor_of(const adapter *a, const char *name) {
    return adapter_tensor_at(a, (size_t)MODULE_NONE, name);
}

static graft_status multitask_shape(adapter *a, const message_sink *sink, graft_error *err) {
    multitask_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the tasks' prompts");
    graft_status status = virtual_tokens_settle(a, a->spec->hidden, a->spec->n_heads, err);
    const sizes n = sizes_of(a);
    const int64_t cols[] = {n.tasks, n.tokens, n.ranks}, rows[] = {n.tasks, n.ranks, n.hidden};
    if (status != GRAFT_OK)
        return status;
    if (!shape_tensor(a, (size_t)MODULE_NONE, cols_name, 3, cols, err) ||
        !shape_tensor(a, (size_t)MODULE_NONE, rows_name, 3, rows, err) ||
        !shape_matrix(a, (size_t)MODULE_NONE, PROMPT_EMBEDDINGS, n.tokens, n.hidden, err))
        return GRAFT_E_MEMORY;
    s->prompts = shape_derived(a, n.tasks * n.tokens * n.hidden, true, err);
    s->factor = shape_derived(a, n.tokens * n.hidden, true, err);
    if (s->prompts == SIZE_MAX || s->factor == SIZE_MAX)
        return GRAFT_E_MEMORY;
    return shape_finish(a, sink, err);
}

static void multitask_destroy(adapter *a) {
    free(a->state);
    a->state = NULL;
}

static graft_status multitask_init(adapter *a, backend *dev, const weight_source *weights,
                                   rng *random, graft_error *err) {
    (void)weights;
    (void)err;
    shape_fill(tensor_of(a, cols_name), dev, DRAW_NORMAL, 0.02, random);
    shape_fill(tensor_of(a, rows_name), dev, DRAW_NORMAL, 0.02, random);
    shape_fill(tensor_of(a, PROMPT_EMBEDDINGS), dev, DRAW_NORMAL, 1, random);
    return GRAFT_OK;
}

static void multitask_bind(adapter *a, model_hooks *hooks) {
    hooks->n_tasks = (int32_t)sizes_of(a).tasks;
    const multitask_state *s = a->state;
    hooks->sequence = (sequence_hook){.n_virtual = virtual_tokens_count(a),
                                      .n_tasks = (int32_t)sizes_of(a).tasks,
                                      .virtual_rows = a->derived[s->prompts].value,
                                      .d_virtual_rows = a->derived[s->prompts].gradient};
}

/* factor [tokens, hidden] = cols_t rows_t */
static void make_factor(const adapter *a, backend *dev, int64_t task, device_array *factor) {
    const sizes n = sizes_of(a);
    const device_array *cols =
        array_at_const(dev, tensor_of(a, cols_name)->value, task * n.tokens * n.ranks);
    const device_array *rows =
        array_at_const(dev, tensor_of(a, rows_name)->value, task * n.ranks * n.hidden);
    dev->ops->matmul(dev, &(matmul_call){.c = factor,
                                         .c_stride = n.hidden,
                                         .rows = n.tokens,
                                         .cols = n.hidden,
                                         .k = n.ranks,
                                         .a = {cols, n.ranks, false},
                                         .b = {rows, n.hidden, false},
                                         .scale = 1});
}

static graft_status multitask_prepare(adapter *a, backend *dev, weight_source *weights,
                                      graft_error *err) {
    const multitask_state *s = a->state;
    const sizes n = sizes_of(a);
    const int64_t one = n.tokens * n.hidden;
    device_array *factor = a->derived[s->factor].value;
    (void)weights;
    (void)err;
    for (int64_t task = 0; task < n.tasks; task++) {
        make_factor(a, dev, task, factor);
        dev->ops->mul(dev, array_at(dev, a->derived[s->prompts].value, task * one), factor,
                      tensor_of(a, PROMPT_EMBEDDINGS)->value, one, false);
    }
    return GRAFT_OK;
}

/* One task's part, from the gradient of its prompt. */
static void task_chain(const adapter *a, backend *dev, int64_t task) {
    const multitask_state *s = a->state;
    const sizes n = sizes_of(a);
    const int64_t one = n.tokens * n.hidden;
    const derived_array *factor = &a->derived[s->factor];
    const device_array *d_prompt = array_at_const(dev, a->derived[s->prompts].gradient, task * one);
    const adapter_tensor *shared = tensor_of(a, PROMPT_EMBEDDINGS), *cols = tensor_of(a, cols_name),
                         *rows = tensor_of(a, rows_name);
    const int64_t at_cols = task * n.tokens * n.ranks, at_rows = task * n.ranks * n.hidden;
    make_factor(a, dev, task, factor->value);
    dev->ops->mul(dev, shared->gradient, d_prompt, factor->value, one, true);
    dev->ops->mul(dev, factor->gradient, d_prompt, shared->value, one, false);
    dev->ops->matmul(dev, &(matmul_call){.c = array_at(dev, cols->gradient, at_cols),
                                         .c_stride = n.ranks,
                                         .rows = n.tokens,
                                         .cols = n.ranks,
                                         .k = n.hidden,
                                         .a = {factor->gradient, n.hidden, false},
                                         .b = {array_at(dev, rows->value, at_rows), n.hidden, true},
                                         .scale = 1,
                                         .add = true});
    dev->ops->matmul(dev, &(matmul_call){.c = array_at(dev, rows->gradient, at_rows),
                                         .c_stride = n.hidden,
                                         .rows = n.ranks,
                                         .cols = n.hidden,
                                         .k = n.tokens,
                                         .a = {array_at(dev, cols->value, at_cols), n.ranks, true},
                                         .b = {factor->gradient, n.hidden, false},
                                         .scale = 1,
                                         .add = true});
}

static double multitask_chain(adapter *a, backend *dev) {
    for (int64_t task = 0; task < sizes_of(a).tasks; task++)
        task_chain(a, dev, task);
    return 0;
}

const adapter_method multitask_prompt_tuning_method = {
    .peft_type = "MULTITASK_PROMPT_TUNING",
    .name = "multitask_prompt_tuning",
    .summary = "virtual tokens shared by tasks, times a low-rank matrix of each",
    .family = "virtual tokens",
    .paper = "Wang et al. 2023, arXiv:2303.02861",
    .keys = multitask_keys,
    .shape = multitask_shape,
    .destroy = multitask_destroy,
    .init = multitask_init,
    .bind = multitask_bind,
    .prepare = multitask_prepare,
    .chain = multitask_chain,
    .load = peft_load,
    .save = peft_save,
};
