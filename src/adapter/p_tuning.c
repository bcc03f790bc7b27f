/* P-tuning (Liu et al., 2021; as PEFT's tuners/p_tuning): virtual tokens made by a small network of
 * trained embeddings: an MLP, or a bidirectional LSTM and an MLP. */
#include "adapter/lstm.h"
#include "adapter/methods.h"
#include "adapter/prompt_encoder.h"
#include "adapter/virtual_tokens.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static const config_key p_tuning_keys[] = {
    VIRTUAL_TOKEN_KEYS,
    {.name = "encoder_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout between the encoder's LSTM layers"},
    {.name = "encoder_hidden_size",
     .kind = KEY_INTEGER,
     .fallback = "null",
     .min = 1,
     .max = 1 << 20},
    {.name = "encoder_num_layers", .kind = KEY_INTEGER, .fallback = "2", .min = 1, .max = 16},
    {.name = "encoder_reparameterization_type",
     .kind = KEY_CHOICE,
     .fallback = "\"MLP\"",
     .choices = "MLP|LSTM"},
    {.name = NULL},
};

typedef struct p_tuning_state {
    prompt_encoder encoder;
    lstm *lstm; /* before the encoder; NULL: none */
} p_tuning_state;

static const char embedding_name[] = "embedding.weight";

static bool is_lstm(const adapter *a) {
    return !strcmp(config_text(&a->config, "encoder_reparameterization_type"), "LSTM");
}

static graft_status describe(adapter *a, p_tuning_state *s, graft_error *err) {
    const int64_t token = a->spec->hidden, rows = virtual_tokens_count(a);
    graft_status status = virtual_tokens_default(a, "encoder_hidden_size", token, err);
    const int64_t hidden = config_integer(&a->config, "encoder_hidden_size");
    if (status == GRAFT_OK && is_lstm(a)) {
        const int64_t both = 2 * hidden;
        s->encoder = (prompt_encoder){
            .rows = rows,
            .n_layers = 2,
            .layers = {{.name = "mlp_head.0", .in = both, .out = both, .act = ACTIVATION_RELU},
                       {.name = "mlp_head.2", .in = both, .out = token}}};
        status = lstm_create(&s->lstm, a, rows, token, hidden,
                             (int32_t)config_integer(&a->config, "encoder_num_layers"), err);
    } else if (status == GRAFT_OK) {
        s->encoder = (prompt_encoder){
            .rows = rows,
            .n_layers = 3,
            .layers = {{.name = "mlp_head.0", .in = token, .out = hidden, .act = ACTIVATION_RELU},
                       {.name = "mlp_head.2", .in = hidden, .out = hidden, .act = ACTIVATION_RELU},
                       {.name = "mlp_head.4", .in = hidden, .out = token}}};
    }
    if (status == GRAFT_OK && !encoder_tensor(a, embedding_name, rows, token, err))
        status = GRAFT_E_MEMORY;
    if (status == GRAFT_OK)
        status = prompt_encoder_shape(a, &s->encoder, err);
    return status;
}

static graft_status p_tuning_shape(adapter *a, const message_sink *sink, graft_error *err) {
    p_tuning_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the prompt's encoder");
    graft_status status = virtual_tokens_settle(a, a->spec->hidden, a->spec->n_heads, err);
    if (status == GRAFT_OK)
        status = describe(a, s, err);
    if (status == GRAFT_OK)
        status = encoder_output_tensor(a, virtual_tokens_count(a), a->spec->hidden, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK)
        prompt_encoder_find(a, &s->encoder);
    return status;
}

static void p_tuning_destroy(adapter *a) {
    p_tuning_state *s = a->state;
    if (s)
        lstm_destroy(&s->lstm);
    free(s);
    a->state = NULL;
}

static graft_status p_tuning_init(adapter *a, backend *dev, const weight_source *weights,
                                  rng *random, graft_error *err) {
    const p_tuning_state *s = a->state;
    (void)weights;
    (void)err;
    shape_fill(encoder_tensor_at(a, embedding_name), dev, DRAW_NORMAL, 1, random);
    if (s->lstm)
        lstm_init(s->lstm, a, dev, random);
    prompt_encoder_init(&s->encoder, dev, random);
    return GRAFT_OK;
}

static void p_tuning_bind(adapter *a, model_hooks *hooks) {
    const derived_array *output =
        prompt_encoder_output(a, &((const p_tuning_state *)a->state)->encoder);
    hooks->sequence = (sequence_hook){.n_virtual = virtual_tokens_count(a),
                                      .n_tasks = 1,
                                      .virtual_rows = output->value,
                                      .d_virtual_rows = output->gradient};
}

static graft_status p_tuning_prepare(adapter *a, backend *dev, weight_source *weights,
                                     graft_error *err) {
    const p_tuning_state *s = a->state;
    const derived_array *output = prompt_encoder_output(a, &s->encoder);
    const adapter_tensor *saved = adapter_tensor_at(a, (size_t)MODULE_NONE, PROMPT_EMBEDDINGS);
    (void)weights;
    graft_status status = prompt_encoder_check_training(a, err);
    if (status != GRAFT_OK)
        return status;
    if (!prompt_encoder_is_loaded(a)) {
        dev->ops->copy(dev, output->value, saved->value, saved->count);
        return GRAFT_OK;
    }
    const device_array *x = encoder_tensor_at(a, embedding_name)->value;
    if (s->lstm) {
        status = lstm_fwd(s->lstm, a, dev, x, err);
        x = lstm_output(s->lstm, a)->value;
    }
    prompt_encoder_fwd(a, &s->encoder, dev, x);
    dev->ops->copy(dev, saved->value, output->value, saved->count);
    return status;
}

static double p_tuning_chain(adapter *a, backend *dev) {
    const p_tuning_state *s = a->state;
    const adapter_tensor *embedding = encoder_tensor_at(a, embedding_name);
    if (!s->lstm) {
        prompt_encoder_bwd(a, &s->encoder, dev, embedding->value, embedding->gradient);
        return 0;
    }
    const derived_array *read = lstm_output(s->lstm, a);
    prompt_encoder_bwd(a, &s->encoder, dev, read->value, read->gradient);
    lstm_bwd(s->lstm, a, dev, embedding->value, embedding->gradient);
    return 0;
}

const adapter_method p_tuning_method = {
    .peft_type = "P_TUNING",
    .name = "p_tuning",
    .summary = "virtual tokens made by a small trained network",
    .family = "virtual tokens",
    .paper = "Liu et al. 2021, arXiv:2103.10385",
    .keys = p_tuning_keys,
    .shape = p_tuning_shape,
    .destroy = p_tuning_destroy,
    .init = p_tuning_init,
    .bind = p_tuning_bind,
    .prepare = p_tuning_prepare,
    .chain = p_tuning_chain,
    .load = peft_load,
    .save = peft_save,
};
