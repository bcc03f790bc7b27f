/* Super-Tuning (as PEFT's tuners/supertuning): the largest (or smallest) entries of each weight
 * train; with r, a LoRA beside them (Supra): y = (W + S) x + alpha / r B A dropout(x). */
#include "adapter/freed.h"
#include "adapter/methods.h"
#include "adapter/sparse_weight.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const config_key supertuning_keys[] = {
    TARGET_KEYS,
    {.name = "sparsity", .kind = KEY_NUMBER, .fallback = "0.99", .min = 0, .max = 1},
    {.name = "select_top", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "r", .kind = KEY_INTEGER, .fallback = "null", .min = 1, .max = LORA_RANK_MAX},
    {.name = "lora_alpha", .kind = KEY_NUMBER, .fallback = "null"},
    {.name = "lora_dropout", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 0.999},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "save_precomputed_indices",
     .kind = KEY_LACKED,
     .fallback = "true",
     .lacks = "positions that are not in the file (which of equally large entries PEFT takes is "
              "not defined)"},
    {.name = NULL},
};

static const char values_suffix[] = "supertuning_values", indices_suffix[] = "supertuning_indices",
                  a_suffix[] = "supertuning_lora_A.weight",
                  b_suffix[] = "supertuning_lora_B.weight";

static const dense_method supertuning_weight = {
    .suffixes = {values_suffix},
    .scratch_elements = sparse_scratch_elements,
    .apply = sparse_apply,
    .apply_bwd = sparse_apply_bwd,
};

/* ---- Shape ---- */

static int64_t count_of(const adapter *a, size_t module) {
    const model_module *m = &a->modules[module];
    return (int64_t)((double)(m->rows * m->cols) * (1 - config_number(&a->config, "sparsity")));
}

/* 0: no LoRA. */
static int32_t rank_of(const adapter *a) {
    return (int32_t)config_integer(&a->config, "r");
}

/* As PEFT: without an alpha, 2 r; an alpha without r is a mistake. */
static graft_status settle_alpha(adapter *a, graft_error *err) {
    bool has_alpha = !json_is_null(config_value(&a->config, "lora_alpha"));
    if (!rank_of(a) && has_alpha)
        return error_set(err, GRAFT_E_INPUT,
                         "lora_alpha is set but r is not (PEFT refuses it too): set r for a LoRA "
                         "beside the entries, or drop lora_alpha");
    if (rank_of(a) && !has_alpha &&
        json_object_set_new(a->config.fields, "lora_alpha", json_integer(2 * rank_of(a))) != 0)
        return error_memory(err, 64, "lora_alpha");
    return GRAFT_OK;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t n = count_of(a, module);
    graft_status status = sparse_check_size(m, "supertuning", err);
    if (status == GRAFT_OK && m->is_transposed)
        status =
            error_set(err, GRAFT_E_UNSUPPORTED,
                      "supertuning on %s: PEFT has it for linear layers, not for Conv1D", m->name);
    if (status != GRAFT_OK)
        return status;
    if (n < 1)
        return error_set(err, GRAFT_E_INPUT,
                         "sparsity %g leaves no entry of %s to train (PEFT refuses it too): choose "
                         "a lower one",
                         config_number(&a->config, "sparsity"), m->name);
    bool added = shape_matrix(a, module, values_suffix, n, 0, err) &&
                 shape_integers(a, module, indices_suffix, DTYPE_I32, n, 0, err);
    if (added && rank_of(a))
        added = shape_matrix(a, module, a_suffix, rank_of(a), m->cols, err) &&
                shape_matrix(a, module, b_suffix, m->rows, rank_of(a), err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status add_terms(adapter *a, graft_error *err) {
    a->terms = mem_array(a->n_modules, sizeof *a->terms);
    if (!a->terms)
        return error_memory(err, a->n_modules * sizeof *a->terms, "the adapter's terms");
    a->n_terms = a->n_modules;
    for (size_t i = 0; i < a->n_modules; i++)
        a->terms[i] =
            (low_rank_term){.scale = (float)(config_number(&a->config, "lora_alpha") / rank_of(a)),
                            .rank = rank_of(a),
                            .job = a->job,
                            .dropout = (float)config_number(&a->config, "lora_dropout"),
                            .dropout_stream = (uint32_t)i};
    return GRAFT_OK;
}

static graft_status supertuning_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    if (status == GRAFT_OK)
        status = settle_alpha(a, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK && rank_of(a))
        status = add_terms(a, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK)
        status = dense_create(a, &supertuning_weight, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        sparse_entries *e = NULL;
        if (!a->targets[i].is_target)
            continue;
        status = sparse_entries_create(&e, a, count_of(a, i), false, err);
        sparse_entries_set(a, i, e);
    }
    return status;
}

/* ---- Positions ---- */

/* The file's may be anybody's. */
static graft_status take_positions(adapter *a, const char *place, graft_error *err) {
    for (size_t i = 0; i < a->n_modules; i++) {
        const model_module *m = &a->modules[i];
        const adapter_tensor *t = adapter_tensor_at(a, i, indices_suffix);
        for (int64_t e = 0; t && e < t->count; e++) {
            if (t->integers[e] < 0 || t->integers[e] >= m->rows * m->cols)
                return error_set(err, GRAFT_E_INPUT,
                                 "%s: %s: position %lld is %lld, outside of the weight's %lld "
                                 "elements",
                                 place, t->key, (long long)e, (long long)t->integers[e],
                                 (long long)(m->rows * m->cols));
            sparse_entries_of(a, i)->place[e] = (int32_t)t->integers[e];
        }
    }
    return GRAFT_OK;
}

/* Entries in the order of their size: |w|, or its opposite when the smallest are wanted, as bits
 * that compare like the numbers. */
static uint32_t order_of(const tensor_view *w, int64_t i, bool largest) {
    float value;
    uint32_t bits;
    dtype_load_f32(&value, (const unsigned char *)w->data + (size_t)i * dtype_bytes(w->type),
                   w->type, 1);
    value = fabsf(value);
    memcpy(&bits, &value, sizeof bits);
    return largest ? bits : ~bits;
}

enum { HALF_VALUES = 1 << 16 };

/* The highest half (upper: of the bits; lower: of those whose upper half is `upper`) such that
 * `wanted` entries have at least it; *above: how many have more. */
static uint32_t threshold_half(const tensor_view *w, int64_t count, bool largest, int64_t upper,
                               int64_t wanted, int64_t *histogram, int64_t *above) {
    memset(histogram, 0, HALF_VALUES * sizeof *histogram);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = order_of(w, i, largest);
        if (upper < 0)
            histogram[bits >> 16]++;
        else if (bits >> 16 == (uint32_t)upper)
            histogram[bits & 0xffff]++;
    }
    uint32_t half = HALF_VALUES - 1;
    *above = 0;
    while (*above + histogram[half] < wanted)
        *above += histogram[half--];
    return half;
}

/* The n entries that come first in size, in the weight's order; of equal ones the earlier. */
static void select_entries(int64_t *out, int64_t n, const tensor_view *w, bool largest,
                           int64_t *histogram) {
    int64_t count = (int64_t)tensor_count(w), above_upper, above;
    uint32_t upper = threshold_half(w, count, largest, -1, n, histogram, &above_upper);
    uint32_t lower = threshold_half(w, count, largest, upper, n - above_upper, histogram, &above);
    uint32_t threshold = upper << 16 | lower;
    int64_t equal = n - above_upper - above, used = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = order_of(w, i, largest);
        if (bits > threshold || (bits == threshold && equal-- > 0))
            out[used++] = i;
    }
}

static graft_status choose_positions(adapter *a, const weight_source *weights, graft_error *err) {
    bool largest = config_flag(&a->config, "select_top");
    int64_t *histogram = mem_array(HALF_VALUES, sizeof *histogram);
    graft_status status = GRAFT_OK;
    if (!histogram)
        status = error_memory(err, HALF_VALUES * sizeof *histogram, "the choice of entries");
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        char name[sizeof a->tensors->key];
        tensor_view stored;
        const adapter_tensor *t = adapter_tensor_at(a, i, indices_suffix);
        if (!t)
            continue;
        freed_base_name(name, sizeof name, a, i, false);
        if (weights && !weight_source_files(weights)) /* of shapes alone: nothing is computed */
            continue;
        if (weights && weight_source_tensor(&stored, weights, name))
            select_entries(t->integers, t->count, &stored, largest, histogram);
        else
            status = error_set(err, GRAFT_E_INTERNAL, "%s chooses among %s, which is not open",
                               t->key, name);
    }
    free(histogram);
    return status == GRAFT_OK ? take_positions(a, "the chosen positions", err) : status;
}

static graft_status supertuning_init(adapter *a, backend *dev, const weight_source *weights,
                                     rng *random, graft_error *err) {
    bool is_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *values = adapter_tensor_at(a, i, values_suffix),
                             *left = adapter_tensor_at(a, i, b_suffix),
                             *right = adapter_tensor_at(a, i, a_suffix);
        if (values)
            shape_fill(values, dev, is_zero ? DRAW_CONSTANT : DRAW_NORMAL, is_zero ? 0 : 1, random);
        if (right)
            shape_fill(right, dev, DRAW_UNIFORM, 1 / sqrt((double)right->shape[1]), random);
        if (left)
            shape_fill(left, dev, is_zero ? DRAW_CONSTANT : DRAW_UNIFORM,
                       is_zero ? 0 : 1 / sqrt((double)left->shape[1]), random);
    }
    graft_status status = choose_positions(a, weights, err);
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

static graft_status supertuning_load(adapter *a, backend *dev, const weight_source *weights,
                                     const char *folder, graft_error *err) {
    graft_status status = peft_load(a, dev, weights, folder, err);
    return status == GRAFT_OK ? take_positions(a, folder, err) : status;
}

/* ---- Where it acts ---- */

static void supertuning_bind(adapter *a, model_hooks *hooks) {
    dense_bind(a, hooks);
    for (size_t i = 0; i < a->n_terms; i++) {
        const adapter_tensor *left = adapter_tensor_at(a, i, b_suffix),
                             *right = adapter_tensor_at(a, i, a_suffix);
        if (!left)
            continue;
        low_rank_term *term = &a->terms[i];
        term->a = right->value;
        term->da = right->gradient;
        term->b = left->value;
        term->db = left->gradient;
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[i]);
        hook->terms = term;
        hook->n_terms = 1;
    }
}

static graft_status supertuning_merge(adapter *a, backend *dev, size_t module, device_array *w,
                                      device_array *bias, device_array *scratch, graft_error *err) {
    const adapter_tensor *left = adapter_tensor_at(a, module, b_suffix),
                         *right = adapter_tensor_at(a, module, a_suffix);
    if (left)
        dev->ops->matmul(dev, &(matmul_call){.c = w,
                                             .c_stride = right->shape[1],
                                             .rows = left->shape[0],
                                             .cols = right->shape[1],
                                             .k = rank_of(a),
                                             .a = {left->value, rank_of(a), false},
                                             .b = {right->value, right->shape[1], false},
                                             .scale = (double)a->terms[module].scale,
                                             .add = true});
    return dense_merge(a, dev, module, w, bias, scratch, err);
}

const adapter_method supertuning_method = {
    .peft_type = "SUPERTUNING",
    .name = "supertuning",
    .summary = "the largest entries of each weight, with a LoRA if wished (Super, Supra)",
    .family = "sparse",
    .paper = "arXiv:2607.09287",
    .target_kinds = TARGET_LINEAR,
    .keys = supertuning_keys,
    .shape = supertuning_shape,
    .destroy = sparse_destroy,
    .init = supertuning_init,
    .bind = supertuning_bind,
    .merge = supertuning_merge,
    .merge_scratch = dense_merge_scratch,
    .load = supertuning_load,
    .save = peft_save,
};
