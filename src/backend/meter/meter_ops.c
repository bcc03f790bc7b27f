/* The ops of a transformer, handed on and counted. */
#include "backend/meter/meter_internal.h"

void meter_embed_fwd(backend *dev, device_array *y, const weight_ref *table,
                     const low_rank_term *terms, int32_t n_terms, const int32_t *ids,
                     const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->embed_fwd(p.inner, y, table, terms, n_terms, ids, rows);
    pass_end(&p, METER_EMBED_FWD,
             embed_cost(table, terms, n_terms, rows, dev->element_bytes, false));
}

void meter_embed_bwd(backend *dev, device_array *d_table, const device_array *dy,
                     const weight_ref *table, const low_rank_term *terms, int32_t n_terms,
                     const int32_t *ids, int32_t padding_id, const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->embed_bwd(p.inner, d_table, dy, table, terms, n_terms, ids, padding_id, rows);
    pass_end(&p, METER_EMBED_BWD,
             embed_cost(table, terms, n_terms, rows, dev->element_bytes, true));
}

void meter_norm_fwd(backend *dev, device_array *y, device_array *rstd, const device_array *x,
                    const norm_call *call, int64_t rows, int64_t cols) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->norm_fwd(p.inner, y, rstd, x, call, rows, cols);
    pass_end_moved(&p, METER_NORM_FWD, 2 * rows * cols);
}

void meter_norm_bwd(backend *dev, device_array *dx, const device_array *dy, const device_array *x,
                    const device_array *rstd, const norm_call *call, int32_t per_token,
                    int64_t cols, bool add, const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->norm_bwd(p.inner, dx, dy, x, rstd, call, per_token, cols, add, rows);
    pass_end_moved(&p, METER_NORM_BWD, (add ? 4 : 3) * (int64_t)rows->n * per_token * cols);
}

void meter_linear_fwd(backend *dev, device_array *y, device_array *xa, const device_array *x,
                      const linear_call *call, bool add, device_array *scratch,
                      const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->linear_fwd(p.inner, y, xa, x, call, add, scratch, rows);
    pass_end(&p, METER_LINEAR_FWD, linear_fwd_cost(call, rows, dev->element_bytes, add));
}

void meter_linear_bwd(backend *dev, device_array *dx, const device_array *dy, const device_array *x,
                      const device_array *xa, const linear_call *call, bool add,
                      device_array *scratch, const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->linear_bwd(p.inner, dx, dy, x, xa, call, add, scratch, rows);
    pass_end(&p, METER_LINEAR_BWD,
             linear_bwd_cost(call, rows, dev->element_bytes, dx != NULL, add));
}

/* A group counts as one call of the op. */
void meter_linear_group_fwd(backend *dev, const linear_branch *branches, int32_t n_branches,
                            const device_array *x, bool add, device_array *scratch,
                            const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->linear_group_fwd(p.inner, branches, n_branches, x, add, scratch, rows);
    pass_end(&p, METER_LINEAR_FWD,
             linear_group_fwd_cost(branches, n_branches, rows, dev->element_bytes, add));
}

void meter_linear_group_bwd(backend *dev, device_array *dx, const linear_branch *branches,
                            int32_t n_branches, const device_array *x, bool add,
                            device_array *scratch, const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->linear_group_bwd(p.inner, dx, branches, n_branches, x, add, scratch, rows);
    pass_end(
        &p, METER_LINEAR_BWD,
        linear_group_bwd_cost(branches, n_branches, rows, dev->element_bytes, dx != NULL, add));
}

void meter_rope(backend *dev, device_array *x, const device_array *cos, const device_array *sin,
                const rope_call *call, int64_t n, bool inverse) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->rope(p.inner, x, cos, sin, call, n, inverse);
    pass_end_moved(&p, METER_ROPE, 2 * n * call->heads * call->n + n * call->n);
}

void meter_attention_fwd(backend *dev, device_array *o, device_array *lse, const device_array *q,
                         const device_array *k, const device_array *v, const attention_call *call,
                         const batch *b, int32_t layer) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->attention_fwd(p.inner, o, lse, q, k, v, call, b, layer);
    pass_end(&p, METER_ATTENTION_FWD, attention_cost(call, b, layer, dev->element_bytes, false));
}

void meter_attention_bwd(backend *dev, device_array *dq, device_array *dk, device_array *dv,
                         const device_array *d_o, const device_array *o, const device_array *lse,
                         const device_array *q, const device_array *k, const device_array *v,
                         const attention_call *call, device_array *scratch, const batch *b,
                         int32_t layer) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->attention_bwd(p.inner, dq, dk, dv, d_o, o, lse, q, k, v, call, scratch, b, layer);
    pass_end(&p, METER_ATTENTION_BWD, attention_cost(call, b, layer, dev->element_bytes, true));
}

void meter_gated_fwd(backend *dev, device_array *h, const device_array *gate,
                     const device_array *up, const gate_call *call, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->gated_fwd(p.inner, h, gate, up, call, n);
    pass_end_moved(&p, METER_GATED_FWD, (up ? 3 : 2) * n);
}

void meter_gated_bwd(backend *dev, device_array *d_gate, device_array *d_up, const device_array *dh,
                     const device_array *gate, const device_array *up, const gate_call *call,
                     int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->gated_bwd(p.inner, d_gate, d_up, dh, gate, up, call, n);
    pass_end_moved(&p, METER_GATED_BWD, (up ? 5 : 3) * n);
}

void meter_soft_cap(backend *dev, device_array *y, double scale, double cap, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->soft_cap(p.inner, y, scale, cap, n);
    pass_end_moved(&p, METER_SOFT_CAP, 2 * n);
}

void meter_clamp(backend *dev, device_array *y, double limit, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->clamp(p.inner, y, limit, n);
    pass_end_moved(&p, METER_CLAMP, 2 * n);
}

void meter_clamp_bwd(backend *dev, device_array *dy, const device_array *y, double limit,
                     int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->clamp_bwd(p.inner, dy, y, limit, n);
    pass_end_moved(&p, METER_CLAMP_BWD, 3 * n);
}

void meter_cross_entropy(backend *dev, device_array *loss, device_array *logits,
                         const int32_t *targets, const float *weights, int64_t n, int64_t vocab,
                         double cap, bool gradient) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->cross_entropy(p.inner, loss, logits, targets, weights, n, vocab, cap, gradient);
    pass_end_moved(&p, METER_CROSS_ENTROPY, (gradient ? 2 : 1) * n * vocab);
}

/* Where nothing is computed every expert gets its turn. */
static void spread(int32_t *choice, const route_call *call, int64_t n) {
    for (int64_t t = 0; t < n; t++) {
        int32_t first = (int32_t)(t * call->n_chosen % call->n_experts);
        int32_t wrapped = first + call->n_chosen - call->n_experts;
        for (int32_t j = 0; j < call->n_chosen; j++) /* ascending: those that wrap come first */
            choice[t * call->n_chosen + j] =
                j < wrapped ? j : first + j - (wrapped > 0 ? wrapped : 0);
    }
}

void meter_route_fwd(backend *dev, device_array *weights, int32_t *choice,
                     const device_array *logits, const route_call *call, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->route_fwd(p.inner, weights, choice, logits, call, n);
    else
        spread(choice, call, n);
    pass_end_moved(&p, METER_ROUTE_FWD, n * (call->n_experts + call->n_chosen));
}

void meter_route_bwd(backend *dev, device_array *d_logits, const device_array *d_weights,
                     const device_array *logits, const int32_t *choice, const route_call *call,
                     int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->route_bwd(p.inner, d_logits, d_weights, logits, choice, call, n);
    pass_end_moved(&p, METER_ROUTE_BWD, n * (2 * call->n_experts + call->n_chosen));
}

void meter_copy_blocks(backend *dev, device_array *y, block_places to, const device_array *x,
                       block_places from, int64_t n, int64_t blocks, int64_t cols, bool add) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->copy_blocks(p.inner, y, to, x, from, n, blocks, cols, add);
    pass_end_moved(&p, METER_COPY_BLOCKS, (add ? 3 : 2) * n * blocks * cols);
}

void meter_fill(backend *dev, device_array *y, double value, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->fill(p.inner, y, value, n);
    pass_end_moved(&p, METER_FILL, n);
}

void meter_copy(backend *dev, device_array *y, const device_array *x, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->copy(p.inner, y, x, n);
    pass_end_moved(&p, METER_COPY, 2 * n);
}

void meter_add(backend *dev, device_array *y, const device_array *x, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->add(p.inner, y, x, n);
    pass_end_moved(&p, METER_ADD, 3 * n);
}

void meter_scale(backend *dev, device_array *y, double factor, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->scale(p.inner, y, factor, n);
    pass_end_moved(&p, METER_SCALE, 2 * n);
}

void meter_gather_rows(backend *dev, device_array *y, const device_array *x, const int32_t *index,
                       int64_t n, int64_t cols) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->gather_rows(p.inner, y, x, index, n, cols);
    pass_end_moved(&p, METER_GATHER_ROWS, 2 * n * cols);
}

void meter_scatter_rows(backend *dev, device_array *y, const device_array *x, const int32_t *index,
                        int64_t n, int64_t cols) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->scatter_rows(p.inner, y, x, index, n, cols);
    pass_end_moved(&p, METER_SCATTER_ROWS, 2 * n * cols);
}

double meter_sum_squares(backend *dev, const device_array *x, int64_t n) {
    passing p = pass_begin(dev);
    double sum = p.inner ? p.ops->sum_squares(p.inner, x, n) : 0;
    pass_end_moved(&p, METER_SUM_SQUARES, n);
    return sum;
}

void meter_adamw(backend *dev, device_array *values, const device_array *g, device_array *m,
                 device_array *v, int64_t n, const adamw_step *step) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->adamw(p.inner, values, g, m, v, n, step);
    pass_end_moved(&p, METER_ADAMW, 7 * n);
}
