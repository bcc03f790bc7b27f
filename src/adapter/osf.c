/* OSF (as PEFT's tuners/osf): the small singular directions of each weight train, the large ones
 * stay. W' = W + U diag(S) V - U0 diag(S0) V0, with U0, S0, V0 the small directions of the base,
 * which are made again whenever an adapter is loaded; gradients of U and V keep out of the large
 * directions.
 *
 * Where a factor is square, what is orthogonal to its large directions is spanned by the small
 * ones; else the large directions of that factor are kept as well. */
#include "adapter/base_svd.h"
#include "adapter/dense_weight.h"
#include "adapter/methods.h"
#include "adapter/pattern.h"
#include "base/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const config_key osf_keys[] = {
    TARGET_KEYS,
    {.name = "effective_rank", .kind = KEY_ANY, .fallback = "null"},
    {.name = "rank_pattern", .kind = KEY_ANY, .fallback = "null"},
    {.name = "init_weights", .kind = KEY_ANY, .fallback = "null"},
    {.name = "target_svd_config", .kind = KEY_STATED, .fallback = "null"},
    {.name = NULL},
};

static const char u_suffix[] = "osf_svd_params.U_low", s_suffix[] = "osf_svd_params.S_low",
                  v_suffix[] = "osf_svd_params.V_low";

enum { U_LOW, S_LOW, V_LOW };

/* Derived, of one module: the base's small directions, and the large ones of the factor that is not
 * square (SIZE_MAX: it is). */
typedef struct osf_base {
    int64_t low, high;
    size_t u, s, v, u_high, v_high;
    size_t room;     /* derived: of the projections, shared by all modules */
    bool is_made;    /* the base's directions are there */
    bool takes_base; /* the tensors start from them */
} osf_base;

static const device_array *base_array(const dense_weight *w, size_t index) {
    return w->adapter->derived[index].value;
}

/* ---- The weight ---- */

/* U diag(S), and its gradient. */
static int64_t scratch_elements(const dense_weight *w) {
    return 2 * w->rows * ((const osf_base *)w->own)->low;
}

/* w += scale u diag(s) v */
static void add_product(const dense_weight *w, backend *dev, device_array *weight,
                        const device_array *u, const device_array *s, const device_array *v,
                        double scale, device_array *scratch) {
    int64_t low = ((const osf_base *)w->own)->low;
    dev->ops->scale_cols(dev, scratch, u, s, w->rows, low, false);
    dev->ops->matmul(dev, &(matmul_call){.c = weight,
                                         .c_stride = w->cols,
                                         .rows = w->rows,
                                         .cols = w->cols,
                                         .k = low,
                                         .a = {scratch, low, false},
                                         .b = {v, w->cols, false},
                                         .scale = scale,
                                         .add = true});
}

static void apply(const dense_weight *w, backend *dev, device_array *weight,
                  device_array *scratch) {
    const osf_base *o = w->own;
    add_product(w, dev, weight, w->tensors[U_LOW]->value, w->tensors[S_LOW]->value,
                w->tensors[V_LOW]->value, 1, scratch);
    add_product(w, dev, weight, base_array(w, o->u), base_array(w, o->s), base_array(w, o->v), -1,
                scratch);
}

static void apply_bwd(const dense_weight *w, backend *dev, device_array *d_w,
                      const device_array *base, device_array *scratch) {
    int64_t low = ((const osf_base *)w->own)->low;
    const adapter_tensor *u = w->tensors[U_LOW], *s = w->tensors[S_LOW], *v = w->tensors[V_LOW];
    device_array *scaled = scratch, *d_scaled = array_at(dev, scratch, w->rows * low);
    (void)base;
    dev->ops->scale_cols(dev, scaled, u->value, s->value, w->rows, low, false);
    dev->ops->matmul(dev, &(matmul_call){.c = v->gradient,
                                         .c_stride = w->cols,
                                         .rows = low,
                                         .cols = w->cols,
                                         .k = w->rows,
                                         .a = {scaled, low, true},
                                         .b = {d_w, w->cols, false},
                                         .scale = 1,
                                         .add = true});
    dev->ops->matmul(dev, &(matmul_call){.c = d_scaled,
                                         .c_stride = low,
                                         .rows = w->rows,
                                         .cols = low,
                                         .k = w->cols,
                                         .a = {d_w, w->cols, false},
                                         .b = {v->value, w->cols, true},
                                         .scale = 1});
    dev->ops->scale_cols(dev, u->gradient, d_scaled, s->value, w->rows, low, true);
    dev->ops->sum_cols(dev, s->gradient, d_scaled, u->value, w->rows, low, NULL);
}

static const dense_method osf_weight = {
    .suffixes = {u_suffix, s_suffix, v_suffix},
    .scratch_elements = scratch_elements,
    .apply = apply,
    .apply_bwd = apply_bwd,
};

/* ---- Shape ---- */

/* PEFT: nothing is half of the smaller side, a fraction a share of it. */
static int64_t rank_of_value(const json_t *value, int64_t smaller) {
    double number = json_number_value(value);
    if (json_is_null(value))
        return smaller / 2;
    if (json_is_real(value) && number > 0 && number <= 1)
        number *= (double)smaller;
    return number < 0 ? 0 : number > (double)smaller ? smaller : (int64_t)number;
}

/* The first expression of rank_pattern found in the name (re.search). */
static graft_status frozen_rank(int64_t *out, const adapter *a, const model_module *m,
                                graft_error *err) {
    const json_t *patterns = config_value(&a->config, "rank_pattern"),
                 *value = config_value(&a->config, "effective_rank");
    int64_t smaller = m->rows < m->cols ? m->rows : m->cols;
    const char *text;
    json_t *given;
    json_object_foreach((json_t *)patterns, text, given) {
        char whole[ADAPTER_PATTERN_MAX + 16];
        pattern *compiled = NULL;
        bool matches = false;
        snprintf(whole, sizeof whole, ".*(?:%s).*", text);
        graft_status status = pattern_create(&compiled, whole, PATTERN_WHOLE, "rank_pattern", err);
        if (status == GRAFT_OK)
            status = pattern_match(&matches, compiled, m->name, err);
        pattern_destroy(&compiled);
        if (status != GRAFT_OK)
            return status;
        if (matches) {
            value = given;
            break;
        }
    }
    if (!json_is_null(value) && !json_is_number(value))
        return error_set(err, GRAFT_E_INPUT, "effective_rank: expected a number, found %s",
                         json_type_name(value));
    *out = rank_of_value(value, smaller);
    if (*out < 1 || *out >= smaller)
        return error_set(
            err, GRAFT_E_INPUT,
            "effective_rank of %s is %lld: expected 1 to %lld directions that stay, so "
            "that others are left to train",
            m->name, (long long)*out, (long long)(smaller - 1));
    return GRAFT_OK;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t high, smaller = m->rows < m->cols ? m->rows : m->cols;
    graft_status status = frozen_rank(&high, a, m, err);
    if (status != GRAFT_OK)
        return status;
    bool added = shape_matrix(a, module, u_suffix, m->rows, smaller - high, err) &&
                 shape_matrix(a, module, s_suffix, smaller - high, 0, err) &&
                 shape_matrix(a, module, v_suffix, smaller - high, m->cols, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status add_base(adapter *a, size_t module, graft_error *err) {
    dense_weight *w = dense_weight_at(a, module);
    osf_base *o = w->own = mem_array(1, sizeof *o);
    int64_t smaller = w->rows < w->cols ? w->rows : w->cols;
    if (!o)
        return error_memory(err, sizeof *o, "an adapter's directions");
    o->low = w->tensors[S_LOW]->count;
    o->high = smaller - o->low;
    o->u_high = o->v_high = SIZE_MAX;
    bool added = (o->u = shape_derived(a, w->rows * o->low, false, err)) != SIZE_MAX &&
                 (o->s = shape_derived(a, o->low, false, err)) != SIZE_MAX &&
                 (o->v = shape_derived(a, o->low * w->cols, false, err)) != SIZE_MAX &&
                 (w->rows <= w->cols ||
                  (o->u_high = shape_derived(a, w->rows * o->high, false, err)) != SIZE_MAX) &&
                 (w->cols <= w->rows ||
                  (o->v_high = shape_derived(a, o->high * w->cols, false, err)) != SIZE_MAX);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status osf_shape(adapter *a, const message_sink *sink, graft_error *err) {
    int64_t room = 1;
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK)
        status = dense_create(a, &osf_weight, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (!a->targets[i].is_target)
            continue;
        status = add_base(a, i, err);
        if (status != GRAFT_OK)
            break;
        const osf_base *o = dense_weight_at(a, i)->own;
        int64_t wider = o->low > o->high ? o->low : o->high;
        room = wider * o->low > room ? wider * o->low : room;
    }
    if (status != GRAFT_OK)
        return status;
    size_t shared = shape_derived(a, room, false, err);
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->targets[i].is_target)
            ((osf_base *)dense_weight_at(a, i)->own)->room = shared;
    return shared == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
}

static void osf_destroy(adapter *a) {
    for (size_t i = 0; i < a->n_modules && a->state; i++)
        free(dense_weight_at(a, i)->own);
    dense_destroy(a);
}

/* The tensors are the base's own directions, which prepare finds; or N(0, 1). */
static graft_status osf_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                             graft_error *err) {
    bool is_random = json_is_false(config_value(&a->config, "init_weights"));
    for (size_t i = 0; i < a->n_modules; i++) {
        const dense_weight *w = dense_weight_at(a, i);
        if (!w->own)
            continue;
        ((osf_base *)w->own)->takes_base = !is_random;
        for (int t = U_LOW; t <= V_LOW && is_random; t++)
            shape_fill(w->tensors[t], dev, DRAW_NORMAL, 1, random);
    }
    return shape_init_freed(a, dev, weights, err);
}

/* ---- The base's directions ---- */

/* Columns first .. first + n - 1 of u [rows, k], in place of u's beginning. */
static void upload_columns(backend *dev, device_array *to, double *room, const double *u,
                           int64_t rows, int64_t k, int64_t first, int64_t n) {
    for (int64_t i = 0; i < rows; i++)
        memcpy(room + i * n, u + i * k + first, (size_t)n * sizeof *room);
    dev->ops->upload(dev, to, room, DTYPE_F64, rows * n);
}

static graft_status make_base(adapter *a, backend *dev, size_t module, const weight_source *weights,
                              graft_error *err) {
    const dense_weight *w = dense_weight_at(a, module);
    osf_base *o = w->own;
    base_svd d;
    graft_status status = base_svd_full(&d, a, module, weights, err);
    if (status != GRAFT_OK)
        return status;
    double *room = mem_array((size_t)(d.rows * d.k), sizeof *room);
    if (!room) {
        base_svd_free(&d);
        return error_memory(err, (size_t)(d.rows * d.k) * sizeof *room, "an adapter's directions");
    }
    device_array *u = a->derived[o->u].value, *s = a->derived[o->s].value,
                 *v = a->derived[o->v].value;
    upload_columns(dev, u, room, d.u, d.rows, d.k, o->high, o->low);
    dev->ops->upload(dev, s, d.s + o->high, DTYPE_F64, o->low);
    dev->ops->upload(dev, v, d.vt + o->high * d.cols, DTYPE_F64, o->low * d.cols);
    if (o->u_high != SIZE_MAX)
        upload_columns(dev, a->derived[o->u_high].value, room, d.u, d.rows, d.k, 0, o->high);
    if (o->v_high != SIZE_MAX)
        dev->ops->upload(dev, a->derived[o->v_high].value, d.vt, DTYPE_F64, o->high * d.cols);
    if (o->takes_base) {
        dev->ops->copy(dev, w->tensors[U_LOW]->value, u, w->tensors[U_LOW]->count);
        dev->ops->copy(dev, w->tensors[S_LOW]->value, s, w->tensors[S_LOW]->count);
        dev->ops->copy(dev, w->tensors[V_LOW]->value, v, w->tensors[V_LOW]->count);
        o->takes_base = false;
    }
    o->is_made = true;
    free(room);
    base_svd_free(&d);
    return GRAFT_OK;
}

static graft_status osf_prepare(adapter *a, backend *dev, weight_source *weights,
                                graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        const osf_base *o = dense_weight_at(a, i)->own;
        if (o && !o->is_made)
            status = make_base(a, dev, i, weights, err);
    }
    return status;
}

/* ---- Gradients stay out of the large directions ---- */

/* g [rows, low]: U0 U0^T g, or g - Uh Uh^T g */
static void project_left(const dense_weight *w, backend *dev) {
    const osf_base *o = w->own;
    bool is_square = o->u_high == SIZE_MAX;
    int64_t k = is_square ? o->low : o->high;
    device_array *g = w->tensors[U_LOW]->gradient, *room = w->adapter->derived[o->room].value;
    const device_array *basis = base_array(w, is_square ? o->u : o->u_high);
    dev->ops->matmul(dev, &(matmul_call){.c = room,
                                         .c_stride = o->low,
                                         .rows = k,
                                         .cols = o->low,
                                         .k = w->rows,
                                         .a = {basis, k, true},
                                         .b = {g, o->low, false},
                                         .scale = 1});
    dev->ops->matmul(dev, &(matmul_call){.c = g,
                                         .c_stride = o->low,
                                         .rows = w->rows,
                                         .cols = o->low,
                                         .k = k,
                                         .a = {basis, k, false},
                                         .b = {room, o->low, false},
                                         .scale = is_square ? 1 : -1,
                                         .add = !is_square});
}

/* g [low, cols]: g V0^T V0, or g - g Vh^T Vh */
static void project_right(const dense_weight *w, backend *dev) {
    const osf_base *o = w->own;
    bool is_square = o->v_high == SIZE_MAX;
    int64_t k = is_square ? o->low : o->high;
    device_array *g = w->tensors[V_LOW]->gradient, *room = w->adapter->derived[o->room].value;
    const device_array *basis = base_array(w, is_square ? o->v : o->v_high);
    dev->ops->matmul(dev, &(matmul_call){.c = room,
                                         .c_stride = k,
                                         .rows = o->low,
                                         .cols = k,
                                         .k = w->cols,
                                         .a = {g, w->cols, false},
                                         .b = {basis, w->cols, true},
                                         .scale = 1});
    dev->ops->matmul(dev, &(matmul_call){.c = g,
                                         .c_stride = w->cols,
                                         .rows = o->low,
                                         .cols = w->cols,
                                         .k = k,
                                         .a = {room, k, false},
                                         .b = {basis, w->cols, false},
                                         .scale = is_square ? 1 : -1,
                                         .add = !is_square});
}

static double osf_chain(adapter *a, backend *dev) {
    for (size_t i = 0; i < a->n_modules; i++) {
        const dense_weight *w = dense_weight_at(a, i);
        if (!w->own)
            continue;
        project_left(w, dev);
        project_right(w, dev);
    }
    return 0;
}

/* PEFT's TRANSFORMERS_MODELS_TO_OSF_TARGET_MODULES_MAPPING. */
typedef struct osf_default {
    const char *model_type;
    const char *targets[8];
} osf_default;

static const osf_default other_defaults[] = {
    {"gpt2", {"c_attn", "c_proj"}},
    {"bloom", {"query_key_value", "dense_4h_to_h"}},
    {"opt", {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}},
    {"gptj", {"q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"}},
    {"gpt_neox", {"query_key_value", "dense_4h_to_h"}},
    {"falcon", {"query_key_value", "dense_4h_to_h"}},
    {"gpt_bigcode", {"c_attn", "c_proj"}},
};

static const char *const *default_targets(const char *model_type) {
    static const char *const gated[] = {"q_proj",    "k_proj",    "v_proj",  "o_proj",
                                        "gate_proj", "down_proj", "up_proj", NULL};
    static const char *const types[] = {"llama",  "llama4",      "mistral", "mixtral", "gemma",
                                        "gemma2", "gemma3_text", "qwen2",   "qwen3",   "phi"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i], model_type))
            return gated;
    for (size_t i = 0; i < sizeof other_defaults / sizeof *other_defaults; i++)
        if (!strcmp(other_defaults[i].model_type, model_type))
            return other_defaults[i].targets;
    return NULL;
}

const adapter_method osf_method = {
    .peft_type = "OSF",
    .name = "osf",
    .summary = "the small singular directions of each weight (OSF)",
    .family = "structured",
    .paper = "Nayak et al. 2025, arXiv:2504.07097",
    .target_kinds = TARGET_LINEAR,
    .keys = osf_keys,
    .default_targets = default_targets,
    .shape = osf_shape,
    .destroy = osf_destroy,
    .init = osf_init,
    .bind = dense_bind,
    .prepare = osf_prepare,
    .chain = osf_chain,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
