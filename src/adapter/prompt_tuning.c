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

static const char *start_text(const adapter *a) {
    bool is_text = !strcmp(config_text(&a->config, "prompt_tuning_init"), "TEXT");
    return is_text ? config_text(&a->config, "prompt_tuning_init_text") : NULL;
}

static graft_status check_start(const adapter *a, graft_error *err) {
    if (!strcmp(config_text(&a->config, "prompt_tuning_init"), "TEXT") && !a->n_start_ids)
        return error_set(err, GRAFT_E_INPUT,
                         "prompt_tuning_init TEXT: prompt_tuning_init_text is missing or has no "
                         "tokens; give the text to start from");
    return GRAFT_OK;
}

/* RANDOM: as nn.Embedding draws its rows. SAMPLE_VOCAB: rows of the model's own embedding. TEXT:
 * those of the text's tokens, repeated or cut to the number of virtual ones. */
static graft_status prompt_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                                graft_error *err) {
    const adapter_tensor *t = adapter_tensor_at(a, (size_t)MODULE_NONE, key);
    graft_status status = check_start(a, err);
    shape_fill(t, dev, DRAW_NORMAL, 1, random);
    if (status != GRAFT_OK || !strcmp(config_text(&a->config, "prompt_tuning_init"), "RANDOM"))
        return status;
    for (int64_t i = 0; i < t->shape[0]; i++)
        virtual_tokens_embed(a, dev, array_at(dev, t->value, i * t->shape[1]), weights,
                             a->n_start_ids
                                 ? a->start_ids[(size_t)i % a->n_start_ids]
                                 : (int64_t)(rng_uniform(random) * (double)a->spec->vocab));
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
    .start_text = start_text,
    .init = prompt_init,
    .bind = prompt_bind,
    .load = peft_load,
    .save = peft_save,
};
