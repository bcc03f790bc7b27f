#include "train/optimizer_kind.h"

#include "train/optimizer.h"

#include <math.h>
#include <string.h>

static const optimizer_kind *const kinds[] = {
    &optimizer_adamw,
    &optimizer_lora_fa,
    &optimizer_riemannian,
};

enum { N_KINDS = sizeof kinds / sizeof *kinds };

const optimizer_kind *optimizer_at(size_t i) {
    return i < N_KINDS ? kinds[i] : NULL;
}

const optimizer_kind *optimizer_find(const char *name) {
    for (size_t i = 0; i < N_KINDS; i++)
        if (!strcmp(kinds[i]->name, name))
            return kinds[i];
    return NULL;
}

const optimizer_kind *optimizer_of(const train_config *config) {
    return config->optimizer ? config->optimizer : &optimizer_adamw;
}

void adamw_update(const adapter_tensor *t, backend *dev, const optimizer_step *s) {
    const train_config *c = s->config;
    parameter_group group = parameter_group_of(t, c);
    const adamw_step step = {
        .learning_rate = group.learning_rate * s->schedule_factor,
        .weight_decay = group.weight_decay,
        .beta1 = c->adam_beta1,
        .beta2 = c->adam_beta2,
        .epsilon = c->adam_epsilon,
        .bias_correction1 = 1.0 - pow(c->adam_beta1, (double)s->updates),
        .bias_correction2 = 1.0 - pow(c->adam_beta2, (double)s->updates),
        .gradient_scale = s->gradient_scale,
    };
    dev->ops->adamw(dev, t->value, t->gradient, t->moment1, t->moment2, t->count, &step);
}

static graft_status adamw_all(const adapter *a, backend *dev, const optimizer_step *s,
                              graft_error *err) {
    (void)err;
    for (size_t i = 0; i < a->n_tensors; i++)
        if (!a->tensors[i].is_fixed)
            adamw_update(&a->tensors[i], dev, s);
    return GRAFT_OK;
}

const optimizer_kind optimizer_adamw = {
    .name = "adamw",
    .summary = "Adam with decoupled weight decay",
    .adam_epsilon = 1e-8,
    .update = adamw_all,
};
