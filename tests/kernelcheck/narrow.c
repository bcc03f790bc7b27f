/* The kernels of products in int8 and bf16, table by table: int8 must give the portable table's
 * bits, bf16 its values up to rounding. Tables whose instructions this machine lacks are tested
 * too, as compiled against emulated instructions (emulation/immintrin.h); what the machine has, it
 * runs. */
#include "backend/cpu/gemm_narrow.h"
#include "base/rng.h"
#include "tests/support/support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const narrow_kernels *emulated_int8_vnni(void);
const narrow_kernels *emulated_int8_amx(void);
const narrow_kernels *emulated_bf16_amx(void);

enum {
    ROWS = 67,
    COLS = 71,
    K = 200,
    STRIDE = 211,
    BLOCKS = (K + NARROW_BLOCK - 1) / NARROW_BLOCK
};

typedef struct operands {
    float a[ROWS * K], c[ROWS * COLS];
    float w[STRIDE * STRIDE];
    unsigned char stored[STRIDE * STRIDE * sizeof(float)];
} operands;

typedef struct product {
    const narrow_kernels *kernels;
    const operands *from;
    dtype type;
    bool is_k_major, add;
} product;

/* Normal values; some blocks all zero, some with an outlier, some tiny, some of one sign. */
static float odd_value(rng *r, int64_t i) {
    float value = (float)rng_normal(r);
    switch (i / 50 % 7) {
    case 1:
        return 0;
    case 2:
        return i % 50 == 7 ? 1000 * value : value;
    case 3:
        return 1e-37f * value;
    case 4:
        return fabsf(value);
    default:
        return value;
    }
}

static operands *operands_create(uint64_t seed, dtype type) {
    operands *x = calloc(1, sizeof *x);
    assert_non_null(x);
    rng r = rng_create(seed, 1);
    for (int64_t i = 0; i < ROWS * K; i++)
        x->a[i] = odd_value(&r, i);
    for (int64_t i = 0; i < STRIDE * STRIDE; i++)
        x->w[i] = type == DTYPE_F16 && i / 50 % 7 == 2 ? 1 : odd_value(&r, i);
    for (int64_t i = 0; i < ROWS * COLS; i++)
        x->c[i] = (float)rng_normal(&r);
    dtype_store_f32(x->stored, x->w, type, STRIDE * STRIDE);
    return x;
}

static void pack(unsigned char *a, unsigned char *b, const product *p, int32_t row, int32_t col) {
    const narrow_kernels *kernels = p->kernels;
    int32_t rows = ROWS - row < kernels->tile_rows ? ROWS - row : kernels->tile_rows;
    int32_t cols = COLS - col < kernels->tile_cols ? COLS - col : kernels->tile_cols;
    for (int32_t i = 0; i < BLOCKS; i++) {
        int32_t first = i * NARROW_BLOCK, k = K - first < NARROW_BLOCK ? K - first : NARROW_BLOCK;
        int64_t at = p->is_k_major ? first * STRIDE + col : col * STRIDE + first;
        const void *w = p->from->stored + at * (int64_t)dtype_bytes(p->type);
        kernels->pack_a(a + (size_t)i * kernels->a_bytes, p->from->a + row * K + first, K, rows, k);
        (p->is_k_major ? kernels->pack_b_cols : kernels->pack_b_rows)(
            b + (size_t)i * kernels->b_bytes, w, p->type, STRIDE, cols, k);
    }
}

/* c [ROWS, COLS], tile by tile, each in a frame that must not be written. */
static void multiply(float *c, const product *p) {
    const narrow_kernels *kernels = p->kernels;
    enum { WIDE = NARROW_TILE_COLS_MAX + 3 };
    unsigned char *a = aligned_alloc(64, BLOCKS * kernels->a_bytes);
    unsigned char *b = aligned_alloc(64, BLOCKS * kernels->b_bytes);
    assert_non_null(a);
    assert_non_null(b);
    if (kernels->enter)
        kernels->enter();
    for (int32_t row = 0; row < ROWS; row += kernels->tile_rows)
        for (int32_t col = 0; col < COLS; col += kernels->tile_cols) {
            float whole[NARROW_TILE_ROWS_MAX + 1][WIDE];
            for (int32_t r = 0; r <= NARROW_TILE_ROWS_MAX; r++)
                for (int32_t j = 0; j < WIDE; j++)
                    whole[r][j] = row + r < ROWS && col + j < COLS && j < kernels->tile_cols
                                      ? p->from->c[(row + r) * COLS + col + j]
                                      : 77;
            int32_t rows = ROWS - row < kernels->tile_rows ? ROWS - row : kernels->tile_rows;
            pack(a, b, p, row, col);
            kernels->tile(whole[0], WIDE, a, b, BLOCKS, rows, p->add);
            for (int32_t r = 0; r < rows; r++)
                for (int32_t j = 0; j < kernels->tile_cols && col + j < COLS; j++)
                    c[(row + r) * COLS + col + j] = whole[r][j];
            assert_true(whole[0][kernels->tile_cols] == 77);
            assert_true(whole[rows][0] == 77 || row + rows < ROWS);
        }
    if (kernels->leave)
        kernels->leave();
    free(a);
    free(b);
}

static void compare(const product *p, const float *want, const float *got) {
    double bound = 0;
    for (int32_t i = 0; i < ROWS * COLS; i++)
        if (p->kernels->type == COMPUTE_BF16)
            bound = fmax(bound, 16 * (double)FLT_EPSILON * fabs((double)want[i]));
    for (int32_t i = 0; i < ROWS * COLS; i++)
        if (!(fabs((double)want[i] - (double)got[i]) <= bound))
            fail_msg("%s: element %d is %.9g, portable says %.9g", p->kernels->name, i,
                     (double)got[i], (double)want[i]);
}

static const narrow_kernels *portable(compute_type type) {
    return type == COMPUTE_INT8 ? narrow_int8_portable() : narrow_bf16_portable();
}

static void check_table(const narrow_kernels *kernels) {
    static const dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    float *want = calloc(ROWS * COLS, sizeof *want), *got = calloc(ROWS * COLS, sizeof *got);
    assert_non_null(want);
    assert_non_null(got);
    for (int i = 0; i < 12; i++) {
        dtype type = types[i % 3];
        operands *x = operands_create((uint64_t)i, type);
        product p = {portable(kernels->type), x, type, i / 3 % 2, i / 6};
        multiply(want, &p);
        p.kernels = kernels;
        multiply(got, &p);
        compare(&p, want, got);
        free(x);
    }
    free(want);
    free(got);
}

/* ---- the tests ---- */

static void emulated_vnni_gives_the_bits(void **state) {
    (void)state;
    check_table(emulated_int8_vnni());
}

static void emulated_amx_int8_gives_the_bits(void **state) {
    (void)state;
    check_table(emulated_int8_amx());
}

static void emulated_amx_bf16_agrees(void **state) {
    (void)state;
    check_table(emulated_bf16_amx());
}

/* Bits on the machine itself; a table that it cannot run is skipped. */
static void table_agrees_on_this_machine(void **state) {
    const narrow_kernels *kernels = *state;
    cpu_features features = cpu_features_detect();
    if (!narrow_kernels_are_allowed(kernels, &features))
        skip();
    if (kernels->enter && !cpu_features_request_amx())
        skip();
    check_table(kernels);
}

/* The specification itself, against its words: exact integers, one scale a block. */
static void portable_int8_is_the_rule(void **state) {
    (void)state;
    const narrow_kernels *kernels = narrow_int8_portable();
    operands *x = operands_create(3, DTYPE_F32);
    float *got = calloc(ROWS * COLS, sizeof *got);
    assert_non_null(got);
    product p = {kernels, x, DTYPE_F32, false, false};
    multiply(got, &p);
    for (int32_t row = 0; row < ROWS; row++)
        for (int32_t col = 0; col < COLS; col++) {
            double sum = 0, size = 0;
            for (int32_t first = 0; first < K; first += NARROW_BLOCK) {
                float largest[2] = {0, 0};
                const float *a = x->a + row * K + first, *b = x->w + col * STRIDE + first;
                int32_t n = K - first < NARROW_BLOCK ? K - first : NARROW_BLOCK;
                for (int32_t i = 0; i < n; i++) {
                    largest[0] = fmaxf(largest[0], fabsf(a[i]));
                    largest[1] = fmaxf(largest[1], fabsf(b[i]));
                }
                double block = 0;
                for (int32_t i = 0; i < n; i++)
                    if (largest[0] >= 0x1p-119f && largest[1] >= 0x1p-119f)
                        block += (double)nearbyintf(a[i] * (127 / largest[0])) *
                                 (double)nearbyintf(b[i] * (127 / largest[1]));
                block *= (double)(largest[0] / 127) * (double)(largest[1] / 127);
                sum += block;
                size += fabs(block);
            }
            assert_true(fabs((double)got[row * COLS + col] - sum) <=
                        4 * (double)FLT_EPSILON * size);
        }
    free(got);
    free(x);
}

/* A block with a NaN or an infinity is NaN whole; a block of zeros or of less than 2^-119 is zero.
 */
static void scales_at_the_edges(void **state) {
    (void)state;
    float inverse;
    assert_true(isnan(quantize_scale(&inverse, quantize_magnitude(NAN))));
    assert_true(isnan(quantize_scale(&inverse, quantize_magnitude(-INFINITY))));
    assert_true(quantize_scale(&inverse, quantize_magnitude(-0.0f)) == 0 && inverse == 0);
    assert_true(quantize_scale(&inverse, quantize_magnitude(0x1p-120f)) == 0 && inverse == 0);
    assert_true(quantize_scale(&inverse, quantize_magnitude(0x1p-119f)) > 0);
    assert_int_equal(quantize_value(-0x1p-119f, inverse), -127);
    assert_true(quantize_scale(&inverse, quantize_magnitude(FLT_MAX)) == FLT_MAX / 127);
    assert_int_equal(quantize_value(FLT_MAX, inverse), 127);
    /* ties go to even */
    quantize_scale(&inverse, quantize_magnitude(127));
    assert_int_equal(quantize_value(2.5f, inverse), 2);
    assert_int_equal(quantize_value(3.5f, inverse), 4);
    assert_int_equal(quantize_value(-2.5f, inverse), -2);
}

static void features_choose_the_table(void **state) {
    (void)state;
    static const struct {
        compute_type type;
        cpu_features features;
        const char *name;
        bool gains;
    } cases[] =
    { {COMPUTE_F32, {.avx2 = true, .f16c = true}, "avx2", true},
      {COMPUTE_INT8, {0}, "portable", false},
      {COMPUTE_BF16, {.avx2 = true, .f16c = true}, "portable", false},
#if defined(__x86_64__)
      {COMPUTE_INT8, {.avx2 = true, .f16c = true, .avx512 = true}, "avx2", false},
      {COMPUTE_INT8,
       {.avx2 = true, .f16c = true, .avx512 = true, .avx512_vnni = true},
       "avx512_vnni",
       true},
      {COMPUTE_INT8, {.avx512_vnni = true, .amx_tile = true, .amx_int8 = true}, "portable", false},
      {COMPUTE_INT8,
       {.avx2 = true, .f16c = true, .avx512 = true, .amx_tile = true, .amx_int8 = true},
       "amx_int8",
       true},
      {COMPUTE_BF16,
       {.avx2 = true, .f16c = true, .avx512 = true, .amx_tile = true, .amx_bf16 = true},
       "amx_bf16",
       true},
#endif
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool gains;
        assert_string_equal(backend_cpu_compute_kernels(&gains, cases[i].type, &cases[i].features),
                            cases[i].name);
        assert_int_equal(gains, cases[i].gains);
    }
}

static void no_gain_is_refused_by_name(void **state) {
    (void)state;
    cpu_features none = {.model = "Some Processor"};
    backend *dev;
    assert_ok(backend_create_cpu(&dev, 1, &none, &test_error));
    assert_refused(backend_set_compute(dev, COMPUTE_BF16, &none, false, &test_error), GRAFT_E_USAGE,
                   "Some Processor");
    assert_non_null(strstr(test_error.message, "amx_bf16"));
    assert_refused(backend_set_compute(dev, COMPUTE_INT8, &none, false, &test_error), GRAFT_E_USAGE,
                   "--compute f32");
    assert_int_equal(dev->compute, COMPUTE_F32);
    size_t workspace = dev->workspace_bytes;
    assert_ok(backend_set_compute(dev, COMPUTE_INT8, &none, true, &test_error));
    assert_int_equal(dev->compute, COMPUTE_INT8);
    assert_true(dev->workspace_bytes == workspace);
    assert_ok(backend_set_compute(dev, COMPUTE_F32, &none, false, &test_error));
    assert_int_equal(dev->compute, COMPUTE_F32);
    backend_destroy(&dev);
}

int main(void) {
    enum { TABLES_MAX = 16 };
    static char names[TABLES_MAX][64];
    struct CMUnitTest tests[7 + TABLES_MAX] = {
        cmocka_unit_test(emulated_vnni_gives_the_bits),
        cmocka_unit_test(emulated_amx_int8_gives_the_bits),
        cmocka_unit_test(emulated_amx_bf16_agrees),
        cmocka_unit_test(portable_int8_is_the_rule),
        cmocka_unit_test(scales_at_the_edges),
        cmocka_unit_test(features_choose_the_table),
        cmocka_unit_test(no_gain_is_refused_by_name),
    };
    size_t n = 7;
    for (size_t i = 0; narrow_kernels_at(i) && i < TABLES_MAX; i++) {
        const narrow_kernels *kernels = narrow_kernels_at(i);
        if (kernels == portable(kernels->type))
            continue;
        snprintf(names[i], sizeof names[i], "%s_%s_agrees_on_this_machine",
                 compute_type_name(kernels->type), kernels->name);
        tests[n++] = (struct CMUnitTest){.name = names[i],
                                         .test_func = table_agrees_on_this_machine,
                                         .initial_state = (void *)(uintptr_t)kernels};
    }
    return _cmocka_run_group_tests("kernelcheck_narrow", tests, n, NULL, NULL);
}
