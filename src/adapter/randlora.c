/* RandLoRA (Albert et al., 2025; as PEFT's tuners/randlora): W' = W + alpha / r B A', a sum of as
 * many random low-rank products as give full rank: A' [r n, min] with row (k, b) = lambda[k, b]
 * A[k] * gamma[b], elementwise, and B [max, n r]; A and B are random and shared by all layers, cut
 * to their sizes. Where a layer has fewer outputs than inputs the product is transposed. PEFT
 * flattens A' by (rank, base) and B by (base, rank), and so it is done here. */
#include "adapter/dense_weight.h"
#include "adapter/methods.h"
#include "base/memory.h"
#include "base/torch_random.h"

#include <math.h>
#include <stdlib.h>

static const config_key randlora_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "r", .kind = KEY_OURS, .fallback = "32"},
    {.name = "randlora_alpha", .kind = KEY_NUMBER, .fallback = "640"},
    {.name = "projection_prng_key",
     .kind = KEY_INTEGER,
     .fallback = "0",
     .min = 0,
     .max = 9007199254740991.0},
    {.name = "save_projection", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "sparse", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "very_sparse", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "randlora_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout of the input of the change alone"},
    {.name = NULL},
};

enum { LAMBDA, GAMMA };
static const char a_key[] = "base_model.randlora_A", b_key[] = "base_model.randlora_B";

static const adapter_tensor *shared_of(const adapter *a, const char *key) {
    return adapter_tensor_at(a, (size_t)MODULE_NONE, key);
}

static int64_t bases_for(int64_t least, int64_t r) {
    return (least + r - 1) / r;
}

/* ---- The weight ---- */

typedef struct randlora_sizes {
    int64_t least, most, r, n; /* n bases of rank r */
} randlora_sizes;

static randlora_sizes sizes_of(const dense_weight *w) {
    int64_t least = w->rows < w->cols ? w->rows : w->cols, r = w->adapter->config.r;
    return (randlora_sizes){least, w->rows < w->cols ? w->cols : w->rows, r, bases_for(least, r)};
}

/* A', or its gradient; and one base's rows. */
static int64_t scratch_elements(const dense_weight *w) {
    const randlora_sizes s = sizes_of(w);
    return (s.r * s.n + s.n) * s.least;
}

static double scale_of(const adapter *a, size_t module) {
    (void)module;
    return config_number(&a->config, "randlora_alpha") / a->config.r;
}

static const device_array *a_row(const dense_weight *w, backend *dev, int64_t k) {
    const adapter_tensor *shared = shared_of(w->adapter, a_key);
    return array_at_const(dev, shared->value, k * shared->shape[2]);
}

static void apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    const randlora_sizes s = sizes_of(w);
    const adapter_tensor *b = shared_of(w->adapter, b_key);
    int64_t b_stride = b->shape[1] * b->shape[2];
    bool is_turned = s.least != w->cols;
    for (int64_t k = 0; k < s.r; k++) {
        device_array *rows = array_at(dev, scratch, k * s.n * s.least);
        dev->ops->scale_rows(dev, rows, w->tensors[GAMMA]->value,
                             array_at_const(dev, w->tensors[LAMBDA]->value, k * s.n), s.n, s.least,
                             false);
        dev->ops->scale_cols(dev, rows, rows, a_row(w, dev, k), s.n, s.least, false);
    }
    const matrix made = {scratch, s.least, is_turned}, random = {b->value, b_stride, is_turned};
    dev->ops->matmul(dev, &(matmul_call){.c = weight,
                                         .c_stride = w->cols,
                                         .rows = w->rows,
                                         .cols = w->cols,
                                         .k = s.r * s.n,
                                         .a = is_turned ? made : random,
                                         .b = is_turned ? random : made,
                                         .scale = w->scale,
                                         .add = true});
}

static void apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    const randlora_sizes s = sizes_of(w);
    const adapter_tensor *b = shared_of(w->adapter, b_key);
    device_array *scaled = array_at(dev, scratch, s.r * s.n * s.least);
    (void)base;
    dev->ops->matmul(dev, &(matmul_call){.c = scratch,
                                         .c_stride = s.least,
                                         .rows = s.r * s.n,
                                         .cols = s.least,
                                         .k = s.most,
                                         .a = {b->value, b->shape[1] * b->shape[2], true},
                                         .b = {d_w, w->cols, s.least != w->cols},
                                         .scale = w->scale});
    for (int64_t k = 0; k < s.r; k++) {
        dev->ops->scale_cols(dev, scaled, array_at(dev, scratch, k * s.n * s.least),
                             a_row(w, dev, k), s.n, s.least, false);
        dev->ops->sum_rows(dev, array_at(dev, w->tensors[LAMBDA]->gradient, k * s.n), scaled,
                           w->tensors[GAMMA]->value, s.n, s.least, true);
        dev->ops->scale_rows(dev, w->tensors[GAMMA]->gradient, scaled,
                             array_at_const(dev, w->tensors[LAMBDA]->value, k * s.n), s.n, s.least,
                             true);
    }
}

static const dense_method randlora_weight = {
    .suffixes = {"randlora_lambda", "randlora_gamma"},
    .scratch_elements = scratch_elements,
    .scale = scale_of,
    .apply = apply,
    .apply_bwd = apply_bwd,
};

/* ---- Shape ---- */

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t least = m->rows < m->cols ? m->rows : m->cols, n = bases_for(least, a->config.r);
    bool added = shape_matrix(a, module, "randlora_lambda", a->config.r, n, err) &&
                 shape_matrix(a, module, "randlora_gamma", n, least, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status add_shared(adapter *a, const char *key, int64_t first, int64_t second,
                               int64_t third, graft_error *err) {
    const int64_t shape[] = {first, second, third};
    adapter_tensor *t = shape_tensor(a, (size_t)MODULE_NONE, key, 3, shape, err);
    if (!t)
        return GRAFT_E_MEMORY;
    t->is_fixed = true;
    t->is_rebuilt = !config_flag(&a->config, "save_projection");
    return GRAFT_OK;
}

/* PEFT saves A and B again under every layer. */
static graft_status add_copies(adapter *a, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (!a->targets[i].is_target)
            continue;
        status = shape_copy(a, i, "randlora_A", shared_of(a, a_key), err);
        if (status == GRAFT_OK)
            status = shape_copy(a, i, "randlora_B", shared_of(a, b_key), err);
    }
    return status;
}

static graft_status randlora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    int64_t in = 0, out = 0, r = a->config.r;
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        const model_module *m = &a->modules[i];
        if (!a->targets[i].is_target)
            continue;
        in = m->cols > in ? m->cols : in;
        out = m->rows > out ? m->rows : out;
        status = add_module(a, i, err);
    }
    int64_t least = in < out ? in : out, most = in < out ? out : in;
    if (status == GRAFT_OK)
        status = add_shared(a, a_key, r, 1, least, err);
    if (status == GRAFT_OK)
        status = add_shared(a, b_key, most, bases_for(least, r), r, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK && config_flag(&a->config, "save_projection"))
        status = add_copies(a, err);
    return status == GRAFT_OK ? dense_create(a, &randlora_weight, err) : status;
}

/* ---- First values ---- */

/* torch.Tensor.std() of values kept in float32. */
static double deviation(const float *values, int64_t n) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        mean += (double)values[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += ((double)values[i] - mean) * ((double)values[i] - mean);
    return sqrt(squares / (double)(n - 1));
}

/* -1, 0 and 1 in the shares 1 / 2s, 1 - 1 / s, 1 / 2s. */
static void draw_sparse(torch_random *random, float *out, int64_t n, double sparsity) {
    float low = (float)(1 / (2 * sparsity)), high = (float)(1 - 1 / (2 * sparsity));
    torch_random_uniform(random, out, n, 0, 1);
    for (int64_t i = 0; i < n; i++)
        out[i] = out[i] < low ? -1.0F : out[i] > high ? 1.0F : 0.0F;
}

/* B as PEFT draws it: base after base [most, 1, r], which lie side by side. */
static graft_status draw_bases(torch_random *random, float *out, const adapter_tensor *b,
                               graft_error *err) {
    int64_t most = b->shape[0], n = b->shape[1], r = b->shape[2];
    float *one = mem_array((size_t)(most * r), sizeof *one);
    if (!one)
        return error_memory(err, (size_t)(most * r) * sizeof *one, b->key);
    for (int64_t base = 0; base < n; base++) {
        torch_random_kaiming_uniform(random, one, most * r, r, sqrt(5));
        for (int64_t i = 0; i < most * r; i++)
            out[(i / r * n + base) * r + i % r] = one[i];
    }
    free(one);
    return GRAFT_OK;
}

/* Kaiming uniform draws of so many inputs become bfloat16's, in which PEFT makes them: what rounds
 * to the end of the interval is its beginning, as in torch. Then values / std(values). */
static void normalise_bf16(float *values, int64_t n, int64_t fan_in) {
    float end = bf16_to_f32(f32_to_bf16((float)(1 / sqrt((double)fan_in))));
    for (int64_t i = 0; i < n; i++) {
        values[i] = bf16_to_f32(f32_to_bf16(values[i]));
        if (values[i] >= end)
            values[i] = -end;
    }
    float spread = bf16_to_f32(f32_to_bf16((float)deviation(values, n)));
    for (int64_t i = 0; i < n; i++)
        values[i] = bf16_to_f32(f32_to_bf16(values[i] / spread));
}

static void normalise(float *values, int64_t n) {
    float spread = (float)deviation(values, n);
    for (int64_t i = 0; i < n; i++)
        values[i] /= spread;
}

static graft_status draw_shared(adapter *a, backend *dev, graft_error *err) {
    const adapter_tensor *first = shared_of(a, a_key), *second = shared_of(a, b_key);
    bool is_very_sparse = config_flag(&a->config, "very_sparse"),
         is_sparse = is_very_sparse || config_flag(&a->config, "sparse");
    float *left = mem_array((size_t)first->count, sizeof *left),
          *right = mem_array((size_t)second->count, sizeof *right);
    torch_random random;
    graft_status status = GRAFT_OK;
    if (!left || !right)
        status = error_memory(err, (size_t)second->count * sizeof *right, second->key);
    torch_random_seed(&random, (uint64_t)config_integer(&a->config, "projection_prng_key"));
    if (status == GRAFT_OK && is_sparse) {
        double sparsity = is_very_sparse ? sqrt((double)first->shape[2]) : 3;
        draw_sparse(&random, left, first->count, sparsity);
        draw_sparse(&random, right, second->count, sparsity);
        normalise(left, first->count);
        normalise(right, second->count);
    } else if (status == GRAFT_OK) {
        torch_random_kaiming_uniform(&random, left, first->count, first->shape[2], sqrt(5));
        status = draw_bases(&random, right, second, err);
        normalise_bf16(left, first->count, first->shape[2]);
        normalise_bf16(right, second->count, second->shape[2]);
    }
    if (status == GRAFT_OK) {
        dev->ops->upload(dev, first->value, left, DTYPE_F32, first->count);
        dev->ops->upload(dev, second->value, right, DTYPE_F32, second->count);
    }
    free(left);
    free(right);
    return status;
}

/* As PEFT: lambda zero, gamma 1 / its longer side; without an initialisation lambda N(0, 1) and
 * gamma 1 / the layer's longer side. */
static graft_status randlora_init(adapter *a, backend *dev, const weight_source *weights,
                                  rng *random, graft_error *err) {
    bool initialises = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_modules; i++) {
        const model_module *m = &a->modules[i];
        if (!a->targets[i].is_target)
            continue;
        const adapter_tensor *lambda = adapter_tensor_at(a, i, "randlora_lambda"),
                             *gamma = adapter_tensor_at(a, i, "randlora_gamma");
        int64_t side = gamma->shape[0] > gamma->shape[1] ? gamma->shape[0] : gamma->shape[1],
                most = m->rows > m->cols ? m->rows : m->cols;
        shape_fill(lambda, dev, initialises ? DRAW_CONSTANT : DRAW_NORMAL, initialises ? 0 : 1,
                   random);
        shape_fill(gamma, dev, DRAW_CONSTANT, 1 / (double)(initialises ? side : most), random);
    }
    graft_status status = draw_shared(a, dev, err);
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

static graft_status randlora_load(adapter *a, backend *dev, const weight_source *weights,
                                  const char *folder, graft_error *err) {
    graft_status status = peft_load(a, dev, weights, folder, err);
    return status == GRAFT_OK && shared_of(a, a_key)->is_rebuilt ? draw_shared(a, dev, err)
                                                                 : status;
}

const adapter_method randlora_method = {
    .peft_type = "RANDLORA",
    .name = "randlora",
    .summary = "full-rank updates from random bases that all layers share (RandLoRA)",
    .family = "low rank",
    .paper = "Albert et al. 2025, arXiv:2502.00987",
    .target_kinds = TARGET_LINEAR,
    .keys = randlora_keys,
    .shape = randlora_shape,
    .destroy = dense_destroy,
    .init = randlora_init,
    .bind = dense_bind,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = randlora_load,
    .save = peft_save,
};
