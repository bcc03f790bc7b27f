/* Optimizers made for LoRA, as PEFT has them: both multiply a factor's gradient with the inverse of
 * the other factor's r x r Gram matrix before AdamW takes it.
 *
 * LoRA-FA (Zhang et al., 2023; peft/optimizers/lorafa.py): A stays as it was drawn; B's gradient
 * becomes g (A A^T + 1e-8)^+ / s^2. Epsilon is outside the bias correction, decay comes after the
 * step.
 *
 * Riemannian (Zhang and Pilanci, 2024; peft/optimizers/riemannian.py): A's becomes (B^T B + 0.01)^+
 * g, B's g (A A^T + 0.01)^+. */
#include "train/optimizer_kind.h"

#include "adapter/targets.h"
#include "base/linear_algebra.h"
#include "base/memory.h"
#include "train/optimizer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double LORA_FA_DAMPING = 1e-8, RIEMANNIAN_DAMPING = 1e-2;

/* The factor beside `t`: B of A, A of B. NULL: there is none. */
static const adapter_tensor *partner_of(const adapter *a, const adapter_tensor *t) {
    tensor_role other = t->role == ROLE_LORA_A ? ROLE_LORA_B : ROLE_LORA_A;
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].module == t->module && a->tensors[i].role == other)
            return &a->tensors[i];
    return NULL;
}

static int64_t rank_of(const adapter_tensor *t) {
    return t->shape[t->role == ROLE_LORA_B];
}

/* ---- The inverse ---- */

/* gram [r, r] = A A^T, or B^T B */
static void make_gram(const adapter_tensor *t, backend *dev, device_array *gram) {
    const int64_t rank = rank_of(t), stride = t->shape[1];
    const bool is_b = t->role == ROLE_LORA_B;
    dev->ops->matmul(dev, &(matmul_call){.c = gram,
                                         .c_stride = rank,
                                         .rows = rank,
                                         .cols = rank,
                                         .k = t->count / rank,
                                         .a = {t->value, stride, is_b},
                                         .b = {t->value, stride, !is_b},
                                         .scale = 1});
}

/* gram becomes the pseudo-inverse of gram + damping, eigenvalues cut as torch.linalg.pinv does in
 * float32. PEFT's LoRA-FA adds its damping as torch.eye times it. */
static graft_status invert(device_array *gram, backend *dev, int64_t rank, double damping,
                           graft_error *err) {
    double *host = mem_array((size_t)(rank * rank), sizeof *host);
    if (!host)
        return error_memory(err, (size_t)(rank * rank) * sizeof *host, "an optimizer's step");
    dev->ops->download_f64(dev, host, gram, rank * rank);
    for (int64_t i = 0; i < rank; i++)
        host[i * rank + i] += damping;
    graft_status status =
        linear_pseudo_inverse(host, host, rank, (double)rank * (double)FLT_EPSILON, err);
    if (status == GRAFT_OK)
        dev->ops->upload(dev, gram, host, DTYPE_F64, rank * rank);
    free(host);
    return status;
}

/* t's gradient becomes scale times itself multiplied with the inverse of the partner's Gram matrix.
 */
static graft_status precondition(const adapter *a, const adapter_tensor *t, backend *dev,
                                 double damping, double scale, graft_error *err) {
    const int64_t rank = rank_of(t), stride = t->shape[1];
    device_array *gram = a->optimizer_scratch, *product = array_at(dev, gram, rank * rank);
    const matrix inverse = {gram, rank, false}, gradient = {t->gradient, stride, false};
    const bool is_b = t->role == ROLE_LORA_B;
    make_gram(partner_of(a, t), dev, gram);
    graft_status status = invert(gram, dev, rank, damping, err);
    if (status != GRAFT_OK)
        return status;
    dev->ops->matmul(dev, &(matmul_call){.c = product,
                                         .c_stride = stride,
                                         .rows = t->shape[0],
                                         .cols = stride,
                                         .k = rank,
                                         .a = is_b ? gradient : inverse,
                                         .b = is_b ? inverse : gradient,
                                         .scale = scale});
    dev->ops->copy(dev, t->gradient, product, t->count);
    return GRAFT_OK;
}

static bool is_factor(const adapter_tensor *t) {
    return t->role == ROLE_LORA_A || t->role == ROLE_LORA_B;
}

/* Room for a Gram matrix and a gradient beside it. */
static graft_status make_room(adapter *a, const char *name, graft_error *err) {
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (!is_factor(t))
            continue;
        int64_t room = rank_of(t) * rank_of(t) + t->count;
        a->optimizer_room = room > a->optimizer_room ? room : a->optimizer_room;
    }
    if (a->optimizer_room)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_USAGE,
                     "optim %s works on LoRA's factors of linear layers, and this adapter (method "
                     "%s) has none: use adamw",
                     name, a->method->name);
}

/* ---- LoRA-FA ---- */

static graft_status lora_fa_shape(adapter *a, const train_config *config, graft_error *err) {
    (void)config;
    graft_status status = make_room(a, "lora_fa", err);
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++) {
        adapter_tensor *t = &a->tensors[i];
        bool is_embedding = t->role == ROLE_LORA_EMBEDDING_A;
        bool is_strange = strstr(t->key, ".lora_") && !is_factor(t) && !t->is_rebuilt;
        if (is_embedding || is_strange || (t->role == ROLE_LORA_B && t->is_fixed))
            return error_set(err, GRAFT_E_USAGE,
                             "optim lora_fa keeps A as it starts and trains B alone, and %s does "
                             "not go with that%s: use "
                             "adamw",
                             t->key, is_embedding ? " (an embedding's A starts as zero)" : "");
        if (t->role == ROLE_LORA_A)
            t->is_fixed = true;
    }
    return status;
}

/* s of the module's term. */
static double scale_of(const adapter *a, const adapter_tensor *t) {
    const module_target *target = &a->targets[t->module];
    return target->alpha /
           (a->config.use_rslora ? sqrt((double)target->rank) : (double)target->rank);
}

static graft_status lora_fa_update(const adapter *a, backend *dev, const optimizer_step *s,
                                   graft_error *err) {
    const train_config *c = s->config;
    double correction = sqrt(1.0 - pow(c->adam_beta2, (double)s->updates));
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->is_fixed)
            continue;
        double scale = t->role == ROLE_LORA_B ? scale_of(a, t) : 1;
        if (t->role == ROLE_LORA_B)
            status = precondition(a, t, dev, LORA_FA_DAMPING, 1 / (scale * scale), err);
        parameter_group group = parameter_group_of(t, c);
        train_config outside = *c; /* epsilon beside the uncorrected root; decay afterwards */
        outside.adam_epsilon = c->adam_epsilon / correction;
        outside.weight_decay = 0;
        optimizer_step step = *s;
        step.config = &outside;
        adamw_update(t, dev, &step);
        dev->ops->scale(dev, t->value,
                        1 - group.learning_rate * s->schedule_factor * group.weight_decay,
                        t->count);
    }
    return status;
}

const optimizer_kind optimizer_lora_fa = {
    .name = "lora_fa",
    .summary = "LoRA-FA: A stays, B's gradient is the closest to the full one",
    .adam_epsilon = 1e-6,
    .shape = lora_fa_shape,
    .update = lora_fa_update,
};

/* ---- Riemannian ---- */

static graft_status riemannian_shape(adapter *a, const train_config *config, graft_error *err) {
    (void)config;
    return make_room(a, "riemannian", err);
}

/* Both gradients of a pair are changed by values before the step. */
static graft_status riemannian_update(const adapter *a, backend *dev, const optimizer_step *s,
                                      graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++) {
        const adapter_tensor *t = &a->tensors[i], *partner = is_factor(t) ? partner_of(a, t) : NULL;
        if (partner && !t->is_fixed && !partner->is_fixed)
            status = precondition(a, t, dev, RIEMANNIAN_DAMPING, 1, err);
    }
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++)
        if (!a->tensors[i].is_fixed)
            adamw_update(&a->tensors[i], dev, s);
    return status;
}

const optimizer_kind optimizer_riemannian = {
    .name = "riemannian",
    .summary = "Riemannian preconditioned AdamW: each factor's gradient in the metric of the other",
    .adam_epsilon = 1e-8,
    .shape = riemannian_shape,
    .update = riemannian_update,
};
