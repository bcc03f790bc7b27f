/* BOFT (Liu et al., 2024; as PEFT's tuners/boft): y = s * (W R x) + b, R one block-diagonal factor
 * of a butterfly of rotations, s a scale of the outputs. PEFT has more factors only with its CUDA
 * extension; without it, as here, one factor whatever boft_n_butterfly_factor asks for. */
#include "adapter/input_map.h"
#include "adapter/methods.h"
#include "adapter/rotation.h"
#include "base/memory.h"

#include <stdlib.h>

static const config_key boft_keys[] = {
    TARGET_KEYS,
    EXCLUDE_KEY,
    LAYER_KEYS,
    {.name = "boft_block_size", .kind = KEY_INTEGER, .fallback = "4", .min = 0, .max = 4096},
    {.name = "boft_block_num", .kind = KEY_INTEGER, .fallback = "0", .min = 0, .max = 1 << 20},
    {.name = "boft_n_butterfly_factor", .kind = KEY_INTEGER, .fallback = "1", .min = 1, .max = 32},
    {.name = "boft_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout of rotations"},
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

static const char rotation_suffix[] = "boft_R", scale_suffix[] = "boft_s";

typedef struct boft_state {
    rotation_work work;
    double *values, *room; /* [elements of the largest boft_R] on the host */
} boft_state;

/* ---- Shape ---- */

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    input_map *m = input_map_at(a, module);
    int64_t size = config_integer(&a->config, "boft_block_size");
    int64_t blocks = config_integer(&a->config, "boft_block_num");
    int64_t divisor = size ? size : blocks;
    if (m->in % divisor)
        return error_set(err, GRAFT_E_INPUT,
                         "%s %lld does not divide the %lld inputs of %s (PEFT refuses it too): "
                         "choose a divisor",
                         size ? "boft_block_size" : "boft_block_num", (long long)divisor,
                         (long long)m->in, a->modules[module].name);
    m->size = size ? size : m->in / blocks;
    m->blocks = m->in / m->size;
    m->first = shape_derived(a, m->in * m->size, true, err);
    if (m->first == SIZE_MAX)
        return GRAFT_E_MEMORY;
    const int64_t shape[] = {1, m->blocks, m->size, m->size};
    bool added = shape_tensor(a, module, rotation_suffix, 4, shape, err) &&
                 shape_matrix(a, module, scale_suffix, m->out, 1, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status make_work(adapter *a, graft_error *err) {
    boft_state *s = input_map_own(a);
    int64_t largest = 1;
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *t = adapter_tensor_at(a, i, rotation_suffix);
        if (t && t->count > largest)
            largest = t->count;
    }
    s->values = mem_array((size_t)largest, sizeof *s->values);
    s->room = mem_array((size_t)largest, sizeof *s->room);
    if (!s->values || !s->room)
        return error_memory(err, (size_t)largest * sizeof *s->room, "the adapter's rotations");
    return rotation_work_create(&s->work, a, (rotation_rule){.is_exact = true, .sign = -1}, largest,
                                err);
}

static graft_status boft_shape(adapter *a, const message_sink *sink, graft_error *err) {
    if (!config_integer(&a->config, "boft_block_size") ==
        !config_integer(&a->config, "boft_block_num"))
        return error_set(err, GRAFT_E_INPUT,
                         "boft: one of boft_block_size and boft_block_num must be 0, and the other "
                         "not; found %lld and %lld",
                         (long long)config_integer(&a->config, "boft_block_size"),
                         (long long)config_integer(&a->config, "boft_block_num"));
    if (config_integer(&a->config, "boft_n_butterfly_factor") > 1)
        message_emit(sink, MESSAGE_WARNING,
                     "boft_n_butterfly_factor %lld: one factor is used, as PEFT does without its "
                     "CUDA extension",
                     (long long)config_integer(&a->config, "boft_n_butterfly_factor"));
    graft_status status = shape_targets(a, sink, err);
    if (status == GRAFT_OK)
        status = input_map_create(a, &input_map_rotations, scale_suffix, sizeof(boft_state), err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    return status == GRAFT_OK ? make_work(a, err) : status;
}

static void boft_destroy(adapter *a) {
    boft_state *s = input_map_own(a);
    if (s) {
        rotation_work_free(&s->work);
        free(s->values);
        free(s->room);
    }
    input_map_destroy(a);
}

/* R is zero and s one; or N(0, 0.1) and N(1, 0.1). */
static graft_status boft_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    bool is_plain = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *r = adapter_tensor_at(a, i, rotation_suffix);
        if (!r)
            continue;
        shape_fill(r, dev, is_plain ? DRAW_CONSTANT : DRAW_NORMAL, is_plain ? 0 : 0.1, random);
        shape_fill_around(adapter_tensor_at(a, i, scale_suffix), dev, 1, is_plain ? 0 : 0.1,
                          random);
    }
    return shape_init_freed(a, dev, weights, err);
}

/* ---- Rotations: Q = (R - R^T) / 2 ---- */

static void make_skew(const adapter *a, backend *dev, const adapter_tensor *t) {
    const boft_state *s = input_map_own(a);
    int64_t size = t->shape[3];
    dev->ops->download_f64(dev, s->values, t->value, t->count);
    for (int64_t at = 0; at < t->count; at += size * size)
        for (int64_t i = 0; i < size; i++)
            for (int64_t j = 0; j < size; j++)
                s->work.q[at + i * size + j] =
                    (s->values[at + i * size + j] - s->values[at + j * size + i]) / 2;
}

static graft_status boft_prepare(adapter *a, backend *dev, weight_source *weights,
                                 graft_error *err) {
    const boft_state *s = input_map_own(a);
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *t = adapter_tensor_at(a, i, rotation_suffix);
        const input_map *m = input_map_at(a, i);
        if (!t)
            continue;
        make_skew(a, dev, t);
        rotation_make(&s->work, a, dev, a->derived[m->first].value, m->blocks, m->size);
    }
    return GRAFT_OK;
}

static double boft_chain(adapter *a, backend *dev) {
    const boft_state *s = input_map_own(a);
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *t = adapter_tensor_at(a, i, rotation_suffix);
        const input_map *m = input_map_at(a, i);
        if (!t)
            continue;
        const derived_array *r = &a->derived[m->first];
        make_skew(a, dev, t);
        rotation_chain(&s->work, a, dev, r->value, r->gradient, m->blocks, m->size);
        for (int64_t at = 0; at < t->count; at += m->size * m->size)
            for (int64_t row = 0; row < m->size; row++)
                for (int64_t col = 0; col < m->size; col++)
                    s->values[at + row * m->size + col] = (s->work.q[at + row * m->size + col] -
                                                           s->work.q[at + col * m->size + row]) /
                                                          2;
        rotation_add_gradient(t, dev, s->values, s->room);
    }
    return 0;
}

const adapter_method boft_method = {
    .peft_type = "BOFT",
    .name = "boft",
    .summary = "rotations of inputs and scales of outputs (BOFT, one factor)",
    .family = "rotations",
    .paper = "Liu et al. 2024, arXiv:2311.06243",
    .target_kinds = TARGET_LINEAR,
    .keys = boft_keys,
    .shape = boft_shape,
    .destroy = boft_destroy,
    .init = boft_init,
    .bind = input_map_bind,
    .prepare = boft_prepare,
    .chain = boft_chain,
    .merge = input_map_merge,
    .merge_scratch = input_map_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
