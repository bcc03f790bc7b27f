#include "backend/reference/reference.h"

#include <math.h>

void ref_rotate_halves(backend *dev, device_array *y, const device_array *x, int64_t rows,
                       int64_t cols, int64_t group, bool inverse) {
    (void)dev;
    int64_t half = group / 2;
    double sign = inverse ? -1 : 1;
    for (int64_t i = 0; i < rows * cols; i++) {
        bool is_first = i % cols % group < half;
        ref_array(y)[i] =
            is_first ? -sign * ref_array_const(x)[i + half] : sign * ref_array_const(x)[i - half];
    }
}

/* cos(2 pi (p u / rows + q v / cols)) of coefficient k. */
static double wave(const spectrum_call *s, int64_t k, int64_t p, int64_t q) {
    int64_t u = s->place[k] / s->cols, v = s->place[k] % s->cols;
    double turns =
        (double)(p * u % s->rows) / (double)s->rows + (double)(q * v % s->cols) / (double)s->cols;
    return cos(2 * M_PI * turns);
}

void ref_spectrum_fwd(backend *dev, device_array *w, const spectrum_call *s) {
    (void)dev;
    for (int64_t k = 0; k < s->n; k++)
        for (int64_t p = 0; p < s->rows; p++)
            for (int64_t q = 0; q < s->cols; q++)
                ref_array(w)[p * s->cols + q] +=
                    s->scale * ref_array_const(s->c)[k] * wave(s, k, p, q);
}

void ref_spectrum_bwd(backend *dev, device_array *d_c, const device_array *d_w,
                      const spectrum_call *s) {
    (void)dev;
    for (int64_t k = 0; k < s->n; k++) {
        double sum = 0;
        for (int64_t p = 0; p < s->rows; p++)
            for (int64_t q = 0; q < s->cols; q++)
                sum += ref_array_const(d_w)[p * s->cols + q] * wave(s, k, p, q);
        ref_array(d_c)[k] += s->scale * sum;
    }
}
