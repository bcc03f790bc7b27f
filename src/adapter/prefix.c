#include "adapter/prefix.h"

#include "adapter/virtual_tokens.h"
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>

int64_t prefix_width(const adapter *a) {
    return (int64_t)a->spec->n_kv_heads * a->spec->head_dim;
}

graft_status prefix_create(prefix *p, adapter *a, graft_error *err) {
    const int32_t n = virtual_tokens_count(a), parts = 2 * a->spec->n_layers;
    *p = (prefix){.n = n, .width = prefix_width(a)};
    p->rows = mem_array((size_t)parts * (size_t)n, sizeof *p->rows);
    p->past = mem_array((size_t)a->spec->n_layers, sizeof *p->past);
    if (!p->rows || !p->past)
        return error_memory(err, (size_t)parts * (size_t)n * sizeof *p->rows, "the prefix");
    for (int32_t part = 0; part < parts; part++)
        for (int32_t t = 0; t < n; t++)
            p->rows[part * n + t] = t * parts + part;
    p->ordered = shape_derived(a, parts * n * p->width, true, err);
    return p->ordered == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
}

void prefix_free(prefix *p) {
    free(p->rows);
    free(p->past);
    *p = (prefix){0};
}

static device_array *part_of(device_array *array, size_t part, size_t bytes) {
    return array ? (device_array *)((unsigned char *)array + part * bytes) : NULL;
}

void prefix_bind(const prefix *p, const adapter *a, model_hooks *hooks) {
    const derived_array *ordered = &a->derived[p->ordered];
    const size_t bytes = a->element_bytes * (size_t)(p->n * p->width);
    for (int32_t layer = 0; layer < a->spec->n_layers; layer++) {
        size_t key = 2 * (size_t)layer;
        p->past[layer] = (kv_view){.k = part_of(ordered->value, key, bytes),
                                   .v = part_of(ordered->value, key + 1, bytes),
                                   .dk = part_of(ordered->gradient, key, bytes),
                                   .dv = part_of(ordered->gradient, key + 1, bytes),
                                   .length = p->n};
    }
    hooks->sequence = (sequence_hook){.past = p->past, .past_length = p->n};
}

static int64_t row_count(const prefix *p, const adapter *a) {
    return 2 * (int64_t)a->spec->n_layers * p->n;
}

void prefix_order(const prefix *p, const adapter *a, backend *dev, const device_array *values) {
    dev->ops->gather_rows(dev, a->derived[p->ordered].value, values, p->rows, row_count(p, a),
                          p->width);
}

void prefix_unorder(const prefix *p, const adapter *a, backend *dev, device_array *gradient) {
    dev->ops->scatter_add_rows(dev, gradient, a->derived[p->ordered].gradient, p->rows,
                               row_count(p, a), p->width);
}
