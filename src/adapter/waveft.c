/* WaveFT (as PEFT's tuners/waveft): W' = W + scaling IDWT(S), one level of an inverse wavelet
 * transform of a matrix with a few trained coefficients, at positions drawn from a seed. A
 * coefficient reaches a patch of the filter's length squared, so the transform is a list of entries
 * (sparse_weight.h). */
#include "adapter/methods.h"
#include "adapter/module_pattern.h"
#include "adapter/sparse_weight.h"
#include "adapter/wavelet_filters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const config_key waveft_keys[] = {
    TARGET_KEYS,
    EXCLUDE_KEY,
    LAYER_KEYS,
    {.name = "n_frequency", .kind = KEY_INTEGER, .fallback = "2592", .min = 1, .max = INT32_MAX},
    {.name = "scaling", .kind = KEY_NUMBER, .fallback = "25.0"},
    {.name = "wavelet_family", .kind = KEY_ANY, .fallback = "\"db1\""},
    {.name = "use_idwt", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "random_loc_seed",
     .kind = KEY_INTEGER,
     .fallback = "777",
     .min = -0x1p63,
     .max = 0x1p63},
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "n_frequency_pattern", .kind = KEY_ANY, .fallback = "{}"},
    {.name = "proportional_parameters", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

/* PEFT's TRANSFORMERS_MODELS_TO_WAVEFT_TARGET_MODULES_MAPPING, of causal language models. */
typedef struct waveft_default {
    const char *model_type;
    const char *targets[5];
} waveft_default;

static const waveft_default defaults[] = {
    {"gpt2", {"mlp.c_proj"}},
    {"bloom", {"query_key_value"}},
    {"opt", {"q_proj", "v_proj"}},
    {"gptj", {"q_proj", "v_proj"}},
    {"gpt_neox", {"query_key_value"}},
    {"gpt_neo", {"q_proj", "v_proj"}},
    {"llama", {"q_proj", "v_proj"}},
    {"llama4", {"q_proj", "v_proj"}},
    {"chatglm", {"query_key_value"}},
    {"gpt_bigcode", {"mlp.c_proj"}},
    {"mpt", {"Wqkv"}},
    {"falcon", {"query_key_value"}},
    {"codegen", {"qkv_proj"}},
    {"mistral", {"q_proj", "v_proj"}},
    {"mixtral", {"q_proj", "v_proj"}},
    {"stablelm", {"q_proj", "v_proj"}},
    {"phi", {"q_proj", "v_proj", "fc1", "fc2"}},
    {"gemma", {"q_proj", "v_proj"}},
    {"gemma2", {"q_proj", "v_proj"}},
    {"gemma3_text", {"q_proj", "v_proj"}},
    {"qwen2", {"q_proj", "v_proj"}},
    {"qwen3", {"q_proj", "v_proj"}},
    {"nemotron_h", {"q_proj", "k_proj", "v_proj", "o_proj"}},
};

static const char *const *default_targets(const char *model_type) {
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (!strcmp(defaults[i].model_type, model_type))
            return defaults[i].targets;
    return NULL;
}

static const char suffix[] = "waveft_spectrum";

static const dense_method waveft_weight = {
    .suffixes = {suffix},
    .scratch_elements = sparse_scratch_elements,
    .apply = sparse_apply,
    .apply_bwd = sparse_apply_bwd,
};

/* ---- Entries ---- */

/* One axis of the transform: coefficients lie in the middle of a padded axis, whose first half are
 * low-pass and second half high-pass ones; what the reconstruction gives is cut to `size`. */
typedef struct wave_axis {
    const wavelet_filter *filter;
    int64_t size, padded, offset, cut;
} wave_axis;

static wave_axis wave_axis_of(const wavelet_filter *filter, int64_t size) {
    int64_t length = filter->length, padded = size + length - 2;
    padded += padded % 2;
    int64_t rebuilt = padded - length + 2;
    return (wave_axis){.filter = filter,
                       .size = size,
                       .padded = padded,
                       .offset = (padded - size) / 2,
                       .cut = length - 2 + (rebuilt - size) / 2};
}

static bool is_high(const wave_axis *axis, int64_t at) {
    return at + axis->offset >= axis->padded / 2;
}

/* Where tap t of the coefficient at `at` lands; may be outside. */
static int64_t landing(const wave_axis *axis, int64_t at, int64_t t) {
    return 2 * ((at + axis->offset) % (axis->padded / 2)) + t - axis->cut;
}

static double tap(const wavelet_filter *f, int64_t t, bool high) {
    return high ? (t % 2 ? -1 : 1) * f->low_pass[f->length - 1 - t] : f->low_pass[t];
}

/* PEFT's order of bands crosses the axes: rows are high-pass where the column is, and the other way
 * around. Fills the entries, or counts them (e NULL). */
static int64_t wave_entries(sparse_entries *e, const int32_t *place, int64_t n,
                            const wave_axis *rows, const wave_axis *cols, double scaling) {
    int64_t used = 0, length = rows->filter->length;
    for (int64_t k = 0; k < n; k++) {
        int64_t row = place[k] / cols->size, col = place[k] % cols->size;
        for (int64_t i = 0; i < length; i++) {
            int64_t p = landing(rows, row, i);
            for (int64_t j = 0; j < length && p >= 0 && p < rows->size; j++) {
                int64_t q = landing(cols, col, j);
                if (q < 0 || q >= cols->size)
                    continue;
                if (e) {
                    e->place[used] = (int32_t)(p * cols->size + q);
                    e->source[used] = (int32_t)k;
                    e->factor[used] = scaling * tap(rows->filter, i, is_high(cols, col)) *
                                      tap(cols->filter, j, is_high(rows, row));
                }
                used++;
            }
        }
    }
    return used;
}

/* Without the inverse transform: the coefficients themselves. */
static void plain_entries(sparse_entries *e, const int32_t *place, int64_t n, double scaling) {
    for (int64_t k = 0; k < n; k++) {
        e->place[k] = place[k];
        e->source[k] = (int32_t)k;
        e->factor[k] = scaling;
    }
}

static graft_status make_entries(sparse_entries **out, adapter *a, const model_module *m, int64_t n,
                                 graft_error *err) {
    double scaling = config_number(&a->config, "scaling");
    const wavelet_filter *filter = wavelet_filter_find(config_text(&a->config, "wavelet_family"));
    wave_axis rows = wave_axis_of(filter, m->rows), cols = wave_axis_of(filter, m->cols);
    bool is_plain = !config_flag(&a->config, "use_idwt");
    int32_t *place = NULL;
    graft_status status = random_places(
        &place, n, m->rows * m->cols, (uint64_t)config_integer(&a->config, "random_loc_seed"), err);
    if (status == GRAFT_OK)
        status = sparse_entries_create(
            out, a, is_plain ? n : wave_entries(NULL, place, n, &rows, &cols, scaling), true, err);
    if (status == GRAFT_OK && is_plain)
        plain_entries(*out, place, n, scaling);
    else if (status == GRAFT_OK)
        wave_entries(*out, place, n, &rows, &cols, scaling);
    free(place);
    return status;
}

/* Positions come from the seed, so modules of one shape share them. */
static graft_status place_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t n = adapter_tensor_at(a, module, suffix)->count;
    for (size_t i = 0; i < module; i++) {
        const model_module *other = &a->modules[i];
        if (a->targets[i].is_target && other->rows == m->rows && other->cols == m->cols &&
            adapter_tensor_at(a, i, suffix)->count == n) {
            sparse_entries_set(a, module, sparse_entries_of(a, i));
            return GRAFT_OK;
        }
    }
    sparse_entries *e = NULL;
    graft_status status = make_entries(&e, a, m, n, err);
    sparse_entries_set(a, module, e);
    return status;
}

/* ---- Shape ---- */

/* With proportional_parameters, all coefficients are dealt out by the weights' sizes, at least one
 * to each. */
static graft_status frequencies_of(int64_t *n, const adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t given = config_integer(&a->config, "n_frequency");
    if (!config_flag(&a->config, "proportional_parameters"))
        return module_pattern_integer(n, a, "n_frequency_pattern", m->name, given, err);
    double elements = 0, modules = 0;
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->targets[i].is_target) {
            elements += (double)(a->modules[i].rows * a->modules[i].cols);
            modules++;
        }
    double share = rint((double)(m->rows * m->cols) / elements * ((double)given * modules));
    *n = share > 1 ? (int64_t)share : 1;
    return GRAFT_OK;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t n = 0;
    graft_status status = frequencies_of(&n, a, module, err);
    if (status == GRAFT_OK)
        status = sparse_check_size(m, "waveft", err);
    if (status != GRAFT_OK)
        return status;
    if (n < 1 || n > m->rows * m->cols)
        return error_set(err, GRAFT_E_INPUT,
                         "n_frequency %lld for %s: expected 1 to %lld, its elements (PEFT refuses "
                         "it too)",
                         (long long)n, m->name, (long long)(m->rows * m->cols));
    return shape_matrix(a, module, suffix, n, 0, err) ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status check_family(const adapter *a, graft_error *err) {
    const char *name = config_text(&a->config, "wavelet_family");
    if (name && wavelet_filter_find(name))
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT,
                     "wavelet_family: expected db1 to db10, sym2 to sym10 or coif1 to coif5, found "
                     "%.40s",
                     name ? name : "no text");
}

static graft_status waveft_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = check_family(a, err);
    if (status == GRAFT_OK)
        status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK)
        status = dense_create(a, &waveft_weight, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = place_module(a, i, err);
    return status;
}

static graft_status waveft_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                                graft_error *err) {
    bool is_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].role == ROLE_OTHER)
            shape_fill(&a->tensors[i], dev, is_zero ? DRAW_CONSTANT : DRAW_NORMAL,
                       is_zero ? 0 : 0.01, random);
    return shape_init_freed(a, dev, weights, err);
}

const adapter_method waveft_method = {
    .peft_type = "WAVEFT",
    .name = "waveft",
    .summary = "a few coefficients of the weight change's wavelet transform (WaveFT)",
    .family = "sparse",
    .paper = "Bilican et al. 2025, arXiv:2505.12532",
    .target_kinds = TARGET_LINEAR,
    .keys = waveft_keys,
    .default_targets = default_targets,
    .shape = waveft_shape,
    .destroy = sparse_destroy,
    .init = waveft_init,
    .bind = dense_bind,
    .prepare = sparse_prepare,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
