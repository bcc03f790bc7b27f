/* Rows of an embedding that train in place of the base's (PEFT's trainable tokens): method
 * TRAINABLE_TOKENS, and LoRA's trainable_token_indices. A head that is tied to the embedding uses
 * the same rows. */
#ifndef GRAFT_ADAPTER_TRAINED_TOKENS_H
#define GRAFT_ADAPTER_TRAINED_TOKENS_H

#include "adapter/shape.h"

typedef struct trained_tokens { /* of one module: the embedding, or the head */
    adapter *adapter;
    size_t module;
    size_t head;   /* the module that uses them for logits: a tied head, or the module itself;
                      MODULE_NONE: none */
    int32_t *ids;  /* [n] as the config lists them */
    int32_t *rows; /* [vocab] the row of an id; -1: the base's */
    int64_t n, hidden;
    adapter_tensor *values;  /* [n, hidden] */
    size_t original, change; /* in adapter.derived: the base's rows, and values less these */
    const device_array *made_at;
} trained_tokens;

/* Lists the tensor "<module>.<suffix>"; call before shape_finish, and trained_tokens_find after it.
 * ids: a list of token ids; `key` names it in messages. */
graft_status trained_tokens_shape(trained_tokens *, adapter *, size_t module, const json_t *ids,
                                  const char *key, const char *suffix, graft_error *);
void trained_tokens_find(trained_tokens *, const char *suffix);
void trained_tokens_free(trained_tokens *);
/* The base's rows, or standard normal ones. */
graft_status trained_tokens_init(const trained_tokens *, backend *, const weight_source *,
                                 bool from_base, rng *, graft_error *);
void trained_tokens_bind(const trained_tokens *, model_hooks *);
graft_status trained_tokens_prepare(trained_tokens *, backend *, const weight_source *,
                                    graft_error *);
void trained_tokens_merge(const trained_tokens *, backend *, size_t module, device_array *w);

#endif
