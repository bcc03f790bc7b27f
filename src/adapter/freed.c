#include "adapter/freed.h"

#include <assert.h>
#include <stdio.h>

static const model_module *module_of_kind(const adapter *a, module_kind kind) {
    size_t i = 0;
    while (a->modules[i].kind != kind)
        i++;
    return &a->modules[i];
}

void freed_tensor(adapter_tensor *tensor, const adapter *a, size_t module, bool is_bias) {
    const model_module *m = &a->modules[module];
    *tensor = (adapter_tensor){
        .role = ROLE_FREED,
        .rank = 1,
        .shape = {m->rows},
        .count = is_bias ? model_bias_count(m) : model_weight_count(m),
        .module = module,
        .stored = DTYPE_F32,
        .is_fixed = m->kind == MODULE_BUFFER,
        .is_bias = is_bias,
    };
    if (!is_bias)
        tensor->rank = model_stored_shape(tensor->shape, m);
    else if (m->n_stacked) {
        tensor->rank = 2;
        tensor->shape[0] = m->n_stacked;
        tensor->shape[1] = m->rows;
    }
}

void freed_base_name(char *out, size_t capacity, const adapter *a, size_t module, bool is_bias) {
    const model_module *m = &a->modules[module];
    if (m->is_tied && !is_bias)
        m = module_of_kind(a, MODULE_EMBEDDING);
    model_tensor_name(out, capacity, m, is_bias);
}

graft_status freed_init(const adapter *a, const adapter_tensor *tensor, backend *dev,
                        const weight_source *weights, graft_error *err) {
    char name[sizeof tensor->key];
    tensor_view stored;
    freed_base_name(name, sizeof name, a, tensor->module, tensor->is_bias);
    if (!weights || !weight_source_tensor(&stored, weights, name))
        return error_set(err, GRAFT_E_INTERNAL, "%s starts from the base's %s, which is not open",
                         tensor->key, name);
    assert(tensor_count(&stored) == (size_t)tensor->count);
    dev->ops->upload(dev, tensor->value, stored.data, stored.type, tensor->count);
    return GRAFT_OK;
}

void freed_bind(const adapter *a, const adapter_tensor *tensor, model_hooks *hooks) {
    const model_module *module = &a->modules[tensor->module];
    if (module->kind == MODULE_BUFFER)
        return;
    *model_hooks_parameter(hooks, module, tensor->is_bias) =
        (freed_parameter){tensor->value, tensor->gradient, true};
}

void freed_bind_tied_head(const adapter *a, const adapter_tensor *embedding, model_hooks *hooks) {
    const model_module *head = module_of_kind(a, MODULE_HEAD);
    model_hooks_linear(hooks, head)->weight =
        (freed_parameter){embedding->value, embedding->gradient, true};
}
