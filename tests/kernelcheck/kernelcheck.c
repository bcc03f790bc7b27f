/* Every op of every kernel table this machine can run, against the reference backend; and its bits
 * against its own, with other numbers of threads and other packings.
 *
 * Tolerance: a result is a sum of K independent products, each rounded. Rounding errors add up like
 * sqrt(K) eps times a typical product, and so does the sum itself, so the error is a few eps of the
 * array's largest element, whatever K is. Attention and the norms pass such results on through a
 * few more steps, which adds to the count. A wrong index, a lost block or a missing edge is larger
 * by orders of magnitude. */
#include "backend/cpu/kernels.h"
#include "base/rng.h"
#include "tests/kernelcheck/op_run.h"
#include "tests/support/support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *features;
    compute_type compute; /* anything but f32: linear cases and groups alone */
    const char *kernels;  /* that multiply in it */
} tables[] = {{"portable", "none", COMPUTE_F32, "portable"},
              {"avx2", "avx2,f16c", COMPUTE_F32, "avx2"},
              {"avx512", "avx2,f16c,avx512", COMPUTE_F32, "avx512"},
              {"int8_portable", "none", COMPUTE_INT8, "portable"},
              {"int8_avx2", "avx2,f16c", COMPUTE_INT8, "avx2"},
              {"int8_vnni", "avx2,f16c,avx512,avx512_vnni", COMPUTE_INT8, "avx512_vnni"},
              {"int8_amx", "avx2,f16c,avx512,amx_tile,amx_int8", COMPUTE_INT8, "amx_int8"},
              {"bf16_portable", "none", COMPUTE_BF16, "portable"},
              {"bf16_amx", "avx2,f16c,avx512,amx_tile,amx_bf16", COMPUTE_BF16, "amx_bf16"}};
enum { N_TABLES = sizeof tables / sizeof tables[0], THREADS_MAX = 3 };

/* The backend of a table; skips the test where the machine lacks it. */
static backend *table_backend(int table, int32_t n_threads) {
    cpu_features features = cpu_features_detect();
    bool gains;
    assert_true(cpu_features_mask(&features, tables[table].features, &test_error));
    if (strcmp(backend_cpu_compute_kernels(&gains, tables[table].compute, &features),
               tables[table].kernels) != 0)
        skip();
    backend *dev;
    assert_ok(backend_create_cpu(&dev, n_threads, &features, &test_error));
    assert_ok(backend_set_compute(dev, tables[table].compute, &features, true, &test_error));
    return dev;
}

static backend *reference_backend(int table) {
    backend *dev;
    cpu_features none = {0};
    assert_ok(backend_create_reference(&dev, &test_error));
    assert_ok(backend_set_compute(dev, tables[table].compute, &none, true, &test_error));
    return dev;
}

static bool is_result(const op_array *array) {
    return array->role == ROLE_OUTPUT || array->role == ROLE_GRADIENT;
}

static void run_case(op_run *run, const op_case *c, backend *dev, double magnitude) {
    *run = (op_run){.magnitude = magnitude};
    c->build(run, dev, 42, c->params);
}

static void run_passes(op_run *run, const op_case *c) {
    c->forward(run);
    if (c->backward)
        c->backward(run);
}

/* ---- against the reference ---- */

/* With large scores softmax is one-hot, and the gradients of q and k are differences of equal terms
 * d_o v k: the error is of the terms' size, not of the difference's. */
static double smallest_scale(const op_run *run, const op_case *c) {
    return c->is_attention ? 8 * pow(run->magnitude, 3) : 0;
}

static void compare_arrays(const op_run *expected, const op_run *got, const op_case *c,
                           const char *table) {
    for (int i = 0; i < expected->n_arrays; i++) {
        const op_array *array = &expected->arrays[i];
        if (!is_result(array))
            continue;
        double *want = op_values(expected, i), *have = op_values(got, i);
        double largest = smallest_scale(expected, c);
        for (int64_t j = 0; j < array->n; j++)
            largest = fmax(largest, fabs(want[j]));
        /* The second term: sums of products that underflow. */
        double bound = c->tolerance * (double)FLT_EPSILON * largest + 1e4 * (double)FLT_TRUE_MIN;
        for (int64_t j = 0; j < array->n; j++)
            if (!(fabs(have[j] - want[j]) <= bound))
                fail_msg("%s, %s: %s[%lld] is %.9g, the reference says %.9g (bound %.3g)", table,
                         c->name, array->name, (long long)j, have[j], want[j], bound);
        free(want);
        free(have);
    }
}

static void check_against_reference(const op_case *c, int table, double magnitude) {
    backend *dev = table_backend(table, 2), *reference = reference_backend(table);
    op_run expected, got;
    run_case(&expected, c, reference, magnitude);
    run_case(&got, c, dev, magnitude);
    run_passes(&expected, c);
    run_passes(&got, c);
    compare_arrays(&expected, &got, c, tables[table].name);
    op_run_end(&expected);
    op_run_end(&got);
    backend_destroy(&reference);
    backend_destroy(&dev);
}

/* ---- bits against bits ---- */

static void compare_bits(const op_run *expected, const op_run *got, const op_case *c,
                         const char *what) {
    for (int i = 0; i < expected->n_arrays; i++) {
        const op_array *array = &expected->arrays[i];
        if (!is_result(array))
            continue;
        size_t bytes = (size_t)array->n * expected->dev->element_bytes;
        if (memcmp(array->memory, got->arrays[i].memory, bytes) != 0)
            fail_msg("%s: the bits of %s depend on %s", c->name, array->name, what);
    }
}

static void check_bits(const op_case *c, int table) {
    backend *dev = table_backend(table, 1);
    op_run expected, got;
    run_case(&expected, c, dev, 1);
    run_passes(&expected, c);
    for (int32_t n_threads = 2; n_threads <= THREADS_MAX; n_threads++) {
        backend *other = table_backend(table, n_threads);
        run_case(&got, c, other, 1);
        run_passes(&got, c);
        compare_bits(&expected, &got, c, "the number of threads");
        op_run_end(&got);
        backend_destroy(&other);
    }
    if (c->has_tokens) {
        run_case(&got, c, dev, 1);
        for (int32_t s = 0; s < got.all.n_segments; s++) {
            op_run_select(&got, s);
            run_passes(&got, c);
        }
        compare_bits(&expected, &got, c, "packing");
        op_run_end(&got);
    }
    op_run_end(&expected);
    backend_destroy(&dev);
}

/* ---- NaN and infinity ---- */

static void compare_finiteness(const op_run *expected, const op_run *got, const op_case *c,
                               const char *table) {
    for (int i = 0; i < expected->n_arrays; i++) {
        const op_array *array = &expected->arrays[i];
        if (!is_result(array))
            continue;
        double *want = op_values(expected, i), *have = op_values(got, i);
        for (int64_t j = 0; j < array->n; j++) {
            bool is_lost = !isfinite(want[j]) && isfinite(have[j]);
            bool is_spread = isfinite(want[j]) && !isfinite(have[j]) && !c->is_attention;
            if (is_lost || is_spread)
                fail_msg("%s, %s: %s[%lld] is %g, the reference says %g", table, c->name,
                         array->name, (long long)j, have[j], want[j]);
        }
        free(want);
        free(have);
    }
}

/* Each input in turn gets one bad element in the middle. (In attention, a block of keys is
 * multiplied whole, so a NaN also reaches its neighbours among the hidden keys: allowed.) */
static void check_poison(const op_case *c, int table, double poison) {
    backend *dev = table_backend(table, 2), *reference = reference_backend(table);
    op_run expected, got;
    run_case(&expected, c, reference, 1);
    run_case(&got, c, dev, 1);
    for (int i = 0; i < expected.n_arrays; i++) {
        if (expected.arrays[i].role != ROLE_INPUT)
            continue;
        double *values = op_values(&expected, i), *kept = op_values(&expected, i);
        values[expected.arrays[i].n / 2] = poison;
        op_set(&expected, i, values);
        op_set(&got, i, values);
        run_passes(&expected, c);
        run_passes(&got, c);
        compare_finiteness(&expected, &got, c, tables[table].name);
        op_set(&expected, i, kept);
        op_set(&got, i, kept);
        free(values);
        free(kept);
    }
    op_run_end(&expected);
    op_run_end(&got);
    backend_destroy(&reference);
    backend_destroy(&dev);
}

/* ---- the tests ---- */

typedef struct test_of {
    const op_case *c;
    int table;
} test_of;

static void agrees_with_the_reference(void **state) {
    const test_of *t = *state;
    check_against_reference(t->c, t->table, 1);
}

static void large_values_agree(void **state) {
    const test_of *t = *state;
    check_against_reference(t->c, t->table, 1e4);
}

static void tiny_values_agree(void **state) {
    const test_of *t = *state;
    check_against_reference(t->c, t->table, 1e-22);
}

static void bits_do_not_depend_on_threads_or_packing(void **state) {
    const test_of *t = *state;
    check_bits(t->c, t->table);
}

static void nan_and_infinity_pass_through(void **state) {
    const test_of *t = *state;
    check_poison(t->c, t->table, (double)NAN);
    check_poison(t->c, t->table, (double)INFINITY);
}

static void no_rows_do_nothing(void **state) {
    const test_of *t = *state;
    backend *dev = table_backend(t->table, 2);
    op_run run;
    run_case(&run, t->c, dev, 1);
    static const int32_t no_grid[1] = {0};
    static const int32_t no_jobs[OP_JOBS_MAX + 1] = {0};
    run.batch.tokens.n = 0;
    run.batch.tokens.grid = no_grid;
    run.batch.tokens.n_grid = 0;
    run.batch.tokens.job_begin = no_jobs;
    run.batch.n_segments = 0;
    run_passes(&run, t->c);
    for (int i = 0; i < run.n_arrays; i++) {
        if (!is_result(&run.arrays[i]))
            continue;
        double *values = op_values(&run, i);
        for (int64_t j = 0; j < run.arrays[i].n; j++)
            assert_true(values[j] == 0);
        free(values);
    }
    op_run_end(&run);
    backend_destroy(&dev);
}

/* The exponential of probabilities, and (through the activation's 1 / (1 + e^-x)) the one of the
 * whole range. */
static void exponential_is_within_2e7(void **state) {
    const test_of *t = *state;
    backend *dev = table_backend(t->table, 1); /* skips where the table cannot run */
    backend_destroy(&dev);
    const row_kernels *rows = cpu_kernels_at((size_t)t->table)->rows;
    enum { N = 48 };
    for (double first = -110; first < 88; first += 0.0123) {
        float x[N], y[N];
        for (int i = 0; i < N; i++)
            x[i] = (float)(first + 2.7e-4 * i);
        rows->exp_row(y, x, 0, N);
        for (int i = 0; i < N; i++)
            test_assert_near((double)y[i], exp((double)x[i]), 1.7e-38, 2e-7, "exp");
    }
    float edges[4] = {-INFINITY, -1000, NAN, 0}, y[4];
    rows->exp_row(y, edges, 0, 4);
    assert_true(y[0] == 0 && y[1] == 0 && isnan(y[2]) && y[3] == 1);
}

static void activation_holds_over_the_whole_range(void **state) {
    const test_of *t = *state;
    backend *dev = table_backend(t->table, 1);
    backend_destroy(&dev);
    const row_kernels *rows = cpu_kernels_at((size_t)t->table)->rows;
    const gate_call silu = {.kind = ACTIVATION_SILU};
    enum { N = 48 };
    for (double first = -110; first < 110; first += 0.0123) {
        float x[N], ones[N], y[N];
        for (int i = 0; i < N; i++) {
            x[i] = (float)(first + 2.7e-4 * i);
            ones[i] = 1;
        }
        rows->gated_fwd(y, x, ones, &silu, N);
        for (int i = 0; i < N; i++) {
            double want = (double)x[i] / (1 + exp(-(double)x[i]));
            test_assert_near((double)y[i], want, 1e-36, 6e-7, "silu");
        }
    }
}

static void sum_of_squares_is_double_and_ordered(void **state) {
    const test_of *t = *state;
    enum { N = 300007 };
    backend *dev = table_backend(t->table, 1), *other = table_backend(t->table, 3);
    op_run run = {.magnitude = 1e25}; /* squares overflow f32 */
    const int32_t lengths[2] = {1, 0};
    op_run_begin(&run, dev, 3, lengths, NULL, 2);
    int x = op_array_add(&run, "x", N, ROLE_INPUT, -1);
    double *values = op_values(&run, x), want = 0;
    for (int i = 0; i < N; i++)
        want += values[i] * values[i];
    double got = dev->ops->sum_squares(dev, op_at(&run, x), N);
    test_assert_near(got, want, 0, 1e-12, "sum of squares");
    assert_true(other->ops->sum_squares(other, op_at(&run, x), N) == got);
    free(values);
    op_run_end(&run);
    backend_destroy(&dev);
    backend_destroy(&other);
}

static void stored_types_are_uploaded(void **state) {
    const test_of *t = *state;
    enum { N = 37 };
    static const dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    backend *dev = table_backend(t->table, 2);
    device_array *to = dev->ops->alloc(dev, N * sizeof(float));
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        float values[N], got[N];
        double stored[N];
        for (int j = 0; j < N; j++)
            values[j] = (float)(j - 18) * 0.25f; /* exact in all of them */
        dtype_store_f32(stored, values, types[i], N);
        dev->ops->upload(dev, to, stored, types[i], N);
        dev->ops->download(dev, got, to, N);
        assert_memory_equal(got, values, sizeof values);
    }
    dev->ops->release(dev, to);
    backend_destroy(&dev);
}

/* ---- tiles of B as it is stored ---- */

enum { STORED_GAP = 3, STORED_TAIL = 5, STORED_STRIDE = K_BLOCK_MAX + STORED_GAP };

typedef struct stored_case {
    float a[K_BLOCK_MAX * TILE_ROWS_MAX], a_tail[STORED_TAIL * TILE_ROWS_MAX];
    float b_tail[STORED_TAIL * TILE_COLS_MAX], b[STORED_STRIDE * TILE_COLS_MAX];
    float packed[K_BLOCK_MAX * TILE_COLS_MAX];
    uint32_t stored[STORED_STRIDE * TILE_COLS_MAX];
    float want[STORED_ROWS * TILE_COLS_MAX], got[STORED_ROWS * TILE_COLS_MAX];
} stored_case;

static void fill_random(float *x, int32_t n, rng *r) {
    for (int32_t i = 0; i < n; i++)
        x[i] = (float)(rng_u32(r) >> 8) * 0x1p-24f - 0.5f;
}

static void check_stored_tile(stored_case *s, const gemm_kernels *kernels, dtype type, int32_t k,
                              int32_t rows, bool has_tail) {
    /* not aligned; and wider than k, so that what follows a row must not count */
    const char *b = (const char *)s->stored + dtype_bytes(type);
    int32_t stride = STORED_STRIDE - 1;
    gemm_tile tile = {.c = s->want,
                      .c_stride = kernels->tile_cols,
                      .a = s->a,
                      .b = s->packed,
                      .a_tail = s->a_tail,
                      .b_tail = s->b_tail,
                      .k = k,
                      .k_tail = has_tail ? STORED_TAIL : 0,
                      .rows = rows,
                      .scale = 0.75f,
                      .add = has_tail};
    kernels->pack_b_rows(s->packed, b, type, stride, kernels->tile_cols, k);
    memset(s->want, 0, sizeof s->want);
    memset(s->got, 0, sizeof s->got);
    kernels->tile(&tile);
    tile.c = s->got;
    tile.b = NULL;
    kernels->tile_stored(&tile, b, type, stride);
    if (memcmp(s->want, s->got, sizeof s->want) != 0)
        fail_msg("type %d, k %d, %d rows: other bits than the packed tile's", (int)type, k, rows);
}

static void stored_tiles_have_the_packed_bits(void **state) {
    const test_of *t = *state;
    backend *dev = table_backend(t->table, 1); /* skips where the table cannot run */
    backend_destroy(&dev);
    const gemm_kernels *kernels = cpu_kernels_at((size_t)t->table)->gemm;
    static const dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    static const int32_t lengths[] = {1, 7, 8, 15, 16, 24, 37, 288, K_BLOCK_MAX};
    if (!kernels->tile_stored)
        skip();
    stored_case *s = calloc(1, sizeof *s);
    assert_non_null(s);
    rng r = rng_create(1, 2);
    fill_random(s->a, K_BLOCK_MAX * TILE_ROWS_MAX, &r);
    fill_random(s->a_tail, STORED_TAIL * TILE_ROWS_MAX, &r);
    fill_random(s->b_tail, STORED_TAIL * TILE_COLS_MAX, &r);
    fill_random(s->b, STORED_STRIDE * TILE_COLS_MAX, &r);
    for (int poison = 0; poison < 2; poison++) {
        if (poison) /* in one column */
            s->b[3 * STORED_STRIDE] = INFINITY;
        for (size_t type = 0; type < sizeof types / sizeof types[0]; type++) {
            dtype_store_f32(s->stored, s->b, types[type], STORED_STRIDE * TILE_COLS_MAX);
            for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
                for (int32_t rows = 1; rows <= STORED_ROWS; rows++)
                    for (int tail = 0; tail < 2; tail++)
                        check_stored_tile(s, kernels, types[type], lengths[i], rows, tail);
        }
    }
    free(s);
}

/* ---- the list of tests ---- */

enum { TESTS_MAX = 4096 };
static struct CMUnitTest tests[TESTS_MAX];
static test_of states[TESTS_MAX];
static char names[TESTS_MAX][96];
static size_t n_tests;

static void add_test(CMUnitTestFunction function, const char *what, const op_case *c, int table) {
    snprintf(names[n_tests], sizeof names[0], "%s_%s_%s", tables[table].name, c ? c->name : "rows",
             what);
    states[n_tests] = (test_of){c, table};
    assert_true(n_tests < TESTS_MAX);
    tests[n_tests] = (struct CMUnitTest){
        .name = names[n_tests], .test_func = function, .initial_state = &states[n_tests]};
    n_tests++;
}

static void add_table(int table) {
    bool is_narrow = tables[table].compute != COMPUTE_F32;
    const op_case *c;
    for (int i = 0; (c = op_case_at(i)); i++) {
        if (is_narrow && strncmp(c->name, "linear", 6) != 0 && strncmp(c->name, "group", 5) != 0)
            continue;
        add_test(agrees_with_the_reference, "agrees_with_the_reference", c, table);
        add_test(bits_do_not_depend_on_threads_or_packing, "bits_are_the_same", c, table);
        if (!c->is_large) {
            add_test(large_values_agree, "large_values_agree", c, table);
            add_test(tiny_values_agree, "tiny_values_agree", c, table);
            add_test(nan_and_infinity_pass_through, "nan_and_infinity_pass_through", c, table);
        }
        if (c->has_tokens)
            add_test(no_rows_do_nothing, "no_rows_do_nothing", c, table);
    }
    if (is_narrow)
        return;
    add_test(exponential_is_within_2e7, "exponential_is_within_2e7", NULL, table);
    add_test(activation_holds_over_the_whole_range, "activation_holds", NULL, table);
    add_test(sum_of_squares_is_double_and_ordered, "sum_of_squares_is_ordered", NULL, table);
    add_test(stored_types_are_uploaded, "stored_types_are_uploaded", NULL, table);
    add_test(stored_tiles_have_the_packed_bits, "stored_tiles_have_the_packed_bits", NULL, table);
}

int main(void) {
    for (int table = 0; table < N_TABLES; table++)
        add_table(table);
    return _cmocka_run_group_tests("kernelcheck", tests, n_tests, NULL, NULL);
}
