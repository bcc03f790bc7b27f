#include "adapter/prompt_encoder.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>

/* ---- Tensors ---- */

static void tensor_key(char *out, size_t capacity, const char *name) {
    snprintf(out, capacity, PROMPT_ENCODER_PREFIX "%s", name);
}

adapter_tensor *encoder_tensor(adapter *a, const char *name, int64_t rows, int64_t cols,
                               graft_error *err) {
    char key[128];
    tensor_key(key, sizeof key, name);
    adapter_tensor *t = shape_matrix(a, (size_t)MODULE_NONE, key, rows, cols, err);
    if (t)
        t->is_unsaved = true;
    return t;
}

adapter_tensor *encoder_tensor_at(const adapter *a, const char *name) {
    char key[128];
    tensor_key(key, sizeof key, name);
    return adapter_tensor_at(a, (size_t)MODULE_NONE, key);
}

graft_status encoder_output_tensor(adapter *a, int64_t rows, int64_t cols, graft_error *err) {
    adapter_tensor *t = shape_matrix(a, (size_t)MODULE_NONE, PROMPT_EMBEDDINGS, rows, cols, err);
    if (!t)
        return GRAFT_E_MEMORY;
    t->is_fixed = true;
    return GRAFT_OK;
}

graft_status prompt_encoder_shape(adapter *a, prompt_encoder *e, graft_error *err) {
    for (int32_t i = 0; i < e->n_layers; i++) {
        encoder_layer *layer = &e->layers[i];
        char name[64];
        snprintf(name, sizeof name, "%s.weight", layer->name);
        if (!encoder_tensor(a, name, layer->out, layer->in, err))
            return GRAFT_E_MEMORY;
        snprintf(name, sizeof name, "%s.bias", layer->name);
        if (!encoder_tensor(a, name, layer->out, 0, err))
            return GRAFT_E_MEMORY;
        layer->before = shape_derived(a, e->rows * layer->out, true, err);
        layer->after = layer->act == ACTIVATION_IDENTITY
                           ? layer->before
                           : shape_derived(a, e->rows * layer->out, true, err);
        if (layer->before == SIZE_MAX || layer->after == SIZE_MAX)
            return GRAFT_E_MEMORY;
    }
    return GRAFT_OK;
}

void prompt_encoder_find(const adapter *a, prompt_encoder *e) {
    for (int32_t i = 0; i < e->n_layers; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.weight", e->layers[i].name);
        e->layers[i].weight = encoder_tensor_at(a, name);
        snprintf(name, sizeof name, "%s.bias", e->layers[i].name);
        e->layers[i].bias = encoder_tensor_at(a, name);
    }
}

void prompt_encoder_init(const prompt_encoder *e, backend *dev, rng *random) {
    for (int32_t i = 0; i < e->n_layers; i++) {
        const double spread = 1 / sqrt((double)e->layers[i].in);
        shape_fill(e->layers[i].weight, dev, DRAW_UNIFORM, spread, random);
        shape_fill(e->layers[i].bias, dev, DRAW_UNIFORM, spread, random);
    }
}

/* ---- Passes ---- */

const derived_array *prompt_encoder_output(const adapter *a, const prompt_encoder *e) {
    return &a->derived[e->layers[e->n_layers - 1].after];
}

void prompt_encoder_fwd(const adapter *a, const prompt_encoder *e, backend *dev,
                        const device_array *x) {
    for (int32_t i = 0; i < e->n_layers; i++) {
        const encoder_layer *l = &e->layers[i];
        device_array *before = a->derived[l->before].value, *after = a->derived[l->after].value;
        dev->ops->matmul(dev, &(matmul_call){.c = before,
                                             .c_stride = l->out,
                                             .rows = e->rows,
                                             .cols = l->out,
                                             .k = l->in,
                                             .a = {x, l->in, false},
                                             .b = {l->weight->value, l->in, true},
                                             .scale = 1});
        dev->ops->add_rows(dev, before, l->bias->value, e->rows, l->out);
        if (after != before)
            dev->ops->activation_fwd(dev, after, before, l->act, e->rows * l->out);
        x = after;
    }
}

/* dx [rows, in] (+)= dy W; the layer's own gradients are added to. */
static void layer_backward(const encoder_layer *l, backend *dev, int64_t rows,
                           const device_array *dy, const device_array *x, device_array *dx,
                           bool add) {
    dev->ops->matmul(dev, &(matmul_call){.c = l->weight->gradient,
                                         .c_stride = l->in,
                                         .rows = l->out,
                                         .cols = l->in,
                                         .k = rows,
                                         .a = {dy, l->out, true},
                                         .b = {x, l->in, false},
                                         .scale = 1,
                                         .add = true});
    dev->ops->sum_cols(dev, l->bias->gradient, dy, NULL, rows, l->out, NULL);
    if (dx)
        dev->ops->matmul(dev, &(matmul_call){.c = dx,
                                             .c_stride = l->in,
                                             .rows = rows,
                                             .cols = l->in,
                                             .k = l->out,
                                             .a = {dy, l->out, false},
                                             .b = {l->weight->value, l->in, false},
                                             .scale = 1,
                                             .add = add});
}

void prompt_encoder_bwd(const adapter *a, const prompt_encoder *e, backend *dev,
                        const device_array *x, device_array *dx) {
    for (int32_t i = e->n_layers - 1; i >= 0; i--) {
        const encoder_layer *l = &e->layers[i];
        const derived_array *before = &a->derived[l->before], *after = &a->derived[l->after];
        const derived_array *below = i > 0 ? &a->derived[e->layers[i - 1].after] : NULL;
        if (after != before)
            dev->ops->activation_bwd(dev, before->gradient, after->gradient, before->value, l->act,
                                     e->rows * l->out);
        layer_backward(l, dev, e->rows, before->gradient, below ? below->value : x,
                       below ? below->gradient : dx, !below);
    }
}

/* ---- Going on from a file ---- */

bool prompt_encoder_is_loaded(const adapter *a) {
    return !a->lacks_unsaved;
}

graft_status prompt_encoder_check_training(const adapter *a, graft_error *err) {
    bool trains = false;
    for (size_t i = 0; i < a->n_tensors; i++)
        trains = trains || a->tensors[i].gradient;
    if (!trains || prompt_encoder_is_loaded(a))
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT,
                     "this %s adapter holds what its encoder made, and not the encoder: expected "
                     "prompt_encoder.safetensors beside it, which Graft writes and PEFT does not; "
                     "start anew, or train its output with prompt_tuning or prefix_tuning",
                     a->method->name);
}
