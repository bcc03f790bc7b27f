/* Prefix tuning (Li and Liang, 2021; as PEFT's tuners/prefix_tuning): trained keys and values of
 * every layer, before every row's own; keys are taken as they are, after rotation. With
 * prefix_projection a small network makes them, and only what it makes is PEFT's file. */
#include "adapter/methods.h"
#include "adapter/prefix.h"
#include "adapter/prompt_encoder.h"
#include "adapter/virtual_tokens.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static const config_key prefix_tuning_keys[] = {
    VIRTUAL_TOKEN_KEYS,
    {.name = "encoder_hidden_size",
     .kind = KEY_INTEGER,
     .fallback = "null",
     .min = 1,
     .max = 1 << 20},
    {.name = "init_weights", .kind = KEY_CHOICE, .fallback = "null", .choices = "zero"},
    {.name = "prefix_projection", .kind = KEY_FLAG, .fallback = "false"},
    {.name = NULL},
};

typedef struct prefix_state {
    prefix prefix;
    bool is_projected;
    prompt_encoder encoder; /* where it is */
} prefix_state;

static const char embedding_name[] = "embedding.weight";

static graft_status describe_encoder(adapter *a, prefix_state *s, graft_error *err) {
    graft_status status = virtual_tokens_default(a, "encoder_hidden_size", s->prefix.width, err);
    if (status != GRAFT_OK)
        return status;
    const int64_t hidden = config_integer(&a->config, "encoder_hidden_size");
    const int64_t out = 2 * a->spec->n_layers * s->prefix.width;
    s->encoder = (prompt_encoder){
        .rows = s->prefix.n,
        .n_layers = 2,
        .layers = {
            {.name = "transform.0", .in = s->prefix.width, .out = hidden, .act = ACTIVATION_TANH},
            {.name = "transform.2", .in = hidden, .out = out}}};
    if (!s->is_projected)
        return shape_matrix(a, (size_t)MODULE_NONE, PROMPT_EMBEDDINGS, s->prefix.n, out, err)
                   ? GRAFT_OK
                   : GRAFT_E_MEMORY;
    if (!encoder_tensor(a, embedding_name, s->prefix.n, s->prefix.width, err))
        return GRAFT_E_MEMORY;
    status = prompt_encoder_shape(a, &s->encoder, err);
    return status == GRAFT_OK ? encoder_output_tensor(a, s->prefix.n, out, err) : status;
}

static graft_status prefix_tuning_shape(adapter *a, const message_sink *sink, graft_error *err) {
    prefix_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the prefix");
    s->is_projected = config_flag(&a->config, "prefix_projection");
    graft_status status = virtual_tokens_settle(a, prefix_width(a), a->spec->n_kv_heads, err);
    if (status == GRAFT_OK)
        status = prefix_create(&s->prefix, a, err);
    if (status == GRAFT_OK)
        status = describe_encoder(a, s, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK && s->is_projected)
        prompt_encoder_find(a, &s->encoder);
    return status;
}

static void prefix_tuning_destroy(adapter *a) {
    prefix_state *s = a->state;
    if (s)
        prefix_free(&s->prefix);
    free(s);
    a->state = NULL;
}

static const adapter_tensor *embeddings_of(const adapter *a) {
    return adapter_tensor_at(a, (size_t)MODULE_NONE, PROMPT_EMBEDDINGS);
}

/* As nn.Embedding and nn.Linear draw them; "zero": keys and values of zeros, which are no tokens,
 * but change little. */
static graft_status prefix_tuning_init(adapter *a, backend *dev, const weight_source *weights,
                                       rng *random, graft_error *err) {
    const prefix_state *s = a->state;
    bool is_zero = config_text(&a->config, "init_weights") != NULL;
    (void)weights;
    (void)err;
    if (!s->is_projected) {
        shape_fill(embeddings_of(a), dev, is_zero ? DRAW_CONSTANT : DRAW_NORMAL, is_zero ? 0 : 1,
                   random);
        return GRAFT_OK;
    }
    shape_fill(encoder_tensor_at(a, embedding_name), dev, DRAW_NORMAL, 1, random);
    prompt_encoder_init(&s->encoder, dev, random);
    if (is_zero) {
        shape_fill(s->encoder.layers[1].weight, dev, DRAW_CONSTANT, 0, random);
        shape_fill(s->encoder.layers[1].bias, dev, DRAW_CONSTANT, 0, random);
    }
    return GRAFT_OK;
}

static void prefix_tuning_bind(adapter *a, model_hooks *hooks) {
    prefix_bind(&((const prefix_state *)a->state)->prefix, a, hooks);
}

static graft_status prefix_tuning_prepare(adapter *a, backend *dev, weight_source *weights,
                                          graft_error *err) {
    const prefix_state *s = a->state;
    const adapter_tensor *embeddings = embeddings_of(a);
    (void)weights;
    graft_status status = prompt_encoder_check_training(a, err);
    if (status == GRAFT_OK && s->is_projected && prompt_encoder_is_loaded(a)) {
        prompt_encoder_fwd(a, &s->encoder, dev, encoder_tensor_at(a, embedding_name)->value);
        dev->ops->copy(dev, embeddings->value, prompt_encoder_output(a, &s->encoder)->value,
                       embeddings->count);
    }
    if (status == GRAFT_OK)
        prefix_order(&s->prefix, a, dev, embeddings->value);
    return status;
}

static double prefix_tuning_chain(adapter *a, backend *dev) {
    const prefix_state *s = a->state;
    if (!s->is_projected) {
        prefix_unorder(&s->prefix, a, dev, embeddings_of(a)->gradient);
        return 0;
    }
    const adapter_tensor *embedding = encoder_tensor_at(a, embedding_name);
    prefix_unorder(&s->prefix, a, dev, prompt_encoder_output(a, &s->encoder)->gradient);
    prompt_encoder_bwd(a, &s->encoder, dev, embedding->value, embedding->gradient);
    return 0;
}

const adapter_method prefix_tuning_method = {
    .peft_type = "PREFIX_TUNING",
    .name = "prefix_tuning",
    .summary = "trained keys and values before the text, in every layer",
    .family = "virtual tokens",
    .paper = "Li and Liang 2021, arXiv:2101.00190",
    .keys = prefix_tuning_keys,
    .shape = prefix_tuning_shape,
    .destroy = prefix_tuning_destroy,
    .init = prefix_tuning_init,
    .bind = prefix_tuning_bind,
    .prepare = prefix_tuning_prepare,
    .chain = prefix_tuning_chain,
    .load = peft_load,
    .save = peft_save,
};
