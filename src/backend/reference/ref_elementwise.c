#include "backend/reference/reference.h"

#include <math.h>
#include <string.h>

void ref_rope(backend *dev, device_array *x_, const device_array *cos_, const device_array *sin_,
              const rope_call *call, int64_t n, bool inverse) {
    (void)dev;
    int32_t half = call->n / 2, step = call->is_interleaved ? 2 : 1;
    int32_t partner = call->is_interleaved ? 1 : half;
    for (int64_t t = 0; t < n; t++)
        for (int32_t h = 0; h < call->heads; h++) {
            double *x = ref_array(x_) + (t * call->heads + h) * call->head_dim + call->first;
            const double *c = ref_array_const(cos_) + t * half;
            const double *s = ref_array_const(sin_) + t * half;
            for (int32_t i = 0; i < half; i++) {
                double sine = inverse ? -s[i] : s[i];
                double first = x[i * step], second = x[i * step + partner];
                x[i * step] = first * c[i] - second * sine;
                x[i * step + partner] = second * c[i] + first * sine;
            }
        }
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* Phi(x), the normal distribution's. */
static double normal_share(double x) {
    return 0.5 * erfc(-x * sqrt(0.5));
}

/* GELU's approximation is x sigmoid(2 u): 0.5 (1 + tanh u) = sigmoid(2 u). */
static double tanh_argument(double x) {
    return 2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
}

static double activation_of(double x, const gate_call *call) {
    if (call->limit > 0) {
        x = x > (double)call->limit ? (double)call->limit : x;
        return x * sigmoid((double)call->alpha * x);
    }
    switch (call->kind) {
    case ACTIVATION_GELU:
        return x * normal_share(x);
    case ACTIVATION_GELU_TANH:
        return x * sigmoid(tanh_argument(x));
    case ACTIVATION_RELU:
        return x > 0 || isnan(x) ? x : 0;
    default:
        return x * sigmoid(x);
    }
}

static double activation_slope(double x, const gate_call *call) {
    double s = sigmoid((double)call->alpha * x);
    if (call->limit > 0)
        return x > (double)call->limit ? 0 : s * (1 + (double)call->alpha * x * (1 - s));
    switch (call->kind) {
    case ACTIVATION_GELU:
        return normal_share(x) + x * exp(-x * x / 2) / sqrt(2 * acos(-1));
    case ACTIVATION_GELU_TANH:
        s = sigmoid(tanh_argument(x));
        return s + x * s * (1 - s) * 2 * sqrt(2 / acos(-1)) * (1 + 3 * 0.044715 * x * x);
    case ACTIVATION_RELU:
        return x > 0 ? 1 : isnan(x) ? x : 0;
    default:
        s = sigmoid(x);
        return s * (1 + x * (1 - s));
    }
}

/* What multiplies the activation: up; of clamped SwiGLU up held within the limit, and one more. */
static double factor_of(double up, const gate_call *call) {
    double limit = (double)call->limit;
    if (!(call->limit > 0))
        return up;
    return (up > limit ? limit : up < -limit ? -limit : up) + 1;
}

void ref_gated_fwd(backend *dev, device_array *h, const device_array *gate, const device_array *up,
                   const gate_call *call, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double value = activation_of(ref_array_const(gate)[i], call);
        ref_array(h)[i] = up ? value * factor_of(ref_array_const(up)[i], call) : value;
    }
}

void ref_gated_bwd(backend *dev, device_array *d_gate, device_array *d_up, const device_array *dh,
                   const device_array *gate, const device_array *up, const gate_call *call,
                   int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double g = ref_array_const(gate)[i], d = ref_array_const(dh)[i], u = 0;
        double factor = 1;
        if (up) {
            u = ref_array_const(up)[i];
            factor = factor_of(u, call);
        }
        ref_array(d_gate)[i] = d * factor * activation_slope(g, call);
        bool is_held = call->limit > 0 && fabs(u) > (double)call->limit;
        if (up)
            ref_array(d_up)[i] = is_held ? 0 : d * activation_of(g, call);
    }
}

void ref_soft_cap(backend *dev, device_array *y, double scale, double cap, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        ref_array(y)[i] = cap * tanh(scale * ref_array(y)[i] / cap);
}

void ref_clamp(backend *dev, device_array *y, double limit, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double value = ref_array(y)[i];
        ref_array(y)[i] = value > limit ? limit : value < -limit ? -limit : value;
    }
}

void ref_clamp_bwd(backend *dev, device_array *dy, const device_array *y, double limit, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        if (fabs(ref_array_const(y)[i]) >= limit)
            ref_array(dy)[i] = 0;
}

void ref_fill(backend *dev, device_array *y, double value, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        ref_array(y)[i] = value;
}

void ref_copy(backend *dev, device_array *y, const device_array *x, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        ref_array(y)[i] = ref_array_const(x)[i];
}

void ref_add(backend *dev, device_array *y, const device_array *x, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        ref_array(y)[i] += ref_array_const(x)[i];
}

void ref_scale(backend *dev, device_array *y, double factor, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        ref_array(y)[i] *= factor;
}

void ref_copy_blocks(backend *dev, device_array *y, block_places to, const device_array *x,
                     block_places from, int64_t n, int64_t blocks, int64_t cols, bool add) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < blocks; j++)
            for (int64_t c = 0; c < cols; c++) {
                double *target = ref_array(y) + i * to.row + j * to.step + c;
                double value = ref_array_const(x)[i * from.row + j * from.step + c];
                *target = add ? *target + value : value;
            }
}

void ref_gather_rows(backend *dev, device_array *y, const device_array *x, const int32_t *index,
                     int64_t n, int64_t cols) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < cols; c++)
            ref_array(y)[i * cols + c] = ref_array_const(x)[index[i] * cols + c];
}

void ref_scatter_rows(backend *dev, device_array *y, const device_array *x, const int32_t *index,
                      int64_t n, int64_t cols) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < cols; c++)
            ref_array(y)[index[i] * cols + c] = ref_array_const(x)[i * cols + c];
}
