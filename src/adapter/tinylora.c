/* TinyLoRA (as PEFT's tuners/tinylora): W' = W + B R A, with B = U sqrt(S) and A = sqrt(S) V^T of
 * W's largest singular values, and R [r, r] = sum of v_i P_i: fixed random P, and a trained vector
 * v that layers share in groups. As a low-rank term: A' = R A, made once an update. */
#include "adapter/base_weight.h"
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "base/linear_algebra.h"
#include "base/memory.h"
#include "base/torch_random.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const config_key tinylora_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "r", .kind = KEY_OURS, .fallback = "2"},
    {.name = "u", .kind = KEY_INTEGER, .fallback = "64", .min = 1, .max = 1 << 24},
    {.name = "weight_tying", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 1},
    {.name = "projection_seed",
     .kind = KEY_INTEGER,
     .fallback = "42",
     .min = 0,
     .max = 9007199254740991.0},
    {.name = "save_projection", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "init_v_bound", .kind = KEY_NUMBER, .fallback = "0.02"},
    {.name = "init_weights", .kind = KEY_ANY, .fallback = "true"},
    {.name = "tinylora_dropout", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 0.999},
    {.name = NULL},
};

typedef struct tinylora_state {
    size_t n_targets, group_size, n_groups;
    size_t mixed; /* derived: [r, r] */
} tinylora_state;

/* ---- Shape ---- */

static const adapter_tensor *vector_of(const adapter *a, size_t target) {
    const tinylora_state *s = a->state;
    size_t group = target / s->group_size;
    char name[48];
    snprintf(name, sizeof name, "base_model.tinylora_v.%zu",
             group < s->n_groups ? group : s->n_groups - 1);
    return adapter_tensor_at(a, (size_t)MODULE_NONE, name);
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t least = m->rows < m->cols ? m->rows : m->cols,
            r = a->config.r < least ? a->config.r : least;
    const int64_t shape[] = {config_integer(&a->config, "u"), r, r};
    adapter_tensor *t = shape_matrix(a, module, "tinylora_A", r, m->cols, err);
    if (t)
        t->is_fixed = true;
    if (t && (t = shape_matrix(a, module, "tinylora_B", m->rows, r, err)))
        t->is_fixed = true;
    if (t && (t = shape_tensor(a, module, "tinylora_P", 3, shape, err))) {
        t->is_fixed = true;
        t->is_rebuilt = !config_flag(&a->config, "save_projection");
    }
    return t ? derived_term_add(a, module, (int32_t)r, 1,
                                (float)config_number(&a->config, "tinylora_dropout"), true, false,
                                err)
             : GRAFT_E_MEMORY;
}

/* weight_tying 0: a vector for each target; 1: one for all. */
static graft_status add_vectors(adapter *a, graft_error *err) {
    tinylora_state *s = a->state;
    double tying = config_number(&a->config, "weight_tying");
    for (size_t i = 0; i < a->n_modules; i++)
        s->n_targets += a->targets[i].is_target;
    double groups = nearbyint((double)s->n_targets * (1 - tying));
    s->n_groups = groups > 1 ? (size_t)groups : 1;
    s->group_size = s->n_targets / s->n_groups > 1 ? s->n_targets / s->n_groups : 1;
    for (size_t i = 0; i < s->n_groups; i++) {
        char name[48];
        snprintf(name, sizeof name, "base_model.tinylora_v.%zu", i);
        if (!shape_matrix(a, (size_t)MODULE_NONE, name, config_integer(&a->config, "u"), 0, err))
            return GRAFT_E_MEMORY;
    }
    return GRAFT_OK;
}

static graft_status check_init(const adapter *a, graft_error *err) {
    const json_t *init = config_value(&a->config, "init_weights");
    if (json_is_boolean(init) ||
        (json_is_string(init) && !strcmp(json_string_value(init), "uniform")))
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT, "init_weights: expected true, false or \"uniform\"");
}

static graft_status tinylora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    tinylora_state *s = a->state = mem_array(1, sizeof *s);
    graft_status status =
        s ? check_init(a, err) : error_memory(err, sizeof *s, "the adapter's vectors");
    if (status == GRAFT_OK)
        status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = add_vectors(a, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK &&
        (s->mixed = shape_derived(a, (int64_t)a->config.r * a->config.r, false, err)) == SIZE_MAX)
        status = GRAFT_E_MEMORY;
    return status;
}

static void tinylora_destroy(adapter *a) {
    free(a->state);
    a->state = NULL;
}

/* ---- The term ---- */

static void tinylora_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_terms; i++)
        a->terms[i].b = adapter_tensor_at(a, derived_term_at(a, i)->module, "tinylora_B")->value;
    derived_terms_bind(a, hooks);
}

static graft_status tinylora_prepare(adapter *a, backend *dev, weight_source *weights,
                                     graft_error *err) {
    const tinylora_state *s = a->state;
    device_array *mixed = a->derived[s->mixed].value;
    int64_t u = config_integer(&a->config, "u");
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = derived_term_at(a, i);
        int64_t r = place->rank;
        dev->ops->matmul(
            dev, &(matmul_call){
                     .c = mixed,
                     .c_stride = r * r,
                     .rows = 1,
                     .cols = r * r,
                     .k = u,
                     .a = {vector_of(a, i)->value, u, false},
                     .b = {adapter_tensor_at(a, place->module, "tinylora_P")->value, r * r, false},
                     .scale = 1});
        dev->ops->matmul(
            dev, &(matmul_call){.c = derived_term_a(a, i)->value,
                                .c_stride = place->in,
                                .rows = r,
                                .cols = place->in,
                                .k = r,
                                .a = {mixed, r, false},
                                .b = {adapter_tensor_at(a, place->module, "tinylora_A")->value,
                                      place->in, false},
                                .scale = 1});
    }
    return GRAFT_OK;
}

/* dR = dA' A^T, dv_i = P_i . dR */
static double tinylora_chain(adapter *a, backend *dev) {
    const tinylora_state *s = a->state;
    device_array *mixed = a->derived[s->mixed].value;
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = derived_term_at(a, i);
        int64_t r = place->rank;
        dev->ops->matmul(
            dev, &(matmul_call){.c = mixed,
                                .c_stride = r,
                                .rows = r,
                                .cols = r,
                                .k = place->in,
                                .a = {derived_term_a(a, i)->gradient, place->in, false},
                                .b = {adapter_tensor_at(a, place->module, "tinylora_A")->value,
                                      place->in, true},
                                .scale = 1});
        dev->ops->matmul(
            dev, &(matmul_call){
                     .c = vector_of(a, i)->gradient,
                     .c_stride = 1,
                     .rows = config_integer(&a->config, "u"),
                     .cols = 1,
                     .k = r * r,
                     .a = {adapter_tensor_at(a, place->module, "tinylora_P")->value, r * r, false},
                     .b = {mixed, 1, false},
                     .scale = 1,
                     .add = true});
    }
    return 0;
}

/* ---- First values ---- */

static graft_status draw_projections(adapter *a, backend *dev, graft_error *err) {
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = derived_term_at(a, i);
        const adapter_tensor *p = adapter_tensor_at(a, place->module, "tinylora_P");
        torch_random random;
        float *drawn = mem_array((size_t)p->count, sizeof *drawn);
        if (!drawn)
            return error_memory(err, (size_t)p->count * sizeof *drawn, p->key);
        torch_random_seed(&random, (uint64_t)config_integer(&a->config, "projection_seed") + i);
        torch_random_normal(&random, drawn, p->count, 0, 1 / sqrt((double)place->rank));
        dev->ops->upload(dev, p->value, drawn, DTYPE_F32, p->count);
        free(drawn);
    }
    return GRAFT_OK;
}

static graft_status init_factors(adapter *a, backend *dev, const weight_source *weights,
                                 size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    const adapter_tensor *right = adapter_tensor_at(a, module, "tinylora_A"),
                         *left = adapter_tensor_at(a, module, "tinylora_B");
    int64_t least = m->rows < m->cols ? m->rows : m->cols, r = right->shape[0];
    double *w = mem_array((size_t)(m->rows * m->cols), sizeof *w),
           *u = mem_array((size_t)(m->rows * least), sizeof *u),
           *singular = mem_array((size_t)least, sizeof *singular),
           *vt = mem_array((size_t)(least * m->cols), sizeof *vt);
    graft_status status = w && u && singular && vt
                              ? base_weight_rows(w, a, module, weights, 0, m->rows, err)
                              : error_memory(err, (size_t)(m->rows * m->cols) * sizeof *w, m->name);
    if (status == GRAFT_OK)
        status = linear_svd(u, singular, vt, w, m->rows, m->cols, err);
    if (status == GRAFT_OK) {
        for (int64_t row = 0; row < m->rows; row++)
            for (int64_t i = 0; i < r; i++)
                u[row * r + i] = u[row * least + i] * sqrt(singular[i]);
        for (int64_t i = 0; i < r * m->cols; i++)
            vt[i] *= sqrt(singular[i / m->cols]);
        dev->ops->upload(dev, left->value, u, DTYPE_F64, left->count);
        dev->ops->upload(dev, right->value, vt, DTYPE_F64, right->count);
    }
    free(w);
    free(u);
    free(singular);
    free(vt);
    return status;
}

static graft_status tinylora_init(adapter *a, backend *dev, const weight_source *weights,
                                  rng *random, graft_error *err) {
    const tinylora_state *s = a->state;
    bool is_uniform = json_is_string(config_value(&a->config, "init_weights"));
    for (size_t i = 0; i < s->n_targets; i++)
        shape_fill(vector_of(a, i), dev, is_uniform ? DRAW_UNIFORM : DRAW_CONSTANT,
                   is_uniform ? config_number(&a->config, "init_v_bound") : 0, random);
    graft_status status = draw_projections(a, dev, err);
    for (size_t i = 0; i < a->n_terms && status == GRAFT_OK; i++)
        status = init_factors(a, dev, weights, derived_term_at(a, i)->module, err);
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

static graft_status tinylora_load(adapter *a, backend *dev, const weight_source *weights,
                                  const char *folder, graft_error *err) {
    graft_status status = peft_load(a, dev, weights, folder, err);
    return status == GRAFT_OK && !config_flag(&a->config, "save_projection")
               ? draw_projections(a, dev, err)
               : status;
}

const adapter_method tinylora_method = {
    .peft_type = "TINYLORA",
    .name = "tinylora",
    .summary = "a few numbers that mix random directions between singular vectors (TinyLoRA)",
    .family = "low rank",
    .paper = "Morris et al. 2026, arXiv:2602.04118",
    .target_kinds = TARGET_LINEAR,
    .keys = tinylora_keys,
    .shape = tinylora_shape,
    .destroy = tinylora_destroy,
    .init = tinylora_init,
    .bind = tinylora_bind,
    .prepare = tinylora_prepare,
    .chain = tinylora_chain,
    .merge = derived_terms_merge,
    .load = tinylora_load,
    .save = peft_save,
};
