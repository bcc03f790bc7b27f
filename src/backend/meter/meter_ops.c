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
                     const int32_t *ids, const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->embed_bwd(p.inner, d_table, dy, table, terms, n_terms, ids, rows);
    pass_end(&p, METER_EMBED_BWD,
             embed_cost(table, terms, n_terms, rows, dev->element_bytes, true));
}

void meter_rmsnorm_fwd(backend *dev, device_array *y, device_array *rstd, const device_array *x,
                       const device_array *w, float eps, int64_t rows, int64_t cols) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->rmsnorm_fwd(p.inner, y, rstd, x, w, eps, rows, cols);
    pass_end_moved(&p, METER_RMSNORM_FWD, 2 * rows * cols);
}

void meter_rmsnorm_bwd(backend *dev, device_array *dx, device_array *dw, const device_array *dy,
                       const device_array *x, const device_array *rstd, const device_array *w,
                       int32_t per_token, int64_t cols, bool add, const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->rmsnorm_bwd(p.inner, dx, dw, dy, x, rstd, w, per_token, cols, add, rows);
    pass_end_moved(&p, METER_RMSNORM_BWD, (add ? 4 : 3) * (int64_t)rows->n * per_token * cols);
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
                int64_t n, int32_t heads, int32_t head_dim, bool inverse) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->rope(p.inner, x, cos, sin, n, heads, head_dim, inverse);
    pass_end_moved(&p, METER_ROPE, 2 * n * heads * head_dim + n * head_dim);
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

void meter_swiglu_fwd(backend *dev, device_array *h, const device_array *gate,
                      const device_array *up, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->swiglu_fwd(p.inner, h, gate, up, n);
    pass_end_moved(&p, METER_SWIGLU_FWD, 3 * n);
}

void meter_swiglu_bwd(backend *dev, device_array *d_gate, device_array *d_up,
                      const device_array *dh, const device_array *gate, const device_array *up,
                      int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->swiglu_bwd(p.inner, d_gate, d_up, dh, gate, up, n);
    pass_end_moved(&p, METER_SWIGLU_BWD, 5 * n);
}

void meter_cross_entropy(backend *dev, device_array *loss, device_array *logits,
                         const int32_t *targets, const float *weights, int64_t n, int64_t vocab,
                         bool gradient) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->cross_entropy(p.inner, loss, logits, targets, weights, n, vocab, gradient);
    pass_end_moved(&p, METER_CROSS_ENTROPY, (gradient ? 2 : 1) * n * vocab);
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
