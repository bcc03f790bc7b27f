#include "adapter/freed.h"

#include <assert.h>
#include <stdio.h>

static const model_module *module_of_kind(const adapter *a, module_kind kind) {
    size_t i = 0;
    while (a->modules[i].kind != kind)
        i++;
    return &a->modules[i];
}

static bool is_bias_of(const model_module *module, const adapter_tensor *tensor) {
    return module->kind != MODULE_NORM && tensor->rank == 1;
}

void freed_tensor(adapter_tensor *tensor, const adapter *a, size_t module, bool is_bias) {
    const model_module *m = &a->modules[module];
    bool is_matrix = !is_bias && m->kind != MODULE_NORM;
    *tensor = (adapter_tensor){
        .role = ROLE_FREED,
        .rank = is_matrix ? 2 : 1,
        .shape = {m->rows, is_matrix ? m->cols : 0},
        .count = is_matrix ? m->rows * m->cols : m->rows,
        .module = module,
        .stored = DTYPE_F32,
    };
}

void freed_base_name(char *out, size_t capacity, const adapter *a, size_t module, bool is_bias) {
    const model_module *m = &a->modules[module];
    if (m->is_tied && !is_bias)
        m = module_of_kind(a, MODULE_EMBEDDING);
    snprintf(out, capacity, "%s.%s", m->name, is_bias ? "bias" : "weight");
}

graft_status freed_init(const adapter *a, const adapter_tensor *tensor, backend *dev,
                        const weight_source *weights, graft_error *err) {
    char name[sizeof tensor->key];
    tensor_view stored;
    freed_base_name(name, sizeof name, a, tensor->module,
                    is_bias_of(&a->modules[tensor->module], tensor));
    if (!weights || !weight_source_tensor(&stored, weights, name))
        return error_set(err, GRAFT_E_INTERNAL, "%s starts from the base's %s, which is not open",
                         tensor->key, name);
    assert(tensor_count(&stored) == (size_t)tensor->count);
    dev->ops->upload(dev, tensor->value, stored.data, stored.type, tensor->count);
    return GRAFT_OK;
}

void freed_bind(const adapter *a, const adapter_tensor *tensor, model_hooks *hooks) {
    const model_module *module = &a->modules[tensor->module];
    freed_parameter freed = {tensor->value, tensor->gradient, true};
    if (module->kind == MODULE_NORM)
        *model_hooks_norm(hooks, module) = freed;
    else if (is_bias_of(module, tensor))
        model_hooks_linear(hooks, module)->bias = freed;
    else
        model_hooks_linear(hooks, module)->weight = freed;
}

void freed_bind_tied_head(const adapter *a, const adapter_tensor *embedding, model_hooks *hooks) {
    const model_module *head = module_of_kind(a, MODULE_HEAD);
    model_hooks_linear(hooks, head)->weight =
        (freed_parameter){embedding->value, embedding->gradient, true};
}
