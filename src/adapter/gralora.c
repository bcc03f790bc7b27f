/* GraLoRA (Jung et al., 2025; as PEFT's tuners/gralora): the weight is cut into k x k blocks, and
 * each has a low-rank change of its own: input block i gives A_i x_i [r], whose j-th part of r / k
 * goes to output block j, through rows i r / k and on of B_j. All scaled by s = alpha / (r +
 * hybrid_r); with hybrid_r beside it a plain LoRA of that rank. Costs what LoRA of rank r costs. */
#include "adapter/methods.h"
#include "adapter/shape.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

static const config_key gralora_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "r", .kind = KEY_OURS, .fallback = "32"},
    {.name = "alpha", .kind = KEY_OURS, .fallback = "64"},
    {.name = "gralora_k", .kind = KEY_INTEGER, .fallback = "2", .min = 1, .max = 1 << 16},
    {.name = "hybrid_r", .kind = KEY_INTEGER, .fallback = "0", .min = 0, .max = LORA_RANK_MAX},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "gralora_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout of the input of its blocks"},
    {.name = NULL},
};

typedef struct gralora_layer { /* of one module */
    int64_t in, out;           /* of a block */
    int64_t k, r;
    double scale;
    adapter_tensor *a, *b; /* [k, in, r], [k, r, out] */
    low_rank_term *hybrid; /* NULL: none */
} gralora_layer;

/* ---- Form ---- */

/* What the blocks' A make of x: [n, k, r]. */
static int64_t kept_elements(const void *self, int64_t n) {
    const gralora_layer *l = self;
    return n * l->k * l->r;
}

/* Its gradient. */
static int64_t scratch_elements(const void *self, int64_t n) {
    return kept_elements(self, n);
}

/* A product between parts of all tokens' rows and a matrix, for each of the k blocks. */
static matmul_call product_of(const gralora_layer *l, int64_t n, double scale) {
    return (matmul_call){.rows = n, .scale = scale, .batch = l->k};
}

/* y's block j (+)= scale sum over i of part j of t_i times B_j's rows i */
static void expand(const gralora_layer *l, const form_pass *p, device_array *y) {
    int64_t part = l->r / l->k;
    for (int64_t i = 0; i < l->k; i++) {
        matmul_call call = product_of(l, p->tokens->n, l->scale);
        call.c = y;
        call.c_stride = l->k * l->out;
        call.c_step = l->out;
        call.cols = l->out;
        call.k = part;
        call.a = (matrix){array_at_const(p->dev, p->kept, i * l->r), l->k * l->r, false};
        call.a_step = part;
        call.b = (matrix){array_at_const(p->dev, l->b->value, i * part * l->out), l->out, false};
        call.b_step = l->r * l->out;
        call.add = true;
        p->dev->ops->matmul(p->dev, &call);
    }
}

static void forward(const void *self, const form_pass *p, const base_linear *base, device_array *y,
                    const device_array *x, bool add) {
    const gralora_layer *l = self;
    matmul_call call = product_of(l, p->tokens->n, 1);
    p->dev->ops->linear_fwd(p->dev, y, base->xa, x, base->call, add, base->scratch, p->tokens);
    call.c = p->kept;
    call.c_stride = l->k * l->r;
    call.c_step = l->r;
    call.cols = l->r;
    call.k = l->in;
    call.a = (matrix){x, l->k * l->in, false};
    call.a_step = l->in;
    call.b = (matrix){l->a->value, l->r, false};
    call.b_step = l->in * l->r;
    p->dev->ops->matmul(p->dev, &call);
    expand(l, p, y);
}

/* dt's part j of t_i = scale dy_j (B_j's rows i)^T, and these rows' gradient. */
static void expand_bwd(const gralora_layer *l, const form_pass *p, device_array *dt,
                       const device_array *dy) {
    int64_t part = l->r / l->k, n = p->tokens->n;
    for (int64_t i = 0; i < l->k; i++) {
        matmul_call call = product_of(l, n, l->scale);
        call.c = array_at(p->dev, dt, i * l->r);
        call.c_stride = l->k * l->r;
        call.c_step = part;
        call.cols = part;
        call.k = l->out;
        call.a = (matrix){dy, l->k * l->out, false};
        call.a_step = l->out;
        call.b = (matrix){array_at_const(p->dev, l->b->value, i * part * l->out), l->out, true};
        call.b_step = l->r * l->out;
        p->dev->ops->matmul(p->dev, &call);
        if (!l->b->gradient)
            continue;
        call = product_of(l, part, l->scale);
        call.c = array_at(p->dev, l->b->gradient, i * part * l->out);
        call.c_stride = l->out;
        call.c_step = l->r * l->out;
        call.cols = l->out;
        call.k = n;
        call.a = (matrix){array_at_const(p->dev, p->kept, i * l->r), l->k * l->r, true};
        call.a_step = part;
        call.b = (matrix){dy, l->k * l->out, false};
        call.b_step = l->out;
        call.tokens = p->tokens;
        p->dev->ops->matmul(p->dev, &call);
    }
}

static void backward(const void *self, const form_pass *p, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const gralora_layer *l = self;
    device_array *dt = p->scratch;
    p->dev->ops->linear_bwd(p->dev, dx, dy, x, base->xa, base->call, add, base->scratch, p->tokens);
    expand_bwd(l, p, dt, dy);
    if (l->a->gradient) {
        matmul_call call = product_of(l, l->in, 1);
        call.c = l->a->gradient;
        call.c_stride = l->r;
        call.c_step = l->in * l->r;
        call.cols = l->r;
        call.k = p->tokens->n;
        call.a = (matrix){x, l->k * l->in, true};
        call.a_step = l->in;
        call.b = (matrix){dt, l->k * l->r, false};
        call.b_step = l->r;
        call.tokens = p->tokens;
        p->dev->ops->matmul(p->dev, &call);
    }
    if (!dx)
        return;
    matmul_call call = product_of(l, p->tokens->n, 1);
    call.c = dx;
    call.c_stride = l->k * l->in;
    call.c_step = l->in;
    call.cols = l->in;
    call.k = l->r;
    call.a = (matrix){dt, l->k * l->r, false};
    call.a_step = l->r;
    call.b = (matrix){l->a->value, l->r, true};
    call.b_step = l->in * l->r;
    call.add = true;
    p->dev->ops->matmul(p->dev, &call);
}

static const linear_form form = {
    .memory = {kept_elements, scratch_elements}, .fwd = forward, .bwd = backward};

/* ---- Shape ---- */

static const char general_a[] = "gralora_A_general.weight",
                  general_b[] = "gralora_B_general.weight";

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t k = config_integer(&a->config, "gralora_k"), r = a->config.r,
            hybrid = config_integer(&a->config, "hybrid_r");
    if (m->rows % k || m->cols % k)
        return error_set(err, GRAFT_E_INPUT,
                         "gralora_k: %lld divides not both sides of %s [%lld, %lld]", (long long)k,
                         m->name, (long long)m->rows, (long long)m->cols);
    const int64_t shape_a[] = {k, m->cols / k, r}, shape_b[] = {k, r, m->rows / k};
    bool added = shape_tensor(a, module, "gralora_A", 3, shape_a, err) &&
                 shape_tensor(a, module, "gralora_B", 3, shape_b, err);
    if (hybrid)
        added = added && shape_matrix(a, module, general_a, hybrid, m->cols, err) &&
                shape_matrix(a, module, general_b, m->rows, hybrid, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static void place_layer(adapter *a, size_t module) {
    gralora_layer *l = (gralora_layer *)a->state + module;
    const model_module *m = &a->modules[module];
    int64_t k = config_integer(&a->config, "gralora_k"),
            hybrid = config_integer(&a->config, "hybrid_r");
    *l = (gralora_layer){.in = m->cols / k,
                         .out = m->rows / k,
                         .k = k,
                         .r = a->config.r,
                         .scale = a->config.lora_alpha / (double)(a->config.r + hybrid),
                         .a = adapter_tensor_at(a, module, "gralora_A"),
                         .b = adapter_tensor_at(a, module, "gralora_B")};
    if (!hybrid)
        return;
    l->hybrid = &a->terms[a->n_terms++];
    *l->hybrid = (low_rank_term){.scale = (float)l->scale, .rank = (int32_t)hybrid, .job = a->job};
}

static graft_status gralora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    if (a->config.r % config_integer(&a->config, "gralora_k"))
        return error_set(err, GRAFT_E_INPUT, "r: %d is not a multiple of gralora_k %lld",
                         (int)a->config.r, (long long)config_integer(&a->config, "gralora_k"));
    graft_status status = shape_each_target(a, add_module, sink, err);
    if (status != GRAFT_OK)
        return status;
    a->state = mem_array(a->n_modules, sizeof(gralora_layer));
    a->terms = mem_array(a->n_modules, sizeof *a->terms);
    if (!a->state || !a->terms)
        return error_memory(err, a->n_modules * sizeof *a->terms, "the adapter's blocks");
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->targets[i].is_target)
            place_layer(a, i);
    return GRAFT_OK;
}

static void gralora_destroy(adapter *a) {
    free(a->state);
    a->state = NULL;
}

/* As PEFT: A Kaiming uniform with a = sqrt 5 over its inputs, B zero or, without an initialisation,
 * likewise over the rank. */
static graft_status gralora_init(adapter *a, backend *dev, const weight_source *weights,
                                 rng *random, graft_error *err) {
    bool starts_at_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role != ROLE_OTHER)
            continue;
        bool is_b = t == adapter_tensor_at(a, t->module, "gralora_B") ||
                    t == adapter_tensor_at(a, t->module, general_b);
        double fan_in = (double)t->shape[1]; /* [k, in, r], [k, r, out], [r, in], [out, r] */
        if (is_b && starts_at_zero)
            shape_fill(t, dev, DRAW_CONSTANT, 0, random);
        else
            shape_fill(t, dev, DRAW_UNIFORM, 1 / sqrt(fan_in), random);
    }
    return shape_init_freed(a, dev, weights, err);
}

static void gralora_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_modules; i++) {
        gralora_layer *l = (gralora_layer *)a->state + i;
        if (!a->targets[i].is_target)
            continue;
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[i]);
        hook->form = &form;
        hook->form_self = l;
        if (!l->hybrid)
            continue;
        const adapter_tensor *right = adapter_tensor_at(a, i, general_a),
                             *left = adapter_tensor_at(a, i, general_b);
        l->hybrid->a = right->value;
        l->hybrid->da = right->gradient;
        l->hybrid->b = left->value;
        l->hybrid->db = left->gradient;
        hook->terms = l->hybrid;
        hook->n_terms = 1;
    }
    shape_bind_freed(a, hooks);
}

/* Block (j, i) of w += s (A_i's columns of part j times B_j's rows i)^T. */
static graft_status gralora_merge(adapter *a, backend *dev, size_t module, device_array *w,
                                  device_array *bias, device_array *scratch, graft_error *err) {
    const gralora_layer *l = (const gralora_layer *)a->state + module;
    (void)bias;
    (void)scratch;
    (void)err;
    if (!a->targets[module].is_target)
        return GRAFT_OK;
    int64_t part = l->r / l->k, cols = l->k * l->in;
    for (int64_t i = 0; i < l->k; i++)
        dev->ops->matmul(
            dev,
            &(matmul_call){.c = array_at(dev, w, i * l->in),
                           .c_stride = cols,
                           .rows = l->out,
                           .cols = l->in,
                           .k = part,
                           .a = {array_at_const(dev, l->b->value, i * part * l->out), l->out, true},
                           .b = {array_at_const(dev, l->a->value, i * l->in * l->r), l->r, true},
                           .scale = l->scale,
                           .add = true,
                           .batch = l->k,
                           .c_step = l->out * cols,
                           .a_step = l->r * l->out,
                           .b_step = part});
    if (l->hybrid)
        dev->ops->matmul(dev, &(matmul_call){.c = w,
                                             .c_stride = cols,
                                             .rows = l->k * l->out,
                                             .cols = cols,
                                             .k = l->hybrid->rank,
                                             .a = {l->hybrid->b, l->hybrid->rank, false},
                                             .b = {l->hybrid->a, cols, false},
                                             .scale = l->scale,
                                             .add = true});
    return GRAFT_OK;
}

const adapter_method gralora_method = {
    .peft_type = "GRALORA",
    .name = "gralora",
    .summary = "low-rank updates of each block of a grid (GraLoRA)",
    .family = "low rank",
    .paper = "Jung et al. 2025, arXiv:2505.20355",
    .target_kinds = TARGET_LINEAR,
    .keys = gralora_keys,
    .shape = gralora_shape,
    .destroy = gralora_destroy,
    .init = gralora_init,
    .bind = gralora_bind,
    .merge = gralora_merge,
    .load = peft_load,
    .save = peft_save,
};
