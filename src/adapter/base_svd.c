#include "adapter/base_svd.h"

#include "adapter/base_weight.h"
#include "base/linear_algebra.h"
#include "base/memory.h"
#include "base/torch_random.h"

#include <stdlib.h>
#include <string.h>

void base_svd_free(base_svd *d) {
    free(d->u);
    free(d->s);
    free(d->vt);
    *d = (base_svd){0};
}

static void transpose(double *to, const double *from, int64_t rows, int64_t cols) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            to[j * rows + i] = from[i * cols + j];
}

static graft_status make_room(double **out, int64_t n, graft_error *err) {
    *out = mem_array((size_t)n, sizeof **out);
    return *out ? GRAFT_OK
                : error_memory(err, (size_t)n * sizeof **out, "a singular value decomposition");
}

static graft_status result_room(base_svd *d, graft_error *err) {
    graft_status status = make_room(&d->u, d->rows * d->k, err);
    if (status == GRAFT_OK)
        status = make_room(&d->s, d->k, err);
    return status == GRAFT_OK ? make_room(&d->vt, d->k * d->cols, err) : status;
}

/* The signs of singular vectors are LAPACK's, which torch gives the matrix by columns: as the
 * transpose is here. a [rows, cols] = u s vt. */
static graft_status svd_by_columns(double *u, double *s, double *vt, const double *a, int64_t rows,
                                   int64_t cols, graft_error *err) {
    int64_t k = rows < cols ? rows : cols;
    double *by_columns = NULL, *left = NULL, *right = NULL;
    graft_status status = make_room(&by_columns, rows * cols, err);
    if (status == GRAFT_OK)
        status = make_room(&left, cols * k, err);
    if (status == GRAFT_OK)
        status = make_room(&right, k * rows, err);
    if (status == GRAFT_OK) {
        transpose(by_columns, a, rows, cols);
        status = linear_svd(left, s, right, by_columns, cols, rows, err);
    }
    if (status == GRAFT_OK) {
        transpose(vt, left, cols, k);
        transpose(u, right, k, rows);
    }
    free(by_columns);
    free(left);
    free(right);
    return status;
}

/* Then nothing is computed, and all is zero. */
static bool has_shapes_only(const weight_source *weights) {
    return weights && !weight_source_files(weights);
}

static graft_status load_weight(double **w, const adapter *a, size_t module,
                                const weight_source *weights, graft_error *err) {
    const model_module *m = &a->modules[module];
    graft_status status = make_room(w, m->rows * m->cols, err);
    return status == GRAFT_OK ? base_weight_rows(*w, a, module, weights, 0, m->rows, err) : status;
}

graft_status base_svd_full(base_svd *d, const adapter *a, size_t module,
                           const weight_source *weights, graft_error *err) {
    const model_module *m = &a->modules[module];
    double *w = NULL;
    *d = (base_svd){.rows = m->rows, .cols = m->cols, .k = m->rows < m->cols ? m->rows : m->cols};
    if (has_shapes_only(weights))
        return result_room(d, err);
    graft_status status = load_weight(&w, a, module, weights, err);
    if (status == GRAFT_OK)
        status = result_room(d, err);
    if (status == GRAFT_OK)
        status = svd_by_columns(d->u, d->s, d->vt, w, d->rows, d->cols, err);
    free(w);
    if (status != GRAFT_OK)
        base_svd_free(d);
    return status;
}

/* ---- Randomised (Halko, Martinsson and Tropp, 2011, algorithm 5.1) ---- */

typedef struct sketch {        /* of a tall a [m, n] */
    double *a, *x, *r, *basis; /* x [max(m, n), q]: products; r [q, q]; basis likewise */
    float *drawn;              /* [n, q] */
    int64_t m, n, q;
} sketch;

/* basis = the orthonormal columns of x [rows, q] */
static graft_status orthonormalise(const sketch *s, int64_t rows, graft_error *err) {
    return linear_qr(s->basis, s->r, s->x, rows, s->q, err);
}

static graft_status find_basis(const sketch *s, int64_t iterations, uint64_t seed,
                               graft_error *err) {
    torch_random generator;
    torch_random_seed(&generator, seed);
    torch_random_normal(&generator, s->drawn, s->n * s->q, 0, 1);
    for (int64_t i = 0; i < s->n * s->q; i++)
        s->basis[i] = (double)s->drawn[i];
    linear_matmul(s->x, s->a, false, s->basis, false, s->m, s->q, s->n, 1);
    graft_status status = orthonormalise(s, s->m, err);
    for (int64_t i = 0; i < iterations && status == GRAFT_OK; i++) {
        linear_matmul(s->x, s->a, true, s->basis, false, s->n, s->q, s->m, 1);
        status = orthonormalise(s, s->n, err);
        if (status != GRAFT_OK)
            break;
        linear_matmul(s->x, s->a, false, s->basis, false, s->m, s->q, s->n, 1);
        status = orthonormalise(s, s->m, err);
    }
    return status;
}

/* left [m, q], right [q, n] of a */
static graft_status sketch_svd(const sketch *s, double *left, double *values, double *right,
                               graft_error *err) {
    double *small = NULL;
    graft_status status = make_room(&small, s->q * s->n, err);
    if (status == GRAFT_OK) {
        linear_matmul(small, s->basis, true, s->a, false, s->q, s->n, s->m, 1);
        status = svd_by_columns(s->r, values, right, small, s->q, s->n, err);
    }
    if (status == GRAFT_OK)
        linear_matmul(left, s->basis, false, s->r, false, s->m, s->q, s->q, 1);
    free(small);
    return status;
}

static graft_status sketch_room(sketch *s, graft_error *err) {
    int64_t longer = s->m > s->n ? s->m : s->n;
    graft_status status = make_room(&s->x, longer * s->q, err);
    if (status == GRAFT_OK)
        status = make_room(&s->basis, longer * s->q, err);
    if (status == GRAFT_OK)
        status = make_room(&s->r, s->q * s->q, err);
    if (status == GRAFT_OK && !(s->drawn = mem_array((size_t)(s->n * s->q), sizeof *s->drawn)))
        status = error_memory(err, (size_t)(s->n * s->q) * sizeof *s->drawn, "random numbers");
    return status;
}

graft_status base_svd_low_rank(base_svd *d, const adapter *a, size_t module,
                               const weight_source *weights, int64_t q, int64_t iterations,
                               uint64_t seed, graft_error *err) {
    const model_module *m = &a->modules[module];
    bool is_wide = m->rows < m->cols; /* then its transpose is factorised */
    double *w = NULL, *turned = NULL, *left = NULL, *right = NULL;
    *d = (base_svd){.rows = m->rows, .cols = m->cols, .k = q};
    sketch s = {.m = is_wide ? m->cols : m->rows, .n = is_wide ? m->rows : m->cols, .q = q};
    if (has_shapes_only(weights))
        return result_room(d, err);
    graft_status status = load_weight(&w, a, module, weights, err);
    if (status == GRAFT_OK)
        status = make_room(&turned, m->rows * m->cols, err);
    if (status == GRAFT_OK)
        status = make_room(&left, s.m * q, err);
    if (status == GRAFT_OK)
        status = make_room(&right, q * s.n, err);
    if (status == GRAFT_OK)
        status = sketch_room(&s, err);
    if (status == GRAFT_OK)
        status = result_room(d, err);
    if (status == GRAFT_OK) {
        if (is_wide)
            transpose(turned, w, m->rows, m->cols);
        s.a = is_wide ? turned : w;
        status = find_basis(&s, iterations, seed, err);
    }
    if (status == GRAFT_OK)
        status = sketch_svd(&s, left, d->s, right, err);
    if (status == GRAFT_OK) {
        if (is_wide) {
            transpose(d->vt, left, s.m, q);
            transpose(d->u, right, q, s.n);
        } else {
            memcpy(d->u, left, (size_t)(s.m * q) * sizeof *left);
            memcpy(d->vt, right, (size_t)(q * s.n) * sizeof *right);
        }
    }
    free(w);
    free(turned);
    free(left);
    free(right);
    free(s.x);
    free(s.basis);
    free(s.r);
    free(s.drawn);
    if (status != GRAFT_OK)
        base_svd_free(d);
    return status;
}
