/* What an op costs, from its arguments alone. */
#ifndef GRAFT_BACKEND_METER_OP_COST_H
#define GRAFT_BACKEND_METER_OP_COST_H

#include "backend/ops.h"

/* flops: of products and attention, a multiply-add counts two; other ops are bound by memory and
 * count none. bytes: every operand read or written once. */
typedef struct op_cost {
    double flops;
    double trained_flops; /* the part that what trains adds: terms, gradients of freed weights */
    double bytes;
} op_cost;

op_cost linear_fwd_cost(const linear_call *, const token_rows *, size_t element_bytes, bool add);
/* needs_dx: whether dx is asked for. */
op_cost linear_bwd_cost(const linear_call *, const token_rows *, size_t element_bytes,
                        bool needs_dx, bool add);
/* Layers that share their input, which is read once, and its gradient, which is written once. */
op_cost linear_group_fwd_cost(const linear_branch *, int32_t n_branches, const token_rows *,
                              size_t element_bytes, bool add);
op_cost linear_group_bwd_cost(const linear_branch *, int32_t n_branches, const token_rows *,
                              size_t element_bytes, bool needs_dx, bool add);
op_cost embed_cost(const weight_ref *table, const low_rank_term *, int32_t n_terms,
                   const token_rows *, size_t element_bytes, bool backward);
/* The pairs of query and key that causal attention looks at, windows and pasts included. */
op_cost attention_cost(const attention_call *, const batch *, int32_t layer, size_t element_bytes,
                       bool backward);
/* All of it counts as what trains adds: products of arrays are methods'. */
op_cost matmul_cost(const matmul_call *, size_t element_bytes);
/* Fast transforms of all columns, and the waves of the coefficients. */
op_cost spectrum_cost(const spectrum_call *, size_t element_bytes);
/* An op that only moves `elements` elements. */
op_cost moved_cost(int64_t elements, size_t element_bytes);

#endif
