/* C3A (Chen et al., 2024; as PEFT's tuners/c3a): W' = W + C / in, C of blocks that are circulant,
 * C[p, q] = w[(q - p) mod b]. A row of a block is a slice of its kernel written twice.
 *
 * PEFT 0.21's gradient of the input takes w[(q + p) mod b] instead (its BlockCircularConvolution
 * conjugates the wrong factor), which reaches every trained layer below. What PEFT computes is what
 * is computed here. */
#include "adapter/dense_weight.h"
#include "adapter/methods.h"
#include "adapter/module_pattern.h"

#include <math.h>
#include <string.h>

static const config_key c3a_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    {.name = "block_size", .kind = KEY_INTEGER, .fallback = "256", .min = 1, .max = 1 << 20},
    {.name = "bias", .kind = KEY_OURS},
    {.name = "block_size_pattern", .kind = KEY_ANY, .fallback = "{}"},
    {.name = "init_weights", .kind = KEY_ANY, .fallback = "\"xavier_uniform\""},
    {.name = NULL},
};

static const char suffix[] = "c3a_kernel"; /* [out / b, in / b, b] */

/* ---- The weight ---- */

static int64_t block_of(const dense_weight *w) {
    return w->tensors[0]->shape[2];
}

/* Every kernel twice. */
static int64_t scratch_elements(const dense_weight *w) {
    return 2 * w->tensors[0]->count;
}

/* Where the weight's row `row` begins in the doubled kernel of block column n; backwards: of the
 * weight with w[(q + p) mod b]. */
static device_array *slice(const dense_weight *w, backend *dev, device_array *doubled, int64_t row,
                           int64_t n, bool backwards) {
    int64_t b = block_of(w), kernel = row / b * (w->cols / b) + n;
    return array_at(dev, doubled, 2 * b * kernel + (backwards ? row % b : b - row % b));
}

static void add_blocks(const dense_weight *w, backend *dev, device_array *weight,
                       device_array *scratch, bool backwards) {
    int64_t b = block_of(w);
    for (int64_t k = 0; k < w->tensors[0]->count / b; k++)
        for (int64_t half = 0; half < 2; half++)
            dev->ops->copy(dev, array_at(dev, scratch, (2 * k + half) * b),
                           array_at(dev, w->tensors[0]->value, k * b), b);
    for (int64_t row = 0; row < w->rows; row++)
        for (int64_t n = 0; n < w->cols / b; n++)
            dev->ops->add_scaled(dev, array_at(dev, weight, row * w->cols + n * b),
                                 slice(w, dev, scratch, row, n, backwards), 1.0 / (double)w->cols,
                                 b);
}

static void apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    add_blocks(w, dev, weight, scratch, false);
}

static void apply_for_input(const dense_weight *w, backend *dev, device_array *weight,
                            device_array *scratch) {
    add_blocks(w, dev, weight, scratch, true);
}

static void apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    int64_t b = block_of(w);
    (void)base;
    dev->ops->fill(dev, scratch, 0, scratch_elements(w));
    for (int64_t row = 0; row < w->rows; row++)
        for (int64_t n = 0; n < w->cols / b; n++)
            dev->ops->add_scaled(dev, slice(w, dev, scratch, row, n, false),
                                 array_at(dev, d_w, row * w->cols + n * b), 1.0 / (double)w->cols,
                                 b);
    for (int64_t k = 0; k < w->tensors[0]->count / b; k++)
        for (int64_t half = 0; half < 2; half++)
            dev->ops->add(dev, array_at(dev, w->tensors[0]->gradient, k * b),
                          array_at(dev, scratch, (2 * k + half) * b), b);
}

static const dense_method c3a_weight = {
    .suffixes = {suffix},
    .scratch_elements = scratch_elements,
    .apply = apply,
    .apply_for_input = apply_for_input,
    .apply_bwd = apply_bwd,
};

/* ---- Shape ---- */

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t b;
    graft_status status = module_pattern_integer(&b, a, "block_size_pattern", m->name,
                                                 config_integer(&a->config, "block_size"), err);
    if (status != GRAFT_OK)
        return status;
    if (b < 1 || m->rows % b || m->cols % b)
        return error_set(err, GRAFT_E_INPUT,
                         "block_size %lld does not divide %s's %lld outputs and %lld inputs (PEFT "
                         "refuses it too): choose a common divisor",
                         (long long)b, m->name, (long long)m->rows, (long long)m->cols);
    const int64_t shape[] = {m->rows / b, m->cols / b, b};
    return shape_tensor(a, module, suffix, 3, shape, err) ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status c3a_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    return status == GRAFT_OK ? dense_create(a, &c3a_weight, err) : status;
}

/* As PEFT draws it: true is zero; false is Xavier's, too. */
static graft_status c3a_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                             graft_error *err) {
    const json_t *given = config_value(&a->config, "init_weights");
    const char *name = json_is_false(given) ? "xavier_uniform" : json_string_value(given);
    for (size_t i = 0; i < a->n_modules; i++) {
        const model_module *m = &a->modules[i];
        const adapter_tensor *t = adapter_tensor_at(a, i, suffix);
        if (!t)
            continue;
        if (json_is_true(given))
            shape_fill(t, dev, DRAW_CONSTANT, 0, random);
        else if (name && !strcmp(name, "gaussian"))
            shape_fill(t, dev, DRAW_NORMAL, 1, random);
        else if (name && !strcmp(name, "kaiming_uniform"))
            shape_fill(t, dev, DRAW_UNIFORM, 1 / sqrt((double)m->cols), random);
        else if (name && !strcmp(name, "xavier_uniform"))
            shape_fill(t, dev, DRAW_UNIFORM, sqrt(6 / (double)(m->cols + m->rows)), random);
        else
            return error_set(err, GRAFT_E_INPUT,
                             "init_weights: expected true, false, \"gaussian\", "
                             "\"kaiming_uniform\" or \"xavier_uniform\", found %.40s",
                             name ? name : json_type_name(given));
    }
    return shape_init_freed(a, dev, weights, err);
}

const adapter_method c3a_method = {
    .peft_type = "C3A",
    .name = "c3a",
    .summary = "block-circulant changes of weights (C3A)",
    .family = "structured",
    .paper = "Chen et al. 2024, arXiv:2407.19342",
    .target_kinds = TARGET_LINEAR,
    .keys = c3a_keys,
    .shape = c3a_shape,
    .destroy = dense_destroy,
    .init = c3a_init,
    .bind = dense_bind,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
