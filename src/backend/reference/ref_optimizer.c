#include "backend/reference/reference.h"

#include <math.h>

double ref_sum_squares(backend *dev, const device_array *x, int64_t n) {
    (void)dev;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ref_array_const(x)[i] * ref_array_const(x)[i];
    return sum;
}

/* Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), in torch.optim.AdamW's
 * order. */
void ref_adamw(backend *dev, device_array *p_, const device_array *g_, device_array *m_,
               device_array *v_, int64_t n, const adamw_step *step) {
    (void)dev;
    double *p = ref_array(p_), *m = ref_array(m_), *v = ref_array(v_);
    for (int64_t i = 0; i < n; i++) {
        double g = ref_array_const(g_)[i] * step->gradient_scale;
        p[i] *= 1 - step->learning_rate * step->weight_decay;
        m[i] = step->beta1 * m[i] + (1 - step->beta1) * g;
        v[i] = step->beta2 * v[i] + (1 - step->beta2) * g * g;
        double denominator = sqrt(v[i]) / sqrt(step->bias_correction2) + step->epsilon;
        p[i] -= step->learning_rate / step->bias_correction1 * m[i] / denominator;
    }
}
