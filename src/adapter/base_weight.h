/* The base's weights for methods that start or derive from them. */
#ifndef GRAFT_ADAPTER_BASE_WEIGHT_H
#define GRAFT_ADAPTER_BASE_WEIGHT_H

#include "adapter/adapter.h"

/* out [n, cols] = rows first .. first + n - 1 of the module's weight [rows, cols], on the host. */
graft_status base_weight_rows(double *out, const adapter *, size_t module, const weight_source *,
                              int64_t first, int64_t n, graft_error *);
/* The same weight as ops read it. Release it after use. */
graft_status base_weight_acquire(weight_ref *out, const adapter *, size_t module, weight_source *,
                                 graft_error *);
void base_weight_release(const adapter *, size_t module, weight_source *);
/* Rows of a small matrix in place of tokens, for products with a base weight. */
typedef struct matrix_tokens {
    int32_t edges[2];
    token_rows rows;
} matrix_tokens;
void matrix_tokens_make(matrix_tokens *, int64_t n);

#endif
