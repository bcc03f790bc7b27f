#include "base/linear_algebra.h"

#include "base/memory.h"

#include <cblas.h>
#include <lapacke.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* LAPACK wants columns: a row-major matrix is its own transpose to it, so the transposed problem is
 * solved in place and nothing is copied. */

static graft_status check_size(int64_t rows, int64_t cols, graft_error *err) {
    if (rows <= INT_MAX && cols <= INT_MAX)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_UNSUPPORTED, "a matrix of %lld x %lld is too large to factorise",
                     (long long)rows, (long long)cols);
}

static graft_status check_info(lapack_int info, const char *what, graft_error *err) {
    if (info == LAPACK_WORK_MEMORY_ERROR || info == LAPACK_TRANSPOSE_MEMORY_ERROR)
        return error_set(err, GRAFT_E_MEMORY, "no memory for the %s of a matrix", what);
    if (info != 0)
        return error_set(
            err, GRAFT_E_NUMERIC,
            "the %s of a matrix failed (LAPACK says %d): it has values that are not finite", what,
            (int)info);
    return GRAFT_OK;
}

graft_status linear_svd(double *u, double *s, double *vt, double *a, int64_t rows, int64_t cols,
                        graft_error *err) {
    graft_status status = check_size(rows, cols, err);
    if (status != GRAFT_OK)
        return status;
    lapack_int m = (lapack_int)cols, n = (lapack_int)rows, k = m < n ? m : n; /* a^T = v s u^T */
    return check_info(LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', m, n, a, m, s, vt, m, u, k),
                      "singular value decomposition", err);
}

graft_status linear_qr(double *q, double *r, double *a, int64_t rows, int64_t cols,
                       graft_error *err) {
    graft_status status = check_size(rows, cols, err);
    if (status != GRAFT_OK)
        return status;
    lapack_int m = (lapack_int)cols, n = (lapack_int)rows, k = m < n ? m : n; /* a^T = r^T q^T */
    double *tau = mem_array((size_t)k, sizeof *tau);
    if (!tau)
        return error_memory(err, (size_t)k * sizeof *tau, "a factorisation");
    status = check_info(LAPACKE_dgelqf(LAPACK_COL_MAJOR, m, n, a, m, tau), "QR decomposition", err);
    for (int64_t i = 0; i < k && status == GRAFT_OK; i++)
        for (int64_t j = 0; j < cols; j++)
            r[i * cols + j] = j < i ? 0 : a[i * cols + j];
    /* The k reflectors lie in the first k rows of a^T, that is, columns of a. */
    for (int64_t i = 0; i < rows && status == GRAFT_OK; i++)
        memcpy(q + i * k, a + i * cols, (size_t)k * sizeof *q);
    if (status == GRAFT_OK)
        status = check_info(LAPACKE_dorglq(LAPACK_COL_MAJOR, k, n, k, q, k, tau),
                            "QR decomposition", err);
    free(tau);
    return status;
}

graft_status linear_eigen(double *values, double *vectors, const double *a, int64_t n,
                          graft_error *err) {
    graft_status status = check_size(n, n, err);
    if (status != GRAFT_OK)
        return status;
    if (vectors != a)
        memcpy(vectors, a, (size_t)(n * n) * sizeof *a);
    return check_info(
        LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', (lapack_int)n, vectors, (lapack_int)n, values),
        "eigendecomposition", err);
}

graft_status linear_pseudo_inverse(double *inverse, const double *a, int64_t n, double tolerance,
                                   graft_error *err) {
    double *values = mem_array((size_t)n, sizeof *values);
    double *vectors = mem_array((size_t)(n * n), sizeof *vectors);
    double *scaled = mem_array((size_t)(n * n), sizeof *scaled), largest = 0;
    graft_status status = values && vectors && scaled
                              ? linear_eigen(values, vectors, a, n, err)
                              : error_memory(err, (size_t)(n * n) * sizeof *vectors, "a matrix");
    if (status == GRAFT_OK) {
        for (int64_t i = 0; i < n; i++)
            largest = fmax(largest, fabs(values[i]));
        for (int64_t i = 0; i < n * n; i++) {
            double value = values[i / n];
            scaled[i] = fabs(value) <= tolerance * largest ? 0 : vectors[i] / value;
        }
        linear_matmul(inverse, vectors, true, scaled, false, n, n, n, 1);
    }
    free(values);
    free(vectors);
    free(scaled);
    return status;
}

graft_status linear_solve(double *rows, double *a, int64_t n_rows, int64_t n, graft_error *err) {
    graft_status status = check_size(n_rows, n, err);
    if (status != GRAFT_OK)
        return status;
    lapack_int order = (lapack_int)n, *pivots = mem_array((size_t)n, sizeof *pivots);
    if (!pivots)
        return error_memory(err, (size_t)n * sizeof *pivots, "a system of equations");
    lapack_int info =
        LAPACKE_dgesv(LAPACK_COL_MAJOR, order, (lapack_int)n_rows, a, order, pivots, rows, order);
    free(pivots);
    if (info > 0)
        return error_set(err, GRAFT_E_NUMERIC, "a system of %lld equations is singular",
                         (long long)n);
    return check_info(info, "solution", err);
}

void linear_matmul(double *c, const double *a, bool a_transposed, const double *b,
                   bool b_transposed, int64_t rows, int64_t cols, int64_t k, double scale) {
    cblas_dgemm(CblasRowMajor, a_transposed ? CblasTrans : CblasNoTrans,
                b_transposed ? CblasTrans : CblasNoTrans, (blasint)rows, (blasint)cols, (blasint)k,
                scale, a, (blasint)(a_transposed ? rows : k), b, (blasint)(b_transposed ? k : cols),
                0, c, (blasint)cols);
}
