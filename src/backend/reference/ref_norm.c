#include "backend/reference/reference.h"

#include <math.h>

static double mean_of(const double *x, int64_t cols, const norm_call *call) {
    double sum = 0;
    for (int64_t c = 0; call->is_centred && c < cols; c++)
        sum += x[c];
    return sum / (double)cols;
}

/* The first element of the weights that row r takes. */
static int64_t group_offset(const norm_call *call, int64_t r, int64_t cols) {
    return call->groups > 1 ? r % call->groups * cols : 0;
}

static double weight_at(const norm_call *call, int64_t i) {
    return (call->weight ? ref_array_const(call->weight)[i] : 1) + (call->adds_one ? 1 : 0);
}

void ref_norm_fwd(backend *dev, device_array *y_, device_array *rstd_, const device_array *x_,
                  const norm_call *call, int64_t rows, int64_t cols) {
    (void)dev;
    for (int64_t r = 0; r < rows; r++) {
        const double *x = ref_array_const(x_) + r * cols;
        double *y = ref_array(y_) + r * cols;
        double mean = mean_of(x, cols, call), squares = 0;
        for (int64_t c = 0; c < cols; c++)
            squares += (x[c] - mean) * (x[c] - mean);
        double rstd = 1 / sqrt(squares / (double)cols + (double)call->eps);
        ref_array(rstd_)[r] = rstd;
        int64_t w = group_offset(call, r, cols);
        for (int64_t c = 0; c < cols; c++)
            y[c] = (x[c] - mean) * rstd * weight_at(call, w + c) +
                   (call->bias ? ref_array_const(call->bias)[w + c] : 0);
    }
}

/* With xhat = (x - mean) rstd and g = w dy: dx = rstd (g - mean(g) - xhat mean(g xhat)), without
 * mean(g) unless centred; dw = sum of dy xhat, db = sum of dy. */
void ref_norm_bwd(backend *dev, device_array *dx_, const device_array *dy_, const device_array *x_,
                  const device_array *rstd_, const norm_call *call, int32_t per_token, int64_t cols,
                  bool add, const token_rows *tokens) {
    (void)dev;
    for (int64_t r = 0; r < (int64_t)tokens->n * per_token; r++) {
        const double *x = ref_array_const(x_) + r * cols;
        const double *dy = ref_array_const(dy_) + r * cols;
        double *dx = ref_array(dx_) + r * cols;
        double rstd = ref_array_const(rstd_)[r], mean = mean_of(x, cols, call);
        double projection = 0, mean_g = 0;
        int64_t w = group_offset(call, r, cols);
        for (int64_t c = 0; c < cols; c++) {
            double g = weight_at(call, w + c) * dy[c];
            projection += g * (x[c] - mean) * rstd / (double)cols;
            mean_g += call->is_centred ? g / (double)cols : 0;
        }
        for (int64_t c = 0; c < cols; c++) {
            double xhat = (x[c] - mean) * rstd;
            if (call->d_weight)
                ref_array(call->d_weight)[w + c] += dy[c] * xhat;
            if (call->d_bias)
                ref_array(call->d_bias)[w + c] += dy[c];
            double value = rstd * (weight_at(call, w + c) * dy[c] - mean_g - xhat * projection);
            dx[c] = add ? dx[c] + value : value;
        }
    }
}
