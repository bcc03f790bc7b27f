#include "adapter/adapter.h"

#include "adapter/targets.h"
#include "base/memory.h"

#include <stdlib.h>

/* PEFT's fan_in_fan_out says what the base's weights look like, and is corrected by what they are.
 */
static void state_transposed(adapter *a) {
    if (json_object_get(a->config.fields, "fan_in_fan_out"))
        json_object_set_new(a->config.fields, "fan_in_fan_out",
                            json_boolean(a->spec->is_transposed));
}

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
    if (status == GRAFT_OK) {
        state_transposed(a);
        status = a->method->shape(a, sink, err);
    }
    if (status != GRAFT_OK)
        adapter_destroy(&a);
    *out = a;
    return status;
}

void adapter_destroy(adapter **a) {
    if (!*a)
        return;
    if ((*a)->method && (*a)->method->destroy)
        (*a)->method->destroy(*a);
    adapter_config_free(&(*a)->config);
    for (size_t i = 0; i < (*a)->n_tensors; i++)
        free((*a)->tensors[i].integers);
    free((*a)->start_ids);
    free((*a)->targets);
    free((*a)->derived);
    free((*a)->modules);
    free((*a)->tensors);
    free((*a)->terms);
    free((*a)->term_places);
    free((*a)->copies);
    free(*a);
    *a = NULL;
}

int64_t adapter_trained_count(const adapter *a) {
    int64_t count = 0;
    for (size_t i = 0; i < a->n_tensors; i++)
        count += a->tensors[i].is_fixed ? 0 : a->tensors[i].count;
    return count;
}

void adapter_layout(adapter *a, layout *l, size_t element_bytes, bool training) {
    a->element_bytes = element_bytes;
    for (size_t i = 0; i < a->n_tensors; i++) {
        adapter_tensor *t = &a->tensors[i];
        component values = t->role == ROLE_FREED ? COMPONENT_WEIGHTS : COMPONENT_ADAPTER;
        size_t count = (size_t)t->count;
        t->value = t->integers ? NULL : layout_take(l, values, count, element_bytes);
        t->gradient = t->moment1 = t->moment2 = NULL;
        if (!training || t->is_fixed)
            continue;
        t->gradient = layout_take(l, COMPONENT_GRADIENTS, count, element_bytes);
        t->moment1 = layout_take(l, COMPONENT_OPTIMIZER, count, element_bytes);
        t->moment2 = layout_take(l, COMPONENT_OPTIMIZER, count, element_bytes);
    }
    for (size_t i = 0; i < a->n_derived; i++) {
        derived_array *d = &a->derived[i];
        size_t count = (size_t)d->count;
        d->value = layout_take(l, COMPONENT_WORKSPACE, count, element_bytes);
        d->gradient = training && d->has_gradient
                          ? layout_take(l, COMPONENT_WORKSPACE, count, element_bytes)
                          : NULL;
    }
    a->optimizer_scratch =
        training && a->optimizer_room
            ? layout_take(l, COMPONENT_OPTIMIZER, (size_t)a->optimizer_room, element_bytes)
            : NULL;
}

void adapter_bind(adapter *a, model_hooks *hooks) {
    a->method->bind(a, hooks);
}

graft_status adapter_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                          graft_error *err) {
    return a->method->init(a, dev, weights, random, err);
}

graft_status adapter_prepare(adapter *a, backend *dev, weight_source *weights, graft_error *err) {
    return a->method->prepare ? a->method->prepare(a, dev, weights, err) : GRAFT_OK;
}

void adapter_zero_gradients(adapter *a, backend *dev) {
    for (size_t i = 0; i < a->n_tensors; i++)
        if (!a->tensors[i].is_fixed)
            dev->ops->fill(dev, a->tensors[i].gradient, 0, a->tensors[i].count);
    for (size_t i = 0; i < a->n_derived; i++)
        if (a->derived[i].gradient)
            dev->ops->fill(dev, a->derived[i].gradient, 0, a->derived[i].count);
}

double adapter_chain(adapter *a, backend *dev) {
    return a->method->chain ? a->method->chain(a, dev) : 0;
}

graft_status adapter_updated(adapter *a, backend *dev, adapter_progress progress,
                             graft_error *err) {
    return a->method->updated ? a->method->updated(a, dev, progress, err) : GRAFT_OK;
}

graft_status adapter_check_merge(const adapter *a, graft_error *err) {
    const char *obstacle = !a->method->merge           ? "it is no change of weights"
                           : a->method->merge_obstacle ? a->method->merge_obstacle(a)
                                                       : NULL;
    if (!obstacle)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "an adapter of method %s cannot be merged: %s; use it beside the base with "
                     "--adapter",
                     a->method->name, obstacle);
}

graft_status adapter_check_training(const adapter *a, graft_error *err) {
    const char *obstacle = a->method->training_obstacle ? a->method->training_obstacle(a) : NULL;
    if (!obstacle)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_UNSUPPORTED, "this adapter of method %s cannot be trained on: %s",
                     a->method->name, obstacle);
}

int64_t adapter_merge_scratch(const adapter *a, size_t module) {
    return a->method->merge_scratch ? a->method->merge_scratch(a, module) : 0;
}

graft_status adapter_merge(adapter *a, backend *dev, size_t module, device_array *w,
                           device_array *bias, device_array *scratch, graft_error *err) {
    graft_status status = adapter_check_merge(a, err);
    return status == GRAFT_OK ? a->method->merge(a, dev, module, w, bias, scratch, err) : status;
}

graft_status adapter_load(adapter *a, backend *dev, const weight_source *weights,
                          const char *folder, graft_error *err) {
    return a->method->load(a, dev, weights, folder, err);
}

graft_status adapter_save(const adapter *a, backend *dev, const weight_source *weights,
                          const char *folder, const char *base_name, graft_error *err) {
    return a->method->save(a, dev, weights, folder, base_name, err);
}
