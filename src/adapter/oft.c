/* OFT (Qiu et al., 2023; as PEFT's tuners/oft): y = W R x, R block-diagonal rotations of the input
 * from skew-symmetric matrices. The constrained kind (coft) keeps these inside a ball. */
#include "adapter/input_map.h"
#include "adapter/methods.h"
#include "adapter/rotation.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

static const config_key oft_keys[] = {
    TARGET_KEYS,
    EXCLUDE_KEY,
    LAYER_KEYS,
    {.name = "r", .kind = KEY_INTEGER, .fallback = "0", .min = 0, .max = LORA_RANK_MAX},
    {.name = "oft_block_size", .kind = KEY_INTEGER, .fallback = "32", .min = 0, .max = 4096},
    {.name = "module_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout of rotations"},
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "coft", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "eps", .kind = KEY_NUMBER, .fallback = "6e-05", .min = 0, .max = 1e9},
    {.name = "block_share", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "use_cayley_neumann", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "num_cayley_neumann_terms", .kind = KEY_INTEGER, .fallback = "5", .min = 1, .max = 64},
    {.name = NULL},
};

static const char suffix[] = "oft_R.weight";

typedef struct oft_state {
    rotation_work work;
    double *vectors, *room; /* [elements of the largest tensor] on the host */
} oft_state;

/* ---- Shape ---- */

static bool is_shared(const adapter *a) {
    return config_flag(&a->config, "block_share");
}

/* PEFT's adjust_oft_parameters: the nearest divisor, the smaller of two as near. */
static int64_t nearest_divisor(int64_t in, int64_t wanted) {
    if (wanted >= in)
        return in;
    int64_t above = wanted, below = wanted;
    while (in % above)
        above++;
    while (in % below)
        below--;
    return wanted - below <= above - wanted ? below : above;
}

static graft_status add_module(adapter *a, size_t module, const message_sink *sink,
                               graft_error *err) {
    input_map *m = input_map_at(a, module);
    int64_t r = config_integer(&a->config, "r");
    int64_t wanted = r ? r : config_integer(&a->config, "oft_block_size");
    int64_t found = nearest_divisor(m->in, wanted);
    if (found != wanted)
        message_emit(sink, MESSAGE_WARNING,
                     "%s: %s %lld does not divide its %lld inputs: %lld is taken, as PEFT does",
                     a->modules[module].name, r ? "r" : "oft_block_size", (long long)wanted,
                     (long long)m->in, (long long)found);
    m->size = r ? m->in / found : found;
    m->blocks = m->in / m->size;
    int64_t made = is_shared(a) ? 1 : m->blocks;
    m->first = shape_derived(a, made * m->size * m->size, true, err);
    if (m->first == SIZE_MAX)
        return GRAFT_E_MEMORY;
    const int64_t shape[] = {made, m->size * (m->size - 1) / 2};
    return shape_tensor(a, module, suffix, 2, shape, err) ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status make_work(adapter *a, graft_error *err) {
    oft_state *s = input_map_own(a);
    int64_t largest = 0;
    size_t count = 1;
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *t = adapter_tensor_at(a, i, suffix);
        if (t && a->derived[input_map_at(a, i)->first].count > largest)
            largest = a->derived[input_map_at(a, i)->first].count;
        if (t && (size_t)t->count > count)
            count = (size_t)t->count;
    }
    s->vectors = mem_array(count, sizeof *s->vectors);
    s->room = mem_array(count, sizeof *s->room);
    if (!s->vectors || !s->room)
        return error_memory(err, count * sizeof *s->room, "the adapter's rotations");
    const rotation_rule rule = {
        .is_exact = !config_flag(&a->config, "use_cayley_neumann"),
        .sign = -1,
        .terms = (int32_t)config_integer(&a->config, "num_cayley_neumann_terms")};
    return rotation_work_create(&s->work, a, rule, largest, err);
}

static graft_status oft_shape(adapter *a, const message_sink *sink, graft_error *err) {
    if (!config_integer(&a->config, "r") == !config_integer(&a->config, "oft_block_size"))
        return error_set(err, GRAFT_E_INPUT,
                         "oft: one of r (blocks of a layer) and oft_block_size must be 0, and the "
                         "other not; found %lld and %lld",
                         (long long)config_integer(&a->config, "r"),
                         (long long)config_integer(&a->config, "oft_block_size"));
    graft_status status = shape_targets(a, sink, err);
    if (status == GRAFT_OK)
        status = input_map_create(a, &input_map_rotations, NULL, sizeof(oft_state), err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, sink, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    return status == GRAFT_OK ? make_work(a, err) : status;
}

static void oft_destroy(adapter *a) {
    oft_state *s = input_map_own(a);
    if (s) {
        rotation_work_free(&s->work);
        free(s->vectors);
        free(s->room);
    }
    input_map_destroy(a);
}

static graft_status oft_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                             graft_error *err) {
    bool is_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].role == ROLE_OTHER)
            shape_fill(&a->tensors[i], dev, is_zero ? DRAW_CONSTANT : DRAW_NORMAL,
                       is_zero ? 0 : 0.1, random);
    return shape_init_freed(a, dev, weights, err);
}

/* ---- Rotations ---- */

/* coft: every block's Q is drawn back to a ball of the radius eps / sqrt(blocks). */
static void constrain(const adapter *a, double *vectors, int64_t blocks, int64_t count) {
    double radius = config_number(&a->config, "eps") / sqrt((double)blocks);
    for (int64_t b = 0; b < blocks; b++, vectors += count) {
        double squares = 0;
        for (int64_t i = 0; i < count; i++)
            squares += 2 * vectors[i] * vectors[i]; /* above and below the diagonal */
        if (sqrt(squares) <= radius)
            continue;
        for (int64_t i = 0; i < count; i++)
            vectors[i] *= radius / sqrt(squares);
    }
}

/* Downloads the vectors, constrained, and fills the work's Q. */
static void make_skew(const adapter *a, backend *dev, const adapter_tensor *t, int64_t size) {
    const oft_state *s = input_map_own(a);
    dev->ops->download_f64(dev, s->vectors, t->value, t->count);
    if (config_flag(&a->config, "coft"))
        constrain(a, s->vectors, t->shape[0], t->shape[1]);
    rotation_skew_of(s->work.q, s->vectors, t->shape[0], size);
}

static graft_status oft_prepare(adapter *a, backend *dev, weight_source *weights,
                                graft_error *err) {
    const oft_state *s = input_map_own(a);
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *t = adapter_tensor_at(a, i, suffix);
        const input_map *m = input_map_at(a, i);
        if (!t)
            continue;
        make_skew(a, dev, t, m->size);
        rotation_make(&s->work, a, dev, a->derived[m->first].value, t->shape[0], m->size);
    }
    return GRAFT_OK;
}

/* PEFT writes the constrained vectors back when it runs forward, so the optimizer starts from
 * them; what is saved after a step has not been constrained. */
static double oft_chain(adapter *a, backend *dev) {
    const oft_state *s = input_map_own(a);
    for (size_t i = 0; i < a->n_modules; i++) {
        const adapter_tensor *t = adapter_tensor_at(a, i, suffix);
        const input_map *m = input_map_at(a, i);
        if (!t)
            continue;
        const derived_array *r = &a->derived[m->first];
        make_skew(a, dev, t, m->size);
        if (config_flag(&a->config, "coft"))
            dev->ops->upload(dev, t->value, s->vectors, DTYPE_F64, t->count);
        rotation_chain(&s->work, a, dev, r->value, r->gradient, t->shape[0], m->size);
        rotation_skew_chain(s->vectors, s->work.q, t->shape[0], m->size);
        rotation_add_gradient(t, dev, s->vectors, s->room);
    }
    return 0;
}

const adapter_method oft_method = {
    .peft_type = "OFT",
    .name = "oft",
    .summary = "block-diagonal rotations of inputs (OFT, COFT)",
    .family = "rotations",
    .paper = "Qiu et al. 2023, arXiv:2306.07280",
    .target_kinds = TARGET_LINEAR,
    .keys = oft_keys,
    .shape = oft_shape,
    .destroy = oft_destroy,
    .init = oft_init,
    .bind = input_map_bind,
    .prepare = oft_prepare,
    .chain = oft_chain,
    .merge = input_map_merge,
    .merge_scratch = input_map_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
