/* Trainable tokens (PEFT's tuners/trainable_tokens): some rows of the embedding train, and nothing
 * else; a tied head uses them too. */
#include "adapter/methods.h"
#include "adapter/trained_tokens.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const config_key keys[] = {
    {.name = "target_modules", .kind = KEY_OURS},
    {.name = "token_indices", .kind = KEY_ANY, .fallback = "[]"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

static const char suffix[] = "trainable_tokens_delta";

/* PEFT writes the embedding's name where none was given. */
static graft_status name_embedding(adapter *a, graft_error *err) {
    adapter_config *config = &a->config;
    if (config->target_regex || config->target_modules.n)
        return GRAFT_OK;
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->modules[i].kind == MODULE_EMBEDDING)
            config->target_regex = mem_text(a->modules[i].name, strlen(a->modules[i].name));
    return config->target_regex ? GRAFT_OK
                                : error_memory(err, sizeof a->modules->name, "target_modules");
}

/* PEFT saves the tied head's rows as well. */
static void add_head_copy(const trained_tokens *t) {
    adapter *a = t->adapter;
    if (t->head == (size_t)MODULE_NONE)
        return;
    saved_copy *copy = &a->copies[a->n_copies++];
    *copy = (saved_copy){.rank = 2,
                         .shape = {t->n, t->hidden},
                         .is_written = true,
                         .tensor = (size_t)(t->values - a->tensors)};
    snprintf(copy->key, sizeof copy->key, "base_model.model.%s.%s", a->modules[t->head].name,
             suffix);
}

static graft_status tokens_shape(adapter *a, const message_sink *sink, graft_error *err) {
    trained_tokens *t = a->state = mem_array(1, sizeof *t);
    graft_status status = t ? name_embedding(a, err) : error_memory(err, sizeof *t, "the adapter");
    if (status == GRAFT_OK)
        status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = trained_tokens_shape(t, a, i, config_value(&a->config, "token_indices"),
                                          "token_indices", suffix, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status != GRAFT_OK)
        return status;
    trained_tokens_find(t, suffix);
    add_head_copy(t);
    return GRAFT_OK;
}

static void tokens_destroy(adapter *a) {
    if (a->state)
        trained_tokens_free(a->state);
    free(a->state);
    a->state = NULL;
}

static graft_status tokens_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                                graft_error *err) {
    return trained_tokens_init(a->state, dev, weights, config_flag(&a->config, "init_weights"),
                               random, err);
}

static void tokens_bind(adapter *a, model_hooks *hooks) {
    trained_tokens_bind(a->state, hooks);
}

static graft_status tokens_prepare(adapter *a, backend *dev, weight_source *weights,
                                   graft_error *err) {
    return trained_tokens_prepare(a->state, dev, weights, err);
}

static graft_status tokens_merge(adapter *a, backend *dev, size_t module, device_array *w,
                                 device_array *bias, device_array *scratch, graft_error *err) {
    (void)bias;
    (void)scratch;
    (void)err;
    trained_tokens_merge(a->state, dev, module, w);
    return GRAFT_OK;
}

const adapter_method trainable_tokens_method = {
    .peft_type = "TRAINABLE_TOKENS",
    .name = "trainable_tokens",
    .summary = "some rows of the embedding, for new or rare tokens",
    .family = "tokens",
    .paper = "PEFT (no paper)",
    .target_kinds = TARGET_EMBEDDING,
    .keeps_ties = true,
    .keys = keys,
    .shape = tokens_shape,
    .destroy = tokens_destroy,
    .init = tokens_init,
    .bind = tokens_bind,
    .prepare = tokens_prepare,
    .merge = tokens_merge,
    .load = peft_load,
    .save = peft_save,
};
