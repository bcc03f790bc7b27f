#include "backend/reference/reference.h"

#include <math.h>

void ref_cross_entropy(backend *dev, device_array *loss, device_array *logits_,
                       const int32_t *targets, const float *weights, int64_t n, int64_t vocab,
                       double cap, bool gradient) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double *logits = ref_array(logits_) + i * vocab;
        double largest = logits[0], total = 0;
        for (int64_t v = 1; v < vocab; v++)
            largest = fmax(largest, logits[v]);
        for (int64_t v = 0; v < vocab; v++)
            total += exp(logits[v] - largest);
        double log_sum = largest + log(total);
        ref_array(loss)[i] = log_sum - logits[targets[i]];
        if (gradient)
            for (int64_t v = 0; v < vocab; v++) {
                double probability = exp(logits[v] - log_sum);
                double slope = cap > 0 ? 1 - logits[v] / cap * (logits[v] / cap) : 1;
                logits[v] = (double)weights[i] * (probability - (v == targets[i] ? 1 : 0)) * slope;
            }
    }
}
