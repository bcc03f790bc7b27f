/* Matrix-product kernels for AVX-512: tiles of 14 x 32 in zmm registers, two of B and one broadcast
 * element of A. */
#include "backend/cpu/gemm_stored_x86.h"

enum { ROWS = 14, COLS = 32, WIDTH = 16 };

/* sums += a b. rows is a constant wherever this is inlined, so that the sums stay in registers. */
ALWAYS_INLINE void sums_add(__m512 low[ROWS], __m512 high[ROWS], const float *a, const float *b,
                            int32_t k, const int32_t rows) {
    for (int32_t i = 0; i < k; i++) {
        __m512 b_low = _mm512_loadu_ps(b), b_high = _mm512_loadu_ps(b + WIDTH);
#pragma GCC unroll 16
        for (int32_t r = 0; r < rows; r++) {
            __m512 element = _mm512_set1_ps(a[r]);
            low[r] = _mm512_fmadd_ps(element, b_low, low[r]);
            high[r] = _mm512_fmadd_ps(element, b_high, high[r]);
        }
        a += ROWS;
        b += COLS;
    }
}

ALWAYS_INLINE void tile_of(const gemm_tile *t, const int32_t rows) {
    __m512 low[ROWS], high[ROWS];
#pragma GCC unroll 16
    for (int32_t r = 0; r < rows; r++) {
        low[r] = high[r] = _mm512_setzero_ps();
        _mm_prefetch((const char *)(t->c + r * t->c_stride), _MM_HINT_T0);
    }
    sums_add(low, high, t->a, t->b, t->k, rows);
    sums_add(low, high, t->a_tail, t->b_tail, t->k_tail, rows);
    __m512 factor = _mm512_set1_ps(t->scale);
#pragma GCC unroll 16
    for (int32_t r = 0; r < rows; r++) {
        float *row = t->c + r * t->c_stride;
        low[r] = _mm512_mul_ps(factor, low[r]);
        high[r] = _mm512_mul_ps(factor, high[r]);
        if (t->add) {
            low[r] = _mm512_add_ps(_mm512_loadu_ps(row), low[r]);
            high[r] = _mm512_add_ps(_mm512_loadu_ps(row + WIDTH), high[r]);
        }
        _mm512_storeu_ps(row, low[r]);
        _mm512_storeu_ps(row + WIDTH, high[r]);
    }
}

static void tile(const gemm_tile *t) {
    switch (t->rows) {
    case 1:
        tile_of(t, 1);
        return;
    case 2:
        tile_of(t, 2);
        return;
    case 3:
        tile_of(t, 3);
        return;
    case 4:
        tile_of(t, 4);
        return;
    case 5:
        tile_of(t, 5);
        return;
    case 6:
        tile_of(t, 6);
        return;
    case 7:
        tile_of(t, 7);
        return;
    case 8:
        tile_of(t, 8);
        return;
    case 9:
        tile_of(t, 9);
        return;
    case 10:
        tile_of(t, 10);
        return;
    case 11:
        tile_of(t, 11);
        return;
    case 12:
        tile_of(t, 12);
        return;
    case 13:
        tile_of(t, 13);
        return;
    default:
        tile_of(t, ROWS);
        return;
    }
}

static void tile_stored(const gemm_tile *t, const void *b, dtype type, int64_t stride) {
    stored_tile(t, b, type, stride, ROWS, COLS);
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

const gemm_kernels *gemm_kernels_avx512(void) {
    static const gemm_kernels kernels = {.name = "avx512",
                                         .tile_rows = ROWS,
                                         .tile_cols = COLS,
                                         .k_block = 256,
                                         .tile = tile,
                                         .tile_stored = tile_stored,
                                         .pack_a_rows = pack_a_rows,
                                         .pack_a_cols = pack_a_cols,
                                         .pack_b_rows = pack_b_rows,
                                         .pack_b_cols = pack_b_cols};
    return &kernels;
}
