/* MiSS (Kang et al., 2024; as PEFT's tuners/miss): one block D [r, out] is shared by the input's
 * shards: y = W x + D^T (sum of x's shards of r elements). That is LoRA whose A [r, in] adds up
 * every r-th input, and whose B is D^T. "mini" repeats a narrow D [r, mini_r] over the outputs.
 * "bat" has a block [r, r] for every r outputs, and W' = W + W D + D, block by block. */
#include "adapter/dense_weight.h"
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const config_key miss_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    EXCLUDE_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "r", .kind = KEY_OURS, .fallback = "64"},
    {.name = "mini_r", .kind = KEY_INTEGER, .fallback = "1", .min = 1, .max = 1 << 30},
    {.name = "init_weights", .kind = KEY_ANY, .fallback = "true"},
    {.name = "miss_dropout", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 0.999},
    {.name = NULL},
};

static bool is_kind(const adapter *a, const char *kind) {
    const char *init = config_text(&a->config, "init_weights");
    return init && !strcmp(init, kind);
}

/* ---- bat: a weight made for the moment ---- */

/* W [r, in] of r outputs is [in, r] blocks' rows one after the other; D the same for each. */
static matmul_call block_product(const dense_weight *w, const device_array *rows, int64_t r) {
    return (matmul_call){.rows = w->cols,
                         .cols = r,
                         .k = r,
                         .c_stride = r,
                         .a = {rows, r, false},
                         .b = {w->tensors[0]->value, r, false},
                         .scale = 1,
                         .batch = w->rows / r,
                         .c_step = r * w->cols,
                         .a_step = r * w->cols,
                         .b_step = r * r};
}

static int64_t bat_scratch(const dense_weight *w) {
    return w->rows * w->cols;
}

static void bat_apply(const dense_weight *w, backend *dev, device_array *weight,
                      device_array *scratch) {
    int64_t r = w->tensors[0]->shape[1];
    matmul_call product = block_product(w, weight, r);
    product.c = scratch;
    dev->ops->matmul(dev, &product);
    dev->ops->add(dev, weight, scratch, w->rows * w->cols);
    for (int64_t row = 0; row < w->rows; row++)
        dev->ops->add_rows(dev, array_at(dev, weight, row * w->cols),
                           array_at_const(dev, w->tensors[0]->value, row * r), w->cols / r, r);
}

static void bat_apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                          const device_array *base, device_array *scratch) {
    int64_t r = w->tensors[0]->shape[1];
    device_array *d_block = w->tensors[0]->gradient;
    (void)scratch;
    dev->ops->matmul(dev, &(matmul_call){.c = d_block,
                                         .c_stride = r,
                                         .rows = r,
                                         .cols = r,
                                         .k = w->cols,
                                         .a = {base, r, true},
                                         .b = {d_w, r, false},
                                         .scale = 1,
                                         .add = true,
                                         .batch = w->rows / r,
                                         .c_step = r * r,
                                         .a_step = r * w->cols,
                                         .b_step = r * w->cols});
    for (int64_t row = 0; row < w->rows; row++)
        dev->ops->sum_cols(dev, array_at(dev, d_block, row * r),
                           array_at_const(dev, d_w, row * w->cols), NULL, w->cols / r, r, NULL);
}

static const dense_method bat_weight = {
    .suffixes = {"miss_block"},
    .needs_base = true,
    .scratch_elements = bat_scratch,
    .apply = bat_apply,
    .apply_bwd = bat_apply_bwd,
};

static graft_status add_bat(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t r = a->config.r;
    if (m->rows % r || m->cols % r)
        return error_set(err, GRAFT_E_INPUT,
                         "init_weights \"bat\" cuts %s [%lld, %lld] into blocks of r x r: r %lld "
                         "does not divide both sides",
                         m->name, (long long)m->rows, (long long)m->cols, (long long)r);
    const int64_t shape[] = {m->rows / r, r, r};
    return shape_tensor(a, module, "miss_block", 3, shape, err) ? GRAFT_OK : GRAFT_E_MEMORY;
}

/* ---- The rest: low-rank terms ---- */

typedef struct miss_state {
    size_t identity; /* derived: [r, r] */
    size_t tile;     /* derived: [mini_r, r], the gradient of "mini" summed over its repetitions */
    size_t *sums;    /* [n_terms] derived: A of the term, shared by layers of as many inputs */
} miss_state;

static bool is_mini(const adapter *a) {
    return is_kind(a, "mini");
}

static graft_status add_block(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t mini = config_integer(&a->config, "mini_r");
    if (a->config.r > m->cols)
        return error_set(err, GRAFT_E_INPUT, "r: %d is more than the %lld inputs of %s",
                         (int)a->config.r, (long long)m->cols, m->name);
    if (is_mini(a) && m->rows % mini)
        return error_set(err, GRAFT_E_INPUT, "mini_r: %lld does not divide the %lld outputs of %s",
                         (long long)mini, (long long)m->rows, m->name);
    if (!shape_matrix(a, module, "miss_block", a->config.r, is_mini(a) ? mini : m->rows, err))
        return GRAFT_E_MEMORY;
    return derived_term_add(a, module, a->config.r, 1,
                            (float)config_number(&a->config, "miss_dropout"), false, true, err);
}

/* The A of earlier layers with as many inputs, or a new one. */
static graft_status share_sums(adapter *a, miss_state *s, size_t term, graft_error *err) {
    for (size_t i = 0; i < term; i++)
        if (derived_term_at(a, i)->in == derived_term_at(a, term)->in) {
            s->sums[term] = s->sums[i];
            return GRAFT_OK;
        }
    s->sums[term] = shape_derived(a, a->config.r * derived_term_at(a, term)->in, false, err);
    return s->sums[term] == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
}

static graft_status make_state(adapter *a, graft_error *err) {
    miss_state *s = a->state = mem_array(1, sizeof *s);
    if (!s || !(s->sums = mem_array(a->n_terms, sizeof *s->sums)))
        return error_memory(err, a->n_terms * sizeof *s->sums, "the adapter's blocks");
    int64_t mini = is_mini(a) ? config_integer(&a->config, "mini_r") : 0;
    s->identity = shape_derived(a, (int64_t)a->config.r * a->config.r, false, err);
    s->tile = shape_derived(a, mini * a->config.r, false, err);
    graft_status status =
        s->identity == SIZE_MAX || s->tile == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
    for (size_t i = 0; i < a->n_terms && status == GRAFT_OK; i++)
        status = share_sums(a, s, i, err);
    return status;
}

static graft_status miss_shape(adapter *a, const message_sink *sink, graft_error *err) {
    if (!json_is_boolean(config_value(&a->config, "init_weights")) && !is_kind(a, "bat") &&
        !is_mini(a))
        return error_set(err, GRAFT_E_INPUT,
                         "init_weights: expected true, false, \"bat\" or \"mini\"");
    if (is_kind(a, "bat")) {
        if (config_number(&a->config, "miss_dropout") > 0)
            return error_set(err, GRAFT_E_UNSUPPORTED,
                             "miss_dropout does nothing with init_weights \"bat\" (nor in PEFT): "
                             "leave it out");
        graft_status status = shape_each_target(a, add_bat, sink, err);
        return status == GRAFT_OK ? dense_create(a, &bat_weight, err) : status;
    }
    graft_status status = shape_each_target(a, add_block, sink, err);
    return status == GRAFT_OK ? make_state(a, err) : status;
}

static void miss_destroy(adapter *a) {
    miss_state *s = a->state;
    if (s && !is_kind(a, "bat"))
        free(s->sums);
    free(s);
    a->state = NULL;
}

static void miss_bind(adapter *a, model_hooks *hooks) {
    const miss_state *s = a->state;
    if (is_kind(a, "bat")) {
        dense_bind(a, hooks);
        return;
    }
    for (size_t i = 0; i < a->n_terms; i++)
        a->terms[i].a = a->derived[s->sums[i]].value;
    derived_terms_bind(a, hooks);
}

/* m [rows, n] = 1 where the column is the row modulo rows. */
static graft_status upload_comb(backend *dev, device_array *m, int64_t rows, int64_t n,
                                graft_error *err) {
    float *line = mem_array((size_t)n, sizeof *line);
    if (!line)
        return error_memory(err, (size_t)n * sizeof *line, "a row of ones");
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < n; i++)
            line[i] = i % rows == row ? 1.0F : 0.0F;
        dev->ops->upload(dev, array_at(dev, m, row * n), line, DTYPE_F32, n);
    }
    free(line);
    return GRAFT_OK;
}

/* B [out, r], the block transposed; of "mini" again and again. */
static void make_b(const adapter *a, backend *dev, size_t term) {
    const miss_state *s = a->state;
    const derived_term *place = derived_term_at(a, term);
    const adapter_tensor *block = adapter_tensor_at(a, place->module, "miss_block");
    int64_t r = place->rank, width = block->shape[1];
    dev->ops->matmul(dev, &(matmul_call){.c = derived_term_b(a, term)->value,
                                         .c_stride = r,
                                         .rows = width,
                                         .cols = r,
                                         .k = r,
                                         .a = {block->value, width, true},
                                         .b = {a->derived[s->identity].value, r, false},
                                         .scale = 1,
                                         .batch = place->out / width,
                                         .c_step = width * r});
}

static graft_status miss_prepare(adapter *a, backend *dev, weight_source *weights,
                                 graft_error *err) {
    const miss_state *s = a->state;
    graft_status status = GRAFT_OK;
    (void)weights;
    if (is_kind(a, "bat"))
        return GRAFT_OK;
    status = upload_comb(dev, a->derived[s->identity].value, a->config.r, a->config.r, err);
    for (size_t i = 0; i < a->n_terms && status == GRAFT_OK; i++) {
        bool is_first = true;
        for (size_t j = 0; j < i; j++)
            is_first = is_first && s->sums[j] != s->sums[i];
        if (is_first)
            status = upload_comb(dev, a->derived[s->sums[i]].value, a->config.r,
                                 derived_term_at(a, i)->in, err);
        make_b(a, dev, i);
    }
    return status;
}

static double miss_chain(adapter *a, backend *dev) {
    const miss_state *s = a->state;
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = derived_term_at(a, i);
        const adapter_tensor *block = adapter_tensor_at(a, place->module, "miss_block");
        int64_t r = place->rank, width = block->shape[1];
        const device_array *d_b = derived_term_b(a, i)->gradient;
        if (is_mini(a)) {
            device_array *tile = a->derived[s->tile].value;
            dev->ops->fill(dev, tile, 0, width * r);
            dev->ops->sum_cols(dev, tile, d_b, NULL, place->out / width, width * r, NULL);
            d_b = tile;
        }
        dev->ops->matmul(dev, &(matmul_call){.c = block->gradient,
                                             .c_stride = width,
                                             .rows = r,
                                             .cols = width,
                                             .k = r,
                                             .a = {a->derived[s->identity].value, r, false},
                                             .b = {d_b, r, true},
                                             .scale = 1,
                                             .add = true});
    }
    return 0;
}

/* Zero; without an initialisation Kaiming uniform with a = sqrt 5. */
static graft_status miss_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    bool is_random = json_is_false(config_value(&a->config, "init_weights"));
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role == ROLE_OTHER)
            shape_fill(t, dev, is_random ? DRAW_UNIFORM : DRAW_CONSTANT,
                       is_random ? 1 / sqrt((double)t->shape[1]) : 0, random);
    }
    return shape_init_freed(a, dev, weights, err);
}

static graft_status miss_merge(adapter *a, backend *dev, size_t module, device_array *w,
                               device_array *bias, device_array *scratch, graft_error *err) {
    return is_kind(a, "bat") ? dense_merge(a, dev, module, w, bias, scratch, err)
                             : derived_terms_merge(a, dev, module, w, bias, scratch, err);
}

static int64_t miss_merge_scratch(const adapter *a, size_t module) {
    return is_kind(a, "bat") ? dense_merge_scratch(a, module) : 0;
}

const adapter_method miss_method = {
    .peft_type = "MISS",
    .name = "miss",
    .summary = "one small matrix shared by the input's shards (MiSS, formerly Bone)",
    .family = "low rank",
    .paper = "Kang et al. 2024, arXiv:2409.15371",
    .target_kinds = TARGET_LINEAR,
    .keys = miss_keys,
    .shape = miss_shape,
    .destroy = miss_destroy,
    .init = miss_init,
    .bind = miss_bind,
    .prepare = miss_prepare,
    .chain = miss_chain,
    .merge = miss_merge,
    .merge_scratch = miss_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
