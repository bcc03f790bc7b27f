/* DEFT (as PEFT's tuners/deft): W' = (I - Q V^T) W + s Q R: what W writes in a small subspace is
 * taken out, and R written there instead; Q = P and V = relu(P) ("relu"), or both the orthonormal Q
 * of P = Q U ("qr"). `para` leaves R out (PaRa). s = alpha / r, or 1.
 *
 * As a low-rank term: B' = Q and A' = s R - V^T W, made once an update, with two products that cost
 * as much as r tokens. */
#include "adapter/base_weight.h"
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "base/linear_algebra.h"
#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const config_key deft_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    EXCLUDE_KEY,
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "r", .kind = KEY_OURS, .fallback = "8"},
    {.name = "alpha", .kind = KEY_NUMBER, .fallback = "null"},
    {.name = "decomposition_method",
     .kind = KEY_CHOICE,
     .fallback = "\"relu\"",
     .choices = "relu|qr"},
    {.name = "para", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "init_scale", .kind = KEY_NUMBER, .fallback = "1.0"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "deft_dropout",
     .kind = KEY_LACKED,
     .fallback = "0.0",
     .lacks = "dropout of the input of R alone"},
    {.name = NULL},
};

typedef struct deft_state {
    weight_source *weights; /* of the base, from prepare on */
    double *uppers;         /* [n_terms, r, r] U of P = Q U */
    size_t right;           /* derived: V^T [r, largest out] */
    size_t d_right;         /* derived: its gradient */
    double *p, *q, *room;   /* [largest out, r] each, on the host */
} deft_state;

static bool is_qr(const adapter *a) {
    return !strcmp(config_text(&a->config, "decomposition_method"), "qr");
}

static bool has_injection(const adapter *a) {
    return !config_flag(&a->config, "para");
}

/* alpha null or 0: PEFT does not scale. */
static double scale_of(const adapter *a, int64_t rank) {
    double alpha = config_number(&a->config, "alpha");
    return isnan(alpha) || alpha == 0 ? 1 : alpha / (double)rank;
}

/* ---- Shape ---- */

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t r = a->config.r < m->rows ? a->config.r : m->rows;
    bool added = shape_matrix(a, module, "deft_P", m->rows, r, err);
    if (has_injection(a))
        added = added && shape_matrix(a, module, "deft_R", r, m->cols, err);
    return added ? derived_term_add(a, module, (int32_t)r, 1, 0, true, true, err) : GRAFT_E_MEMORY;
}

static graft_status make_state(adapter *a, graft_error *err) {
    deft_state *s = a->state;
    int64_t r = a->config.r, most = 0;
    for (size_t i = 0; i < a->n_terms; i++)
        most = derived_term_at(a, i)->out > most ? derived_term_at(a, i)->out : most;
    s->uppers = mem_array(a->n_terms * (size_t)(r * r), sizeof *s->uppers);
    size_t room = (size_t)(most * r);
    s->p = mem_array(room, sizeof *s->p);
    s->q = mem_array(room, sizeof *s->q);
    s->room = mem_array(room, sizeof *s->room);
    s->right = shape_derived(a, most * r, false, err);
    s->d_right = shape_derived(a, most * r, false, err);
    return s->uppers && s->p && s->q && s->room && s->right != SIZE_MAX && s->d_right != SIZE_MAX
               ? GRAFT_OK
               : error_memory(err, room * sizeof *s->p, "the adapter's subspaces");
}

static graft_status deft_shape(adapter *a, const message_sink *sink, graft_error *err) {
    if (!(a->state = mem_array(1, sizeof(deft_state))))
        return error_memory(err, sizeof(deft_state), "the adapter's subspaces");
    graft_status status = shape_each_target(a, add_module, sink, err);
    return status == GRAFT_OK ? make_state(a, err) : status;
}

static void deft_destroy(adapter *a) {
    deft_state *s = a->state;
    if (!s)
        return;
    free(s->uppers);
    free(s->p);
    free(s->q);
    free(s->room);
    free(s);
    a->state = NULL;
}

/* ---- The projection ---- */

/* out [cols, rows] = in [rows, cols] */
static void turn(double *out, const double *in, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            out[j * rows + i] = in[i * cols + j];
}

static double *upper_of(const adapter *a, size_t term) {
    const deft_state *s = a->state;
    return s->uppers + term * (size_t)a->config.r * (size_t)a->config.r;
}

/* Q [out, r] into s->q and V^T [r, out] into s->room, from P. */
static graft_status project(const adapter *a, backend *dev, size_t term, graft_error *err) {
    deft_state *s = a->state;
    const derived_term *place = derived_term_at(a, term);
    const adapter_tensor *p = adapter_tensor_at(a, place->module, "deft_P");
    dev->ops->download_f64(dev, s->p, p->value, p->count);
    if (is_qr(a)) {
        graft_status status =
            linear_qr(s->q, upper_of(a, term), s->p, place->out, place->rank, err);
        turn(s->room, s->q, place->out, place->rank);
        return status;
    }
    memcpy(s->q, s->p, (size_t)p->count * sizeof *s->q);
    turn(s->room, s->q, place->out, place->rank);
    for (int64_t i = 0; i < p->count; i++)
        s->room[i] = fmax(s->room[i], 0);
    return GRAFT_OK;
}

/* The r rows of A' go through the weight as tokens would: to [r, in] = right [r, out] W. */
static graft_status prepare_term(adapter *a, backend *dev, size_t term, graft_error *err) {
    deft_state *s = a->state;
    const derived_term *place = derived_term_at(a, term);
    device_array *made = derived_term_a(a, term)->value, *right = a->derived[s->right].value;
    int64_t n_right = place->out * place->rank, n_made = place->in * place->rank;
    linear_call call = {.is_exact = true};
    matrix_tokens rows;
    graft_status status = project(a, dev, term, err);
    if (status == GRAFT_OK)
        status = base_weight_acquire(&call.weight, a, place->module, s->weights, err);
    if (status != GRAFT_OK)
        return status;
    matrix_tokens_make(&rows, place->rank);
    dev->ops->upload(dev, derived_term_b(a, term)->value, s->q, DTYPE_F64, n_right);
    dev->ops->upload(dev, right, s->room, DTYPE_F64, n_right);
    dev->ops->linear_bwd(dev, made, right, NULL, NULL, &call, false, NULL, &rows.rows);
    base_weight_release(a, place->module, s->weights);
    dev->ops->scale(dev, made, -1, n_made);
    if (has_injection(a))
        dev->ops->add_scaled(dev, made, adapter_tensor_at(a, place->module, "deft_R")->value,
                             scale_of(a, place->rank), n_made);
    return GRAFT_OK;
}

static graft_status deft_prepare(adapter *a, backend *dev, weight_source *weights,
                                 graft_error *err) {
    graft_status status = GRAFT_OK;
    ((deft_state *)a->state)->weights = weights;
    for (size_t i = 0; i < a->n_terms && status == GRAFT_OK; i++)
        status = prepare_term(a, dev, i, err);
    return status;
}

/* ---- Backward ---- */

/* Of P = Q U: with M = -dQ^T Q, its lower triangle mirrored upwards, dP = (dQ + Q M) U^-T (Walter
 * and Lehmann, 2010). dq [out, r] becomes dP. */
static void qr_backward(const deft_state *s, const double *upper, double *dq, int64_t out,
                        int64_t r) {
    double *m = s->p; /* [r, r]: P is no longer needed */
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t o = 0; o < out; o++)
                sum -= dq[o * r + i] * s->q[o * r + j];
            m[i * r + j] = m[j * r + i] = sum;
        }
    for (int64_t o = 0; o < out; o++) {
        double *row = dq + o * r;
        for (int64_t j = 0; j < r; j++)
            for (int64_t i = 0; i < r; i++)
                row[j] += s->q[o * r + i] * m[i * r + j];
        /* row U^-T: solve row' U^T = row from the last column on. */
        for (int64_t j = r - 1; j >= 0; j--) {
            for (int64_t i = j + 1; i < r; i++)
                row[j] -= row[i] * upper[j * r + i];
            row[j] /= upper[j * r + j];
        }
    }
}

/* False: the base's weight is not there. */
static bool chain_term(adapter *a, backend *dev, size_t term) {
    deft_state *s = a->state;
    const derived_term *place = derived_term_at(a, term);
    const adapter_tensor *p = adapter_tensor_at(a, place->module, "deft_P");
    const device_array *d_made = derived_term_a(a, term)->gradient;
    device_array *d_right = a->derived[s->d_right].value;
    linear_call call = {.is_exact = true};
    matrix_tokens rows;
    graft_error ignored;
    if (base_weight_acquire(&call.weight, a, place->module, s->weights, &ignored) != GRAFT_OK)
        return false;
    if (has_injection(a))
        dev->ops->add_scaled(dev, adapter_tensor_at(a, place->module, "deft_R")->gradient, d_made,
                             scale_of(a, place->rank), place->in * place->rank);
    /* A' has -V^T W: dV^T = -dA' W^T */
    matrix_tokens_make(&rows, place->rank);
    dev->ops->linear_fwd(dev, d_right, NULL, d_made, &call, false, NULL, &rows.rows);
    base_weight_release(a, place->module, s->weights);
    dev->ops->download_f64(dev, s->q, d_right, p->count);
    turn(s->room, s->q, place->rank, place->out);
    dev->ops->download_f64(dev, s->q, derived_term_b(a, term)->gradient, p->count);
    if (is_qr(a)) {
        for (int64_t i = 0; i < p->count; i++)
            s->room[i] = s->q[i] - s->room[i];
        dev->ops->download_f64(dev, s->q, derived_term_b(a, term)->value, p->count);
        qr_backward(s, upper_of(a, term), s->room, place->out, place->rank);
    } else {
        dev->ops->download_f64(dev, s->p, p->value, p->count);
        for (int64_t i = 0; i < p->count; i++)
            s->room[i] = s->q[i] - (s->p[i] > 0 ? s->room[i] : 0);
    }
    /* Nothing else adds to P's gradient. */
    dev->ops->upload(dev, p->gradient, s->room, DTYPE_F64, p->count);
    return true;
}

static double deft_chain(adapter *a, backend *dev) {
    bool is_there = true;
    for (size_t i = 0; i < a->n_terms && is_there; i++)
        is_there = chain_term(a, dev, i);
    return is_there ? 0 : (double)NAN;
}

/* ---- First values ---- */

/* R = V^T W / s, with which nothing changes. */
static graft_status init_injection(adapter *a, backend *dev, const weight_source *weights,
                                   size_t term, graft_error *err) {
    deft_state *s = a->state;
    const derived_term *place = derived_term_at(a, term);
    const adapter_tensor *injection = adapter_tensor_at(a, place->module, "deft_R");
    int64_t r = place->rank, in = place->in;
    double *sums = mem_array((size_t)((r + 1) * in), sizeof *sums), *row = sums + r * in;
    graft_status status =
        sums ? project(a, dev, term, err)
             : error_memory(err, (size_t)((r + 1) * in) * sizeof *sums, injection->key);
    for (int64_t o = 0; o < place->out && status == GRAFT_OK; o++) {
        status = base_weight_rows(row, a, place->module, weights, o, 1, err);
        for (int64_t i = 0; i < r * in; i++)
            sums[i] += s->room[i / in * place->out + o] * row[i % in] / scale_of(a, r);
    }
    if (status == GRAFT_OK)
        dev->ops->upload(dev, injection->value, sums, DTYPE_F64, injection->count);
    free(sums);
    return status;
}

static graft_status deft_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_terms && status == GRAFT_OK; i++) {
        size_t module = derived_term_at(a, i)->module;
        shape_fill(adapter_tensor_at(a, module, "deft_P"), dev, DRAW_NORMAL, 0.02, random);
        if (!has_injection(a))
            continue;
        if (config_flag(&a->config, "init_weights"))
            status = init_injection(a, dev, weights, i, err);
        else
            shape_fill(adapter_tensor_at(a, module, "deft_R"), dev, DRAW_NORMAL,
                       0.02 * config_number(&a->config, "init_scale"), random);
    }
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

const adapter_method deft_method = {
    .peft_type = "DEFT",
    .name = "deft",
    .summary = "what a layer writes in a small subspace is replaced (DEFT, PaRa)",
    .family = "low rank",
    .paper = "Kumar et al. 2025, DEFT; Chen et al. 2024, PaRa, arXiv:2406.05641",
    .target_kinds = TARGET_LINEAR,
    .keys = deft_keys,
    .shape = deft_shape,
    .destroy = deft_destroy,
    .init = deft_init,
    .bind = derived_terms_bind,
    .prepare = deft_prepare,
    .chain = deft_chain,
    .merge = derived_terms_merge,
    .load = peft_load,
    .save = peft_save,
};
