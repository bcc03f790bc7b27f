/* FourierFT (Gao et al., 2024; as PEFT's tuners/fourierft): W' = W + scaling Re(ifft2(S)), S a
 * spectrum with a few trained coefficients at positions drawn from a seed. */
#include "adapter/dense_weight.h"
#include "adapter/methods.h"
#include "adapter/module_pattern.h"
#include "adapter/sparse_weight.h"
#include "base/memory.h"
#include "base/torch_random.h"

#include <math.h>
#include <stdlib.h>

static const config_key fourierft_keys[] = {
    TARGET_KEYS,
    EXCLUDE_KEY,
    LAYER_KEYS,
    {.name = "n_frequency", .kind = KEY_INTEGER, .fallback = "1000", .min = 1, .max = INT32_MAX},
    {.name = "scaling", .kind = KEY_NUMBER, .fallback = "150.0"},
    {.name = "random_loc_seed",
     .kind = KEY_INTEGER,
     .fallback = "777",
     .min = -0x1p63,
     .max = 0x1p63},
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "n_frequency_pattern", .kind = KEY_ANY, .fallback = "{}"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "false"},
    {.name = NULL},
};

static const char suffix[] = "fourierft_spectrum";

typedef struct spectrum { /* of one module */
    int32_t *place;       /* [n] */
    int64_t n;
    size_t waves; /* derived: see spectrum_call */
} spectrum;

static int64_t scratch_elements(const dense_weight *w) {
    return spectrum_scratch_elements(w->rows, w->cols, ((const spectrum *)w->own)->n);
}

/* ifft2 divides by the number of elements. */
static spectrum_call call_of(const dense_weight *w, device_array *scratch) {
    const spectrum *s = w->own;
    return (spectrum_call){.rows = w->rows,
                           .cols = w->cols,
                           .c = w->tensors[0]->value,
                           .place = s->place,
                           .n = s->n,
                           .waves = w->adapter->derived[s->waves].value,
                           .scale = w->scale / (double)(w->rows * w->cols),
                           .scratch = scratch};
}

static void apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    spectrum_call call = call_of(w, scratch);
    dev->ops->spectrum_fwd(dev, weight, &call);
}

static void apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    spectrum_call call = call_of(w, scratch);
    (void)base;
    dev->ops->spectrum_bwd(dev, w->tensors[0]->gradient, d_w, &call);
}

static double scaling_of(const adapter *a, size_t module) {
    (void)module;
    return config_number(&a->config, "scaling");
}

static const dense_method fourierft_weight = {
    .suffixes = {suffix},
    .scratch_elements = scratch_elements,
    .scale = scaling_of,
    .apply = apply,
    .apply_bwd = apply_bwd,
};

/* ---- Shape ---- */

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t n;
    graft_status status = module_pattern_integer(&n, a, "n_frequency_pattern", m->name,
                                                 config_integer(&a->config, "n_frequency"), err);
    if (status == GRAFT_OK)
        status = sparse_check_size(m, "fourierft", err);
    if (status != GRAFT_OK)
        return status;
    if (m->rows > SPECTRUM_ROWS_MAX)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "fourierft on %s: more than %d outputs are not supported", m->name,
                         (int)SPECTRUM_ROWS_MAX);
    if (n < 1 || n > m->rows * m->cols)
        return error_set(err, GRAFT_E_INPUT,
                         "n_frequency %lld for %s: expected 1 to %lld, its elements (PEFT refuses "
                         "it too)",
                         (long long)n, m->name, (long long)(m->rows * m->cols));
    return shape_matrix(a, module, suffix, n, 0, err) ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status place_module(adapter *a, size_t module, graft_error *err) {
    dense_weight *w = dense_weight_at(a, module);
    spectrum *s = w->own = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "an adapter's positions");
    s->n = w->tensors[0]->count;
    s->waves = shape_derived(a, 2 * (w->rows + w->cols), false, err);
    if (s->waves == SIZE_MAX)
        return GRAFT_E_MEMORY;
    return random_places(&s->place, s->n, w->rows * w->cols,
                         (uint64_t)config_integer(&a->config, "random_loc_seed"), err);
}

static graft_status fourierft_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK)
        status = dense_create(a, &fourierft_weight, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = place_module(a, i, err);
    return status;
}

static void fourierft_destroy(adapter *a) {
    for (size_t i = 0; i < a->n_modules && a->state; i++) {
        spectrum *s = dense_weight_at(a, i)->own;
        if (s)
            free(s->place);
        free(s);
    }
    dense_destroy(a);
}

static graft_status fourierft_init(adapter *a, backend *dev, const weight_source *weights,
                                   rng *random, graft_error *err) {
    bool is_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].role == ROLE_OTHER)
            shape_fill(&a->tensors[i], dev, is_zero ? DRAW_CONSTANT : DRAW_NORMAL, is_zero ? 0 : 1,
                       random);
    return shape_init_freed(a, dev, weights, err);
}

/* ---- Waves ---- */

static void upload_waves(backend *dev, device_array *to, int64_t n) {
    double chunk[256];
    for (int is_sine = 0; is_sine < 2; is_sine++)
        for (int64_t begin = 0; begin < n; begin += 256) {
            int64_t count = n - begin < 256 ? n - begin : 256;
            for (int64_t i = 0; i < count; i++) {
                double angle = 2 * M_PI * (double)(begin + i) / (double)n;
                chunk[i] = is_sine ? sin(angle) : cos(angle);
            }
            dev->ops->upload(dev, array_at(dev, to, is_sine * n + begin), chunk, DTYPE_F64, count);
        }
}

static graft_status fourierft_prepare(adapter *a, backend *dev, weight_source *weights,
                                      graft_error *err) {
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_modules; i++) {
        const dense_weight *w = dense_weight_at(a, i);
        const spectrum *s = w->own;
        if (!s)
            continue;
        upload_waves(dev, a->derived[s->waves].value, w->rows);
        upload_waves(dev, array_at(dev, a->derived[s->waves].value, 2 * w->rows), w->cols);
    }
    return GRAFT_OK;
}

const adapter_method fourierft_method = {
    .peft_type = "FOURIERFT",
    .name = "fourierft",
    .summary = "a few coefficients of the weight change's Fourier transform (FourierFT)",
    .family = "sparse",
    .paper = "Gao et al. 2024, arXiv:2405.03003",
    .target_kinds = TARGET_LINEAR,
    .keys = fourierft_keys,
    .shape = fourierft_shape,
    .destroy = fourierft_destroy,
    .init = fourierft_init,
    .bind = dense_bind,
    .prepare = fourierft_prepare,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
