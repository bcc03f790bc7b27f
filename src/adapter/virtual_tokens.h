/* What the methods share that put trained tokens before every row: their common keys, and the
 * model's sizes that PEFT writes into the config. Inside adapter/ only. */
#ifndef GRAFT_ADAPTER_VIRTUAL_TOKENS_H
#define GRAFT_ADAPTER_VIRTUAL_TOKENS_H

#include "adapter/shape.h"

#define VIRTUAL_TOKEN_KEYS                                                                         \
    {.name = "modules_to_save", .kind = KEY_OURS},                                                 \
        {.name = "num_attention_heads", .kind = KEY_INTEGER, .fallback = "null"},                  \
        {.name = "num_layers", .kind = KEY_INTEGER, .fallback = "null"},                           \
        {.name = "num_transformer_submodules", .kind = KEY_INTEGER, .fallback = "1"},              \
        {.name = "num_virtual_tokens",                                                             \
         .kind = KEY_INTEGER,                                                                      \
         .fallback = "20",                                                                         \
         .min = 1,                                                                                 \
         .max = 65536},                                                                            \
    {                                                                                              \
        .name = "token_dim", .kind = KEY_INTEGER, .fallback = "null"                               \
    }

/* Fills token_dim, num_layers and num_attention_heads where the config leaves them to PEFT, and
 * refuses values that are not the model's. token_dim and heads: as the method counts them. */
graft_status virtual_tokens_settle(adapter *, int64_t token_dim, int64_t heads, graft_error *);
int32_t virtual_tokens_count(const adapter *);
/* Sets a key that the config leaves to PEFT. */
graft_status virtual_tokens_default(adapter *, const char *key, int64_t value, graft_error *);
/* to [hidden] = the model's own embedding of a token. */
void virtual_tokens_embed(const adapter *, backend *, device_array *to, const weight_source *,
                          int64_t token);

#endif
