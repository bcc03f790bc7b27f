/* HiRA (Huang et al., 2025; as PEFT's tuners/hira): W' = W + W * (B A), elementwise: a change of
 * high rank from factors of low rank. */
#include "adapter/dense_weight.h"
#include "adapter/methods.h"

#include <math.h>
#include <string.h>

static const config_key hira_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    FAN_IN_FAN_OUT_KEY,
    EXCLUDE_KEY,
    {.name = "r", .kind = KEY_OURS, .fallback = "32"},
    {.name = "rank_pattern", .kind = KEY_OURS},
    {.name = "init_weights", .kind = KEY_ANY, .fallback = "true"},
    {.name = "hira_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout of the input of the change alone"},
    {.name = NULL},
};

enum { FACTOR_B, FACTOR_A };

static int64_t scratch_elements(const dense_weight *w) {
    return w->rows * w->cols;
}

static void apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    factors_product(dev, scratch, w->tensors[FACTOR_B], w->tensors[FACTOR_A], 1, false);
    dev->ops->mul(dev, weight, weight, scratch, w->rows * w->cols, true);
}

static void apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    (void)scratch;
    dev->ops->mul(dev, d_w, d_w, base, w->rows * w->cols, false);
    factors_product_bwd(dev, d_w, w->tensors[FACTOR_B], w->tensors[FACTOR_A], 1);
}

static const dense_method hira_weight = {
    .suffixes = {"hira_B", "hira_A"},
    .needs_base = true,
    .scratch_elements = scratch_elements,
    .apply = apply,
    .apply_bwd = apply_bwd,
};

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t rank = a->targets[module].rank;
    bool added = shape_matrix(a, module, "hira_A", rank, m->cols, err) &&
                 shape_matrix(a, module, "hira_B", m->rows, rank, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status check_init(const adapter *a, graft_error *err) {
    const json_t *init = config_value(&a->config, "init_weights");
    if (json_is_boolean(init) || json_is_null(init) ||
        (json_is_string(init) && !strcmp(json_string_value(init), "gaussian")))
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT, "init_weights: expected true, false or \"gaussian\"");
}

static graft_status hira_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = check_init(a, err);
    if (status == GRAFT_OK)
        status = shape_each_target(a, add_module, sink, err);
    return status == GRAFT_OK ? dense_create(a, &hira_weight, err) : status;
}

/* As PEFT: A Kaiming uniform (a = sqrt 5) or N(0, 1 / r), B zero; without an initialisation both
 * are standard normal. */
static graft_status hira_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    const json_t *init = config_value(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *factor_a = adapter_tensor_at(a, i, "hira_A"),
                             *factor_b = adapter_tensor_at(a, i, "hira_B");
        if (!a->targets[i].is_target)
            continue;
        if (json_is_true(init))
            shape_fill(factor_a, dev, DRAW_UNIFORM, 1 / sqrt((double)factor_a->shape[1]), random);
        else
            shape_fill(factor_a, dev, DRAW_NORMAL,
                       json_is_string(init) ? 1 / (double)factor_a->shape[0] : 1, random);
        if (json_is_true(init) || json_is_string(init))
            shape_fill(factor_b, dev, DRAW_CONSTANT, 0, random);
        else
            shape_fill(factor_b, dev, DRAW_NORMAL, 1, random);
    }
    return shape_init_freed(a, dev, weights, err);
}

const adapter_method hira_method = {
    .peft_type = "HIRA",
    .name = "hira",
    .summary = "Hadamard products of the weight with a low-rank matrix (HiRA)",
    .family = "low rank",
    .paper = "Huang et al. 2025, ICLR",
    .target_kinds = TARGET_LINEAR,
    .keys = hira_keys,
    .shape = hira_shape,
    .destroy = dense_destroy,
    .init = hira_init,
    .bind = dense_bind,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
