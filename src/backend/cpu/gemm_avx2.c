/* Matrix-product kernels for AVX2: tiles of 6 x 16 in ymm registers, two of B and one broadcast
 * element of A. */
#include "backend/cpu/gemm_pack_x86.h"

enum { ROWS = 6, COLS = 16, WIDTH = 8 };

/* rows is a constant wherever this is inlined, so that the sums stay in registers. */
ALWAYS_INLINE void tile_of(float *c, int64_t c_stride, const float *a, const float *b, int32_t k,
                           const int32_t rows, float scale, bool add) {
    __m256 low[ROWS], high[ROWS];
#pragma GCC unroll 16
    for (int32_t r = 0; r < rows; r++) {
        low[r] = high[r] = _mm256_setzero_ps();
        _mm_prefetch((const char *)(c + r * c_stride), _MM_HINT_T0);
    }
    for (int32_t i = 0; i < k; i++) {
        __m256 b_low = _mm256_loadu_ps(b), b_high = _mm256_loadu_ps(b + WIDTH);
#pragma GCC unroll 16
        for (int32_t r = 0; r < rows; r++) {
            __m256 element = _mm256_set1_ps(a[r]);
            low[r] = _mm256_fmadd_ps(element, b_low, low[r]);
            high[r] = _mm256_fmadd_ps(element, b_high, high[r]);
        }
        a += ROWS;
        b += COLS;
    }
    __m256 factor = _mm256_set1_ps(scale);
#pragma GCC unroll 16
    for (int32_t r = 0; r < rows; r++) {
        float *row = c + r * c_stride;
        low[r] = _mm256_mul_ps(factor, low[r]);
        high[r] = _mm256_mul_ps(factor, high[r]);
        if (add) {
            low[r] = _mm256_add_ps(_mm256_loadu_ps(row), low[r]);
            high[r] = _mm256_add_ps(_mm256_loadu_ps(row + WIDTH), high[r]);
        }
        _mm256_storeu_ps(row, low[r]);
        _mm256_storeu_ps(row + WIDTH, high[r]);
    }
}

static void tile(float *c, int64_t c_stride, const float *a, const float *b, int32_t k,
                 int32_t rows, float scale, bool add) {
    switch (rows) {
    case 1:
        tile_of(c, c_stride, a, b, k, 1, scale, add);
        return;
    case 2:
        tile_of(c, c_stride, a, b, k, 2, scale, add);
        return;
    case 3:
        tile_of(c, c_stride, a, b, k, 3, scale, add);
        return;
    case 4:
        tile_of(c, c_stride, a, b, k, 4, scale, add);
        return;
    case 5:
        tile_of(c, c_stride, a, b, k, 5, scale, add);
        return;
    default:
        tile_of(c, c_stride, a, b, k, ROWS, scale, add);
        return;
    }
}

static void pack_a_rows(float *panel, const float *a, int64_t stride, int32_t n, int32_t k) {
    pack_rows_any(panel, a, DTYPE_F32, stride, n, k, ROWS);
}

static void pack_a_cols(float *panel, const float *a, int64_t stride, int32_t n, int32_t k) {
    pack_cols(panel, a, DTYPE_F32, stride, n, k, ROWS);
}

static void pack_b_rows(float *panel, const void *b, dtype type, int64_t stride, int32_t n,
                        int32_t k) {
    pack_b_rows_typed(panel, b, type, stride, n, k, COLS);
}

static void pack_b_cols(float *panel, const void *b, dtype type, int64_t stride, int32_t n,
                        int32_t k) {
    pack_b_cols_typed(panel, b, type, stride, n, k, COLS);
}

const gemm_kernels *gemm_kernels_avx2(void) {
    static const gemm_kernels kernels = {.name = "avx2",
                                         .tile_rows = ROWS,
                                         .tile_cols = COLS,
                                         .k_block = 320,
                                         .tile = tile,
                                         .pack_a_rows = pack_a_rows,
                                         .pack_a_cols = pack_a_cols,
                                         .pack_b_rows = pack_b_rows,
                                         .pack_b_cols = pack_b_cols};
    return &kernels;
}
