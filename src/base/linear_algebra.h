/* Factorisations of dense matrices on the host, in double, by LAPACK. Row-major. For what is done
 * once (first values of adapters, rotations of the base) or is tiny. Signs of singular and
 * eigenvectors are LAPACK's. */
#ifndef GRAFT_BASE_LINEAR_ALGEBRA_H
#define GRAFT_BASE_LINEAR_ALGEBRA_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* a [rows, cols] = u [rows, k] diag(s [k]) vt [k, cols], k = min(rows, cols), s descending. a is
 * overwritten. */
graft_status linear_svd(double *u, double *s, double *vt, double *a, int64_t rows, int64_t cols,
                        graft_error *);
/* a [rows, cols] = q [rows, k] r [k, cols], k = min(rows, cols), q with orthonormal columns, r
 * upper triangular. a is overwritten. */
graft_status linear_qr(double *q, double *r, double *a, int64_t rows, int64_t cols, graft_error *);
/* Symmetric a [n, n] = sum of values[i] v_i v_i^T, values ascending, v_i the rows of vectors [n,
 * n]. a is read only and may be the same memory as vectors. */
graft_status linear_eigen(double *values, double *vectors, const double *a, int64_t n,
                          graft_error *);
/* The pseudo-inverse of a symmetric a [n, n]; eigenvalues up to tolerance times the largest in size
 * count as 0. */
graft_status linear_pseudo_inverse(double *inverse, const double *a, int64_t n, double tolerance,
                                   graft_error *);
/* Each row b of rows [n_rows, n] becomes the x with x a = b; a [n, n] is overwritten.
 * GRAFT_E_NUMERIC when a is singular. */
graft_status linear_solve(double *rows, double *a, int64_t n_rows, int64_t n, graft_error *);
/* c [rows, cols] = scale a [rows, k] b [k, cols]; a transposed is stored [k, rows], b [cols, k]. */
void linear_matmul(double *c, const double *a, bool a_transposed, const double *b,
                   bool b_transposed, int64_t rows, int64_t cols, int64_t k, double scale);

#endif
