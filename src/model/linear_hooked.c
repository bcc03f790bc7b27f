#include "model/linear_hooked.h"

linear_call linear_hooked(const backend *dev, const weight_ref *weight, const device_array *bias,
                          const linear_hook *hook) {
    linear_call call = {
        .weight = *weight, .bias = bias, .terms = hook->terms, .n_terms = hook->n_terms};
    if (hook->weight.is_freed) {
        call.weight.data = hook->weight.value;
        call.weight.type = dev->element;
        call.weight.row_stride = weight->cols;
        call.d_weight = hook->weight.gradient;
    }
    if (hook->bias.is_freed) {
        call.bias = hook->bias.value;
        call.d_bias = hook->bias.gradient;
    }
    return call;
}

bool linear_is_trained(const linear_call *call) {
    for (int32_t i = 0; i < call->n_terms; i++)
        if (call->terms[i].da || call->terms[i].db || call->terms[i].dbias)
            return true;
    return call->d_weight || call->d_bias;
}

bool linear_needs_input(const linear_call *call, const token_rows *tokens) {
    for (int32_t i = 0; i < call->n_terms; i++)
        if (call->terms[i].da || (tokens->training && call->terms[i].dropout > 0))
            return true;
    return call->d_weight != NULL;
}
