/* LoKr (Yeh et al., 2023, LyCORIS; as PEFT's tuners/lokr): W' = W + s W1 x W2, a Kronecker product
 * of a small W1 [l, m] and W2 [k, n], each whole or a product of two factors; out = l k, in = m n,
 * s = alpha / r. */
#include "adapter/dense_weight.h"
#include "adapter/methods.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const config_key lokr_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    EXCLUDE_KEY,
    {.name = "r", .kind = KEY_OURS, .fallback = "8"},
    {.name = "alpha", .kind = KEY_OURS, .fallback = "8"},
    {.name = "rank_pattern", .kind = KEY_OURS},
    {.name = "alpha_pattern", .kind = KEY_OURS},
    {.name = "decompose_both", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "decompose_factor", .kind = KEY_INTEGER, .fallback = "-1", .min = -1, .max = 1 << 30},
    {.name = "init_weights", .kind = KEY_ANY, .fallback = "true"},
    {.name = "rank_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout of rows of the weight's change"},
    {.name = "rank_dropout_scale", .kind = KEY_STATED, .fallback = "false"}, /* of rank_dropout */
    {.name = "module_dropout", .kind = KEY_LACKED, .fallback = "0.0", .lacks = "dropout of layers"},
    {.name = "use_effective_conv2d", .kind = KEY_STATED, .fallback = "false"}, /* no convolutions */
    {.name = NULL},
};

enum { W1, W1_A, W1_B, W2, W2_A, W2_B };

/* A number as a product m n, m <= n, m at most `factor` and as near to n as can be; -1: no bound.
 */
static void factorise(int64_t *m_out, int64_t *n_out, int64_t number, int64_t factor) {
    if (factor > 0 && number % factor == 0) {
        *m_out = factor;
        *n_out = number / factor;
        return;
    }
    if (factor == -1)
        factor = number;
    int64_t m = 1, n = number, least = 1 + number;
    while (m < n) {
        int64_t next = m + 1;
        while (number % next != 0)
            next++;
        if (next + number / next > least || next > factor)
            break;
        m = next;
        n = number / next;
    }
    *m_out = m < n ? m : n;
    *n_out = m < n ? n : m;
}

typedef struct kron_shape {
    int64_t l, m; /* of W1 */
    int64_t k, n; /* of W2 */
} kron_shape;

static kron_shape shape_of(const adapter *a, size_t module) {
    int64_t factor = config_integer(&a->config, "decompose_factor");
    kron_shape s;
    factorise(&s.m, &s.n, a->modules[module].cols, factor);
    factorise(&s.l, &s.k, a->modules[module].rows, factor);
    return s;
}

/* ---- The weight ---- */

/* W1, W2 and their gradients, where they are products. */
static int64_t scratch_elements(const dense_weight *w) {
    kron_shape s = shape_of(w->adapter, w->module);
    return 2 * (s.l * s.m + s.k * s.n);
}

static double scale_of(const adapter *a, size_t module) {
    return a->targets[module].alpha / a->targets[module].rank;
}

/* W1 or W2: the tensor, or the product made in `room`. */
static const device_array *factor_of(const dense_weight *w, backend *dev, int whole,
                                     device_array *room) {
    if (w->tensors[whole])
        return w->tensors[whole]->value;
    factors_product(dev, room, w->tensors[whole + 1], w->tensors[whole + 2], 1, false);
    return room;
}

/* Row (l, k) of the weight is W1's row l times W2's row k, as an [m, n] matrix. */
static void apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    const kron_shape s = shape_of(w->adapter, w->module);
    const device_array *first = factor_of(w, dev, W1, scratch),
                       *second = factor_of(w, dev, W2, array_at(dev, scratch, s.l * s.m));
    for (int64_t l = 0; l < s.l; l++)
        dev->ops->matmul(dev, &(matmul_call){.c = array_at(dev, weight, l * s.k * w->cols),
                                             .c_stride = s.n,
                                             .rows = s.m,
                                             .cols = s.n,
                                             .k = 1,
                                             .a = {array_at_const(dev, first, l * s.m), s.m, true},
                                             .b = {second, s.n, false},
                                             .scale = w->scale,
                                             .add = true,
                                             .batch = s.k,
                                             .c_step = w->cols,
                                             .b_step = s.n});
}

/* dW1's row l += scale sum over k of D_lk W2's row k, dW2's row k += scale sum over l of W1's row l
 * D_lk; D_lk [m, n]: row (l, k) of the weight's gradient. */
static void kron_bwd(const dense_weight *w, backend *dev, const device_array *d_w,
                     const device_array *first, const device_array *second, device_array *d_first,
                     device_array *d_second) {
    const kron_shape s = shape_of(w->adapter, w->module);
    for (int64_t k = 0; k < s.k; k++)
        dev->ops->matmul(dev,
                         &(matmul_call){.c = d_first,
                                        .c_stride = 1,
                                        .rows = s.m,
                                        .cols = 1,
                                        .k = s.n,
                                        .a = {array_at_const(dev, d_w, k * w->cols), s.n, false},
                                        .b = {array_at_const(dev, second, k * s.n), 1, false},
                                        .scale = w->scale,
                                        .add = true,
                                        .batch = s.l,
                                        .c_step = s.m,
                                        .a_step = s.k * w->cols});
    for (int64_t l = 0; l < s.l; l++)
        dev->ops->matmul(
            dev, &(matmul_call){.c = d_second,
                                .c_stride = s.n,
                                .rows = 1,
                                .cols = s.n,
                                .k = s.m,
                                .a = {array_at_const(dev, first, l * s.m), s.m, false},
                                .b = {array_at_const(dev, d_w, l * s.k * w->cols), s.n, false},
                                .scale = w->scale,
                                .add = true,
                                .batch = s.k,
                                .c_step = s.n,
                                .b_step = w->cols});
}

static void apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    const kron_shape s = shape_of(w->adapter, w->module);
    int64_t n_first = s.l * s.m, n_second = s.k * s.n;
    (void)base;
    device_array *second_room = array_at(dev, scratch, n_first),
                 *d_first = array_at(dev, scratch, n_first + n_second),
                 *d_second = array_at(dev, scratch, 2 * n_first + n_second);
    const device_array *first = factor_of(w, dev, W1, scratch),
                       *second = factor_of(w, dev, W2, second_room);
    dev->ops->fill(dev, d_first, 0, n_first + n_second);
    kron_bwd(w, dev, d_w, first, second, w->tensors[W1] ? w->tensors[W1]->gradient : d_first,
             w->tensors[W2] ? w->tensors[W2]->gradient : d_second);
    if (!w->tensors[W1])
        factors_product_bwd(dev, d_first, w->tensors[W1_A], w->tensors[W1_B], 1);
    if (!w->tensors[W2])
        factors_product_bwd(dev, d_second, w->tensors[W2_A], w->tensors[W2_B], 1);
}

static const dense_method lokr_weight = {
    .suffixes = {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"},
    .scratch_elements = scratch_elements,
    .scale = scale_of,
    .apply = apply,
    .apply_bwd = apply_bwd,
};

/* ---- Shape ---- */

/* The matrix `name` [rows, cols], whole unless the rank is below half of its longer side. */
static bool add_factor(adapter *a, size_t module, const char *name, int64_t rows, int64_t cols,
                       bool may_split, graft_error *err) {
    int64_t rank = a->targets[module].rank, longest = rows > cols ? rows : cols;
    char suffix[32];
    if (!may_split || 2 * rank >= longest)
        return shape_matrix(a, module, name, rows, cols, err) != NULL;
    snprintf(suffix, sizeof suffix, "%s_a", name);
    if (!shape_matrix(a, module, suffix, rows, rank, err))
        return false;
    snprintf(suffix, sizeof suffix, "%s_b", name);
    return shape_matrix(a, module, suffix, rank, cols, err) != NULL;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const kron_shape s = shape_of(a, module);
    bool both = config_flag(&a->config, "decompose_both");
    bool added = add_factor(a, module, "lokr_w1", s.l, s.m, both, err) &&
                 add_factor(a, module, "lokr_w2", s.k, s.n, true, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static bool is_lycoris(const adapter *a) {
    const char *init = config_text(&a->config, "init_weights");
    return init && !strcmp(init, "lycoris");
}

static graft_status lokr_shape(adapter *a, const message_sink *sink, graft_error *err) {
    if (!json_is_boolean(config_value(&a->config, "init_weights")) && !is_lycoris(a))
        return error_set(err, GRAFT_E_INPUT, "init_weights: expected true, false or \"lycoris\"");
    if (config_integer(&a->config, "decompose_factor") == 0)
        return error_set(err, GRAFT_E_INPUT,
                         "decompose_factor: expected a divider, or -1 for the largest that fits");
    graft_status status = shape_each_target(a, add_module, sink, err);
    return status == GRAFT_OK ? dense_create(a, &lokr_weight, err) : status;
}

static bool has_name(const adapter *a, const adapter_tensor *t, const char *name) {
    return t == adapter_tensor_at(a, t->module, name);
}

/* As PEFT: Kaiming uniform with a = sqrt 5 but for one zero factor, of W1 or, as LyCORIS does it,
 * of W2. */
static graft_status lokr_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    bool starts_at_zero = !json_is_false(config_value(&a->config, "init_weights"));
    const char *whole = is_lycoris(a) ? "lokr_w2" : "lokr_w1",
               *factor = is_lycoris(a) ? "lokr_w2_b" : "lokr_w1_a";
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role != ROLE_OTHER)
            continue;
        if (starts_at_zero && (has_name(a, t, whole) || has_name(a, t, factor)))
            shape_fill(t, dev, DRAW_CONSTANT, 0, random);
        else
            shape_fill(t, dev, DRAW_UNIFORM, 1 / sqrt((double)t->shape[1]), random);
    }
    return shape_init_freed(a, dev, weights, err);
}

const adapter_method lokr_method = {
    .peft_type = "LOKR",
    .name = "lokr",
    .summary = "Kronecker products of two small matrices (LoKr)",
    .family = "low rank",
    .paper = "Yeh et al. 2023, arXiv:2309.14859",
    .target_kinds = TARGET_LINEAR,
    .keys = lokr_keys,
    .shape = lokr_shape,
    .destroy = dense_destroy,
    .init = lokr_init,
    .bind = dense_bind,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
