#include "backend/reference/reference.h"

#include <math.h>
#include <string.h>

void ref_rope(backend *dev, device_array *x_, const device_array *cos_, const device_array *sin_,
              int64_t n, int32_t heads, int32_t head_dim, bool inverse) {
    (void)dev;
    int32_t half = head_dim / 2;
    for (int64_t t = 0; t < n; t++)
        for (int32_t h = 0; h < heads; h++) {
            double *x = ref_array(x_) + (t * heads + h) * head_dim;
            const double *c = ref_array_const(cos_) + t * half;
            const double *s = ref_array_const(sin_) + t * half;
            for (int32_t i = 0; i < half; i++) {
                double sine = inverse ? -s[i] : s[i];
                double first = x[i], second = x[i + half];
                x[i] = first * c[i] - second * sine;
                x[i + half] = second * c[i] + first * sine;
            }
        }
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

void ref_swiglu_fwd(backend *dev, device_array *h, const device_array *gate, const device_array *up,
                    int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double g = ref_array_const(gate)[i];
        ref_array(h)[i] = g * sigmoid(g) * ref_array_const(up)[i];
    }
}

void ref_swiglu_bwd(backend *dev, device_array *d_gate, device_array *d_up, const device_array *dh,
                    const device_array *gate, const device_array *up, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double g = ref_array_const(gate)[i], u = ref_array_const(up)[i];
        double d = ref_array_const(dh)[i];
        double s = sigmoid(g);
        ref_array(d_gate)[i] = d * u * s * (1 + g * (1 - s));
        ref_array(d_up)[i] = d * g * s;
    }
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
