/* PEANuT (Zhong et al., 2024; as PEFT's tuners/peanut): W' = W + scaling (B f(W^T))^T, f a small
 * network over the weight's own columns: h = g(A w), then `depth` times h = g(E_i h), and back
 * h = g(D_i h) + what stood before E_(depth - 1 - i). So the change is of rank r with the factors B
 * and H [r, in], which is made once an update. */
#include "adapter/base_weight.h"
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const config_key peanut_keys[] = {
    TARGET_KEYS,
    EXCLUDE_KEY,
    LAYER_KEYS,
    {.name = "r", .kind = KEY_OURS, .fallback = "32"},
    {.name = "depth", .kind = KEY_INTEGER, .fallback = "0", .min = 0, .max = 64},
    {.name = "act_fn", .kind = KEY_ANY, .fallback = "\"relu\""},
    {.name = "scaling", .kind = KEY_NUMBER, .fallback = "1.0"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

static const char a_suffix[] = "peanut_A.weight", b_suffix[] = "peanut_B.weight";

/* What the network works in, for one module at a time: see part(). */
typedef struct peanut_state {
    activation_kind activation;
    size_t work;            /* derived: parts of [r, the largest in] */
    int64_t largest;        /* elements of a part */
    weight_source *weights; /* of the last prepare; open as long as the adapter is used */
} peanut_state;

/* ---- Shape ---- */

static int32_t depth_of(const adapter *a) {
    return (int32_t)config_integer(&a->config, "depth");
}

static const adapter_tensor *layer_at(const adapter *a, size_t module, bool is_encoder, int32_t i) {
    char suffix[48];
    snprintf(suffix, sizeof suffix, "peanut_%s.%d.weight", is_encoder ? "encoders" : "decoders",
             (int)i);
    return adapter_tensor_at(a, module, suffix);
}

static graft_status find_activation(activation_kind *out, const adapter *a, graft_error *err) {
    static const struct {
        const char *name;
        activation_kind kind;
    } known[] = {{"relu", ACTIVATION_RELU},
                 {"gelu", ACTIVATION_GELU},
                 {"gelu_python", ACTIVATION_GELU},
                 {"gelu_new", ACTIVATION_GELU_TANH},
                 {"gelu_fast", ACTIVATION_GELU_TANH},
                 {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
                 {"gelu_python_tanh", ACTIVATION_GELU_TANH},
                 {"gelu_accurate", ACTIVATION_GELU_TANH},
                 {"silu", ACTIVATION_SILU},
                 {"swish", ACTIVATION_SILU},
                 {"sigmoid", ACTIVATION_SIGMOID},
                 {"tanh", ACTIVATION_TANH},
                 {"leaky_relu", ACTIVATION_LEAKY_RELU},
                 {"linear", ACTIVATION_IDENTITY}};
    const char *name = config_text(&a->config, "act_fn");
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name)) {
            *out = known[i].kind;
            return GRAFT_OK;
        }
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "act_fn: %.40s is not supported; there are relu, gelu, gelu_new, "
                     "gelu_pytorch_tanh, silu, sigmoid, tanh, leaky_relu and linear",
                     name ? name : "that");
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int32_t r = a->config.r;
    char suffix[48];
    bool added = shape_matrix(a, module, a_suffix, r, m->rows, err) &&
                 shape_matrix(a, module, b_suffix, m->rows, r, err);
    for (int32_t i = 0; i < depth_of(a) && added; i++) {
        snprintf(suffix, sizeof suffix, "peanut_encoders.%d.weight", (int)i);
        added = shape_matrix(a, module, suffix, r, r, err);
        snprintf(suffix, sizeof suffix, "peanut_decoders.%d.weight", (int)i);
        added = added && shape_matrix(a, module, suffix, r, r, err);
    }
    if (!added)
        return GRAFT_E_MEMORY;
    return derived_term_add(a, module, r, config_number(&a->config, "scaling"), 0, true, false,
                            err);
}

/* Parts: sums before g [2 depth + 1], what enters encoders and decoders [2 depth + 1], gradients of
 * what enters encoders [depth + 1], and two gradients that are passed on. */
static device_array *part(const adapter *a, backend *dev, int32_t i) {
    const peanut_state *s = a->state;
    return array_at(dev, a->derived[s->work].value, i * s->largest);
}

static int32_t sums_part(int32_t i) {
    return i;
}

static int32_t entry_part(const adapter *a, int32_t i) {
    return 2 * depth_of(a) + 1 + i;
}

static int32_t residual_part(const adapter *a, int32_t i) {
    return 4 * depth_of(a) + 2 + i;
}

static int32_t passed_part(const adapter *a, int32_t i) {
    return 5 * depth_of(a) + 3 + i;
}

static graft_status peanut_shape(adapter *a, const message_sink *sink, graft_error *err) {
    peanut_state *s = a->state = mem_array(1, sizeof *s);
    graft_status status = s ? GRAFT_OK : error_memory(err, sizeof *s, "the adapter's network");
    if (status == GRAFT_OK)
        status = find_activation(&s->activation, a, err);
    if (status == GRAFT_OK)
        status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (!a->targets[i].is_target)
            continue;
        status = add_module(a, i, err);
        if (a->modules[i].cols * a->config.r > s->largest)
            s->largest = a->modules[i].cols * a->config.r;
    }
    if (status != GRAFT_OK)
        return status;
    s->work = shape_derived(a, (passed_part(a, 2)) * s->largest, false, err);
    return s->work == SIZE_MAX ? GRAFT_E_MEMORY : shape_finish(a, sink, err);
}

static void peanut_destroy(adapter *a) {
    free(a->state);
    a->state = NULL;
}

/* As PEFT: Kaiming uniform with a = sqrt 5; B is zero, so that nothing changes at the start. */
static graft_status peanut_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                                graft_error *err) {
    bool is_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role != ROLE_OTHER)
            continue;
        if (is_zero && t == adapter_tensor_at(a, t->module, b_suffix))
            shape_fill(t, dev, DRAW_CONSTANT, 0, random);
        else
            shape_fill(t, dev, DRAW_UNIFORM, 1 / sqrt((double)t->shape[1]), random);
    }
    return shape_init_freed(a, dev, weights, err);
}

static void peanut_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_terms; i++) {
        const adapter_tensor *b = adapter_tensor_at(a, derived_term_at(a, i)->module, b_suffix);
        a->terms[i].b = b->value;
        a->terms[i].db = b->gradient;
    }
    derived_terms_bind(a, hooks);
}

/* ---- The network ---- */

/* c [r, in] = m [r, r] h, or of m transposed. */
static void layer(const adapter *a, backend *dev, device_array *c, const device_array *m,
                  bool transposed, const device_array *h, int64_t in, bool add) {
    int64_t r = a->config.r;
    dev->ops->matmul(dev, &(matmul_call){.c = c,
                                         .c_stride = in,
                                         .rows = r,
                                         .cols = in,
                                         .k = r,
                                         .a = {m, r, transposed},
                                         .b = {h, in, false},
                                         .scale = 1,
                                         .add = add});
}

/* dm [r, r] += dc h^T */
static void layer_gradient(const adapter *a, backend *dev, device_array *dm, const device_array *dc,
                           const device_array *h, int64_t in) {
    int64_t r = a->config.r;
    dev->ops->matmul(dev, &(matmul_call){.c = dm,
                                         .c_stride = r,
                                         .rows = r,
                                         .cols = r,
                                         .k = in,
                                         .a = {dc, in, false},
                                         .b = {h, in, true},
                                         .scale = 1,
                                         .add = true});
}

/* Fills sums and entries of a module; entry 2 depth + 1 would be H, which goes to `out` (NULL: is
 * not needed). */
static void network(const adapter *a, backend *dev, size_t module, const weight_ref *w,
                    device_array *out) {
    const peanut_state *s = a->state;
    const op_table *ops = dev->ops;
    int32_t depth = depth_of(a);
    int64_t in = w->cols, n = in * a->config.r;
    matrix_tokens rows;
    matrix_tokens_make(&rows, a->config.r);
    ops->linear_bwd(dev, part(a, dev, sums_part(0)), adapter_tensor_at(a, module, a_suffix)->value,
                    NULL, NULL, &(linear_call){.weight = *w}, false, NULL, &rows.rows);
    for (int32_t i = 0; i <= 2 * depth; i++) {
        bool is_last = i == 2 * depth;
        device_array *to = is_last ? out : part(a, dev, entry_part(a, i));
        if (!to)
            return;
        ops->activation_fwd(dev, to, part(a, dev, sums_part(i)), s->activation, n);
        if (i > depth)
            ops->add(dev, to, part(a, dev, entry_part(a, 2 * depth - i)), n);
        if (!is_last)
            layer(a, dev, part(a, dev, sums_part(i + 1)),
                  layer_at(a, module, i < depth, i < depth ? i : i - depth)->value, false, to, in,
                  false);
    }
}

static graft_status peanut_prepare(adapter *a, backend *dev, weight_source *weights,
                                   graft_error *err) {
    ((peanut_state *)a->state)->weights = weights;
    for (size_t i = 0; i < a->n_terms; i++) {
        size_t module = derived_term_at(a, i)->module;
        weight_ref w;
        graft_status status = base_weight_acquire(&w, a, module, weights, err);
        if (status != GRAFT_OK)
            return status;
        network(a, dev, module, &w, derived_term_a(a, i)->value);
        base_weight_release(a, module, weights);
    }
    return GRAFT_OK;
}

static void network_backward(const adapter *a, backend *dev, size_t module, const weight_ref *w,
                             const device_array *d_out) {
    const peanut_state *s = a->state;
    const op_table *ops = dev->ops;
    int32_t depth = depth_of(a);
    int64_t in = w->cols, n = in * a->config.r;
    device_array *d = part(a, dev, passed_part(a, 0)), *d_sum = part(a, dev, passed_part(a, 1));
    matrix_tokens rows;
    matrix_tokens_make(&rows, a->config.r);
    ops->copy(dev, d, d_out, n);
    for (int32_t i = 2 * depth; i >= 0; i--) {
        if (i > depth)
            ops->copy(dev, part(a, dev, residual_part(a, 2 * depth - i)), d, n);
        else if (i < depth)
            ops->add(dev, d, part(a, dev, residual_part(a, i)), n);
        ops->activation_bwd(dev, d_sum, d, part(a, dev, sums_part(i)), s->activation, n);
        if (i == 0)
            break;
        const adapter_tensor *m =
            layer_at(a, module, i <= depth, i <= depth ? i - 1 : i - 1 - depth);
        layer_gradient(a, dev, m->gradient, d_sum, part(a, dev, entry_part(a, i - 1)), in);
        layer(a, dev, d, m->value, true, d_sum, in, false);
    }
    ops->linear_fwd(dev, adapter_tensor_at(a, module, a_suffix)->gradient, NULL, d_sum,
                    &(linear_call){.weight = *w}, true, NULL, &rows.rows);
}

static double peanut_chain(adapter *a, backend *dev) {
    weight_source *weights = ((peanut_state *)a->state)->weights;
    for (size_t i = 0; i < a->n_terms; i++) {
        size_t module = derived_term_at(a, i)->module;
        weight_ref w;
        graft_error ignored; /* it could be had before */
        if (base_weight_acquire(&w, a, module, weights, &ignored) != GRAFT_OK)
            return (double)NAN;
        network(a, dev, module, &w, NULL);
        network_backward(a, dev, module, &w, derived_term_a(a, i)->gradient);
        base_weight_release(a, module, weights);
    }
    return 0;
}

const adapter_method peanut_method = {
    .peft_type = "PEANUT",
    .name = "peanut",
    .summary = "low-rank updates by a small network over the weight itself (PEANuT)",
    .family = "low rank",
    .paper = "Zhong et al. 2024, arXiv:2410.01870",
    .target_kinds = TARGET_LINEAR,
    .keys = peanut_keys,
    .shape = peanut_shape,
    .destroy = peanut_destroy,
    .init = peanut_init,
    .bind = peanut_bind,
    .prepare = peanut_prepare,
    .chain = peanut_chain,
    .merge = derived_terms_merge,
    .load = peft_load,
    .save = peft_save,
};
