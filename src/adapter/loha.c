/* LoHa (Hyeon-Woo et al., 2021, FedPara; as PEFT's tuners/loha): W' = W + s (A1 B1) * (A2 B2), an
 * elementwise product of two matrices of low rank, s = alpha / r. */
#include "adapter/dense_weight.h"
#include "adapter/methods.h"

#include <math.h>

static const config_key loha_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    EXCLUDE_KEY,
    {.name = "r", .kind = KEY_OURS, .fallback = "8"},
    {.name = "alpha", .kind = KEY_OURS, .fallback = "8"},
    {.name = "rank_pattern", .kind = KEY_OURS},
    {.name = "alpha_pattern", .kind = KEY_OURS},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "rank_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout of rows of the weight's change"},
    {.name = "module_dropout", .kind = KEY_LACKED, .fallback = "0.0", .lacks = "dropout of layers"},
    {.name = "use_effective_conv2d", .kind = KEY_STATED, .fallback = "false"}, /* no convolutions */
    {.name = NULL},
};

enum { W1_A, W1_B, W2_A, W2_B };

/* The two matrices. */
static int64_t scratch_elements(const dense_weight *w) {
    return 2 * w->rows * w->cols;
}

static double scale_of(const adapter *a, size_t module) {
    return a->targets[module].alpha / a->targets[module].rank;
}

/* m [rows, cols] = scale a b */
static void make_matrix(const dense_weight *w, backend *dev, device_array *m, int a, int b,
                        double scale) {
    factors_product(dev, m, w->tensors[a], w->tensors[b], scale, false);
}

static void apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    device_array *first = scratch, *second = array_at(dev, scratch, w->rows * w->cols);
    make_matrix(w, dev, first, W1_A, W1_B, w->scale);
    make_matrix(w, dev, second, W2_A, W2_B, 1);
    dev->ops->mul(dev, weight, first, second, w->rows * w->cols, true);
}

static void apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    device_array *first = scratch, *second = array_at(dev, scratch, w->rows * w->cols);
    int64_t n = w->rows * w->cols;
    (void)base;
    make_matrix(w, dev, first, W1_A, W1_B, w->scale);
    make_matrix(w, dev, second, W2_A, W2_B, w->scale);
    dev->ops->mul(dev, second, second, d_w, n, false); /* of the first */
    dev->ops->mul(dev, first, first, d_w, n, false);   /* of the second */
    factors_product_bwd(dev, second, w->tensors[W1_A], w->tensors[W1_B], 1);
    factors_product_bwd(dev, first, w->tensors[W2_A], w->tensors[W2_B], 1);
}

static const dense_method loha_weight = {
    .suffixes = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    .scratch_elements = scratch_elements,
    .scale = scale_of,
    .apply = apply,
    .apply_bwd = apply_bwd,
};

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t rank = a->targets[module].rank;
    bool added = shape_matrix(a, module, "hada_w1_a", m->rows, rank, err) &&
                 shape_matrix(a, module, "hada_w1_b", rank, m->cols, err) &&
                 shape_matrix(a, module, "hada_w2_a", m->rows, rank, err) &&
                 shape_matrix(a, module, "hada_w2_b", rank, m->cols, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status loha_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_each_target(a, add_module, sink, err);
    return status == GRAFT_OK ? dense_create(a, &loha_weight, err) : status;
}

/* As PEFT: Kaiming uniform with a = sqrt 5, U(-1, 1) / sqrt(columns); w2_b is zero, so that nothing
 * changes at the start. */
static graft_status loha_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    bool starts_at_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role != ROLE_OTHER)
            continue;
        if (starts_at_zero && t == adapter_tensor_at(a, t->module, "hada_w2_b"))
            shape_fill(t, dev, DRAW_CONSTANT, 0, random);
        else
            shape_fill(t, dev, DRAW_UNIFORM, 1 / sqrt((double)t->shape[1]), random);
    }
    return shape_init_freed(a, dev, weights, err);
}

const adapter_method loha_method = {
    .peft_type = "LOHA",
    .name = "loha",
    .summary = "Hadamard products of two low-rank matrices (LoHa)",
    .family = "low rank",
    .paper = "Hyeon-Woo et al. 2021, arXiv:2108.06098",
    .target_kinds = TARGET_LINEAR,
    .keys = loha_keys,
    .shape = loha_shape,
    .destroy = dense_destroy,
    .init = loha_init,
    .bind = dense_bind,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
