/* Cartridges (Eyuboglu et al., 2025; as PEFT's tuners/cartridge): a trained KV cache, whose first
 * tokens stay as they began (an attention sink). */
#include "adapter/methods.h"
#include "adapter/prefix.h"
#include "adapter/prompt_encoder.h"
#include "adapter/virtual_tokens.h"
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>

static const config_key cartridge_keys[] = {
    VIRTUAL_TOKEN_KEYS,
    {.name = "num_frozen_tokens", .kind = KEY_INTEGER, .fallback = "1", .min = 0, .max = 65536},
    {.name = NULL},
};

typedef struct cartridge_state {
    prefix prefix;
    size_t whole; /* derived: like the file's tensor, for its gradient */
} cartridge_state;

static const char trained_name[] = "trainable_embedding";

static int64_t frozen_count(const adapter *a) {
    return config_integer(&a->config, "num_frozen_tokens");
}

static int64_t row_elements(const adapter *a) {
    return 2 * a->spec->n_layers * prefix_width(a);
}

static graft_status cartridge_shape(adapter *a, const message_sink *sink, graft_error *err) {
    const int64_t tokens = virtual_tokens_count(a), frozen = frozen_count(a);
    cartridge_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the cartridge");
    if (frozen >= tokens)
        return error_set(err, GRAFT_E_INPUT,
                         "num_frozen_tokens: expected less than num_virtual_tokens, %lld, found "
                         "%lld: nothing would train",
                         (long long)tokens, (long long)frozen);
    graft_status status = virtual_tokens_settle(a, prefix_width(a), a->spec->n_kv_heads, err);
    if (status == GRAFT_OK)
        status = prefix_create(&s->prefix, a, err);
    if (status == GRAFT_OK &&
        (s->whole = shape_derived(a, tokens * row_elements(a), true, err)) == SIZE_MAX)
        status = GRAFT_E_MEMORY;
    if (status == GRAFT_OK &&
        !encoder_tensor(a, trained_name, tokens - frozen, row_elements(a), err))
        status = GRAFT_E_MEMORY;
    if (status == GRAFT_OK)
        status = encoder_output_tensor(a, tokens, row_elements(a), err);
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

static void cartridge_destroy(adapter *a) {
    if (a->state)
        prefix_free(&((cartridge_state *)a->state)->prefix);
    free(a->state);
    a->state = NULL;
}

static const adapter_tensor *embeddings_of(const adapter *a) {
    return adapter_tensor_at(a, (size_t)MODULE_NONE, PROMPT_EMBEDDINGS);
}

/* The trained rows within the file's tensor. */
static device_array *trained_rows(const adapter *a, const backend *dev) {
    return array_at(dev, embeddings_of(a)->value, frozen_count(a) * row_elements(a));
}

static graft_status cartridge_init(adapter *a, backend *dev, const weight_source *weights,
                                   rng *random, graft_error *err) {
    const adapter_tensor *trained = encoder_tensor_at(a, trained_name);
    (void)weights;
    (void)err;
    shape_fill(embeddings_of(a), dev, DRAW_NORMAL, 1, random);
    dev->ops->copy(dev, trained->value, trained_rows(a, dev), trained->count);
    return GRAFT_OK;
}

static void cartridge_bind(adapter *a, model_hooks *hooks) {
    prefix_bind(&((const cartridge_state *)a->state)->prefix, a, hooks);
}

/* A file holds frozen and trained rows in one tensor: the latter are taken from there. */
static graft_status cartridge_prepare(adapter *a, backend *dev, weight_source *weights,
                                      graft_error *err) {
    const adapter_tensor *trained = encoder_tensor_at(a, trained_name);
    (void)weights;
    (void)err;
    if (a->lacks_unsaved)
        dev->ops->copy(dev, trained->value, trained_rows(a, dev), trained->count);
    else
        dev->ops->copy(dev, trained_rows(a, dev), trained->value, trained->count);
    a->lacks_unsaved = false;
    prefix_order(&((const cartridge_state *)a->state)->prefix, a, dev, embeddings_of(a)->value);
    return GRAFT_OK;
}

static double cartridge_chain(adapter *a, backend *dev) {
    const cartridge_state *s = a->state;
    const int64_t frozen = frozen_count(a) * row_elements(a);
    const adapter_tensor *trained = encoder_tensor_at(a, trained_name);
    device_array *whole = a->derived[s->whole].gradient;
    prefix_unorder(&s->prefix, a, dev, whole);
    dev->ops->add(dev, trained->gradient, array_at_const(dev, whole, frozen), trained->count);
    return 0;
}

const adapter_method cartridge_method = {
    .peft_type = "CARTRIDGE",
    .name = "cartridge",
    .summary = "a trained KV cache before the text, its first tokens frozen",
    .family = "virtual tokens",
    .paper = "Eyuboglu et al. 2025, arXiv:2506.06266",
    .keys = cartridge_keys,
    .shape = cartridge_shape,
    .destroy = cartridge_destroy,
    .init = cartridge_init,
    .bind = cartridge_bind,
    .prepare = cartridge_prepare,
    .chain = cartridge_chain,
    .load = peft_load,
    .save = peft_save,
};
