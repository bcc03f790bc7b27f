/* Uni-LoRA (Li et al., 2025; as PEFT's tuners/unilora): every element of every layer's A and B is
 * an entry of one trained vector, times 1 / sqrt(how often the entry is used). Which entry is drawn
 * from a seed, evenly, and saved or drawn again. */
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "base/memory.h"
#include "base/numpy_random.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

static const config_key unilora_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "r", .kind = KEY_OURS, .fallback = "4"},
    {.name = "proj_seed",
     .kind = KEY_INTEGER,
     .fallback = "42",
     .min = 0,
     .max = 9007199254740991.0},
    {.name = "theta_d_length", .kind = KEY_INTEGER, .fallback = "256", .min = 1, .max = 1 << 30},
    {.name = "init_theta_d_bound", .kind = KEY_NUMBER, .fallback = "0.02"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "save_indices", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "unilora_dropout", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 0.999},
    {.name = NULL},
};

static const char theta_key[] = "base_model.unilora_theta_d";

typedef struct unilora_state {
    size_t room;      /* derived: [largest factor] */
    int32_t *entries; /* [largest factor], of the factor at hand */
} unilora_state;

/* One factor of a term: its entries and scales. */
typedef struct unilora_factor {
    const adapter_tensor *indices, *scales;
    const derived_array *made;
} unilora_factor;

static unilora_factor factor_of(const adapter *a, size_t term, bool is_b) {
    size_t module = derived_term_at(a, term)->module;
    return (unilora_factor){
        .indices = adapter_tensor_at(a, module, is_b ? "unilora_indices_B" : "unilora_indices_A"),
        .scales = adapter_tensor_at(a, module, is_b ? "unilora_scales_B" : "unilora_scales_A"),
        .made = is_b ? derived_term_b(a, term) : derived_term_a(a, term)};
}

static const adapter_tensor *theta_of(const adapter *a) {
    return adapter_tensor_at(a, (size_t)MODULE_NONE, theta_key);
}

/* ---- Shape ---- */

static bool add_factor(adapter *a, size_t module, const char *indices, const char *scales,
                       int64_t rows, int64_t cols, graft_error *err) {
    bool is_rebuilt = !config_flag(&a->config, "save_indices");
    adapter_tensor *t = shape_integers(a, module, indices, DTYPE_I64, rows, cols, err);
    if (!t)
        return false;
    t->is_rebuilt = is_rebuilt;
    t = shape_matrix(a, module, scales, rows, cols, err);
    if (!t)
        return false;
    t->is_fixed = true;
    t->is_rebuilt = is_rebuilt;
    return true;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t r = a->config.r;
    bool added = add_factor(a, module, "unilora_indices_A", "unilora_scales_A", r, m->cols, err) &&
                 add_factor(a, module, "unilora_indices_B", "unilora_scales_B", m->rows, r, err);
    return added ? derived_term_add(a, module, a->config.r, 1,
                                    (float)config_number(&a->config, "unilora_dropout"), true, true,
                                    err)
                 : GRAFT_E_MEMORY;
}

static graft_status unilora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    unilora_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the adapter's indices");
    if (!shape_matrix(a, (size_t)MODULE_NONE, theta_key,
                      config_integer(&a->config, "theta_d_length"), 0, err))
        return GRAFT_E_MEMORY;
    graft_status status = shape_each_target(a, add_module, sink, err);
    int64_t longest = 0;
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = derived_term_at(a, i);
        int64_t wide = place->in > place->out ? place->in : place->out;
        longest = wide * place->rank > longest ? wide * place->rank : longest;
    }
    if (status != GRAFT_OK)
        return status;
    s->entries = mem_array((size_t)longest, sizeof *s->entries);
    s->room = shape_derived(a, longest, false, err);
    return s->entries && s->room != SIZE_MAX
               ? GRAFT_OK
               : error_memory(err, (size_t)longest * sizeof *s->entries, "the adapter's indices");
}

static void unilora_destroy(adapter *a) {
    unilora_state *s = a->state;
    if (s)
        free(s->entries);
    free(s);
    a->state = NULL;
}

/* ---- The terms ---- */

static const int32_t *entries_of(const adapter *a, const unilora_factor *f) {
    const unilora_state *s = a->state;
    for (int64_t i = 0; i < f->indices->count; i++)
        s->entries[i] = (int32_t)f->indices->integers[i];
    return s->entries;
}

static graft_status unilora_prepare(adapter *a, backend *dev, weight_source *weights,
                                    graft_error *err) {
    (void)weights;
    (void)err;
    for (size_t i = 0; i < 2 * a->n_terms; i++) {
        const unilora_factor f = factor_of(a, i / 2, i % 2);
        int64_t n = f.indices->count;
        dev->ops->gather_rows(dev, f.made->value, theta_of(a)->value, entries_of(a, &f), n, 1);
        dev->ops->mul(dev, f.made->value, f.made->value, f.scales->value, n, false);
    }
    return GRAFT_OK;
}

static double unilora_chain(adapter *a, backend *dev) {
    const unilora_state *s = a->state;
    device_array *room = a->derived[s->room].value;
    for (size_t i = 0; i < 2 * a->n_terms; i++) {
        const unilora_factor f = factor_of(a, i / 2, i % 2);
        int64_t n = f.indices->count;
        dev->ops->mul(dev, room, f.made->gradient, f.scales->value, n, false);
        dev->ops->scatter_add_rows(dev, theta_of(a)->gradient, room, entries_of(a, &f), n, 1);
    }
    return 0;
}

/* ---- Indices ---- */

/* PEFT's: every entry as often as any other, but for a drawn remainder, in drawn order. */
static graft_status draw_entries(int64_t *out, int64_t n, int64_t length, uint64_t seed,
                                 graft_error *err) {
    numpy_random random;
    int64_t each = n / length, rest = n % length;
    graft_status status = GRAFT_OK;
    numpy_random_seed(&random, seed);
    for (int64_t i = 0; i < each * length; i++)
        out[i] = i / each;
    if (rest)
        status = numpy_random_choice(&random, out + each * length, rest, length, err);
    if (status == GRAFT_OK)
        numpy_random_shuffle(&random, out, n);
    return status;
}

static graft_status upload_scales(backend *dev, const unilora_factor *f, const int64_t *uses,
                                  graft_error *err) {
    int64_t n = f->indices->count;
    float *scales = mem_array((size_t)n, sizeof *scales);
    if (!scales)
        return error_memory(err, (size_t)n * sizeof *scales, f->scales->key);
    for (int64_t i = 0; i < n; i++)
        scales[i] = (float)(1 / sqrt((double)uses[f->indices->integers[i]]));
    dev->ops->upload(dev, f->scales->value, scales, DTYPE_F32, n);
    free(scales);
    return GRAFT_OK;
}

static graft_status draw_indices(adapter *a, backend *dev, graft_error *err) {
    int64_t length = config_integer(&a->config, "theta_d_length"), n = 0, at = 0;
    for (size_t i = 0; i < 2 * a->n_terms; i++)
        n += factor_of(a, i / 2, i % 2).indices->count;
    int64_t *entries = mem_array((size_t)n, sizeof *entries),
            *uses = mem_array((size_t)length, sizeof *uses);
    graft_status status = entries && uses
                              ? draw_entries(entries, n, length,
                                             (uint64_t)config_integer(&a->config, "proj_seed"), err)
                              : error_memory(err, (size_t)n * sizeof *entries, "indices");
    for (int64_t i = 0; i < n && status == GRAFT_OK; i++)
        uses[entries[i]]++;
    for (size_t i = 0; i < 2 * a->n_terms && status == GRAFT_OK; i++) {
        const unilora_factor f = factor_of(a, i / 2, i % 2);
        for (int64_t k = 0; k < f.indices->count; k++)
            f.indices->integers[k] = entries[at++];
        status = upload_scales(dev, &f, uses, err);
    }
    free(entries);
    free(uses);
    return status;
}

static graft_status unilora_init(adapter *a, backend *dev, const weight_source *weights,
                                 rng *random, graft_error *err) {
    bool is_bounded = config_flag(&a->config, "init_weights");
    shape_fill(theta_of(a), dev, is_bounded ? DRAW_UNIFORM : DRAW_NORMAL,
               is_bounded ? config_number(&a->config, "init_theta_d_bound") : 1, random);
    graft_status status = draw_indices(a, dev, err);
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

static graft_status unilora_load(adapter *a, backend *dev, const weight_source *weights,
                                 const char *folder, graft_error *err) {
    graft_status status = peft_load(a, dev, weights, folder, err);
    if (status == GRAFT_OK && !config_flag(&a->config, "save_indices"))
        return draw_indices(a, dev, err);
    int64_t length = config_integer(&a->config, "theta_d_length");
    for (size_t i = 0; i < 2 * a->n_terms && status == GRAFT_OK; i++) {
        const adapter_tensor *t = factor_of(a, i / 2, i % 2).indices;
        for (int64_t k = 0; k < t->count && status == GRAFT_OK; k++)
            if (t->integers[k] >= length)
                status = error_set(
                    err, GRAFT_E_INPUT, "%s: %s: element %lld is entry %lld of theta_d_length %lld",
                    folder, t->key, (long long)k, (long long)t->integers[k], (long long)length);
    }
    return status;
}

const adapter_method unilora_method = {
    .peft_type = "UNILORA",
    .name = "unilora",
    .summary = "LoRA whose elements are all entries of one vector (Uni-LoRA)",
    .family = "low rank",
    .paper = "Li et al. 2025, arXiv:2506.00799",
    .target_kinds = TARGET_LINEAR,
    .keys = unilora_keys,
    .shape = unilora_shape,
    .destroy = unilora_destroy,
    .init = unilora_init,
    .bind = derived_terms_bind,
    .prepare = unilora_prepare,
    .chain = unilora_chain,
    .merge = derived_terms_merge,
    .load = unilora_load,
    .save = peft_save,
};
