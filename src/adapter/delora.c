/* DeLoRA (Bini et al., 2025; as PEFT's tuners/delora): W' = W + lambda / r B diag(1 / (|a_i|
 * |b_i|)) A diag(n): the size lambda trains apart from the directions; n [in], the norms of W's
 * columns when the adapter was made, is kept in its file. */
#include "adapter/base_weight.h"
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "adapter/pattern.h"
#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

static const config_key delora_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    EXCLUDE_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "r", .kind = KEY_OURS, .fallback = "8"},
    {.name = "rank_pattern", .kind = KEY_OURS},
    {.name = "delora_lambda", .kind = KEY_NUMBER, .fallback = "15"},
    {.name = "lambda_pattern", .kind = KEY_ANY, .fallback = "{}"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "module_dropout", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 0.999},
    {.name = NULL},
};

static const double norm_least = 1e-4; /* PEFT's clamp of the norms */

typedef struct delora_state {
    size_t norms; /* derived: [2, largest rank], squared norms of A's rows and B's columns */
    size_t
        factors;   /* derived: [2, largest rank], what A's rows and B's columns are multiplied by */
    size_t scaled; /* derived: [largest rank, largest in] */
    double *host;  /* [5, largest rank] */
    int32_t rank_max;
} delora_state;

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int32_t rank = a->targets[module].rank;
    bool added = shape_matrix(a, module, "delora_A", rank, m->cols, err) &&
                 shape_matrix(a, module, "delora_B", m->rows, rank, err) &&
                 shape_matrix(a, module, "delora_lambda", 1, 0, err);
    adapter_tensor *norms =
        added ? shape_matrix(a, module, "delora_w_norm", m->cols, 0, err) : NULL;
    if (!norms)
        return GRAFT_E_MEMORY;
    norms->is_fixed = true;
    /* module_dropout drops the input's elements, whatever its name says. */
    return derived_term_add(a, module, rank, 1, (float)config_number(&a->config, "module_dropout"),
                            true, false, err);
}

static graft_status delora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    delora_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the adapter's norms");
    graft_status status = shape_each_target(a, add_module, sink, err);
    int64_t in_max = 0;
    for (size_t i = 0; i < a->n_terms; i++) {
        const derived_term *place = derived_term_at(a, i);
        s->rank_max = place->rank > s->rank_max ? place->rank : s->rank_max;
        in_max = place->in > in_max ? place->in : in_max;
    }
    if (status != GRAFT_OK)
        return status;
    s->host = mem_array(5 * (size_t)s->rank_max, sizeof *s->host);
    s->norms = shape_derived(a, 2 * s->rank_max, false, err);
    s->factors = shape_derived(a, 2 * s->rank_max, false, err);
    s->scaled = shape_derived(a, s->rank_max * in_max, false, err);
    if (!s->host || s->norms == SIZE_MAX || s->factors == SIZE_MAX || s->scaled == SIZE_MAX)
        return error_memory(err, 5 * (size_t)s->rank_max * sizeof *s->host, "the adapter's norms");
    return GRAFT_OK;
}

static void delora_destroy(adapter *a) {
    delora_state *s = a->state;
    if (s)
        free(s->host);
    free(s);
    a->state = NULL;
}

static void delora_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_terms; i++) {
        const adapter_tensor *b = adapter_tensor_at(a, derived_term_at(a, i)->module, "delora_B");
        a->terms[i].b = b->value;
        a->terms[i].db = b->gradient;
    }
    derived_terms_bind(a, hooks);
}

/* One module's tensors and what its norms make of them. */
typedef struct delora_layer {
    const adapter_tensor *a, *b, *lambda, *column_norms;
    int64_t rank, in, out;
    double size;                   /* lambda / r */
    double *a_norms, *b_norms, *c; /* [rank] c_i = size / (|a_i| |b_i|) */
    double *left, *right;          /* [rank] room */
} delora_layer;

static delora_layer layer_of(const adapter *a, backend *dev, size_t term) {
    const delora_state *s = a->state;
    const derived_term *place = derived_term_at(a, term);
    double *host = s->host;
    delora_layer l = {.a = adapter_tensor_at(a, place->module, "delora_A"),
                      .b = adapter_tensor_at(a, place->module, "delora_B"),
                      .lambda = adapter_tensor_at(a, place->module, "delora_lambda"),
                      .column_norms = adapter_tensor_at(a, place->module, "delora_w_norm"),
                      .rank = place->rank,
                      .in = place->in,
                      .out = place->out,
                      .a_norms = host,
                      .b_norms = host + s->rank_max,
                      .c = host + 2 * s->rank_max,
                      .left = host + 3 * s->rank_max,
                      .right = host + 4 * s->rank_max};
    device_array *a_sums = a->derived[s->norms].value, *b_sums = array_at(dev, a_sums, s->rank_max);
    double lambda;
    dev->ops->sum_rows(dev, a_sums, l.a->value, l.a->value, l.rank, l.in, false);
    dev->ops->fill(dev, b_sums, 0, l.rank);
    dev->ops->sum_cols(dev, b_sums, l.b->value, l.b->value, l.out, l.rank, NULL);
    dev->ops->download_f64(dev, l.a_norms, a_sums, l.rank);
    dev->ops->download_f64(dev, l.b_norms, b_sums, l.rank);
    dev->ops->download_f64(dev, &lambda, l.lambda->value, 1);
    l.size = lambda / (double)l.rank;
    for (int64_t i = 0; i < l.rank; i++) {
        l.a_norms[i] = fmax(sqrt(l.a_norms[i]), norm_least);
        l.b_norms[i] = fmax(sqrt(l.b_norms[i]), norm_least);
        l.c[i] = l.size / (l.a_norms[i] * l.b_norms[i]);
    }
    return l;
}

static graft_status delora_prepare(adapter *a, backend *dev, weight_source *weights,
                                   graft_error *err) {
    const delora_state *s = a->state;
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_terms; i++) {
        const delora_layer l = layer_of(a, dev, i);
        device_array *made = derived_term_a(a, i)->value, *c = a->derived[s->factors].value;
        dev->ops->upload(dev, c, l.c, DTYPE_F64, l.rank);
        dev->ops->scale_cols(dev, made, l.a->value, l.column_norms->value, l.rank, l.in, false);
        dev->ops->scale_rows(dev, made, made, c, l.rank, l.in, false);
    }
    return GRAFT_OK;
}

/* With G = dA' diag(n): dA = diag(c) G, dc_i = a_i . G_i, and through c the size and the norms
 * (those that PEFT's clamp holds have no gradient). */
static void chain_layer(adapter *a, backend *dev, size_t term) {
    const delora_state *s = a->state;
    const delora_layer l = layer_of(a, dev, term);
    device_array *g = a->derived[s->scaled].value, *sums = a->derived[s->norms].value,
                 *factors = a->derived[s->factors].value,
                 *b_factors = array_at(dev, factors, s->rank_max);
    double d_lambda = 0;
    dev->ops->scale_cols(dev, g, derived_term_a(a, term)->gradient, l.column_norms->value, l.rank,
                         l.in, false);
    dev->ops->sum_rows(dev, sums, g, l.a->value, l.rank, l.in, false);
    dev->ops->download_f64(dev, l.left, sums, l.rank);
    dev->ops->upload(dev, factors, l.c, DTYPE_F64, l.rank);
    dev->ops->scale_rows(dev, l.a->gradient, g, factors, l.rank, l.in, true);
    for (int64_t i = 0; i < l.rank; i++) {
        double dc = l.left[i], an = l.a_norms[i], bn = l.b_norms[i];
        d_lambda += dc / (an * bn * (double)l.rank);
        l.left[i] = an > norm_least ? -dc * l.c[i] / (an * an) : 0;
        l.right[i] = bn > norm_least ? -dc * l.c[i] / (bn * bn) : 0;
    }
    dev->ops->upload(dev, factors, l.left, DTYPE_F64, l.rank);
    dev->ops->upload(dev, b_factors, l.right, DTYPE_F64, l.rank);
    dev->ops->scale_rows(dev, l.a->gradient, l.a->value, factors, l.rank, l.in, true);
    dev->ops->scale_cols(dev, l.b->gradient, l.b->value, b_factors, l.out, l.rank, true);
    dev->ops->upload(dev, sums, &d_lambda, DTYPE_F64, 1);
    dev->ops->add(dev, l.lambda->gradient, sums, 1);
}

static double delora_chain(adapter *a, backend *dev) {
    for (size_t i = 0; i < a->n_terms; i++)
        chain_layer(a, dev, i);
    return 0;
}

/* ---- First values ---- */

/* The first of lambda_pattern that matches, or delora_lambda. */
static graft_status lambda_of(double *out, const adapter *a, const char *name, graft_error *err) {
    const char *key;
    json_t *value;
    *out = config_number(&a->config, "delora_lambda");
    json_object_foreach((json_t *)config_value(&a->config, "lambda_pattern"), key, value) {
        pattern *end = NULL;
        bool matched = false;
        graft_status status = pattern_create(&end, key, PATTERN_END, "lambda_pattern", err);
        if (status == GRAFT_OK)
            status = pattern_match(&matched, end, name, err);
        pattern_destroy(&end);
        if (status != GRAFT_OK)
            return status;
        if (matched && !json_is_number(value))
            return error_set(err, GRAFT_E_INPUT, "lambda_pattern: \"%s\": expected a number", key);
        if (matched) {
            *out = json_number_value(value);
            return GRAFT_OK;
        }
    }
    return GRAFT_OK;
}

static graft_status init_norms(const adapter *a, backend *dev, const weight_source *weights,
                               size_t module, graft_error *err) {
    const adapter_tensor *norms = adapter_tensor_at(a, module, "delora_w_norm");
    int64_t rows = a->modules[module].rows, cols = a->modules[module].cols;
    double *sums = mem_array(2 * (size_t)cols, sizeof *sums), *row = sums + cols;
    graft_status status =
        sums ? GRAFT_OK : error_memory(err, 2 * (size_t)cols * sizeof *sums, norms->key);
    for (int64_t r = 0; r < rows && status == GRAFT_OK; r++) {
        status = base_weight_rows(row, a, module, weights, r, 1, err);
        for (int64_t c = 0; c < cols; c++)
            sums[c] += row[c] * row[c];
    }
    for (int64_t c = 0; c < cols && status == GRAFT_OK; c++)
        sums[c] = sqrt(sums[c]);
    if (status == GRAFT_OK)
        dev->ops->upload(dev, norms->value, sums, DTYPE_F64, cols);
    free(sums);
    return status;
}

static graft_status delora_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                                graft_error *err) {
    bool starts_at_zero = config_flag(&a->config, "init_weights");
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (!a->targets[i].is_target)
            continue;
        const adapter_tensor *b = adapter_tensor_at(a, i, "delora_B");
        double lambda = 0;
        status = lambda_of(&lambda, a, a->modules[i].name, err);
        shape_fill(adapter_tensor_at(a, i, "delora_A"), dev, DRAW_UNIFORM,
                   1 / sqrt((double)a->modules[i].cols), random);
        shape_fill(b, dev, starts_at_zero ? DRAW_CONSTANT : DRAW_UNIFORM,
                   starts_at_zero ? 0 : 1 / sqrt((double)b->shape[1]), random);
        shape_fill(adapter_tensor_at(a, i, "delora_lambda"), dev, DRAW_CONSTANT, lambda, random);
        if (status == GRAFT_OK)
            status = init_norms(a, dev, weights, i, err);
    }
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

const adapter_method delora_method = {
    .peft_type = "DELORA",
    .name = "delora",
    .summary = "low-rank updates of normalised directions and a trained size (DeLoRA)",
    .family = "low rank",
    .paper = "Bini et al. 2025, arXiv:2503.18225",
    .target_kinds = TARGET_LINEAR,
    .keys = delora_keys,
    .shape = delora_shape,
    .destroy = delora_destroy,
    .init = delora_init,
    .bind = delora_bind,
    .prepare = delora_prepare,
    .chain = delora_chain,
    .merge = derived_terms_merge,
    .load = peft_load,
    .save = peft_save,
};
