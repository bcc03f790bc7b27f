/* FRoD (as PEFT's tuners/frod): y = U (S + diag(l)) V^T x takes the frozen product's place. V is
 * shared by the modules of one place in the block ("self_attn_q_proj") and lies in the file; U is
 * the module's own, from its base weight whenever an adapter is loaded: the columns of W V^-T at
 * length one; l starts as their lengths, so that nothing changes. S is sparse, off the diagonal, at
 * positions that the file holds. */
#include "adapter/base_weight.h"
#include "adapter/methods.h"
#include "adapter/shape.h"
#include "base/linear_algebra.h"
#include "base/memory.h"
#include "base/torch_random.h"

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const config_key frod_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    {.name = "projection_prng_key",
     .kind = KEY_INTEGER,
     .fallback = "0",
     .min = -0x1p63,
     .max = 0x1p63},
    {.name = "save_projection",
     .kind = KEY_LACKED,
     .fallback = "true",
     .lacks = "projections that are not in the file (the signs of their eigenvectors are the "
              "library's)"},
    {.name = "frod_dropout", .kind = KEY_LACKED, .fallback = "0.0", .lacks = "dropout of inputs"},
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "sparse_rate", .kind = KEY_NUMBER, .fallback = "0.01", .min = 0, .max = 1},
    {.name = "regularization_alpha", .kind = KEY_NUMBER, .fallback = "0.001", .min = 0, .max = 1e9},
    {.name = "progressbar", .kind = KEY_STATED, .fallback = "true"},
    {.name = "runtime_offload_base_weight", .kind = KEY_STATED, .fallback = "false"},
    {.name = NULL},
};

static const char l_suffix[] = "frod_lambda_l", s_suffix[] = "frod_lambda_s_values";

/* ---- Categories: what modules share ---- */

enum { CATEGORY_TEXT = 128 };

typedef struct frod_category {
    char name[CATEGORY_TEXT];  /* "self_attn_q_proj" */
    int64_t in, n;             /* n: entries of S */
    int32_t *place, *diagonal; /* [n], [in]: in a flat [in, in] */
    const adapter_tensor *v;   /* [in, in] */
    adapter_tensor *indices, *size;
} frod_category;

typedef struct frod_layer { /* of one module */
    const adapter *adapter;
    const frod_category *category;
    int64_t in, out;
    const adapter_tensor *l, *s;
    size_t u; /* derived: [out, in] */
    bool is_made, takes_lengths;
} frod_layer;

typedef struct frod_state {
    frod_category *categories; /* [n_categories] sorted by name */
    size_t n_categories;
    frod_layer *layers; /* [n_modules]; category NULL: no target */
} frod_state;

static bool is_number(const char *text) {
    for (const char *at = text; *at; at++)
        if (!isdigit((unsigned char)*at))
            return false;
    return *text != '\0';
}

/* PEFT's _category_from_key: the last two parts of the path, or the last behind a layer's number.
 */
static void category_name(char out[CATEGORY_TEXT], const char *module) {
    char path[CATEGORY_TEXT];
    snprintf(path, sizeof path, "%s", module);
    char *last = strrchr(path, '.'), *before = NULL;
    if (!last) {
        snprintf(out, CATEGORY_TEXT, "%s", path);
        return;
    }
    *last++ = '\0';
    before = strrchr(path, '.');
    before = before ? before + 1 : path;
    if (is_number(before))
        snprintf(out, CATEGORY_TEXT, "%.60s", last);
    else
        snprintf(out, CATEGORY_TEXT, "%.60s_%.60s", before, last);
}

/* ---- The form ---- */

/* z = V^T x, and what leaves the middle factor. */
static int64_t kept_elements(const void *self, int64_t n) {
    return n * ((const frod_layer *)self)->in;
}

/* One array of tokens, the middle factor [in, in] and its gradient, and the entries. */
static int64_t scratch_elements(const void *self, int64_t n) {
    const frod_layer *f = self;
    int64_t longer = f->category->n > f->in ? f->category->n : f->in;
    return n * f->in + 2 * f->in * f->in + longer;
}

typedef struct frod_scratch {
    device_array *tokens, *middle, *d_middle, *entries;
} frod_scratch;

static frod_scratch scratch_of(const frod_layer *f, const form_pass *p) {
    int64_t n = p->tokens->n;
    return (frod_scratch){.tokens = p->scratch,
                          .middle = array_at(p->dev, p->scratch, n * f->in),
                          .d_middle = array_at(p->dev, p->scratch, n * f->in + f->in * f->in),
                          .entries = array_at(p->dev, p->scratch, n * f->in + 2 * f->in * f->in)};
}

static void make_middle(const frod_layer *f, backend *dev, device_array *middle) {
    const frod_category *c = f->category;
    dev->ops->fill(dev, middle, 0, f->in * f->in);
    dev->ops->scatter_add_rows(dev, middle, f->s->value, c->place, c->n, 1);
    dev->ops->scatter_add_rows(dev, middle, f->l->value, c->diagonal, f->in, 1);
}

/* c [n, cols] (+)= a [n, k] m, or m transposed; m [m_rows, m_cols] */
static void product(backend *dev, device_array *c, const device_array *a, const device_array *m,
                    int64_t n, int64_t m_rows, int64_t m_cols, bool transposed, bool add) {
    dev->ops->matmul(dev, &(matmul_call){.c = c,
                                         .c_stride = transposed ? m_rows : m_cols,
                                         .rows = n,
                                         .cols = transposed ? m_rows : m_cols,
                                         .k = transposed ? m_cols : m_rows,
                                         .a = {a, transposed ? m_cols : m_rows, false},
                                         .b = {m, m_cols, transposed},
                                         .scale = 1,
                                         .add = add});
}

static const device_array *u_of(const frod_layer *f) {
    return f->adapter->derived[f->u].value;
}

static void forward(const void *self, const form_pass *p, const base_linear *base, device_array *y,
                    const device_array *x, bool add) {
    const frod_layer *f = self;
    const frod_scratch s = scratch_of(f, p);
    int64_t n = p->tokens->n;
    make_middle(f, p->dev, s.middle);
    product(p->dev, p->kept, x, f->category->v->value, n, f->in, f->in, false, false);
    product(p->dev, s.tokens, p->kept, s.middle, n, f->in, f->in, true, false);
    product(p->dev, y, s.tokens, u_of(f), n, f->out, f->in, true, add);
    if (base->call->bias)
        p->dev->ops->add_rows(p->dev, y, base->call->bias, n, f->out);
}

static void entries_backward(const frod_layer *f, const form_pass *p, const frod_scratch *s) {
    const frod_category *c = f->category;
    const op_table *ops = p->dev->ops;
    ops->fill(p->dev, s->d_middle, 0, f->in * f->in);
    ops->matmul(p->dev, &(matmul_call){.c = s->d_middle,
                                       .c_stride = f->in,
                                       .rows = f->in,
                                       .cols = f->in,
                                       .k = p->tokens->n,
                                       .a = {s->tokens, f->in, true},
                                       .b = {p->kept, f->in, false},
                                       .scale = 1,
                                       .tokens = p->tokens});
    ops->gather_rows(p->dev, s->entries, s->d_middle, c->place, c->n, 1);
    ops->add(p->dev, f->s->gradient, s->entries, c->n);
    ops->gather_rows(p->dev, s->entries, s->d_middle, c->diagonal, f->in, 1);
    ops->add(p->dev, f->l->gradient, s->entries, f->in);
}

/* z is not needed any more once the entries have their gradients: its own takes its place. */
static void backward(const void *self, const form_pass *p, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const frod_layer *f = self;
    const frod_scratch s = scratch_of(f, p);
    int64_t n = p->tokens->n;
    (void)x;
    if (base->call->d_bias)
        p->dev->ops->sum_cols(p->dev, base->call->d_bias, dy, NULL, n, f->out, p->tokens);
    product(p->dev, s.tokens, dy, u_of(f), n, f->out, f->in, false, false);
    if (f->l->gradient)
        entries_backward(f, p, &s);
    if (!dx)
        return;
    make_middle(f, p->dev, s.middle);
    product(p->dev, p->kept, s.tokens, s.middle, n, f->in, f->in, false, false);
    product(p->dev, dx, p->kept, f->category->v->value, n, f->in, f->in, true, add);
}

static const linear_form form = {
    .memory = {kept_elements, scratch_elements}, .fwd = forward, .bwd = backward};

/* ---- Shape ---- */

static int64_t entries_of(const adapter *a, int64_t in) {
    double rate = config_number(&a->config, "sparse_rate");
    int64_t n = (int64_t)((double)(in * in) * rate), most = in * in - in;
    n = n < most ? n : most;
    return rate > 0 && most > 0 && n < 1 ? 1 : n;
}

static int by_name(const void *left, const void *right) {
    return strcmp(((const frod_category *)left)->name, ((const frod_category *)right)->name);
}

static frod_category *category_of(const frod_state *s, const char *module) {
    frod_category key;
    category_name(key.name, module);
    return bsearch(&key, s->categories, s->n_categories, sizeof key, by_name);
}

static graft_status add_category(adapter *a, const model_module *m, graft_error *err) {
    frod_state *s = a->state;
    char name[CATEGORY_TEXT];
    category_name(name, m->name);
    for (size_t i = 0; i < s->n_categories; i++)
        if (!strcmp(s->categories[i].name, name)) {
            if (s->categories[i].in == m->cols)
                return GRAFT_OK;
            return error_set(err, GRAFT_E_UNSUPPORTED,
                             "frod: %s has %lld inputs, others of its kind %lld, and they would "
                             "share one projection",
                             m->name, (long long)m->cols, (long long)s->categories[i].in);
        }
    if (m->cols > 46340)
        return error_set(err, GRAFT_E_UNSUPPORTED, "frod on %s: more than 46340 inputs", m->name);
    frod_category *c = &s->categories[s->n_categories++];
    *c = (frod_category){.in = m->cols, .n = entries_of(a, m->cols)};
    memcpy(c->name, name, sizeof name);
    c->place = mem_array((size_t)c->n, sizeof *c->place);
    c->diagonal = mem_array((size_t)c->in, sizeof *c->diagonal);
    if (!c->place || !c->diagonal)
        return error_memory(err, (size_t)(c->n + c->in) * sizeof *c->place, "positions");
    for (int64_t i = 0; i < c->in; i++)
        c->diagonal[i] = (int32_t)(i * c->in + i);
    return GRAFT_OK;
}

static graft_status add_shared_tensors(adapter *a, const frod_category *c, graft_error *err) {
    char key[CATEGORY_TEXT + 40];
    snprintf(key, sizeof key, "base_model.frod_V.%s", c->name);
    adapter_tensor *v = shape_matrix(a, (size_t)MODULE_NONE, key, c->in, c->in, err);
    if (!v)
        return GRAFT_E_MEMORY;
    v->is_fixed = true;
    snprintf(key, sizeof key, "base_model.frod_s_indices.%s", c->name);
    if (!shape_integers(a, (size_t)MODULE_NONE, key, DTYPE_I64, 2, c->n, err))
        return GRAFT_E_MEMORY;
    snprintf(key, sizeof key, "base_model.frod_s_size.%s", c->name);
    return shape_integers(a, (size_t)MODULE_NONE, key, DTYPE_I64, 2, 0, err) ? GRAFT_OK
                                                                             : GRAFT_E_MEMORY;
}

static void find_shared_tensors(adapter *a, frod_category *c) {
    char key[CATEGORY_TEXT + 40];
    snprintf(key, sizeof key, "base_model.frod_V.%s", c->name);
    c->v = adapter_tensor_at(a, (size_t)MODULE_NONE, key);
    snprintf(key, sizeof key, "base_model.frod_s_indices.%s", c->name);
    c->indices = adapter_tensor_at(a, (size_t)MODULE_NONE, key);
    snprintf(key, sizeof key, "base_model.frod_s_size.%s", c->name);
    c->size = adapter_tensor_at(a, (size_t)MODULE_NONE, key);
}

static graft_status make_categories(adapter *a, graft_error *err) {
    frod_state *s = a->state = mem_array(1, sizeof *s);
    if (s) {
        s->categories = mem_array(a->n_modules, sizeof *s->categories);
        s->layers = mem_array(a->n_modules, sizeof *s->layers);
    }
    graft_status status = GRAFT_OK;
    if (!s || !s->categories || !s->layers)
        status = error_memory(err, a->n_modules * sizeof *s->layers, "the adapter's layers");
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_category(a, &a->modules[i], err);
    if (status == GRAFT_OK)
        qsort(s->categories, s->n_categories, sizeof *s->categories, by_name);
    for (size_t i = 0; status == GRAFT_OK && i < s->n_categories; i++)
        status = add_shared_tensors(a, &s->categories[i], err);
    return status;
}

static graft_status add_layer(adapter *a, size_t module, graft_error *err) {
    frod_state *s = a->state;
    const model_module *m = &a->modules[module];
    frod_layer *f = &s->layers[module];
    *f = (frod_layer){.adapter = a,
                      .category = category_of(s, m->name),
                      .in = m->cols,
                      .out = m->rows,
                      .u = shape_derived(a, m->rows * m->cols, false, err)};
    bool added = f->u != SIZE_MAX && shape_matrix(a, module, l_suffix, m->cols, 0, err) &&
                 shape_matrix(a, module, s_suffix, f->category->n, 0, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status frod_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    if (status == GRAFT_OK)
        status = make_categories(a, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_layer(a, i, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    frod_state *s = a->state;
    for (size_t i = 0; status == GRAFT_OK && i < s->n_categories; i++)
        find_shared_tensors(a, &s->categories[i]);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        s->layers[i].l = adapter_tensor_at(a, i, l_suffix);
        s->layers[i].s = adapter_tensor_at(a, i, s_suffix);
    }
    return status;
}

static void frod_destroy(adapter *a) {
    frod_state *s = a->state;
    if (!s)
        return;
    for (size_t i = 0; i < s->n_categories; i++) {
        free(s->categories[i].place);
        free(s->categories[i].diagonal);
    }
    free(s->categories);
    free(s->layers);
    free(s);
    a->state = NULL;
}

static void frod_bind(adapter *a, model_hooks *hooks) {
    const frod_state *s = a->state;
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->targets[i].is_target)
            continue;
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[i]);
        hook->form = &form;
        hook->form_self = &s->layers[i];
    }
    shape_bind_freed(a, hooks);
}

/* ---- Positions ---- */

/* The file's may be anybody's. */
static graft_status take_positions(adapter *a, const char *place, graft_error *err) {
    const frod_state *s = a->state;
    for (size_t k = 0; k < s->n_categories; k++) {
        const frod_category *c = &s->categories[k];
        if (c->size->integers[0] != c->in || c->size->integers[1] != c->in)
            return error_set(err, GRAFT_E_INPUT, "%s: %s: expected [%lld, %lld]", place,
                             c->size->key, (long long)c->in, (long long)c->in);
        for (int64_t i = 0; i < c->n; i++) {
            int64_t row = c->indices->integers[i], col = c->indices->integers[c->n + i];
            if (row < 0 || row >= c->in || col < 0 || col >= c->in)
                return error_set(err, GRAFT_E_INPUT,
                                 "%s: %s: position %lld is [%lld, %lld], outside of [%lld, %lld]",
                                 place, c->indices->key, (long long)i, (long long)row,
                                 (long long)col, (long long)c->in, (long long)c->in);
            c->place[i] = (int32_t)(row * c->in + col);
        }
    }
    return GRAFT_OK;
}

/* One generator draws for all categories, by their names: the head of a permutation of the places
 * off the diagonal. */
static graft_status draw_positions(adapter *a, graft_error *err) {
    const frod_state *s = a->state;
    torch_random generator;
    torch_random_seed(&generator, (uint64_t)config_integer(&a->config, "projection_prng_key"));
    for (size_t k = 0; k < s->n_categories; k++) {
        const frod_category *c = &s->categories[k];
        int64_t *row = c->indices->integers, *col = row + c->n, all = c->in * c->in - c->in;
        c->size->integers[0] = c->size->integers[1] = c->in;
        if (c->n == 0)
            continue;
        graft_status status = torch_random_permutation(&generator, row, c->n, all, err);
        if (status != GRAFT_OK)
            return status;
        for (int64_t i = c->n; i < all - 1; i++) /* the rest of the permutation's draws */
            torch_random_u32(&generator);
        for (int64_t i = 0; i < c->n; i++) {
            int64_t flat = row[i];
            row[i] = flat / (c->in - 1);
            col[i] = flat % (c->in - 1);
            col[i] += col[i] >= row[i];
        }
    }
    return take_positions(a, "the drawn positions", err);
}

/* ---- V: the joint decomposition of a category's weights ---- */

static graft_status make_room(double **out, int64_t n, graft_error *err) {
    *out = mem_array((size_t)n, sizeof **out);
    return *out ? GRAFT_OK : error_memory(err, (size_t)n * sizeof **out, "a joint decomposition");
}

/* All weights of the category, one below the other; at least `in` rows, the last of which may be
 * zero. */
static graft_status stack_weights(double **out, int64_t *rows, const adapter *a,
                                  const frod_category *c, const weight_source *weights,
                                  graft_error *err) {
    const frod_state *s = a->state;
    *rows = 0;
    for (size_t i = 0; i < a->n_modules; i++)
        *rows += s->layers[i].category == c ? a->modules[i].rows : 0;
    graft_status status = make_room(out, (*rows > c->in ? *rows : c->in) * c->in, err);
    double *at = *out;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (s->layers[i].category != c)
            continue;
        status = base_weight_rows(at, a, i, weights, 0, a->modules[i].rows, err);
        at += a->modules[i].rows * c->in;
    }
    return status;
}

/* With few rows: all right singular vectors, as columns. */
static graft_status few_rows(double *v, double *stacked, int64_t in, graft_error *err) {
    double *u = NULL, *s = NULL, *vt = NULL;
    graft_status status = make_room(&u, in * in, err);
    if (status == GRAFT_OK)
        status = make_room(&s, in, err);
    if (status == GRAFT_OK)
        status = make_room(&vt, in * in, err);
    if (status == GRAFT_OK)
        status = linear_svd(u, s, vt, stacked, in, in, err);
    for (int64_t i = 0; i < in * in && status == GRAFT_OK; i++)
        v[i % in * in + i / in] = vt[i];
    free(u);
    free(s);
    free(vt);
    return status;
}

/* The mean of (Q_i^T Q_i + alpha I)^-1 over the layers' parts Q_i of Q. */
static graft_status mean_inverse(double *mean, const double *q, const adapter *a,
                                 const frod_category *c, graft_error *err) {
    const frod_state *s = a->state;
    int64_t in = c->in, n = 0;
    double *gram = NULL, *inverse = NULL;
    graft_status status = make_room(&gram, in * in, err);
    if (status == GRAFT_OK)
        status = make_room(&inverse, in * in, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (s->layers[i].category != c)
            continue;
        linear_matmul(gram, q, true, q, false, in, in, a->modules[i].rows, 1);
        for (int64_t j = 0; j < in; j++)
            gram[j * in + j] += config_number(&a->config, "regularization_alpha");
        status = linear_pseudo_inverse(inverse, gram, in, 0, err);
        for (int64_t j = 0; j < in * in; j++)
            mean[j] += inverse[j];
        q += a->modules[i].rows * in;
        n++;
    }
    for (int64_t j = 0; j < in * in; j++)
        mean[j] /= (double)n;
    free(gram);
    free(inverse);
    return status;
}

/* V = R^T E: R of the stacked weights' QR, E the eigenvectors of that mean. */
static graft_status many_rows(double *v, double *stacked, int64_t rows, const adapter *a,
                              const frod_category *c, graft_error *err) {
    int64_t in = c->in;
    double *q = NULL, *r = NULL, *mean = NULL, *values = NULL;
    graft_status status = make_room(&q, rows * in, err);
    if (status == GRAFT_OK)
        status = make_room(&r, in * in, err);
    if (status == GRAFT_OK)
        status = make_room(&mean, in * in, err);
    if (status == GRAFT_OK)
        status = make_room(&values, in, err);
    if (status == GRAFT_OK)
        status = linear_qr(q, r, stacked, rows, in, err);
    if (status == GRAFT_OK)
        status = mean_inverse(mean, q, a, c, err);
    if (status == GRAFT_OK)
        status = linear_eigen(values, mean, mean, in, err);
    if (status == GRAFT_OK)
        linear_matmul(v, r, true, mean, true, in, in, in, 1);
    free(q);
    free(r);
    free(mean);
    free(values);
    return status;
}

static graft_status make_projection(const adapter *a, backend *dev, const frod_category *c,
                                    const weight_source *weights, graft_error *err) {
    double *stacked = NULL, *v = NULL;
    int64_t rows;
    graft_status status = stack_weights(&stacked, &rows, a, c, weights, err);
    if (status == GRAFT_OK)
        status = make_room(&v, c->in * c->in, err);
    if (status == GRAFT_OK)
        status = rows < c->in ? few_rows(v, stacked, c->in, err)
                              : many_rows(v, stacked, rows, a, c, err);
    if (status == GRAFT_OK)
        dev->ops->upload(dev, c->v->value, v, DTYPE_F64, c->in * c->in);
    free(stacked);
    free(v);
    return status;
}

static bool has_shapes_only(const weight_source *weights) {
    return weights && !weight_source_files(weights);
}

static graft_status frod_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    const frod_state *s = a->state;
    double deviation = config_flag(&a->config, "init_weights") ? 0 : 0.1;
    graft_status status = draw_positions(a, err);
    for (size_t k = 0; k < s->n_categories && status == GRAFT_OK && !has_shapes_only(weights); k++)
        status = make_projection(a, dev, &s->categories[k], weights, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        frod_layer *f = &s->layers[i];
        if (!f->l)
            continue;
        f->takes_lengths = true; /* prepare adds them */
        shape_fill_around(f->l, dev, 0, deviation, random);
        shape_fill_around(f->s, dev, 0, deviation, random);
    }
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

static graft_status frod_load(adapter *a, backend *dev, const weight_source *weights,
                              const char *folder, graft_error *err) {
    graft_status status = peft_load(a, dev, weights, folder, err);
    return status == GRAFT_OK ? take_positions(a, folder, err) : status;
}

/* ---- U ---- */

/* b [out, in] = W V^-T becomes U; lengths [in]. */
static void normalise_columns(double *b, double *lengths, int64_t out, int64_t in) {
    memset(lengths, 0, (size_t)in * sizeof *lengths);
    for (int64_t i = 0; i < out * in; i++)
        lengths[i % in] += b[i] * b[i];
    for (int64_t j = 0; j < in; j++)
        lengths[j] = sqrt(lengths[j]);
    for (int64_t i = 0; i < out * in; i++)
        b[i] = lengths[i % in] > 1e-12 ? b[i] / lengths[i % in] : 0;
}

static graft_status make_u(adapter *a, backend *dev, size_t module, const weight_source *weights,
                           graft_error *err) {
    const frod_state *s = a->state;
    frod_layer *f = &s->layers[module];
    int64_t in = f->in, out = f->out;
    double *b = NULL, *v = NULL, *lengths = NULL, *l = NULL;
    graft_status status = make_room(&b, out * in, err);
    if (status == GRAFT_OK)
        status = make_room(&v, in * in, err);
    if (status == GRAFT_OK)
        status = make_room(&lengths, in, err);
    if (status == GRAFT_OK)
        status = make_room(&l, in, err);
    if (status == GRAFT_OK)
        status = base_weight_rows(b, a, module, weights, 0, out, err);
    if (status == GRAFT_OK) {
        dev->ops->download_f64(dev, v, f->category->v->value, in * in);
        for (int64_t i = 0; i < in; i++) /* V^T */
            for (int64_t j = 0; j < i; j++) {
                double kept = v[i * in + j];
                v[i * in + j] = v[j * in + i];
                v[j * in + i] = kept;
            }
        status = linear_solve(b, v, out, in, err);
    }
    if (status == GRAFT_OK) {
        normalise_columns(b, lengths, out, in);
        dev->ops->upload(dev, a->derived[f->u].value, b, DTYPE_F64, out * in);
        dev->ops->download_f64(dev, l, f->l->value, in);
        for (int64_t j = 0; j < in; j++)
            l[j] += f->takes_lengths ? lengths[j] : 0;
        dev->ops->upload(dev, f->l->value, l, DTYPE_F64, in);
        f->takes_lengths = false;
        f->is_made = true;
    }
    free(b);
    free(v);
    free(lengths);
    free(l);
    return status;
}

static graft_status frod_prepare(adapter *a, backend *dev, weight_source *weights,
                                 graft_error *err) {
    const frod_state *s = a->state;
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK && !has_shapes_only(weights); i++)
        if (s->layers[i].l && !s->layers[i].is_made)
            status = make_u(a, dev, i, weights, err);
    return status;
}

/* ---- Merging ---- */

static int64_t frod_merge_scratch(const adapter *a, size_t module) {
    const model_module *m = &a->modules[module];
    return a->targets[module].is_target ? m->cols * m->cols + m->rows * m->cols : 0;
}

static graft_status frod_merge(adapter *a, backend *dev, size_t module, device_array *w,
                               device_array *bias, device_array *scratch, graft_error *err) {
    const frod_layer *f = &((const frod_state *)a->state)->layers[module];
    (void)bias;
    (void)err;
    if (!f->l)
        return GRAFT_OK;
    device_array *turned = array_at(dev, scratch, f->in * f->in);
    make_middle(f, dev, scratch);
    product(dev, turned, u_of(f), scratch, f->out, f->in, f->in, false, false);
    product(dev, w, turned, f->category->v->value, f->out, f->in, f->in, true, false);
    return GRAFT_OK;
}

const adapter_method frod_method = {
    .peft_type = "FROD",
    .name = "frod",
    .summary = "weights as joint factors, with a trained diagonal and sparse entries (FRoD)",
    .family = "structured",
    .paper = "doi:10.1609/aaai.v40i31.39813",
    .target_kinds = TARGET_LINEAR,
    .keys = frod_keys,
    .shape = frod_shape,
    .destroy = frod_destroy,
    .init = frod_init,
    .bind = frod_bind,
    .prepare = frod_prepare,
    .merge = frod_merge,
    .merge_scratch = frod_merge_scratch,
    .load = frod_load,
    .save = peft_save,
};
