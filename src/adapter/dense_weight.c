#include "adapter/dense_weight.h"

#include "base/memory.h"

#include <assert.h>
#include <stdlib.h>

/* ---- The form ---- */

static int64_t weight_elements(const dense_weight *w) {
    return w->rows * w->cols;
}

static int64_t own_scratch(const dense_weight *w) {
    return w->method->scratch_elements ? w->method->scratch_elements(w) : 0;
}

/* The weight, its gradient, and what the method works in. */
static int64_t scratch_elements(const void *self, int64_t n) {
    (void)n;
    const dense_weight *w = self;
    return 2 * weight_elements(w) + own_scratch(w);
}

static linear_call adapted_call(const dense_weight *w, const form_pass *pass,
                                const base_linear *base, device_array *scratch) {
    linear_call call = *base->call;
    pass->dev->ops->weight_load(pass->dev, pass->scratch, &call.weight);
    w->method->apply(w, pass->dev, pass->scratch, scratch);
    call.weight = (weight_ref){.data = pass->scratch,
                               .type = pass->dev->element,
                               .rows = w->rows,
                               .cols = w->cols,
                               .row_stride = w->cols};
    call.is_freed = true;
    return call;
}

static void forward(const void *self, const form_pass *pass, const base_linear *base,
                    device_array *y, const device_array *x, bool add) {
    const dense_weight *w = self;
    device_array *own = array_at(pass->dev, pass->scratch, 2 * weight_elements(w));
    linear_call call = adapted_call(w, pass, base, own);
    pass->dev->ops->linear_fwd(pass->dev, y, base->xa, x, &call, add, base->scratch, pass->tokens);
}

static void backward(const void *self, const form_pass *pass, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const dense_weight *w = self;
    backend *dev = pass->dev;
    device_array *d_w = array_at(dev, pass->scratch, weight_elements(w));
    device_array *own = array_at(dev, pass->scratch, 2 * weight_elements(w));
    linear_call call = adapted_call(w, pass, base, own);
    dev->ops->fill(dev, d_w, 0, weight_elements(w));
    call.d_weight = d_w;
    dev->ops->linear_bwd(dev, dx, dy, x, base->xa, &call, add, base->scratch, pass->tokens);
    if (w->method->needs_base)
        dev->ops->weight_load(dev, pass->scratch, &base->call->weight);
    w->method->apply_bwd(w, dev, d_w, w->method->needs_base ? pass->scratch : NULL, own);
}

static const linear_form form = {
    .memory = {.scratch_elements = scratch_elements}, .fwd = forward, .bwd = backward};

/* ---- Its place ---- */

static dense_weight *weight_of(const adapter *a, size_t module) {
    return (dense_weight *)a->state + module;
}

graft_status dense_create(adapter *a, const dense_method *method, graft_error *err) {
    dense_weight *weights = mem_array(a->n_modules, sizeof *weights);
    if (!weights)
        return error_memory(err, a->n_modules * sizeof *weights, "the adapter's weights");
    a->state = weights;
    for (size_t i = 0; i < a->n_modules; i++) {
        weights[i] = (dense_weight){.method = method,
                                    .adapter = a,
                                    .module = i,
                                    .rows = a->modules[i].rows,
                                    .cols = a->modules[i].cols,
                                    .scale = 1};
        if (!a->targets[i].is_target)
            continue;
        if (method->scale)
            weights[i].scale = method->scale(a, i);
        for (size_t t = 0; method->suffixes[t]; t++)
            weights[i].tensors[t] = adapter_tensor_at(a, i, method->suffixes[t]);
    }
    return GRAFT_OK;
}

void dense_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->targets[i].is_target)
            continue;
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[i]);
        hook->form = &form;
        hook->form_self = weight_of(a, i);
    }
    shape_bind_freed(a, hooks);
}

void dense_destroy(adapter *a) {
    free(a->state);
    a->state = NULL;
}

int64_t dense_merge_scratch(const adapter *a, size_t module) {
    return a->targets[module].is_target ? own_scratch(weight_of(a, module)) : 0;
}

graft_status dense_merge(adapter *a, backend *dev, size_t module, device_array *w,
                         device_array *bias, device_array *scratch, graft_error *err) {
    (void)bias;
    (void)err;
    if (a->targets[module].is_target) {
        const dense_weight *weight = weight_of(a, module);
        weight->method->apply(weight, dev, w, scratch);
    }
    return GRAFT_OK;
}
