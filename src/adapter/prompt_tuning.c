/* Prompt tuning (Lester et al., 2021; as PEFT's tuners/prompt_tuning): trained embeddings of
 * virtual tokens before every row. */
#include "adapter/methods.h"
#include "adapter/virtual_tokens.h"

#include <string.h>

static const config_key prompt_tuning_keys[] = {
    VIRTUAL_TOKEN_KEYS,
    {.name = "prompt_tuning_init",
     .kind = KEY_CHOICE,
     .fallback = "\"RANDOM\"",
     .choices = "RANDOM|SAMPLE_VOCAB|TEXT"},
    {.name = "prompt_tuning_init_text", .kind = KEY_ANY, .fallback = "null"},
    {.name = "tokenizer_kwargs", .kind = KEY_STATED, .fallback = "null"},
    {.name = "tokenizer_name_or_path", .kind = KEY_ANY, .fallback = "null"},
    {.name = NULL},
};

static const char key[] = "prompt_embeddings";

static graft_status prompt_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = virtual_tokens_settle(a, a->spec->hidden, a->spec->n_heads, err);
    if (status == GRAFT_OK &&
        !shape_matrix(a, (size_t)MODULE_NONE, key, virtual_tokens_count(a), a->spec->hidden, err))
        status = GRAFT_E_MEMORY;
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

/* RANDOM: as nn.Embedding draws its rows. SAMPLE_VOCAB: rows of the model's own embedding. */
static graft_status prompt_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                                graft_error *err) {
    const adapter_tensor *t = adapter_tensor_at(a, (size_t)MODULE_NONE, key);
    const int64_t hidden = a->spec->hidden;
    const char *from = config_text(&a->config, "prompt_tuning_init");
    if (!strcmp(from, "TEXT"))
        return error_set(
            err, GRAFT_E_UNSUPPORTED,
            "prompt_tuning_init \"TEXT\" is not supported; use SAMPLE_VOCAB or RANDOM");
    shape_fill(t, dev, DRAW_NORMAL, 1, random);
    if (!strcmp(from, "RANDOM"))
        return GRAFT_OK;
    weight_ref table = weight_source_outer((weight_source *)weights)->embedding;
    for (int64_t i = 0; i < t->shape[0]; i++) {
        int64_t row = (int64_t)(rng_uniform(random) * (double)a->spec->vocab);
        dev->ops->upload(dev, array_at(dev, t->value, i * hidden),
                         (const char *)table.data +
                             row * table.row_stride * (int64_t)dtype_bytes(table.type),
                         table.type, hidden);
    }
    return GRAFT_OK;
}

static void prompt_bind(adapter *a, model_hooks *hooks) {
    const adapter_tensor *t = adapter_tensor_at(a, (size_t)MODULE_NONE, key);
    hooks->sequence = (sequence_hook){.n_virtual = virtual_tokens_count(a),
                                      .n_tasks = 1,
                                      .virtual_rows = t->value,
                                      .d_virtual_rows = t->gradient};
}

const adapter_method prompt_tuning_method = {
    .peft_type = "PROMPT_TUNING",
    .name = "prompt_tuning",
    .summary = "trained embeddings of virtual tokens before the text",
    .family = "virtual tokens",
    .paper = "Lester et al. 2021, arXiv:2104.08691",
    .keys = prompt_tuning_keys,
    .shape = prompt_shape,
    .init = prompt_init,
    .bind = prompt_bind,
    .load = peft_load,
    .save = peft_save,
};
