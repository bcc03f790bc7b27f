/* HRA (Yuan et al., 2024; as PEFT's tuners/hra): y = W H_0 H_1 ... H_(r-1) x, Householder
 * reflections H_i = I - 2 u_i u_i^T of unit vectors; with apply_GS the u are made orthonormal first
 * (Gram and Schmidt), and the product is I - 2 U U^T.
 *
 * The reflections act on activations as one step of rank r, x' = x - (x U) K^T with K = U M^T (the
 * compact WY form of Schreiber and Van Loan, 1989). */
#include "adapter/input_map.h"
#include "adapter/methods.h"
#include "adapter/rotation.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const config_key hra_keys[] = {
    TARGET_KEYS,
    EXCLUDE_KEY,
    LAYER_KEYS,
    {.name = "r", .kind = KEY_OURS, .fallback = "8"},
    {.name = "apply_GS", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "bias", .kind = KEY_OURS},
    {.name = NULL},
};

static const char suffix[] = "hra_u";

typedef struct hra_state {          /* on the host; in: the largest layer's inputs */
    double *flat, *room;            /* [in, r], as the tensor lies */
    double *u, *unit, *dk, *d_unit; /* [r, in] */
    double *m, *dm, *gram, *d_gram; /* [r, r] */
    double *norm;                   /* [r] of u, or of what Gram-Schmidt leaves of it */
} hra_state;

/* ---- The map: first is U [in, r], second K [in, r] ---- */

static int64_t scratch_elements(const input_map *m, int64_t n) {
    return n * m->size;
}

/* c [n, r] = scale x v */
static void project(const input_map *m, backend *dev, device_array *c, const device_array *x,
                    size_t v, double scale, int64_t n) {
    dev->ops->matmul(dev, &(matmul_call){.c = c,
                                         .c_stride = m->size,
                                         .rows = n,
                                         .cols = m->size,
                                         .k = m->in,
                                         .a = {x, m->in, false},
                                         .b = {m->adapter->derived[v].value, m->size, false},
                                         .scale = scale});
}

/* z [n, in] += scale c v^T */
static void expand(const input_map *m, backend *dev, device_array *z, const device_array *c,
                   size_t v, double scale, int64_t n) {
    dev->ops->matmul(dev, &(matmul_call){.c = z,
                                         .c_stride = m->in,
                                         .rows = n,
                                         .cols = m->in,
                                         .k = m->size,
                                         .a = {c, m->size, false},
                                         .b = {m->adapter->derived[v].value, m->size, true},
                                         .scale = scale,
                                         .add = true});
}

/* v.gradient [in, r] += scale x^T c */
static void gather_gradient(const input_map *m, backend *dev, size_t v, const device_array *x,
                            const device_array *c, double scale, const token_rows *tokens) {
    dev->ops->matmul(dev, &(matmul_call){.c = m->adapter->derived[v].gradient,
                                         .c_stride = m->size,
                                         .rows = m->in,
                                         .cols = m->size,
                                         .k = tokens->n,
                                         .a = {x, m->in, true},
                                         .b = {c, m->size, false},
                                         .scale = scale,
                                         .tokens = tokens});
}

static void fwd(const input_map *m, backend *dev, device_array *z, const device_array *x, int64_t n,
                device_array *scratch) {
    project(m, dev, scratch, x, m->first, 1, n);
    dev->ops->copy(dev, z, x, n * m->in);
    expand(m, dev, z, scratch, m->second, -1, n);
}

static void transposed(const input_map *m, backend *dev, device_array *dx, const device_array *dz,
                       bool add, int64_t n, device_array *scratch) {
    project(m, dev, scratch, dz, m->second, 1, n);
    if (add)
        dev->ops->add(dev, dx, dz, n * m->in);
    else
        dev->ops->copy(dev, dx, dz, n * m->in);
    expand(m, dev, dx, scratch, m->first, -1, n);
}

static void gradients(const input_map *m, backend *dev, const device_array *dz,
                      const device_array *x, const token_rows *tokens, device_array *scratch) {
    project(m, dev, scratch, x, m->first, 1, tokens->n);
    gather_gradient(m, dev, m->second, dz, scratch, -1, tokens);
    project(m, dev, scratch, dz, m->second, 1, tokens->n);
    gather_gradient(m, dev, m->first, x, scratch, -1, tokens);
}

static const input_map_method reflections = {.scratch_elements = scratch_elements,
                                             .fwd = fwd,
                                             .transposed = transposed,
                                             .gradients = gradients};

/* ---- Shape ---- */

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    input_map *m = input_map_at(a, module);
    m->size = a->config.r;
    m->first = shape_derived(a, m->in * m->size, true, err);
    m->second = shape_derived(a, m->in * m->size, true, err);
    if (m->first == SIZE_MAX || m->second == SIZE_MAX)
        return GRAFT_E_MEMORY;
    return shape_matrix(a, module, suffix, m->in, m->size, err) ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status make_state(adapter *a, graft_error *err) {
    hra_state *s = input_map_own(a);
    size_t in = 1, r = (size_t)a->config.r;
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->targets[i].is_target && (size_t)a->modules[i].cols > in)
            in = (size_t)a->modules[i].cols;
    double **wide[] = {&s->flat, &s->room, &s->u, &s->unit, &s->dk, &s->d_unit};
    double **small[] = {&s->m, &s->dm, &s->gram, &s->d_gram, &s->norm};
    bool is_made = true;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        is_made = (*wide[i] = mem_array(in * r, sizeof(double))) && is_made;
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        is_made = (*small[i] = mem_array(r * r, sizeof(double))) && is_made;
    return is_made ? GRAFT_OK : error_memory(err, 6 * in * r * sizeof(double), "reflections");
}

static graft_status hra_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    if (status == GRAFT_OK)
        status = input_map_create(a, &reflections, NULL, sizeof(hra_state), err);
    if (status == GRAFT_OK)
        status = make_state(a, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

static void hra_destroy(adapter *a) {
    hra_state *s = input_map_own(a);
    if (s) {
        free(s->flat);
        free(s->room);
        free(s->u);
        free(s->unit);
        free(s->dk);
        free(s->d_unit);
        free(s->m);
        free(s->dm);
        free(s->gram);
        free(s->d_gram);
        free(s->norm);
    }
    input_map_destroy(a);
}

/* As PEFT: Kaiming uniform over r columns; with an even r the columns come in equal pairs, whose
 * reflections undo each other. */
static graft_status hra_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                             graft_error *err) {
    const hra_state *s = input_map_own(a);
    int64_t r = a->config.r;
    bool in_pairs = config_flag(&a->config, "init_weights") && r % 2 == 0;
    int64_t drawn = in_pairs ? r / 2 : r;
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role != ROLE_OTHER)
            continue;
        for (int64_t row = 0; row < t->shape[0]; row++)
            for (int64_t c = 0; c < drawn; c++) {
                double value = (2 * rng_uniform(random) - 1) / sqrt((double)drawn);
                for (int64_t j = c * (r / drawn); j < (c + 1) * (r / drawn); j++)
                    s->flat[row * r + j] = value;
            }
        dev->ops->upload(dev, t->value, s->flat, DTYPE_F64, t->count);
    }
    return shape_init_freed(a, dev, weights, err);
}

/* ---- U and K of u, on the host; vectors lie one after the other ---- */

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void add_scaled(double *y, const double *x, double factor, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] += factor * x[i];
}

static void to_vectors(double *vectors, const double *flat, int64_t in, int64_t r) {
    for (int64_t i = 0; i < in; i++)
        for (int64_t j = 0; j < r; j++)
            vectors[j * in + i] = flat[i * r + j];
}

static void to_flat(double *flat, const double *vectors, int64_t in, int64_t r) {
    for (int64_t i = 0; i < in; i++)
        for (int64_t j = 0; j < r; j++)
            flat[i * r + j] = vectors[j * in + i];
}

/* Unit vectors of u; with Gram-Schmidt, gram[i][j] is what was taken of vector j out of i. */
static void normalise(const hra_state *s, bool orthogonal, int64_t in, int64_t r) {
    memcpy(s->unit, s->u, (size_t)(in * r) * sizeof *s->unit);
    for (int64_t i = 0; i < r; i++) {
        double *v = s->unit + i * in;
        for (int64_t j = 0; j < i && orthogonal; j++) {
            s->gram[i * r + j] = dot(s->unit + j * in, v, in);
            add_scaled(v, s->unit + j * in, -s->gram[i * r + j], in);
        }
        s->norm[i] = sqrt(dot(v, v, in));
        for (int64_t d = 0; d < in; d++)
            v[d] /= s->norm[i];
    }
}

/* The product of the reflections is I - U M U^T, from the last to the first. */
static void make_m(const hra_state *s, bool orthogonal, int64_t in, int64_t r) {
    memset(s->m, 0, (size_t)(r * r) * sizeof *s->m);
    for (int64_t i = r - 1; i >= 0; i--) {
        s->m[i * r + i] = 2;
        for (int64_t l = i + 1; l < r && !orthogonal; l++)
            s->gram[l * r + i] = dot(s->unit + l * in, s->unit + i * in, in);
        for (int64_t j = i + 1; j < r && !orthogonal; j++)
            for (int64_t l = i + 1; l <= j; l++)
                s->m[j * r + i] -= 2 * s->m[j * r + l] * s->gram[l * r + i];
    }
}

/* Fills unit, norm, gram and m from the tensor. */
static void make_reflections(const adapter *a, backend *dev, const adapter_tensor *t) {
    const hra_state *s = input_map_own(a);
    int64_t in = t->shape[0], r = t->shape[1];
    bool orthogonal = config_flag(&a->config, "apply_GS");
    dev->ops->download_f64(dev, s->flat, t->value, t->count);
    to_vectors(s->u, s->flat, in, r);
    normalise(s, orthogonal, in, r);
    make_m(s, orthogonal, in, r);
}

static graft_status hra_prepare(adapter *a, backend *dev, weight_source *weights,
                                graft_error *err) {
    const hra_state *s = input_map_own(a);
    (void)weights;
    (void)err;
    for (size_t i = 0; i < a->n_modules; i++) {
        const input_map *m = input_map_at(a, i);
        const adapter_tensor *t = adapter_tensor_at(a, i, suffix);
        if (!t)
            continue;
        make_reflections(a, dev, t);
        to_flat(s->flat, s->unit, m->in, m->size);
        dev->ops->upload(dev, a->derived[m->first].value, s->flat, DTYPE_F64, t->count);
        memset(s->dk, 0, (size_t)t->count * sizeof *s->dk);
        for (int64_t k = 0; k < m->size; k++)
            for (int64_t j = 0; j <= k; j++)
                add_scaled(s->dk + k * m->in, s->unit + j * m->in, s->m[k * m->size + j], m->in);
        to_flat(s->flat, s->dk, m->in, m->size);
        dev->ops->upload(dev, a->derived[m->second].value, s->flat, DTYPE_F64, t->count);
    }
    return GRAFT_OK;
}

/* d_unit += what comes through M from dM. */
static void chain_m(const hra_state *s, int64_t in, int64_t r) {
    memset(s->d_gram, 0, (size_t)(r * r) * sizeof *s->d_gram);
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = i + 1; j < r; j++)
            for (int64_t l = i + 1; l <= j; l++) {
                s->dm[j * r + l] -= 2 * s->dm[j * r + i] * s->gram[l * r + i];
                s->d_gram[l * r + i] -= 2 * s->dm[j * r + i] * s->m[j * r + l];
            }
    for (int64_t i = 0; i < r; i++)
        for (int64_t l = i + 1; l < r; l++) {
            add_scaled(s->d_unit + l * in, s->unit + i * in, s->d_gram[l * r + i], in);
            add_scaled(s->d_unit + i * in, s->unit + l * in, s->d_gram[l * r + i], in);
        }
}

/* d_unit becomes the gradient of u. Gram-Schmidt runs backwards: u holds what was left of a vector
 * at each of its steps. */
static void chain_normalise(const hra_state *s, bool orthogonal, int64_t in, int64_t r) {
    for (int64_t i = r - 1; i >= 0; i--) {
        double *d = s->d_unit + i * in, *left = s->u + i * in;
        const double *unit = s->unit + i * in;
        add_scaled(d, unit, -dot(unit, d, in), in);
        for (int64_t e = 0; e < in; e++) {
            d[e] /= s->norm[i];
            left[e] = unit[e] * s->norm[i];
        }
        for (int64_t j = i - 1; j >= 0 && orthogonal; j--) {
            const double *other = s->unit + j * in;
            double taken = s->gram[i * r + j], d_taken = -dot(other, d, in);
            add_scaled(left, other, taken, in);
            add_scaled(s->d_unit + j * in, d, -taken, in);
            add_scaled(s->d_unit + j * in, left, d_taken, in);
            add_scaled(d, other, d_taken, in);
        }
    }
}

static double hra_chain(adapter *a, backend *dev) {
    const hra_state *s = input_map_own(a);
    bool orthogonal = config_flag(&a->config, "apply_GS");
    for (size_t i = 0; i < a->n_modules; i++) {
        const input_map *m = input_map_at(a, i);
        const adapter_tensor *t = adapter_tensor_at(a, i, suffix);
        int64_t in = m->in, r = m->size;
        if (!t)
            continue;
        make_reflections(a, dev, t);
        dev->ops->download_f64(dev, s->flat, a->derived[m->first].gradient, t->count);
        to_vectors(s->d_unit, s->flat, in, r);
        dev->ops->download_f64(dev, s->flat, a->derived[m->second].gradient, t->count);
        to_vectors(s->dk, s->flat, in, r);
        for (int64_t k = 0; k < r; k++)
            for (int64_t j = 0; j <= k; j++) {
                s->dm[k * r + j] = dot(s->dk + k * in, s->unit + j * in, in);
                add_scaled(s->d_unit + j * in, s->dk + k * in, s->m[k * r + j], in);
            }
        if (!orthogonal)
            chain_m(s, in, r);
        chain_normalise(s, orthogonal, in, r);
        to_flat(s->flat, s->d_unit, in, r);
        rotation_add_gradient(t, dev, s->flat, s->room);
    }
    return 0;
}

const adapter_method hra_method = {
    .peft_type = "HRA",
    .name = "hra",
    .summary = "Householder reflections of inputs (HRA)",
    .family = "rotations",
    .paper = "Yuan et al. 2024, arXiv:2405.17484",
    .target_kinds = TARGET_LINEAR,
    .keys = hra_keys,
    .shape = hra_shape,
    .destroy = hra_destroy,
    .init = hra_init,
    .bind = input_map_bind,
    .prepare = hra_prepare,
    .chain = hra_chain,
    .merge = input_map_merge,
    .merge_scratch = input_map_merge_scratch,
    .load = peft_load,
    .save = peft_save,
};
