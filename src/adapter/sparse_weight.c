#include "adapter/sparse_weight.h"

#include "base/memory.h"
#include "base/torch_random.h"

#include <stdlib.h>

graft_status sparse_check_size(const model_module *m, const char *method, graft_error *err) {
    if (m->rows <= INT32_MAX / m->cols)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s on %s: a weight of more than 2^31 elements is not supported", method,
                     m->name);
}

graft_status sparse_entries_create(sparse_entries **out, adapter *a, int64_t n, bool has_factors,
                                   graft_error *err) {
    sparse_entries *e = *out = mem_array(1, sizeof *e);
    if (e) {
        e->n = n;
        e->place = mem_array((size_t)n, sizeof *e->place);
    }
    if (e && has_factors) {
        e->source = mem_array((size_t)n, sizeof *e->source);
        e->factor = mem_array((size_t)n, sizeof *e->factor);
    }
    graft_status status = GRAFT_OK;
    if (!e || !e->place || (has_factors && (!e->source || !e->factor)))
        status = error_memory(err, (size_t)n * sizeof *e->factor, "an adapter's positions");
    else if (has_factors && (e->factor_on_device = shape_derived(a, n, false, err)) == SIZE_MAX)
        status = GRAFT_E_MEMORY;
    if (status != GRAFT_OK)
        sparse_entries_free(out);
    return status;
}

void sparse_entries_free(sparse_entries **e) {
    if (!*e)
        return;
    free((*e)->place);
    free((*e)->source);
    free((*e)->factor);
    free(*e);
    *e = NULL;
}

sparse_entries *sparse_entries_of(const adapter *a, size_t module) {
    return dense_weight_at(a, module)->own;
}

void sparse_entries_set(adapter *a, size_t module, sparse_entries *e) {
    dense_weight_at(a, module)->own = e;
}

static bool is_first_of(const adapter *a, size_t module) {
    for (size_t i = 0; i < module; i++)
        if (sparse_entries_of(a, i) == sparse_entries_of(a, module))
            return false;
    return true;
}

/* Backwards, so that what is shared goes last with its first module. */
void sparse_destroy(adapter *a) {
    for (size_t i = a->n_modules; a->state && i-- > 0;) {
        sparse_entries *e = sparse_entries_of(a, i);
        if (e && is_first_of(a, i))
            sparse_entries_free(&e);
    }
    dense_destroy(a);
}

graft_status sparse_prepare(adapter *a, backend *dev, weight_source *weights, graft_error *err) {
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_modules; i++) {
        const sparse_entries *e = sparse_entries_of(a, i);
        if (e && e->factor && is_first_of(a, i))
            dev->ops->upload(dev, a->derived[e->factor_on_device].value, e->factor, DTYPE_F64,
                             e->n);
    }
    return GRAFT_OK;
}

graft_status random_places(int32_t **out, int64_t n, int64_t elements, uint64_t seed,
                           graft_error *err) {
    torch_random generator;
    int64_t *drawn = mem_array((size_t)n, sizeof *drawn);
    *out = mem_array((size_t)n, sizeof **out);
    graft_status status = GRAFT_OK;
    if (!drawn || !*out)
        status = error_memory(err, (size_t)n * sizeof *drawn, "an adapter's positions");
    torch_random_seed(&generator, seed);
    if (status == GRAFT_OK)
        status = torch_random_permutation(&generator, drawn, n, elements, err);
    for (int64_t i = 0; i < n && status == GRAFT_OK; i++)
        (*out)[i] = (int32_t)drawn[i];
    free(drawn);
    return status;
}

/* Two arrays of the entries. */
int64_t sparse_scratch_elements(const dense_weight *w) {
    return 2 * ((const sparse_entries *)w->own)->n;
}

static const device_array *factors(const dense_weight *w, const sparse_entries *e) {
    return w->adapter->derived[e->factor_on_device].value;
}

void sparse_apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    const sparse_entries *e = w->own;
    const device_array *added = w->tensors[0]->value;
    if (e->factor) {
        dev->ops->gather_rows(dev, scratch, added, e->source, e->n, 1);
        dev->ops->mul(dev, scratch, scratch, factors(w, e), e->n, false);
        added = scratch;
    }
    dev->ops->scatter_add_rows(dev, weight, added, e->place, e->n, 1);
}

void sparse_apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    const sparse_entries *e = w->own;
    device_array *gradient = w->tensors[0]->gradient;
    (void)base;
    dev->ops->gather_rows(dev, scratch, d_w, e->place, e->n, 1);
    if (!e->factor) {
        dev->ops->add(dev, gradient, scratch, e->n);
        return;
    }
    dev->ops->mul(dev, scratch, scratch, factors(w, e), e->n, false);
    dev->ops->scatter_add_rows(dev, gradient, scratch, e->source, e->n, 1);
}
