/* Prefix tuning (Li and Liang, 2021; as PEFT's tuners/prefix_tuning): trained keys and values of
 * every layer, before every row's own. Row t of the tensor holds token t's, layer by layer, key
 * then value; keys are taken as they are, after rotation. */
#include "adapter/methods.h"
#include "adapter/virtual_tokens.h"
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>

static const config_key prefix_tuning_keys[] = {
    VIRTUAL_TOKEN_KEYS,
    {.name = "encoder_hidden_size", .kind = KEY_INTEGER, .fallback = "null"},
    {.name = "init_weights", .kind = KEY_ANY, .fallback = "null"},
    {.name = "prefix_projection",
     .kind = KEY_LACKED,
     .fallback = "false",
     .lacks = "a projection of the prefix"},
    {.name = NULL},
};

static const char key[] = "prompt_embeddings";

/* The tensor's rows in the order that attention reads: all tokens of a layer's keys, then of its
 * values. */
typedef struct prefix_state {
    size_t ordered; /* derived: [2 n_layers, n tokens, width] */
    int32_t *rows;  /* [2 n_layers * n tokens]: where each lies in the tensor, in rows of width */
    kv_view *past;  /* [n_layers] */
} prefix_state;

static int64_t width_of(const adapter *a) {
    return (int64_t)a->spec->n_kv_heads * a->spec->head_dim;
}

static graft_status make_state(adapter *a, graft_error *err) {
    const int32_t n = virtual_tokens_count(a), parts = 2 * a->spec->n_layers;
    prefix_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the prefix");
    s->rows = mem_array((size_t)parts * (size_t)n, sizeof *s->rows);
    s->past = mem_array((size_t)a->spec->n_layers, sizeof *s->past);
    if (!s->rows || !s->past)
        return error_memory(err, (size_t)parts * (size_t)n * sizeof *s->rows, "the prefix");
    for (int32_t part = 0; part < parts; part++)
        for (int32_t t = 0; t < n; t++)
            s->rows[part * n + t] = t * parts + part;
    s->ordered = shape_derived(a, parts * n * width_of(a), true, err);
    return s->ordered == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
}

static graft_status prefix_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = virtual_tokens_settle(a, width_of(a), a->spec->n_kv_heads, err);
    if (status == GRAFT_OK)
        status = make_state(a, err);
    if (status == GRAFT_OK && !shape_matrix(a, (size_t)MODULE_NONE, key, virtual_tokens_count(a),
                                            2 * a->spec->n_layers * width_of(a), err))
        status = GRAFT_E_MEMORY;
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

static void prefix_destroy(adapter *a) {
    prefix_state *s = a->state;
    if (!s)
        return;
    free(s->rows);
    free(s->past);
    free(s);
    a->state = NULL;
}

static graft_status prefix_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                                graft_error *err) {
    (void)weights;
    (void)err;
    bool is_zero = config_text(&a->config, "init_weights") != NULL; /* "zero" */
    shape_fill(adapter_tensor_at(a, (size_t)MODULE_NONE, key), dev,
               is_zero ? DRAW_CONSTANT : DRAW_NORMAL, is_zero ? 0 : 1, random);
    return GRAFT_OK;
}

static void prefix_bind(adapter *a, model_hooks *hooks) {
    const prefix_state *s = a->state;
    const derived_array *ordered = &a->derived[s->ordered];
    const int32_t n = virtual_tokens_count(a);
    const size_t part = (size_t)(n * width_of(a));
    size_t bytes = a->element_bytes * part;
    for (int32_t layer = 0; layer < a->spec->n_layers; layer++) {
        unsigned char *k = (unsigned char *)ordered->value,
                      *dk = (unsigned char *)ordered->gradient;
        size_t at = 2 * (size_t)layer * bytes;
        s->past[layer] = (kv_view){.length = n};
        if (k) {
            s->past[layer].k = (device_array *)(k + at);
            s->past[layer].v = (device_array *)(k + at + bytes);
        }
        if (dk) {
            s->past[layer].dk = (device_array *)(dk + at);
            s->past[layer].dv = (device_array *)(dk + at + bytes);
        }
    }
    hooks->sequence = (sequence_hook){.past = s->past, .past_length = n};
}

static int64_t row_count(const adapter *a) {
    return 2 * (int64_t)a->spec->n_layers * virtual_tokens_count(a);
}

static graft_status prefix_prepare(adapter *a, backend *dev, weight_source *weights,
                                   graft_error *err) {
    const prefix_state *s = a->state;
    (void)weights;
    (void)err;
    dev->ops->gather_rows(dev, a->derived[s->ordered].value,
                          adapter_tensor_at(a, (size_t)MODULE_NONE, key)->value, s->rows,
                          row_count(a), width_of(a));
    return GRAFT_OK;
}

static double prefix_chain(adapter *a, backend *dev) {
    const prefix_state *s = a->state;
    dev->ops->scatter_add_rows(dev, adapter_tensor_at(a, (size_t)MODULE_NONE, key)->gradient,
                               a->derived[s->ordered].gradient, s->rows, row_count(a), width_of(a));
    return 0;
}

const adapter_method prefix_tuning_method = {
    .peft_type = "PREFIX_TUNING",
    .name = "prefix_tuning",
    .summary = "trained keys and values before the text, in every layer",
    .family = "virtual tokens",
    .paper = "Li and Liang 2021, arXiv:2101.00190",
    .keys = prefix_tuning_keys,
    .shape = prefix_shape,
    .destroy = prefix_destroy,
    .init = prefix_init,
    .bind = prefix_bind,
    .prepare = prefix_prepare,
    .chain = prefix_chain,
    .load = peft_load,
    .save = peft_save,
};
