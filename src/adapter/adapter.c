#include "adapter/adapter.h"

#include "base/memory.h"

#include <stdlib.h>

graft_status adapter_create(adapter **out, const adapter_config *config, const model_spec *spec,
                            int32_t job, const message_sink *sink, graft_error *err) {
    *out = NULL;
    adapter *a = mem_array(1, sizeof *a);
    if (!a)
        return error_memory(err, sizeof *a, "an adapter");
    a->spec = spec;
    a->job = job;
    graft_status status = adapter_config_check(config, "the adapter's settings", err);
    if (status == GRAFT_OK)
        status = adapter_config_copy(&a->config, config, err);
    if (status == GRAFT_OK && !(a->method = adapter_method_find(config->method)))
        status =
            error_set(err, GRAFT_E_UNSUPPORTED, "method \"%s\" is not supported", config->method);
    if (status == GRAFT_OK)
        status = model_modules(&a->modules, &a->n_modules, spec, err);
    if (status == GRAFT_OK)
        status = a->method->shape(a, sink, err);
    if (status != GRAFT_OK)
        adapter_destroy(&a);
    *out = a;
    return status;
}

void adapter_destroy(adapter **a) {
    if (!*a)
        return;
    adapter_config_free(&(*a)->config);
    free((*a)->modules);
    free((*a)->tensors);
    free((*a)->terms);
    free((*a)->copies);
    free(*a);
    *a = NULL;
}

int64_t adapter_trained_count(const adapter *a) {
    int64_t count = 0;
    for (size_t i = 0; i < a->n_tensors; i++)
        count += a->tensors[i].count;
    return count;
}

void adapter_layout(adapter *a, layout *l, size_t element_bytes, bool training) {
    for (size_t i = 0; i < a->n_tensors; i++) {
        adapter_tensor *t = &a->tensors[i];
        component values = t->role == ROLE_FREED ? COMPONENT_WEIGHTS : COMPONENT_ADAPTER;
        size_t count = (size_t)t->count;
        t->value = layout_take(l, values, count, element_bytes);
        t->gradient = t->moment1 = t->moment2 = NULL;
        if (!training)
            continue;
        t->gradient = layout_take(l, COMPONENT_GRADIENTS, count, element_bytes);
        t->moment1 = layout_take(l, COMPONENT_OPTIMIZER, count, element_bytes);
        t->moment2 = layout_take(l, COMPONENT_OPTIMIZER, count, element_bytes);
    }
}

void adapter_bind(adapter *a, model_hooks *hooks) {
    a->method->bind(a, hooks);
}

graft_status adapter_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                          graft_error *err) {
    return a->method->init(a, dev, weights, random, err);
}

graft_status adapter_load(adapter *a, backend *dev, const weight_source *weights,
                          const char *folder, graft_error *err) {
    return a->method->load(a, dev, weights, folder, err);
}

graft_status adapter_save(const adapter *a, backend *dev, const weight_source *weights,
                          const char *folder, const char *base_name, graft_error *err) {
    return a->method->save(a, dev, weights, folder, base_name, err);
}
