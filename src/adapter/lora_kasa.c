/* KaSA (Wang et al., 2024, arXiv:2412.06071; as PEFT's tuners/lora/variants.py): the base loses its
 * r least singular directions, and between A and B stands a trained diagonal: y = (W - U_r S_r
 * V_r^T) x + s B diag(d) A x. The regularisers of kasa_config are no part of the loss, as in PEFT,
 * where a training loop has to add them. */
#include "adapter/base_weight.h"
#include "adapter/lora.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static derived_array *scaled_a(const lora_layer *l) {
    return &l->adapter->derived[l->derived];
}

static graft_status kasa_shape(lora_layer *l, graft_error *err) {
    const lora_start *start = lora_state_of(l->adapter)->start;
    if (start && start->changes_base)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "kasa_config with init_lora_weights %s is not supported: both take "
                         "something out of the base",
                         l->adapter->config.init_name);
    if (l->rank >= l->in || l->rank >= l->out)
        return error_set(
            err, GRAFT_E_INPUT,
            "kasa_config wants a rank below the smaller side of %s [%lld, %lld], found %d",
            l->adapter->modules[l->module].name, (long long)l->out, (long long)l->in, (int)l->rank);
    if (!shape_matrix(l->adapter, l->module, "lora_diag", l->rank, 0, err))
        return GRAFT_E_MEMORY;
    l->derived = shape_derived(l->adapter, l->rank * l->in, true, err);
    return l->derived == SIZE_MAX ? GRAFT_E_MEMORY : lora_add_removed(l, 1, err);
}

static graft_status kasa_init(lora_layer *l, backend *dev, const weight_source *weights,
                              rng *random, graft_error *err) {
    (void)weights;
    (void)err;
    shape_fill(l->own, dev, DRAW_NORMAL, 1, random);
    return GRAFT_OK;
}

/* The least directions: the last ones. */
static void upload_least(const lora_layer *l, backend *dev, double *u, const double *s,
                         const double *vt) {
    const int64_t k = l->out < l->in ? l->out : l->in, rank = l->rank;
    for (int64_t o = 0; o < l->out; o++)
        for (int64_t r = 0; r < rank; r++)
            u[o * rank + r] = u[o * k + k - rank + r] * s[k - rank + r];
    dev->ops->upload(dev, l->start_b->value, u, DTYPE_F64, l->out * rank);
    dev->ops->upload(dev, l->start_a->value, vt + (k - rank) * l->in, DTYPE_F64, rank * l->in);
}

static graft_status kasa_rebuild(lora_layer *l, backend *dev, const weight_source *weights,
                                 graft_error *err) {
    double *w = mem_array((size_t)(l->out * l->in), sizeof *w), *u = NULL, *s = NULL, *vt = NULL;
    const start_values v = {.w = w, .out = l->out, .in = l->in, .rank = l->rank};
    graft_status status =
        w ? base_weight_rows(w, l->adapter, l->module, weights, 0, l->out, err)
          : error_memory(err, (size_t)(l->out * l->in) * sizeof *w, "KaSA's base");
    if (status == GRAFT_OK)
        status = start_svd(&u, &s, &vt, &v, err);
    if (status == GRAFT_OK)
        upload_least(l, dev, u, s, vt);
    free(w);
    free(u);
    free(s);
    free(vt);
    return status;
}

static void kasa_bind(lora_layer *l, model_hooks *hooks) {
    (void)hooks;
    l->terms[0].a = scaled_a(l)->value;
    l->terms[0].da = scaled_a(l)->gradient;
}

static graft_status kasa_prepare(lora_layer *l, backend *dev, weight_source *weights,
                                 graft_error *err) {
    (void)weights;
    (void)err;
    dev->ops->scale_rows(dev, scaled_a(l)->value, l->a->value, l->own->value, l->rank, l->in,
                         false);
    return GRAFT_OK;
}

static void kasa_chain(lora_layer *l, backend *dev) {
    const device_array *d_scaled = scaled_a(l)->gradient;
    dev->ops->scale_rows(dev, l->a->gradient, d_scaled, l->own->value, l->rank, l->in, true);
    dev->ops->sum_rows(dev, l->own->gradient, d_scaled, l->a->value, l->rank, l->in, true);
}

const lora_variant lora_kasa = {
    .key = "kasa_config",
    .own_suffix = "lora_diag",
    .shape = kasa_shape,
    .init = kasa_init,
    .rebuild = kasa_rebuild,
    .bind = kasa_bind,
    .prepare = kasa_prepare,
    .chain = kasa_chain,
};
