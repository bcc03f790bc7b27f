#include "backend/reference/reference.h"

#include <math.h>

void ref_rmsnorm_fwd(backend *dev, device_array *y_, device_array *rstd_, const device_array *x_,
                     const device_array *w_, float eps, int64_t rows, int64_t cols) {
    (void)dev;
    const double *w = ref_array_const(w_);
    for (int64_t r = 0; r < rows; r++) {
        const double *x = ref_array_const(x_) + r * cols;
        double *y = ref_array(y_) + r * cols;
        double squares = 0;
        for (int64_t c = 0; c < cols; c++)
            squares += x[c] * x[c];
        double rstd = 1 / sqrt(squares / (double)cols + (double)eps);
        ref_array(rstd_)[r] = rstd;
        for (int64_t c = 0; c < cols; c++)
            y[c] = x[c] * rstd * w[c];
    }
}

/* With xhat = x rstd: dx = rstd (w dy - xhat mean(w dy xhat)), dw = sum of dy xhat. */
void ref_rmsnorm_bwd(backend *dev, device_array *dx_, device_array *dw, const device_array *dy_,
                     const device_array *x_, const device_array *rstd_, const device_array *w_,
                     int32_t per_token, int64_t cols, bool add, const token_rows *tokens) {
    (void)dev;
    const double *w = ref_array_const(w_);
    for (int64_t r = 0; r < (int64_t)tokens->n * per_token; r++) {
        const double *x = ref_array_const(x_) + r * cols;
        const double *dy = ref_array_const(dy_) + r * cols;
        double *dx = ref_array(dx_) + r * cols;
        double rstd = ref_array_const(rstd_)[r];
        double projection = 0;
        for (int64_t c = 0; c < cols; c++)
            projection += w[c] * dy[c] * x[c] * rstd / (double)cols;
        for (int64_t c = 0; c < cols; c++) {
            double xhat = x[c] * rstd;
            if (dw)
                ref_array(dw)[c] += dy[c] * xhat;
            double value = rstd * (w[c] * dy[c] - xhat * projection);
            dx[c] = add ? dx[c] + value : value;
        }
    }
}
