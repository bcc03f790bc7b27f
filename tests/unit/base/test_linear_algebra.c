/* Factorisations put together again, over wide, tall, square and rank-deficient matrices. */
#include "tests/support/support.h"

#include "base/linear_algebra.h"
#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct size {
    int64_t rows, cols;
} size;

static const size sizes[] = {{1, 1}, {1, 5}, {5, 1}, {4, 4}, {7, 3}, {3, 7}, {20, 33}, {33, 20}};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static double *make(int64_t n) {
    double *values = mem_array((size_t)n, sizeof *values);
    assert_non_null(values);
    return values;
}

static double *make_random(int64_t n, uint64_t seed) {
    double *values = make(n);
    rng random = rng_create(seed, 0);
    for (int64_t i = 0; i < n; i++)
        values[i] = rng_normal(&random);
    return values;
}

static void assert_equal(const double *a, const double *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= 1e-12 * (double)(n + 10)))
            fail_msg("element %lld: %g, expected %g", (long long)i, a[i], b[i]);
}

/* m^T m (columns) or m m^T (rows) is the identity. */
static void assert_orthonormal(const double *m, int64_t rows, int64_t cols, bool of_rows) {
    int64_t n = of_rows ? rows : cols;
    double *product = make(n * n), *identity = make(n * n);
    linear_matmul(product, m, !of_rows, m, of_rows, n, n, of_rows ? cols : rows, 1);
    for (int64_t i = 0; i < n; i++)
        identity[i * n + i] = 1;
    assert_equal(product, identity, n * n);
    free(product);
    free(identity);
}

static void svd_gives_the_matrix_back(void **state) {
    (void)state;
    for (int i = 0; i < N_SIZES; i++) {
        int64_t m = sizes[i].rows, n = sizes[i].cols, k = m < n ? m : n;
        double *a = make_random(m * n, (uint64_t)i), *copy = make(m * n), *back = make(m * n);
        double *u = make(m * k), *s = make(k), *vt = make(k * n), *us = make(m * k);
        memcpy(copy, a, (size_t)(m * n) * sizeof *a);
        assert_ok(linear_svd(u, s, vt, copy, m, n, &test_error));
        for (int64_t j = 0; j < m * k; j++)
            us[j] = u[j] * s[j % k];
        linear_matmul(back, us, false, vt, false, m, n, k, 1);
        assert_equal(back, a, m * n);
        assert_orthonormal(u, m, k, false);
        assert_orthonormal(vt, k, n, true);
        for (int64_t j = 1; j < k; j++)
            assert_true(s[j - 1] >= s[j] && s[j] >= 0);
        free(a), free(copy), free(back), free(u), free(s), free(vt), free(us);
    }
}

static void qr_gives_the_matrix_back(void **state) {
    (void)state;
    for (int i = 0; i < N_SIZES; i++) {
        int64_t m = sizes[i].rows, n = sizes[i].cols, k = m < n ? m : n;
        double *a = make_random(m * n, (uint64_t)i), *copy = make(m * n), *back = make(m * n);
        double *q = make(m * k), *r = make(k * n);
        memcpy(copy, a, (size_t)(m * n) * sizeof *a);
        assert_ok(linear_qr(q, r, copy, m, n, &test_error));
        linear_matmul(back, q, false, r, false, m, n, k, 1);
        assert_equal(back, a, m * n);
        assert_orthonormal(q, m, k, false);
        for (int64_t row = 0; row < k; row++)
            for (int64_t col = 0; col < row; col++)
                assert_true(r[row * n + col] == 0);
        free(a), free(copy), free(back), free(q), free(r);
    }
}

/* g g^T of a wide g has full rank, of a tall one it has not. */
static void pseudo_inverse_is_one(void **state) {
    (void)state;
    for (int i = 0; i < N_SIZES; i++) {
        int64_t m = sizes[i].rows, n = sizes[i].cols;
        double *g = make_random(m * n, (uint64_t)i), *a = make(m * m), *inverse = make(m * m);
        double *product = make(m * m), *back = make(m * m), *vectors = make(m * m),
               *values = make(m);
        linear_matmul(a, g, false, g, true, m, m, n, 1);
        assert_ok(linear_pseudo_inverse(inverse, a, m, 1e-10, &test_error));
        linear_matmul(product, a, false, inverse, false, m, m, m, 1);
        linear_matmul(back, product, false, a, false, m, m, m, 1);
        for (int64_t j = 0; j < m * m; j++)
            test_assert_near(back[j], a[j], 1e-9, 1e-9, "a a+ a");
        assert_ok(linear_eigen(values, vectors, a, m, &test_error));
        assert_orthonormal(vectors, m, m, true);
        for (int64_t row = 0; row < m; row++) {
            double *image = make(m);
            linear_matmul(image, a, false, vectors + row * m, false, m, 1, m, 1);
            for (int64_t j = 0; j < m; j++)
                test_assert_near(image[j], values[row] * vectors[row * m + j], 1e-10, 0, "a v");
            free(image);
        }
        free(g), free(a), free(inverse), free(product), free(back), free(vectors), free(values);
    }
}

static void solutions_solve(void **state) {
    (void)state;
    enum { N = 7, ROWS = 3 };
    double *a = make_random(N * N, 5), *kept = make_random(N * N, 5), *x = make_random(ROWS * N, 6),
           *b = make_random(ROWS * N, 6), *back = make(ROWS * N);
    assert_ok(linear_solve(x, a, ROWS, N, &test_error));
    linear_matmul(back, x, false, kept, false, ROWS, N, N, 1);
    for (int i = 0; i < ROWS * N; i++)
        test_assert_near(back[i], b[i], 1e-10, 0, "x a");
    double singular[4] = {1, 2, 2, 4}, row[2] = {1, 1};
    assert_refused(linear_solve(row, singular, 1, 2, &test_error), GRAFT_E_NUMERIC, "singular");
    free(a), free(kept), free(x), free(b), free(back);
}

static void bad_numbers_are_an_error(void **state) {
    (void)state;
    double a[4] = {1, (double)NAN, 2, 3}, u[4], s[2], vt[4];
    assert_int_equal(linear_svd(u, s, vt, a, 2, 2, &test_error), GRAFT_E_NUMERIC);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(svd_gives_the_matrix_back), cmocka_unit_test(qr_gives_the_matrix_back),
        cmocka_unit_test(pseudo_inverse_is_one),     cmocka_unit_test(solutions_solve),
        cmocka_unit_test(bad_numbers_are_an_error),
    };
    return cmocka_run_group_tests_name("test_linear_algebra", tests, NULL, NULL);
}
