/* VeRA (Kopiczko et al., 2023; as PEFT's tuners/vera): y = W x + b * (B (d * (A x))), with random A
 * and B that all layers share, cut to their sizes, and trained vectors b and d. PVeRA (as
 * tuners/pvera) doubles A and d: the first half gives the mean of what B reads, the second the
 * logarithm of its variance, which PEFT samples with in training mode; here, as in PEFT's
 * evaluation mode, the mean is taken, and the second half stays.
 *
 * As a low-rank term: A cut, and B' = diag(b) B diag(d), made once an update. */
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "base/memory.h"
#include "base/torch_random.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERA_KEYS(name_)                                                                           \
    TARGET_KEYS, LAYER_KEYS, FAN_IN_FAN_OUT_KEY, {.name = "bias", .kind = KEY_OURS},               \
        {.name = "r", .kind = KEY_OURS, .fallback = "256"},                                        \
        {.name = "projection_prng_key",                                                            \
         .kind = KEY_INTEGER,                                                                      \
         .fallback = "0",                                                                          \
         .min = 0,                                                                                 \
         .max = 9007199254740991.0},                                                               \
        {.name = "save_projection", .kind = KEY_FLAG, .fallback = "true"},                         \
        {.name = "d_initial", .kind = KEY_NUMBER, .fallback = "0.1"},                              \
        {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"}, {                          \
        .name = name_ "_dropout", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 0.999    \
    }

static const config_key vera_keys[] = {
    VERA_KEYS("vera"),
    {.name = NULL},
};

static const config_key pvera_keys[] = {
    VERA_KEYS("pvera"),
    {.name = "sample_at_inference",
     .kind = KEY_LACKED,
     .fallback = "false",
     .lacks = "noise in generation"},
    {.name = "generator_seed",
     .kind = KEY_STATED,
     .fallback = "null"}, /* of noise that isn't drawn */
    {.name = NULL},
};

typedef struct vera_state {
    int64_t in_max, out_max; /* of the targets: the sizes of A and B */
    size_t *cut;             /* [n_terms] derived: A [r, in]; SIZE_MAX: A itself */
    size_t room;             /* derived: [out_max, r] */
} vera_state;

static bool is_probabilistic(const adapter *a) {
    return a->method == &pvera_method;
}

/* "vera_A", "pvera_lambda_b", ... */
static const adapter_tensor *tensor_of(const adapter *a, size_t module, const char *end) {
    char name[48];
    snprintf(name, sizeof name, "%s%s_%s", module == (size_t)MODULE_NONE ? "base_model." : "",
             a->method->name, end);
    return adapter_tensor_at(a, module, name);
}

static const adapter_tensor *shared_of(const adapter *a, const char *end) {
    return tensor_of(a, (size_t)MODULE_NONE, end);
}

/* ---- Shape ---- */

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    vera_state *s = a->state;
    const model_module *m = &a->modules[module];
    int64_t halves = is_probabilistic(a) ? 2 : 1;
    char name[48];
    s->in_max = m->cols > s->in_max ? m->cols : s->in_max;
    s->out_max = m->rows > s->out_max ? m->rows : s->out_max;
    snprintf(name, sizeof name, "%s_lambda_b", a->method->name);
    bool added = shape_matrix(a, module, name, m->rows, 0, err);
    snprintf(name, sizeof name, "%s_lambda_d", a->method->name);
    added = added && shape_matrix(a, module, name, halves * a->config.r, 0, err);
    snprintf(name, sizeof name, "%s_dropout", a->method->name);
    return added ? derived_term_add(a, module, a->config.r, 1,
                                    (float)config_number(&a->config, name), false, true, err)
                 : GRAFT_E_MEMORY;
}

static graft_status add_shared(adapter *a, const char *end, int64_t rows, int64_t cols,
                               graft_error *err) {
    char name[48];
    snprintf(name, sizeof name, "base_model.%s_%s", a->method->name, end);
    adapter_tensor *t = shape_matrix(a, (size_t)MODULE_NONE, name, rows, cols, err);
    if (!t)
        return GRAFT_E_MEMORY;
    t->is_fixed = true;
    t->is_rebuilt = !config_flag(&a->config, "save_projection");
    return GRAFT_OK;
}

/* The A of layers with fewer inputs than A has columns; one for all with as many. */
static graft_status cut_a(adapter *a, size_t term, graft_error *err) {
    vera_state *s = a->state;
    int64_t in = derived_term_at(a, term)->in;
    s->cut[term] = SIZE_MAX;
    if (in == s->in_max)
        return GRAFT_OK;
    for (size_t i = 0; i < term; i++)
        if (derived_term_at(a, i)->in == in) {
            s->cut[term] = s->cut[i];
            return GRAFT_OK;
        }
    s->cut[term] = shape_derived(a, a->config.r * in, false, err);
    return s->cut[term] == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
}

static graft_status vera_shape(adapter *a, const message_sink *sink, graft_error *err) {
    vera_state *s = a->state = mem_array(1, sizeof *s);
    int64_t r = a->config.r;
    if (!s)
        return error_memory(err, sizeof *s, "the adapter's projections");
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = add_shared(a, "A", is_probabilistic(a) ? 2 * r : r, s->in_max, err);
    if (status == GRAFT_OK)
        status = add_shared(a, "B", s->out_max, r, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK && !(s->cut = mem_array(a->n_terms, sizeof *s->cut)))
        status = error_memory(err, a->n_terms * sizeof *s->cut, "the adapter's projections");
    for (size_t i = 0; i < a->n_terms && status == GRAFT_OK; i++)
        status = cut_a(a, i, err);
    if (status == GRAFT_OK && (s->room = shape_derived(a, s->out_max * r, false, err)) == SIZE_MAX)
        status = GRAFT_E_MEMORY;
    return status;
}

static void vera_destroy(adapter *a) {
    vera_state *s = a->state;
    if (s)
        free(s->cut);
    free(s);
    a->state = NULL;
}

/* ---- The term ---- */

static void vera_bind(adapter *a, model_hooks *hooks) {
    const vera_state *s = a->state;
    for (size_t i = 0; i < a->n_terms; i++)
        a->terms[i].a =
            s->cut[i] == SIZE_MAX ? shared_of(a, "A")->value : a->derived[s->cut[i]].value;
    derived_terms_bind(a, hooks);
}

static graft_status vera_prepare(adapter *a, backend *dev, weight_source *weights,
                                 graft_error *err) {
    const vera_state *s = a->state;
    const device_array *whole_a = shared_of(a, "A")->value, *b = shared_of(a, "B")->value;
    int64_t r = a->config.r;
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = derived_term_at(a, i);
        device_array *made = derived_term_b(a, i)->value;
        for (int64_t row = 0; row < r && s->cut[i] != SIZE_MAX; row++)
            dev->ops->copy(dev, array_at(dev, a->derived[s->cut[i]].value, row * place->in),
                           array_at_const(dev, whole_a, row * s->in_max), place->in);
        dev->ops->scale_cols(dev, made, b, tensor_of(a, place->module, "lambda_d")->value,
                             place->out, r, false);
        dev->ops->scale_rows(dev, made, made, tensor_of(a, place->module, "lambda_b")->value,
                             place->out, r, false);
    }
    return GRAFT_OK;
}

static double vera_chain(adapter *a, backend *dev) {
    const vera_state *s = a->state;
    const device_array *b = shared_of(a, "B")->value;
    device_array *room = a->derived[s->room].value;
    int64_t r = a->config.r;
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = derived_term_at(a, i);
        const device_array *d_made = derived_term_b(a, i)->gradient;
        const adapter_tensor *lambda_b = tensor_of(a, place->module, "lambda_b"),
                             *lambda_d = tensor_of(a, place->module, "lambda_d");
        dev->ops->scale_cols(dev, room, b, lambda_d->value, place->out, r, false);
        dev->ops->sum_rows(dev, lambda_b->gradient, d_made, room, place->out, r, true);
        dev->ops->scale_rows(dev, room, b, lambda_b->value, place->out, r, false);
        dev->ops->sum_cols(dev, lambda_d->gradient, d_made, room, place->out, r, NULL);
    }
    return 0;
}

/* ---- First values ---- */

/* A and B as PEFT draws them from projection_prng_key: Kaiming uniform, one after the other. */
static graft_status draw_shared(adapter *a, backend *dev, graft_error *err) {
    static const char *const ends[] = {"A", "B"};
    torch_random random;
    graft_status status = GRAFT_OK;
    torch_random_seed(&random, (uint64_t)config_integer(&a->config, "projection_prng_key"));
    for (size_t i = 0; i < 2 && status == GRAFT_OK; i++) {
        const adapter_tensor *t = shared_of(a, ends[i]);
        float *drawn = mem_array((size_t)t->count, sizeof *drawn);
        if (!drawn) {
            status = error_memory(err, (size_t)t->count * sizeof *drawn, t->key);
            break;
        }
        torch_random_kaiming_uniform(&random, drawn, t->count, t->shape[1], 0);
        dev->ops->upload(dev, t->value, drawn, DTYPE_F32, t->count);
        free(drawn);
    }
    return status;
}

static graft_status vera_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    bool initialises = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->targets[i].is_target)
            continue;
        shape_fill(tensor_of(a, i, "lambda_b"), dev, DRAW_CONSTANT, initialises ? 0 : 1, random);
        if (initialises)
            shape_fill(tensor_of(a, i, "lambda_d"), dev, DRAW_CONSTANT,
                       config_number(&a->config, "d_initial"), random);
        else
            shape_fill(tensor_of(a, i, "lambda_d"), dev, DRAW_NORMAL, 1, random);
    }
    graft_status status = draw_shared(a, dev, err);
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

static graft_status vera_load(adapter *a, backend *dev, const weight_source *weights,
                              const char *folder, graft_error *err) {
    graft_status status = peft_load(a, dev, weights, folder, err);
    return status == GRAFT_OK && shared_of(a, "A")->is_rebuilt ? draw_shared(a, dev, err) : status;
}

/* As LoRA's but for phi. */
static const char *const *vera_targets(const char *model_type) {
    static const char *const phi[] = {"q_proj", "v_proj", NULL};
    const model_family *family = model_family_find(model_type);
    return !strcmp(model_type, "phi") ? phi : family ? family->lora_default_targets : NULL;
}

const adapter_method vera_method = {
    .peft_type = "VERA",
    .name = "vera",
    .summary = "trained scales of random projections that all layers share (VeRA)",
    .family = "low rank",
    .paper = "Kopiczko et al. 2023, arXiv:2310.11454",
    .target_kinds = TARGET_LINEAR,
    .keys = vera_keys,
    .default_targets = vera_targets,
    .shape = vera_shape,
    .destroy = vera_destroy,
    .init = vera_init,
    .bind = vera_bind,
    .prepare = vera_prepare,
    .chain = vera_chain,
    .merge = derived_terms_merge,
    .load = vera_load,
    .save = peft_save,
};

const adapter_method pvera_method = {
    .peft_type = "PVERA",
    .name = "pvera",
    .summary = "VeRA with a mean and a variance (PVeRA), of which the mean is used",
    .family = "low rank",
    .paper = "Fillioux et al. 2025, arXiv:2512.07703",
    .target_kinds = TARGET_LINEAR,
    .keys = pvera_keys,
    .default_targets = vera_targets,
    .shape = vera_shape,
    .destroy = vera_destroy,
    .init = vera_init,
    .bind = vera_bind,
    .prepare = vera_prepare,
    .chain = vera_chain,
    .merge = derived_terms_merge,
    .load = vera_load,
    .save = peft_save,
};
