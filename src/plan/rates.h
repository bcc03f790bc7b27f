/* How fast a backend is, measured now and shortly: what estimates and shares of a peak rest on. */
#ifndef GRAFT_PLAN_RATES_H
#define GRAFT_PLAN_RATES_H

#include "backend/ops.h"

/* A product of `tokens` rows with a weight [out, in], stored as `type`. */
typedef struct product_shape {
    int32_t tokens;
    int64_t in, out;
    dtype type;
} product_shape;

/* Operations a second over about so many seconds, forward or dX; 0 when out of memory. */
double rate_product(backend *, const product_shape *, bool backward, double seconds);
/* Causal attention over one row of so many tokens. */
double rate_attention(backend *, const attention_call *, int32_t tokens, bool backward,
                      double seconds);
/* Bytes a second, read and written, of copying arrays larger than the caches. */
double rate_copy(backend *, double seconds);

#endif
