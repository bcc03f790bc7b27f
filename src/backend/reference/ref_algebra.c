#include "backend/reference/reference.h"

#include <math.h>
#include <stdlib.h>

static double element(const matrix *m, int64_t row, int64_t col, int64_t step) {
    int64_t at = m->is_transposed ? col * m->stride + row : row * m->stride + col;
    return ref_array_const(m->data)[step + at];
}

void ref_matmul(backend *dev, const matmul_call *call) {
    (void)dev;
    int64_t times = call->batch > 0 ? call->batch : 1;
    for (int64_t g = 0; g < times; g++)
        for (int64_t i = 0; i < call->rows; i++)
            for (int64_t j = 0; j < call->cols; j++) {
                double sum = 0;
                for (int64_t k = 0; k < call->k; k++)
                    sum += element(&call->a, i, k, g * call->a_step) *
                           element(&call->b, k, j, g * call->b_step);
                double *c = ref_array(call->c) + g * call->c_step + i * call->c_stride + j;
                *c = (call->add || call->tokens ? *c : 0) + call->scale * sum;
            }
}

void ref_weight_load(backend *dev, device_array *y, const weight_ref *w) {
    (void)dev;
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t j = 0; j < w->cols; j++)
            ref_array(y)[i * w->cols + j] = ref_weight(w, i, j);
}

void ref_add_scaled(backend *dev, device_array *y, const device_array *x, double factor,
                    int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        ref_array(y)[i] += factor * ref_array_const(x)[i];
}

void ref_mul(backend *dev, device_array *y, const device_array *a, const device_array *b, int64_t n,
             bool add) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        ref_array(y)[i] =
            (add ? ref_array(y)[i] : 0) + ref_array_const(a)[i] * ref_array_const(b)[i];
}

static void scale_by(device_array *y, const device_array *x, const device_array *v, int64_t rows,
                     int64_t cols, bool add, bool by_row) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            double *to = ref_array(y) + i * cols + j;
            double product = ref_array_const(x)[i * cols + j] * ref_array_const(v)[by_row ? i : j];
            *to = (add ? *to : 0) + product;
        }
}

void ref_scale_cols(backend *dev, device_array *y, const device_array *x, const device_array *v,
                    int64_t rows, int64_t cols, bool add) {
    (void)dev;
    scale_by(y, x, v, rows, cols, add, false);
}

void ref_scale_rows(backend *dev, device_array *y, const device_array *x, const device_array *v,
                    int64_t rows, int64_t cols, bool add) {
    (void)dev;
    scale_by(y, x, v, rows, cols, add, true);
}

void ref_add_rows(backend *dev, device_array *y, const device_array *v, int64_t rows,
                  int64_t cols) {
    (void)dev;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            ref_array(y)[i * cols + j] += ref_array_const(v)[j];
}

static double product_at(const device_array *a, const device_array *b, int64_t i) {
    return ref_array_const(a)[i] * (b ? ref_array_const(b)[i] : 1);
}

void ref_sum_rows(backend *dev, device_array *s, const device_array *a, const device_array *b,
                  int64_t rows, int64_t cols, bool add) {
    (void)dev;
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0;
        for (int64_t j = 0; j < cols; j++)
            sum += product_at(a, b, i * cols + j);
        ref_array(s)[i] = (add ? ref_array(s)[i] : 0) + sum;
    }
}

void ref_sum_cols(backend *dev, device_array *s, const device_array *a, const device_array *b,
                  int64_t rows, int64_t cols, const token_rows *tokens) {
    (void)dev;
    (void)tokens;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            ref_array(s)[j] += product_at(a, b, i * cols + j);
}

void ref_scatter_add_rows(backend *dev, device_array *y, const device_array *x,
                          const int32_t *index, int64_t n, int64_t cols) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < cols; j++)
            ref_array(y)[index[i] * cols + j] += ref_array_const(x)[i * cols + j];
}

/* f(x) and f'(x). */
static double activate(double *slope, double x, activation_kind kind) {
    double s = 1 / (1 + exp(-x)), t, u;
    switch (kind) {
    case ACTIVATION_RELU:
        *slope = x > 0;
        return x > 0 ? x : x * 0; /* NaN stays */
    case ACTIVATION_LEAKY_RELU:
        *slope = x > 0 ? 1 : 0.01;
        return *slope * x;
    case ACTIVATION_GELU:
        t = 0.5 * (1 + erf(x * M_SQRT1_2));
        *slope = t + x * exp(-0.5 * x * x) * 0.5 * M_2_SQRTPI * M_SQRT1_2;
        return x * t;
    case ACTIVATION_GELU_TANH:
        u = M_2_SQRTPI * M_SQRT1_2;
        t = tanh(u * (x + 0.044715 * x * x * x));
        *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * u * (1 + 3 * 0.044715 * x * x);
        return 0.5 * x * (1 + t);
    case ACTIVATION_SILU:
        *slope = s * (1 + x * (1 - s));
        return x * s;
    case ACTIVATION_SIGMOID:
        *slope = s * (1 - s);
        return s;
    case ACTIVATION_TANH:
        t = tanh(x);
        *slope = 1 - t * t;
        return t;
    default:
        *slope = 1;
        return x;
    }
}

void ref_activation_fwd(backend *dev, device_array *y, const device_array *x, activation_kind kind,
                        int64_t n) {
    (void)dev;
    double slope;
    for (int64_t i = 0; i < n; i++)
        ref_array(y)[i] = activate(&slope, ref_array_const(x)[i], kind);
}

void ref_activation_bwd(backend *dev, device_array *dx, const device_array *dy,
                        const device_array *x, activation_kind kind, int64_t n) {
    (void)dev;
    double slope;
    for (int64_t i = 0; i < n; i++) {
        activate(&slope, ref_array_const(x)[i], kind);
        ref_array(dx)[i] = ref_array_const(dy)[i] * slope;
    }
}

void ref_softmax_fwd(backend *dev, device_array *y_, const device_array *x_, int64_t rows,
                     int64_t cols) {
    (void)dev;
    for (int64_t i = 0; i < rows; i++) {
        const double *x = ref_array_const(x_) + i * cols;
        double *y = ref_array(y_) + i * cols, most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < cols; j++)
            most = fmax(most, x[j]);
        for (int64_t j = 0; j < cols; j++)
            sum += y[j] = exp(x[j] - most);
        for (int64_t j = 0; j < cols; j++)
            y[j] /= sum;
    }
}

void ref_softmax_bwd(backend *dev, device_array *dx, const device_array *dy_,
                     const device_array *y_, int64_t rows, int64_t cols) {
    (void)dev;
    for (int64_t i = 0; i < rows; i++) {
        const double *dy = ref_array_const(dy_) + i * cols, *y = ref_array_const(y_) + i * cols;
        double sum = 0;
        for (int64_t j = 0; j < cols; j++)
            sum += dy[j] * y[j];
        for (int64_t j = 0; j < cols; j++)
            ref_array(dx)[i * cols + j] = y[j] * (dy[j] - sum);
    }
}
