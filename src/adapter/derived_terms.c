#include "adapter/derived_terms.h"

#include "base/memory.h"

#include <stdint.h>

graft_status derived_term_add(adapter *a, size_t module, int32_t rank, double scale, float dropout,
                              bool owns_a, bool owns_b, graft_error *err) {
    const model_module *m = &a->modules[module];
    if (!a->terms) {
        a->terms = mem_array(a->n_modules, sizeof *a->terms);
        a->term_places = mem_array(a->n_modules, sizeof *a->term_places);
        if (!a->terms || !a->term_places)
            return error_memory(err, a->n_modules * sizeof *a->terms, "the adapter's terms");
    }
    derived_term *place = &a->term_places[a->n_terms];
    *place = (derived_term){.module = module,
                            .rank = rank,
                            .in = m->cols,
                            .out = m->rows,
                            .a_index = SIZE_MAX,
                            .b_index = SIZE_MAX};
    if (owns_a && (place->a_index = shape_derived(a, rank * m->cols, true, err)) == SIZE_MAX)
        return GRAFT_E_MEMORY;
    if (owns_b && (place->b_index = shape_derived(a, rank * m->rows, true, err)) == SIZE_MAX)
        return GRAFT_E_MEMORY;
    a->terms[a->n_terms++] = (low_rank_term){.scale = (float)scale,
                                             .rank = rank,
                                             .job = a->job,
                                             .dropout = dropout,
                                             .dropout_stream = (uint32_t)module};
    return GRAFT_OK;
}

const derived_term *derived_term_at(const adapter *a, size_t i) {
    return &a->term_places[i];
}

derived_array *derived_term_a(const adapter *a, size_t i) {
    size_t index = a->term_places[i].a_index;
    return index == SIZE_MAX ? NULL : &a->derived[index];
}

derived_array *derived_term_b(const adapter *a, size_t i) {
    size_t index = a->term_places[i].b_index;
    return index == SIZE_MAX ? NULL : &a->derived[index];
}

void derived_terms_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_array *left = derived_term_b(a, i), *right = derived_term_a(a, i);
        low_rank_term *term = &a->terms[i];
        if (right) {
            term->a = right->value;
            term->da = right->gradient;
        }
        if (left) {
            term->b = left->value;
            term->db = left->gradient;
        }
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[a->term_places[i].module]);
        hook->terms = term;
        hook->n_terms = 1;
    }
    shape_bind_freed(a, hooks);
}

graft_status derived_terms_merge(adapter *a, backend *dev, size_t module, device_array *w,
                                 device_array *bias, device_array *scratch, graft_error *err) {
    (void)bias;
    (void)scratch;
    (void)err;
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = &a->term_places[i];
        const low_rank_term *term = &a->terms[i];
        if (place->module != module)
            continue;
        const matmul_call product = {.c = w,
                                     .c_stride = place->in,
                                     .rows = place->out,
                                     .cols = place->in,
                                     .k = place->rank,
                                     .a = {term->b, place->rank, false},
                                     .b = {term->a, place->in, false},
                                     .scale = (double)term->scale,
                                     .add = true};
        dev->ops->matmul(dev, &product);
    }
    return GRAFT_OK;
}
