/* DoRA (Liu et al., 2024; as PEFT's tuners/lora/dora.py): the changed weight's rows keep a length m
 * that trains apart from their direction. y = c * (W x + s B A x) + bias, c = m / n, n the lengths
 * of the rows of W + s B A, which no gradient goes through. On an embedding the "rows" are the
 * hidden components over the vocabulary.
 *
 * n^2 = |W|^2 + sum of B * Q^T over the rank, Q = 2 s A W^T + s^2 (A A^T) B^T, so that W + s B A is
 * never made: a pass of `rank` rows through the layer, once an update. */
#include "adapter/base_weight.h"
#include "adapter/lora.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Derived arrays of a layer, from l->derived; the last four are the first layer's, for all to work
 * in. */
enum { FACTOR, INVERSE_NORM, BASE_SQUARES, N_OWN };
enum { SQUARES = N_OWN, Q, Q_TRANSPOSED, GRAM, IDENTITY };

static derived_array *derived(const lora_layer *l, int which) {
    return &l->adapter->derived[l->derived + (size_t)which];
}

static derived_array *shared(const lora_layer *l, int which) {
    return &l->adapter->derived[lora_state_of(l->adapter)->layers[0].derived + (size_t)which];
}

/* ---- The linear form ---- */

static bool is_dropping(const lora_layer *l, const form_pass *p) {
    return p->tokens->training && l->terms[0].dropout > 0;
}

static int64_t ranks_of(const lora_layer *l) {
    return (int64_t)l->rank * l->n_terms;
}

/* W x + s B A x. */
static int64_t kept_elements(const void *self, int64_t n) {
    return n * ((const lora_layer *)self)->out;
}

/* The gradient of what is kept; with dropout two inputs, and x A^T of what is added without it. */
static int64_t scratch_elements(const void *self, int64_t n) {
    const lora_layer *l = self;
    return n * (l->out + (l->terms[0].dropout > 0 ? 2 * l->in + ranks_of(l) : 0));
}

static const device_array *factor(const lora_layer *l) {
    return derived(l, FACTOR)->value;
}

/* The layer without bias; with dropout its input is dropped already. */
typedef struct direction {
    linear_call call;
    low_rank_term terms[2];
} direction;

static void direction_make(direction *d, const lora_layer *l, const linear_call *call, bool drops) {
    d->call = *call;
    d->call.bias = NULL;
    d->call.d_bias = NULL;
    if (!drops)
        return;
    memcpy(d->terms, l->terms, sizeof d->terms);
    d->terms[0].dropout = 0;
    d->call.terms = d->terms;
}

/* The base alone, as the start left it. */
static linear_call base_alone(const linear_call *call) {
    linear_call base = *call;
    base.terms++;
    base.n_terms--;
    base.d_weight = NULL;
    return base;
}

typedef struct dropped_memory {
    device_array *dz, *x, *rest, *xa;
} dropped_memory;

static dropped_memory dropped_memory_of(const lora_layer *l, const form_pass *p) {
    int64_t n = p->tokens->n;
    device_array *x = array_at(p->dev, p->scratch, n * l->out);
    device_array *rest = array_at(p->dev, x, n * l->in);
    return (dropped_memory){p->scratch, x, rest, array_at(p->dev, rest, n * l->in)};
}

/* y [n, in] (+)= what dropout leaves of x. */
static void drop(const lora_layer *l, const form_pass *p, device_array *y, const device_array *x,
                 bool add) {
    p->dev->ops->dropout(p->dev, y, x, l->terms[0].dropout, l->terms[0].dropout_stream, l->in, add,
                         p->tokens);
}

/* PEFT drops the input of W, too: y = W (x - dropped) + c * (W + s B A) dropped + bias. */
static void forward_dropped(const lora_layer *l, const form_pass *p, const base_linear *base,
                            const direction *d, device_array *y, const device_array *x, bool add) {
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    dropped_memory m = dropped_memory_of(l, p);
    linear_call alone = base_alone(base->call);
    drop(l, p, m.x, x, false);
    ops->linear_fwd(p->dev, p->kept, base->xa, m.x, &d->call, false, base->scratch, p->tokens);
    ops->copy(p->dev, m.rest, x, n * l->in);
    ops->add_scaled(p->dev, m.rest, m.x, -1, n * l->in);
    ops->linear_fwd(p->dev, y, m.xa, m.rest, &alone, add, base->scratch, p->tokens);
    ops->scale_cols(p->dev, y, p->kept, factor(l), n, l->out, true);
}

static void forward(const void *self, const form_pass *p, const base_linear *base, device_array *y,
                    const device_array *x, bool add) {
    const lora_layer *l = self;
    const op_table *ops = p->dev->ops;
    direction d;
    direction_make(&d, l, base->call, is_dropping(l, p));
    if (is_dropping(l, p)) {
        forward_dropped(l, p, base, &d, y, x, add);
        return;
    }
    ops->linear_fwd(p->dev, p->kept, base->xa, x, &d.call, false, base->scratch, p->tokens);
    ops->scale_cols(p->dev, y, p->kept, factor(l), p->tokens->n, l->out, add);
    if (base->call->bias)
        ops->add_rows(p->dev, y, base->call->bias, p->tokens->n, l->out);
}

/* With u = dy W and v = (c * dy) (W + s B A), dx = u + dropped(v - u). */
static void backward_dropped(const lora_layer *l, const form_pass *p, const base_linear *base,
                             const direction *d, device_array *dx, const device_array *dy,
                             const device_array *x, bool add) {
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    dropped_memory m = dropped_memory_of(l, p);
    linear_call alone = base_alone(base->call);
    drop(l, p, m.x, x, false);
    ops->linear_bwd(p->dev, dx ? m.rest : NULL, m.dz, m.x, base->xa, &d->call, false, base->scratch,
                    p->tokens);
    ops->linear_bwd(p->dev, dx ? m.x : NULL, dy, NULL, m.xa, &alone, false, base->scratch,
                    p->tokens);
    if (!dx)
        return;
    ops->add_scaled(p->dev, m.rest, m.x, -1, n * l->in);
    if (!add)
        ops->fill(p->dev, dx, 0, n * l->in);
    ops->add(p->dev, dx, m.x, n * l->in);
    drop(l, p, dx, m.rest, true);
}

static void backward(const void *self, const form_pass *p, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const lora_layer *l = self;
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    direction d;
    direction_make(&d, l, base->call, is_dropping(l, p));
    if (derived(l, FACTOR)->gradient)
        ops->sum_cols(p->dev, derived(l, FACTOR)->gradient, dy, p->kept, n, l->out, p->tokens);
    ops->scale_cols(p->dev, p->scratch, dy, factor(l), n, l->out, false);
    if (is_dropping(l, p)) {
        backward_dropped(l, p, base, &d, dx, dy, x, add);
        return;
    }
    ops->linear_bwd(p->dev, dx, p->scratch, x, base->xa, &d.call, add, base->scratch, p->tokens);
    if (base->call->d_bias)
        ops->sum_cols(p->dev, base->call->d_bias, dy, NULL, n, l->out, p->tokens);
}

static const linear_form form = {
    .memory = {kept_elements, scratch_elements}, .fwd = forward, .bwd = backward};

/* ---- The embedding's form: y is the row with its terms already ---- */

static int64_t embedding_scratch(const void *self, int64_t n) {
    return n * ((const lora_layer *)self)->out;
}

static void embedding_forward(const void *self, const form_pass *p, device_array *y,
                              const weight_ref *table) {
    const lora_layer *l = self;
    (void)table;
    p->dev->ops->scale_cols(p->dev, y, y, factor(l), p->tokens->n, l->out, false);
}

static void embedding_backward(const void *self, const form_pass *p, device_array *dy,
                               const weight_ref *table) {
    const lora_layer *l = self;
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    if (derived(l, FACTOR)->gradient) {
        ops->embed_fwd(p->dev, p->scratch, table, l->terms, l->n_terms, p->batch->ids, p->tokens);
        ops->sum_cols(p->dev, derived(l, FACTOR)->gradient, dy, p->scratch, n, l->out, p->tokens);
    }
    ops->scale_cols(p->dev, dy, dy, factor(l), n, l->out, false);
}

static const embedding_form rows_form = {embedding_scratch, embedding_forward, embedding_backward};

static void dora_bind(lora_layer *l, model_hooks *hooks) {
    if (l->is_embedding) {
        hooks->embedding_rows = (embedding_hook){&rows_form, l};
        return;
    }
    linear_hook *hook = model_hooks_linear(hooks, &l->adapter->modules[l->module]);
    hook->form = &form;
    hook->form_self = l;
}

/* ---- Shape ---- */

static graft_status add_shared(const lora_layer *l, graft_error *err) {
    adapter *a = l->adapter;
    int64_t rank = 0, q = 0, out = 0;
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->targets[i].is_target)
            continue;
        int64_t width =
            a->modules[i].kind == MODULE_EMBEDDING ? a->modules[i].cols : a->modules[i].rows;
        rank = a->targets[i].rank > rank ? a->targets[i].rank : rank;
        out = width > out ? width : out;
        q = a->targets[i].rank * width > q ? a->targets[i].rank * width : q;
    }
    const int64_t counts[] = {out, q, q, rank * rank, rank * rank};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (shape_derived(a, counts[i], false, err) == SIZE_MAX)
            return GRAFT_E_MEMORY;
    return GRAFT_OK;
}

static graft_status dora_shape(lora_layer *l, graft_error *err) {
    if (l->adapter->config.lora_bias)
        return error_set(err, GRAFT_E_INPUT, "lora_bias does not go with use_dora (nor in PEFT)");
    if (!shape_matrix(l->adapter, l->module, "lora_magnitude_vector", l->out, 0, err))
        return GRAFT_E_MEMORY;
    l->derived = l->adapter->n_derived;
    for (int i = 0; i < N_OWN; i++)
        if (shape_derived(l->adapter, l->out, i == FACTOR, err) == SIZE_MAX)
            return GRAFT_E_MEMORY;
    return l == lora_state_of(l->adapter)->layers ? add_shared(l, err) : GRAFT_OK;
}

/* ---- Lengths ---- */

enum { ROWS_AT_ONCE = 64 };

/* Squared lengths of the base's rows (or the embedding's columns), on the host. */
static graft_status base_squares(double *squares, const lora_layer *l, const weight_source *weights,
                                 graft_error *err) {
    const model_module *m = &l->adapter->modules[l->module];
    double *rows = mem_array((size_t)(ROWS_AT_ONCE * m->cols), sizeof *rows);
    graft_status status =
        rows ? GRAFT_OK : error_memory(err, ROWS_AT_ONCE * sizeof *rows, "lengths of rows");
    memset(squares, 0, (size_t)l->out * sizeof *squares);
    for (int64_t first = 0; first < m->rows && status == GRAFT_OK; first += ROWS_AT_ONCE) {
        int64_t n = m->rows - first < ROWS_AT_ONCE ? m->rows - first : ROWS_AT_ONCE;
        status = base_weight_rows(rows, l->adapter, l->module, weights, first, n, err);
        for (int64_t i = 0; i < n * m->cols && status == GRAFT_OK; i++)
            squares[l->is_embedding ? i % m->cols : first + i / m->cols] += rows[i] * rows[i];
    }
    free(rows);
    return status;
}

/* Q of one term: 2 s A W^T + the sum over terms of s s' A A'^T B'^T. */
static void make_q(const lora_layer *l, const low_rank_term *term, backend *dev,
                   const weight_ref *weight) {
    const op_table *ops = dev->ops;
    device_array *q = shared(l, Q)->value, *gram = shared(l, GRAM)->value;
    linear_call base = {.weight = *weight, .is_exact = true};
    matrix_tokens rows;
    matrix_tokens_make(&rows, term->rank);
    if (l->is_embedding)
        ops->linear_bwd(dev, q, term->a, NULL, NULL, &base, false, NULL, &rows.rows);
    else
        ops->linear_fwd(dev, q, NULL, term->a, &base, false, NULL, &rows.rows);
    ops->scale(dev, q, 2 * (double)term->scale, term->rank * l->out);
    for (int32_t i = 0; i < l->n_terms; i++) {
        const low_rank_term *other = &l->terms[i];
        ops->matmul(dev, &(matmul_call){.c = gram,
                                        .c_stride = other->rank,
                                        .rows = term->rank,
                                        .cols = other->rank,
                                        .k = l->in,
                                        .a = {term->a, l->in, false},
                                        .b = {other->a, l->in, true},
                                        .scale = (double)term->scale * (double)other->scale});
        ops->matmul(dev, &(matmul_call){.c = q,
                                        .c_stride = l->out,
                                        .rows = term->rank,
                                        .cols = l->out,
                                        .k = other->rank,
                                        .a = {gram, other->rank, false},
                                        .b = {other->b, other->rank, true},
                                        .scale = 1,
                                        .add = true});
    }
}

/* squares [out] += the sum over the rank of B * Q^T */
static void add_products(const lora_layer *l, const low_rank_term *term, backend *dev,
                         device_array *squares) {
    device_array *transposed = shared(l, Q_TRANSPOSED)->value;
    int64_t rank = term->rank;
    dev->ops->matmul(dev, &(matmul_call){.c = transposed,
                                         .c_stride = rank,
                                         .rows = l->out,
                                         .cols = rank,
                                         .k = rank,
                                         .a = {shared(l, Q)->value, l->out, true},
                                         .b = {shared(l, IDENTITY)->value, rank, false},
                                         .scale = 1});
    dev->ops->sum_rows(dev, squares, term->b, transposed, l->out, rank, true);
}

static graft_status current_norms(double *norms, const lora_layer *l, backend *dev,
                                  weight_source *weights, graft_error *err) {
    device_array *squares = shared(l, SQUARES)->value, *identity = shared(l, IDENTITY)->value;
    const double one = 1;
    weight_ref weight;
    graft_status status = base_weight_acquire(&weight, l->adapter, l->module, weights, err);
    if (status != GRAFT_OK)
        return status;
    dev->ops->fill(dev, identity, 0, (int64_t)l->rank * l->rank);
    for (int64_t i = 0; i < l->rank; i++)
        dev->ops->upload(dev, array_at(dev, identity, i * l->rank + i), &one, DTYPE_F64, 1);
    dev->ops->copy(dev, squares, derived(l, BASE_SQUARES)->value, l->out);
    for (int32_t i = 0; i < l->n_terms; i++) {
        make_q(l, &l->terms[i], dev, &weight);
        add_products(l, &l->terms[i], dev, squares);
    }
    base_weight_release(l->adapter, l->module, weights);
    dev->ops->download_f64(dev, norms, squares, l->out);
    for (int64_t i = 0; i < l->out; i++)
        norms[i] = norms[i] > 0 ? sqrt(norms[i]) : 0;
    return GRAFT_OK;
}

static graft_status dora_prepare(lora_layer *l, backend *dev, weight_source *weights,
                                 graft_error *err) {
    derived_array *factor_array = derived(l, FACTOR), *inverse = derived(l, INVERSE_NORM),
                  *squares = derived(l, BASE_SQUARES);
    double *norms = mem_array((size_t)l->out * 3, sizeof *norms);
    if (!norms)
        return error_memory(err, (size_t)l->out * 3 * sizeof *norms, "lengths of rows");
    double *magnitude = norms + l->out, *factors = magnitude + l->out;
    graft_status status = GRAFT_OK;
    if (l->made_at != squares->value) {
        status = base_squares(norms, l, weights, err);
        if (status == GRAFT_OK)
            dev->ops->upload(dev, squares->value, norms, DTYPE_F64, l->out);
        l->made_at = squares->value;
    }
    if (status == GRAFT_OK)
        status = current_norms(norms, l, dev, weights, err);
    if (status == GRAFT_OK) {
        if (l->is_new)
            dev->ops->upload(dev, l->own->value, norms, DTYPE_F64, l->out);
        l->is_new = false;
        dev->ops->download_f64(dev, magnitude, l->own->value, l->out);
        for (int64_t i = 0; i < l->out; i++) {
            norms[i] = norms[i] > 0 ? 1 / norms[i] : 0;
            factors[i] = magnitude[i] * norms[i];
        }
        dev->ops->upload(dev, inverse->value, norms, DTYPE_F64, l->out);
        dev->ops->upload(dev, factor_array->value, factors, DTYPE_F64, l->out);
    }
    free(norms);
    return status;
}

static void dora_chain(lora_layer *l, backend *dev) {
    dev->ops->mul(dev, l->own->gradient, derived(l, FACTOR)->gradient,
                  derived(l, INVERSE_NORM)->value, l->out, true);
}

/* Starts as n, which nothing changes: once the norms are known. */
static graft_status dora_init(lora_layer *l, backend *dev, const weight_source *weights,
                              rng *random, graft_error *err) {
    (void)dev;
    (void)weights;
    (void)random;
    (void)err;
    l->is_new = true;
    return GRAFT_OK;
}

/* ---- Merging ---- */

static void dora_merge(const lora_layer *l, backend *dev, device_array *w) {
    const model_module *m = &l->adapter->modules[l->module];
    (l->is_embedding ? dev->ops->scale_cols : dev->ops->scale_rows)(dev, w, w, factor(l), m->rows,
                                                                    m->cols, false);
}

const lora_variant lora_dora = {
    .key = "use_dora",
    .goes_on_embedding = true,
    .own_suffix = "lora_magnitude_vector",
    .shape = dora_shape,
    .init = dora_init,
    .bind = dora_bind,
    .prepare = dora_prepare,
    .chain = dora_chain,
    .merge = dora_merge,
};
