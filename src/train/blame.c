#include "train/run.h"

#include <math.h>
#include <stdio.h>

static bool is_finite(backend *dev, const device_array *x, int64_t n) {
    return isfinite(dev->ops->sum_squares(dev, x, n));
}

/* Passes the micro-batch once more, block by block, and looks after each. */
graft_status blame_forward(numeric_blame *blame, const model_run *model, step_buffers *buffers,
                           const batch *b, graft_error *err) {
    const model_spec *spec = model->spec;
    int64_t n = (int64_t)b->tokens.n * spec->hidden;
    graft_status status = step_embed(model, buffers, b, err);
    if (status == GRAFT_OK && !is_finite(model->dev, buffers->x, n)) {
        snprintf(blame->text, sizeof blame->text, "the output of %s", spec->family->embedding_name);
        return GRAFT_OK;
    }
    for (int32_t l = 0; l < spec->n_layers && status == GRAFT_OK; l++) {
        layer_weights weights;
        status = layer_acquire(&weights, model->weights, l, 1, err);
        if (status != GRAFT_OK)
            break;
        block_fwd(model, l, &weights, b, buffers, &buffers->saved[l]);
        layer_release(model->weights, l);
        if (is_finite(model->dev, buffers->x, n))
            continue;
        snprintf(blame->text, sizeof blame->text, "the output of %s.%d", spec->family->layers_path,
                 l);
        return GRAFT_OK;
    }
    snprintf(blame->text, sizeof blame->text, "the output of %s", spec->family->head_name);
    return status;
}

static int32_t layer_of(const adapter *a, const adapter_tensor *tensor) {
    if (tensor->module == (size_t)MODULE_NONE)
        return -1;
    const model_module *module = &a->modules[tensor->module];
    return module->layer >= 0 ? module->layer : module->kind == MODULE_EMBEDDING ? -1 : INT32_MAX;
}

/* Backward runs from the head down, so the bad gradient of the highest layer came first. */
void blame_gradients(numeric_blame *blame, const adapter *a, backend *dev) {
    const adapter_tensor *worst = NULL;
    int32_t worst_layer = 0;
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *tensor = &a->tensors[i];
        if (tensor->is_fixed || is_finite(dev, tensor->gradient, tensor->count))
            continue;
        int32_t layer = layer_of(a, tensor);
        if (!worst || layer > worst_layer) {
            worst = tensor;
            worst_layer = layer;
        }
    }
    if (worst)
        snprintf(blame->text, sizeof blame->text, "the gradient of %s", worst->key);
    else
        snprintf(blame->text, sizeof blame->text, "the gradient's norm");
}
