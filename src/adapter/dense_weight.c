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

/* A form's scratch: the weight, its gradient, the bias and its gradient, and what the method works
 * in. */
typedef struct dense_scratch {
    device_array *w, *d_w, *bias, *d_bias, *own;
} dense_scratch;

static int64_t scratch_elements(const void *self, int64_t n) {
    (void)n;
    const dense_weight *w = self;
    return 2 * weight_elements(w) + 2 * w->rows + own_scratch(w);
}

static dense_scratch scratch_of(const dense_weight *w, const form_pass *pass) {
    int64_t n = weight_elements(w);
    return (dense_scratch){.w = pass->scratch,
                           .d_w = array_at(pass->dev, pass->scratch, n),
                           .bias = array_at(pass->dev, pass->scratch, 2 * n),
                           .d_bias = array_at(pass->dev, pass->scratch, 2 * n + w->rows),
                           .own = array_at(pass->dev, pass->scratch, 2 * n + 2 * w->rows)};
}

static linear_call adapted_call(const dense_weight *w, backend *dev, const dense_scratch *s,
                                const base_linear *base, bool is_for_input) {
    linear_call call = *base->call;
    dev->ops->weight_load(dev, s->w, &call.weight);
    if (call.bias && w->method->apply_bias) {
        dev->ops->copy(dev, s->bias, call.bias, w->rows);
        w->method->apply_bias(w, dev, s->bias, s->w, s->own);
        call.bias = s->bias;
    }
    if (is_for_input && w->method->apply_for_input)
        w->method->apply_for_input(w, dev, s->w, s->own);
    else
        w->method->apply(w, dev, s->w, s->own);
    call.weight = (weight_ref){.data = s->w,
                               .type = dev->element,
                               .rows = w->rows,
                               .cols = w->cols,
                               .row_stride = w->cols};
    call.is_exact = true;
    return call;
}

static void forward(const void *self, const form_pass *pass, const base_linear *base,
                    device_array *y, const device_array *x, bool add) {
    const dense_weight *w = self;
    const dense_scratch s = scratch_of(w, pass);
    linear_call call = adapted_call(w, pass->dev, &s, base, false);
    pass->dev->ops->linear_fwd(pass->dev, y, base->xa, x, &call, add, base->scratch, pass->tokens);
}

static void backward(const void *self, const form_pass *pass, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const dense_weight *w = self;
    backend *dev = pass->dev;
    const dense_scratch s = scratch_of(w, pass);
    linear_call call = adapted_call(w, dev, &s, base, true);
    bool adapts_bias = call.bias && w->method->apply_bias;
    dev->ops->fill(dev, s.d_w, 0, weight_elements(w));
    call.d_weight = s.d_w;
    if (adapts_bias) {
        dev->ops->fill(dev, s.d_bias, 0, w->rows);
        call.d_bias = s.d_bias;
    }
    dev->ops->linear_bwd(dev, dx, dy, x, base->xa, &call, add, base->scratch, pass->tokens);
    if (w->method->needs_base)
        dev->ops->weight_load(dev, s.w, &base->call->weight);
    if (adapts_bias)
        w->method->apply_bias_bwd(w, dev, s.d_bias, base->call->bias, s.w, s.own);
    w->method->apply_bwd(w, dev, s.d_w, w->method->needs_base ? s.w : NULL, s.own);
}

static const linear_form form = {
    .memory = {.scratch_elements = scratch_elements}, .fwd = forward, .bwd = backward};

/* ---- Its place ---- */

dense_weight *dense_weight_at(const adapter *a, size_t module) {
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
        hook->form_self = dense_weight_at(a, i);
    }
    shape_bind_freed(a, hooks);
}

void dense_destroy(adapter *a) {
    free(a->state);
    a->state = NULL;
}

int64_t dense_merge_scratch(const adapter *a, size_t module) {
    return a->targets[module].is_target ? own_scratch(dense_weight_at(a, module)) : 0;
}

graft_status dense_merge(adapter *a, backend *dev, size_t module, device_array *w,
                         device_array *bias, device_array *scratch, graft_error *err) {
    (void)err;
    if (a->targets[module].is_target) {
        const dense_weight *weight = dense_weight_at(a, module);
        if (bias && weight->method->apply_bias)
            weight->method->apply_bias(weight, dev, bias, w, scratch);
        weight->method->apply(weight, dev, w, scratch);
    }
    return GRAFT_OK;
}

/* ---- Products of two factors ---- */

void factors_product(backend *dev, device_array *m, const adapter_tensor *a,
                     const adapter_tensor *b, double scale, bool add) {
    int64_t rows = a->shape[0], k = a->shape[1], cols = b->shape[1];
    dev->ops->matmul(dev, &(matmul_call){.c = m,
                                         .c_stride = cols,
                                         .rows = rows,
                                         .cols = cols,
                                         .k = k,
                                         .a = {a->value, k, false},
                                         .b = {b->value, cols, false},
                                         .scale = scale,
                                         .add = add});
}

void factors_product_bwd(backend *dev, const device_array *dm, const adapter_tensor *a,
                         const adapter_tensor *b, double scale) {
    int64_t rows = a->shape[0], k = a->shape[1], cols = b->shape[1];
    dev->ops->matmul(dev, &(matmul_call){.c = a->gradient,
                                         .c_stride = k,
                                         .rows = rows,
                                         .cols = k,
                                         .k = cols,
                                         .a = {dm, cols, false},
                                         .b = {b->value, cols, true},
                                         .scale = scale,
                                         .add = true});
    dev->ops->matmul(dev, &(matmul_call){.c = b->gradient,
                                         .c_stride = cols,
                                         .rows = k,
                                         .cols = cols,
                                         .k = rows,
                                         .a = {a->value, k, true},
                                         .b = {dm, cols, false},
                                         .scale = scale,
                                         .add = true});
}
