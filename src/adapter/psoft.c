/* PSOFT (as PEFT's tuners/psoft): y = W x + s B (diag(b) R diag(a) - I) A x, with A and B the r
 * largest singular directions of W (s B A is W's best approximation of rank r), made again from the
 * base whenever an adapter is loaded, R a rotation of r dimensions and a, b trained scales. The
 * change is of rank r: its factor B (...) is made once an update.
 *
 * The file does not hold A and B, and the signs of singular vectors are free: each LAPACK has its
 * own, and R means another thing under others. So does PEFT's file on another device. */
#include "adapter/base_svd.h"
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "adapter/rotation.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const config_key psoft_keys[] = {
    TARGET_KEYS,
    EXCLUDE_KEY,
    LAYER_KEYS,
    {.name = "r", .kind = KEY_OURS, .fallback = "32"},
    {.name = "psoft_alpha", .kind = KEY_NUMBER, .fallback = "32"},
    {.name = "psoft_dropout", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 0.999},
    FAN_IN_FAN_OUT_KEY,
    {.name = "ab_svd_init",
     .kind = KEY_CHOICE,
     .fallback = "\"psoft_init\"",
     .choices = "psoft_init|pissa_init"},
    {.name = "psoft_svd", .kind = KEY_CHOICE, .fallback = "\"full\"", .choices = "full|lowrank"},
    {.name = "psoft_svd_lowrank_niter",
     .kind = KEY_INTEGER,
     .fallback = "10",
     .min = 0,
     .max = 1000},
    {.name = "random_seed", .kind = KEY_INTEGER, .fallback = "0", .min = -0x1p63, .max = 0x1p63},
    {.name = "psoft_orth", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "psoft_mag_b", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "psoft_mag_a", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "use_cayley_neumann", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "num_cayley_neumann_terms", .kind = KEY_INTEGER, .fallback = "5", .min = 1, .max = 64},
    {.name = "cayley_neumann_eps",
     .kind = KEY_NUMBER,
     .fallback = "null",
     .min = 1e-30,
     .max = 1e9},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

static const char weight_suffix[] = "psoft_R.weight", a_suffix[] = "psoft_R.vector_a",
                  b_suffix[] = "psoft_R.vector_b";

typedef struct psoft_term { /* derived: A [r, in], B [out, r], R [r, r] */
    size_t a, b, r;
} psoft_term;

typedef struct psoft_state {
    psoft_term *terms; /* [n_terms] */
    bool has_factors;
    rotation_work work;
    size_t small;                                     /* derived: [r, r] */
    double *vector, *room, *rotation, *mixed, *a, *b; /* host: [r, r] or [r] */
} psoft_state;

static bool is_orthogonal(const adapter *a) {
    return config_flag(&a->config, "psoft_orth");
}

/* ---- Shape ---- */

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    psoft_state *s = a->state;
    int64_t r = a->config.r;
    if (r > m->rows || r > m->cols)
        return error_set(err, GRAFT_E_INPUT,
                         "r %lld is more than the smaller side of %s [%lld, %lld] (PEFT refuses it "
                         "too)",
                         (long long)r, m->name, (long long)m->rows, (long long)m->cols);
    psoft_term *t = &s->terms[a->n_terms];
    *t = (psoft_term){.a = shape_derived(a, r * m->cols, false, err),
                      .b = shape_derived(a, r * m->rows, false, err),
                      .r = shape_derived(a, r * r, false, err)};
    bool added = t->a != SIZE_MAX && t->b != SIZE_MAX && t->r != SIZE_MAX &&
                 (is_orthogonal(a) ? shape_matrix(a, module, weight_suffix, r * (r - 1) / 2, 0, err)
                                   : shape_matrix(a, module, weight_suffix, r, r, err)) != NULL;
    if (added && config_flag(&a->config, "psoft_mag_a"))
        added = shape_matrix(a, module, a_suffix, r, 0, err) != NULL;
    if (added && config_flag(&a->config, "psoft_mag_b"))
        added = shape_matrix(a, module, b_suffix, r, 0, err) != NULL;
    if (!added)
        return GRAFT_E_MEMORY;
    return derived_term_add(a, module, (int32_t)r,
                            config_number(&a->config, "psoft_alpha") / (double)r,
                            (float)config_number(&a->config, "psoft_dropout"), false, true, err);
}

static graft_status make_state(adapter *a, graft_error *err) {
    psoft_state *s = a->state = mem_array(1, sizeof *s);
    size_t r = (size_t)a->config.r;
    if (!s)
        return error_memory(err, sizeof *s, "the adapter's rotations");
    double **rooms[] = {&s->vector, &s->room, &s->rotation, &s->mixed, &s->a, &s->b};
    bool is_made = (s->terms = mem_array(a->n_modules, sizeof *s->terms)) != NULL;
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        is_made = (*rooms[i] = mem_array(r * r, sizeof(double))) && is_made;
    if (!is_made)
        return error_memory(err, 6 * r * r * sizeof(double), "the adapter's rotations");
    s->small = shape_derived(a, (int64_t)(r * r), false, err);
    const rotation_rule rule = {
        .is_exact = !config_flag(&a->config, "use_cayley_neumann"),
        .sign = 1,
        .terms = (int32_t)config_integer(&a->config, "num_cayley_neumann_terms")};
    return s->small == SIZE_MAX ? GRAFT_E_MEMORY
                                : rotation_work_create(&s->work, a, rule, (int64_t)(r * r), err);
}

static graft_status psoft_shape(adapter *a, const message_sink *sink, graft_error *err) {
    message_emit(sink, MESSAGE_WARNING,
                 "psoft: the adapter's file does not hold the weights' singular directions, whose "
                 "signs differ between LAPACK libraries: merge the adapter where it was trained "
                 "rather than carry it to PEFT or from there");
    graft_status status = shape_targets(a, sink, err);
    if (status == GRAFT_OK)
        status = make_state(a, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

static void psoft_destroy(adapter *a) {
    psoft_state *s = a->state;
    if (!s)
        return;
    rotation_work_free(&s->work);
    free(s->terms);
    free(s->vector);
    free(s->room);
    free(s->rotation);
    free(s->mixed);
    free(s->a);
    free(s->b);
    free(s);
    a->state = NULL;
}

/* The identity: no rotation, scales of 1; or 0.1 N(0, 1) beside it. */
static graft_status psoft_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                               graft_error *err) {
    const psoft_state *s = a->state;
    bool is_plain = config_flag(&a->config, "init_weights");
    int64_t r = a->config.r;
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role != ROLE_OTHER)
            continue;
        if (t != adapter_tensor_at(a, t->module, weight_suffix)) {
            dev->ops->fill(dev, t->value, 1, t->count);
            continue;
        }
        for (int64_t j = 0; j < t->count; j++)
            s->vector[j] =
                (is_plain ? 0 : 0.1 * rng_normal(random)) + (!is_orthogonal(a) && j % (r + 1) == 0);
        dev->ops->upload(dev, t->value, s->vector, DTYPE_F64, t->count);
    }
    return shape_init_freed(a, dev, weights, err);
}

static void psoft_bind(adapter *a, model_hooks *hooks) {
    const psoft_state *s = a->state;
    for (size_t i = 0; i < a->n_terms; i++)
        a->terms[i].a = a->derived[s->terms[i].a].value;
    derived_terms_bind(a, hooks);
}

/* ---- Factors: W = U S V^T; A = V^T and B = U S / s, or the root of S / s on both ---- */

static void upload_factors(const adapter *a, backend *dev, size_t term, const base_svd *d) {
    const psoft_state *s = a->state;
    int64_t r = a->config.r;
    bool is_even = !strcmp(config_text(&a->config, "ab_svd_init"), "pissa_init");
    double scale = config_number(&a->config, "psoft_alpha") / (double)r;
    for (int64_t i = 0; i < r; i++) {
        double size = d->s[i] / scale, root = sqrt(size);
        for (int64_t j = 0; j < d->cols; j++)
            d->vt[i * d->cols + j] *= is_even ? root : 1;
        for (int64_t j = 0; j < d->rows; j++) /* rows move together: k is r from here on */
            d->u[j * d->k + i] *= is_even ? root : size;
    }
    for (int64_t j = 1; j < d->rows; j++)
        memmove(d->u + j * r, d->u + j * d->k, (size_t)r * sizeof *d->u);
    dev->ops->upload(dev, a->derived[s->terms[term].a].value, d->vt, DTYPE_F64, r * d->cols);
    dev->ops->upload(dev, a->derived[s->terms[term].b].value, d->u, DTYPE_F64, r * d->rows);
}

static graft_status make_factors(adapter *a, backend *dev, const weight_source *weights,
                                 graft_error *err) {
    psoft_state *s = a->state;
    bool is_full = !strcmp(config_text(&a->config, "psoft_svd"), "full");
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_terms && status == GRAFT_OK; i++) {
        size_t module = derived_term_at(a, i)->module;
        base_svd d;
        status = is_full
                     ? base_svd_full(&d, a, module, weights, err)
                     : base_svd_low_rank(&d, a, module, weights, a->config.r,
                                         config_integer(&a->config, "psoft_svd_lowrank_niter"),
                                         (uint64_t)config_integer(&a->config, "random_seed"), err);
        if (status != GRAFT_OK)
            break;
        upload_factors(a, dev, i, &d);
        base_svd_free(&d);
    }
    s->has_factors = status == GRAFT_OK;
    return status;
}

/* ---- R ---- */

static double frobenius(const double *q, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++)
        squares += q[i] * q[i];
    return sqrt(squares);
}

/* With cayley_neumann_eps, Q is drawn back to that norm; its factor, 1 inside. */
static double bound_factor(const adapter *a, double norm) {
    double eps = config_number(&a->config, "cayley_neumann_eps");
    bool is_bound = config_flag(&a->config, "use_cayley_neumann") && norm > eps;
    return is_bound ? eps / (norm + 1e-12) : 1;
}

/* Fills work.q, and the scales; returns the norm of Q before it was drawn back. */
static double make_skew(const adapter *a, backend *dev, size_t module) {
    const psoft_state *s = a->state;
    int64_t r = a->config.r;
    const adapter_tensor *w = adapter_tensor_at(a, module, weight_suffix),
                         *scale_a = adapter_tensor_at(a, module, a_suffix),
                         *scale_b = adapter_tensor_at(a, module, b_suffix);
    for (int64_t i = 0; i < r; i++)
        s->a[i] = s->b[i] = 1;
    if (scale_a)
        dev->ops->download_f64(dev, s->a, scale_a->value, r);
    if (scale_b)
        dev->ops->download_f64(dev, s->b, scale_b->value, r);
    dev->ops->download_f64(dev, s->vector, w->value, w->count);
    if (!is_orthogonal(a))
        return 0;
    rotation_skew_of(s->work.q, s->vector, 1, r);
    double norm = frobenius(s->work.q, r * r), factor = bound_factor(a, norm);
    for (int64_t i = 0; i < r * r; i++)
        s->work.q[i] *= factor;
    return norm;
}

/* s.rotation = R, and s.a, s.b the scales. */
static void make_rotation(const adapter *a, backend *dev, size_t term) {
    const psoft_state *s = a->state;
    int64_t r = a->config.r;
    device_array *rotation = a->derived[s->terms[term].r].value;
    make_skew(a, dev, derived_term_at(a, term)->module);
    if (is_orthogonal(a))
        rotation_make(&s->work, a, dev, rotation, 1, r);
    else
        dev->ops->upload(dev, rotation, s->vector, DTYPE_F64, r * r);
    dev->ops->download_f64(dev, s->rotation, rotation, r * r);
}

static graft_status psoft_prepare(adapter *a, backend *dev, weight_source *weights,
                                  graft_error *err) {
    const psoft_state *s = a->state;
    int64_t r = a->config.r;
    graft_status status = s->has_factors ? GRAFT_OK : make_factors(a, dev, weights, err);
    for (size_t i = 0; i < a->n_terms && status == GRAFT_OK; i++) {
        make_rotation(a, dev, i);
        for (int64_t j = 0; j < r * r; j++)
            s->mixed[j] = s->b[j / r] * s->rotation[j] * s->a[j % r] - (j / r == j % r);
        device_array *mixed = a->derived[s->small].value;
        dev->ops->upload(dev, mixed, s->mixed, DTYPE_F64, r * r);
        dev->ops->matmul(dev, &(matmul_call){.c = derived_term_b(a, i)->value,
                                             .c_stride = r,
                                             .rows = derived_term_at(a, i)->out,
                                             .cols = r,
                                             .k = r,
                                             .a = {a->derived[s->terms[i].b].value, r, false},
                                             .b = {mixed, r, false},
                                             .scale = 1});
    }
    return status;
}

/* ---- Gradients ---- */

/* s.mixed: of diag(b) R diag(a). The scales take theirs; s.mixed becomes R's. */
static void chain_scales(const adapter *a, backend *dev, size_t module) {
    const psoft_state *s = a->state;
    int64_t r = a->config.r;
    const adapter_tensor *scale_a = adapter_tensor_at(a, module, a_suffix),
                         *scale_b = adapter_tensor_at(a, module, b_suffix);
    double *d_a = s->vector, *d_b = s->vector + r;
    if (r == 1)
        d_b = s->work.q; /* one element has no room for two */
    memset(d_a, 0, (size_t)r * sizeof *d_a);
    memset(d_b, 0, (size_t)r * sizeof *d_b);
    for (int64_t j = 0; j < r * r; j++) {
        double through = s->mixed[j] * s->rotation[j];
        d_b[j / r] += through * s->a[j % r];
        d_a[j % r] += through * s->b[j / r];
        s->mixed[j] *= s->b[j / r] * s->a[j % r];
    }
    if (scale_a)
        rotation_add_gradient(scale_a, dev, d_a, s->room);
    if (scale_b)
        rotation_add_gradient(scale_b, dev, d_b, s->room);
}

/* s.mixed: of R, on the device in `small`, too. */
static void chain_rotation(const adapter *a, backend *dev, size_t term) {
    const psoft_state *s = a->state;
    int64_t r = a->config.r;
    size_t module = derived_term_at(a, term)->module;
    const adapter_tensor *w = adapter_tensor_at(a, module, weight_suffix);
    if (!is_orthogonal(a)) {
        rotation_add_gradient(w, dev, s->mixed, s->room);
        return;
    }
    double norm = make_skew(a, dev, module), factor = bound_factor(a, norm);
    rotation_chain(&s->work, a, dev, a->derived[s->terms[term].r].value, a->derived[s->small].value,
                   1, r);
    if (factor != 1) { /* Q' = f(|Q|) Q with f = eps / (|Q| + 1e-12) */
        double along = 0;
        rotation_skew_of(s->room, s->vector, 1, r);
        for (int64_t i = 0; i < r * r; i++)
            along += s->work.q[i] * s->room[i];
        for (int64_t i = 0; i < r * r; i++)
            s->work.q[i] =
                factor * s->work.q[i] - s->room[i] * along * factor / ((norm + 1e-12) * norm);
    }
    rotation_skew_chain(s->vector, s->work.q, 1, r);
    rotation_add_gradient(w, dev, s->vector, s->room);
}

static double psoft_chain(adapter *a, backend *dev) {
    const psoft_state *s = a->state;
    int64_t r = a->config.r;
    for (size_t i = 0; i < a->n_terms; i++) {
        device_array *small = a->derived[s->small].value;
        make_rotation(a, dev, i);
        dev->ops->matmul(dev, &(matmul_call){.c = small,
                                             .c_stride = r,
                                             .rows = r,
                                             .cols = r,
                                             .k = derived_term_at(a, i)->out,
                                             .a = {a->derived[s->terms[i].b].value, r, true},
                                             .b = {derived_term_b(a, i)->gradient, r, false},
                                             .scale = 1});
        dev->ops->download_f64(dev, s->mixed, small, r * r);
        chain_scales(a, dev, derived_term_at(a, i)->module);
        dev->ops->upload(dev, small, s->mixed, DTYPE_F64, r * r);
        chain_rotation(a, dev, i);
    }
    return 0;
}

const adapter_method psoft_method = {
    .peft_type = "PSOFT",
    .name = "psoft",
    .summary = "rotations inside the weight's largest singular directions (PSOFT)",
    .family = "rotations",
    .paper = "OpenReview FSHrinMArK",
    .target_kinds = TARGET_LINEAR,
    .keys = psoft_keys,
    .shape = psoft_shape,
    .destroy = psoft_destroy,
    .init = psoft_init,
    .bind = psoft_bind,
    .prepare = psoft_prepare,
    .chain = psoft_chain,
    .merge = derived_terms_merge,
    .load = peft_load,
    .save = peft_save,
};
