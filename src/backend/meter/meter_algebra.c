/* The ops that adapter methods are written in, handed on and counted. */
#include "backend/meter/meter_internal.h"

void meter_matmul(backend *dev, const matmul_call *call) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->matmul(p.inner, call);
    pass_end(&p, METER_MATMUL, matmul_cost(call, dev->element_bytes));
}

void meter_weight_load(backend *dev, device_array *y, const weight_ref *weight) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->weight_load(p.inner, y, weight);
    pass_end(
        &p, METER_WEIGHT_LOAD,
        moved_cost(weight->rows * weight->cols, dtype_bytes(weight->type) + dev->element_bytes));
}

void meter_add_scaled(backend *dev, device_array *y, const device_array *x, double factor,
                      int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->add_scaled(p.inner, y, x, factor, n);
    pass_end_moved(&p, METER_ADD_SCALED, 3 * n);
}

void meter_mul(backend *dev, device_array *y, const device_array *a, const device_array *b,
               int64_t n, bool add) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->mul(p.inner, y, a, b, n, add);
    pass_end_moved(&p, METER_MUL, (add ? 4 : 3) * n);
}

void meter_scale_cols(backend *dev, device_array *y, const device_array *x, const device_array *v,
                      int64_t rows, int64_t cols, bool add) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->scale_cols(p.inner, y, x, v, rows, cols, add);
    pass_end_moved(&p, METER_SCALE_COLS, (add ? 3 : 2) * rows * cols);
}

void meter_scale_rows(backend *dev, device_array *y, const device_array *x, const device_array *v,
                      int64_t rows, int64_t cols, bool add) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->scale_rows(p.inner, y, x, v, rows, cols, add);
    pass_end_moved(&p, METER_SCALE_ROWS, (add ? 3 : 2) * rows * cols);
}

void meter_add_rows(backend *dev, device_array *y, const device_array *v, int64_t rows,
                    int64_t cols) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->add_rows(p.inner, y, v, rows, cols);
    pass_end_moved(&p, METER_ADD_ROWS, 2 * rows * cols);
}

void meter_sum_rows(backend *dev, device_array *s, const device_array *a, const device_array *b,
                    int64_t rows, int64_t cols, bool add) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->sum_rows(p.inner, s, a, b, rows, cols, add);
    pass_end_moved(&p, METER_SUM_ROWS, (b ? 2 : 1) * rows * cols);
}

void meter_sum_cols(backend *dev, device_array *s, const device_array *a, const device_array *b,
                    int64_t rows, int64_t cols, const token_rows *tokens) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->sum_cols(p.inner, s, a, b, rows, cols, tokens);
    pass_end_moved(&p, METER_SUM_COLS, (b ? 2 : 1) * rows * cols);
}

void meter_scatter_add_rows(backend *dev, device_array *y, const device_array *x,
                            const int32_t *index, int64_t n, int64_t cols) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->scatter_add_rows(p.inner, y, x, index, n, cols);
    pass_end_moved(&p, METER_SCATTER_ADD_ROWS, 3 * n * cols);
}

void meter_rotate_halves(backend *dev, device_array *y, const device_array *x, int64_t rows,
                         int64_t cols, int64_t group, bool inverse) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->rotate_halves(p.inner, y, x, rows, cols, group, inverse);
    pass_end_moved(&p, METER_ROTATE_HALVES, 2 * rows * cols);
}

void meter_spectrum_fwd(backend *dev, device_array *w, const spectrum_call *call) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->spectrum_fwd(p.inner, w, call);
    pass_end(&p, METER_SPECTRUM_FWD, spectrum_cost(call, dev->element_bytes));
}

void meter_spectrum_bwd(backend *dev, device_array *d_c, const device_array *d_w,
                        const spectrum_call *call) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->spectrum_bwd(p.inner, d_c, d_w, call);
    pass_end(&p, METER_SPECTRUM_BWD, spectrum_cost(call, dev->element_bytes));
}

void meter_activation_fwd(backend *dev, device_array *y, const device_array *x,
                          activation_kind kind, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->activation_fwd(p.inner, y, x, kind, n);
    pass_end_moved(&p, METER_ACTIVATION_FWD, 2 * n);
}

void meter_activation_bwd(backend *dev, device_array *dx, const device_array *dy,
                          const device_array *x, activation_kind kind, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->activation_bwd(p.inner, dx, dy, x, kind, n);
    pass_end_moved(&p, METER_ACTIVATION_BWD, 3 * n);
}

void meter_softmax_fwd(backend *dev, device_array *y, const device_array *x, int64_t rows,
                       int64_t cols) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->softmax_fwd(p.inner, y, x, rows, cols);
    pass_end_moved(&p, METER_SOFTMAX_FWD, 2 * rows * cols);
}

void meter_softmax_bwd(backend *dev, device_array *dx, const device_array *dy,
                       const device_array *y, int64_t rows, int64_t cols) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->softmax_bwd(p.inner, dx, dy, y, rows, cols);
    pass_end_moved(&p, METER_SOFTMAX_BWD, 3 * rows * cols);
}

void meter_dropout(backend *dev, device_array *y, const device_array *x, float p_drop,
                   uint32_t stream, int64_t cols, bool add, const token_rows *rows) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->dropout(p.inner, y, x, p_drop, stream, cols, add, rows);
    pass_end_moved(&p, METER_DROPOUT, (add ? 3 : 2) * rows->n * cols);
}
