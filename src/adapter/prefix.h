/* Keys and values before every row's own: what prefix tuning and cartridges share. Row t of PEFT's
 * tensor [tokens, 2 n_layers * width] holds token t's, layer by layer, key then value; attention
 * reads all tokens of a layer's keys, then of its values. Inside adapter/ only. */
#ifndef GRAFT_ADAPTER_PREFIX_H
#define GRAFT_ADAPTER_PREFIX_H

#include "adapter/shape.h"

typedef struct prefix {
    int32_t n;      /* tokens */
    int64_t width;  /* n_kv_heads * head_dim */
    size_t ordered; /* derived: [2 n_layers, n, width] */
    int32_t *rows;  /* [2 n_layers * n]: where each lies in the tensor, in rows of width */
    kv_view *past;  /* [n_layers] */
} prefix;

int64_t prefix_width(const adapter *); /* of one key: token_dim in PEFT's config */
graft_status prefix_create(prefix *, adapter *, graft_error *);
void prefix_free(prefix *);
void prefix_bind(const prefix *, const adapter *, model_hooks *);
/* From the tensor's values, and gradients back to it (added). */
void prefix_order(const prefix *, const adapter *, backend *, const device_array *values);
void prefix_unorder(const prefix *, const adapter *, backend *, device_array *gradient);

#endif
