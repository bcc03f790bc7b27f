#include "train/optimizer.h"

#include "train/optimizer_kind.h"

#include <math.h>
#include <string.h>

const double LORAPLUS_EMBEDDING_RATE = 1e-6;

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

parameter_group parameter_group_of(const adapter_tensor *tensor, const train_config *config) {
    parameter_group group = {config->learning_rate, config->weight_decay};
    if (config->loraplus_lr_ratio <= 0)
        return group;
    bool is_bias = ends_with(tensor->key, ".bias");
    switch (tensor->role) {
    case ROLE_LORA_EMBEDDING_A:
    case ROLE_LORA_EMBEDDING_B:
        group.learning_rate = LORAPLUS_EMBEDDING_RATE;
        break;
    case ROLE_LORA_A:
        break;
    case ROLE_LORA_B:
    case ROLE_LORA_BIAS:
        group.learning_rate *= config->loraplus_lr_ratio;
        break;
    case ROLE_FREED:
    case ROLE_OTHER:
        if (tensor->rank == 1)
            group.learning_rate *= config->loraplus_lr_ratio;
        break;
    }
    if (is_bias)
        group.weight_decay = 0;
    return group;
}

double optimizer_gradient_norm(const adapter *a, backend *dev) {
    double sum = 0;
    for (size_t i = 0; i < a->n_tensors; i++)
        if (!a->tensors[i].is_fixed)
            sum += dev->ops->sum_squares(dev, a->tensors[i].gradient, a->tensors[i].count);
    return sqrt(sum);
}

double optimizer_clip_scale(double norm, double max_norm) {
    if (max_norm <= 0)
        return 1.0;
    return fmin(1.0, max_norm / (norm + 1e-6)); /* torch's epsilon */
}

graft_status optimizer_shape(adapter *a, const train_config *config, graft_error *err) {
    const optimizer_kind *kind = optimizer_of(config);
    return kind->shape ? kind->shape(a, config, err) : GRAFT_OK;
}

graft_status optimizer_update(const adapter *a, backend *dev, const train_config *config,
                              double schedule_factor, double gradient_scale, int64_t updates,
                              graft_error *err) {
    const optimizer_step step = {config, schedule_factor, gradient_scale, updates};
    return optimizer_of(config)->update(a, dev, &step, err);
}

const char *optimizer_bad_value(const adapter *a, backend *dev) {
    for (size_t i = 0; i < a->n_tensors; i++)
        if (!a->tensors[i].integers &&
            !isfinite(dev->ops->sum_squares(dev, a->tensors[i].value, a->tensors[i].count)))
            return a->tensors[i].key;
    return NULL;
}
