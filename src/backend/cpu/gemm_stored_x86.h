/* Tiles of few rows, straight from B as it is stored: blocks of it are turned in registers, for a
 * copy that serves one token or four costs more than the product. */
#ifndef GRAFT_BACKEND_CPU_GEMM_STORED_X86_H
#define GRAFT_BACKEND_CPU_GEMM_STORED_X86_H

#include "backend/cpu/gemm_pack_x86.h"

enum { STRIP = 8 /* columns of a vector */, STORED_SUMS_MAX = STORED_ROWS * TILE_COLS_MAX / STRIP };

/* sums += a b. sums[r] is row r; a: [k][a_step]; b: the strip's 8 rows. Where the same columns of
 * the next tile lie, memory is fetched. */
typedef struct stored_strip {
    const void *b;
    int64_t stride;
    int64_t ahead; /* bytes */
} stored_strip;

ALWAYS_INLINE void column_add(__m256 *sums, const float *a, __m256 column, const int32_t rows) {
#pragma GCC unroll 16
    for (int32_t r = 0; r < rows; r++)
        sums[r] = _mm256_fmadd_ps(_mm256_set1_ps(a[r]), column, sums[r]);
}

/* 16 k of bf16: pairs of k are turned as one 32-bit element, then split. */
ALWAYS_INLINE void pairs_add(__m256 *sums, const float *a, const int32_t a_step,
                             const stored_strip *strip, int32_t k, const int32_t rows) {
    const uint16_t *b = (const uint16_t *)strip->b + k;
    const __m256 high_half = _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)0xFFFF0000));
    __m256 block[STRIP];
#pragma GCC unroll 16
    for (int32_t i = 0; i < STRIP; i++) {
        const uint16_t *row = b + i * strip->stride;
        block[i] = _mm256_loadu_ps((const float *)(const void *)row);
        _mm_prefetch((const char *)row + strip->ahead, _MM_HINT_T0);
    }
    transpose8(block);
#pragma GCC unroll 16
    for (int32_t i = 0; i < STRIP; i++) {
        __m256i pair = _mm256_castps_si256(block[i]);
        const float *at = a + (int64_t)(2 * i) * a_step;
        column_add(sums, at, _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)), rows);
        column_add(sums, at + a_step, _mm256_and_ps(block[i], high_half), rows);
    }
}

ALWAYS_INLINE void octet_add(__m256 *sums, const float *a, const int32_t a_step,
                             const stored_strip *strip, dtype type, int32_t k, const int32_t rows) {
    __m256 block[STRIP];
#pragma GCC unroll 16
    for (int32_t i = 0; i < STRIP; i++) {
        int64_t at = i * strip->stride + k;
        block[i] = load8(strip->b, type, at);
        _mm_prefetch((const char *)strip->b + at * (int64_t)dtype_bytes(type) + strip->ahead,
                     _MM_HINT_T0);
    }
    transpose8(block);
#pragma GCC unroll 16
    for (int32_t i = 0; i < STRIP; i++)
        column_add(sums, a + i * a_step, block[i], rows);
}

ALWAYS_INLINE void single_add(__m256 *sums, const float *a, const stored_strip *strip, dtype type,
                              int32_t k, const int32_t rows) {
    float column[STRIP];
    for (int32_t i = 0; i < STRIP; i++)
        column[i] = load1(strip->b, type, i * strip->stride + k);
    column_add(sums, a, _mm256_loadu_ps(column), rows);
}

/* See gemm_kernels.tile_stored. Strips take turns: each is a chain of its own. */
ALWAYS_INLINE void stored_tile_of(const gemm_tile *t, const void *b, dtype type, int64_t stride,
                                  const int32_t tile_rows, const int32_t tile_cols,
                                  const int32_t rows) {
    const int32_t strips = tile_cols / STRIP;
    const int64_t bytes = stride * (int64_t)dtype_bytes(type);
    __m256 sums[STORED_SUMS_MAX];
    stored_strip strip[TILE_COLS_MAX / STRIP];
#pragma GCC unroll 16
    for (int32_t s = 0; s < strips; s++)
        strip[s] = (stored_strip){(const char *)b + s * STRIP * bytes, stride, tile_cols * bytes};
#pragma GCC unroll 16
    for (int32_t i = 0; i < strips * rows; i++)
        sums[i] = _mm256_setzero_ps();
    int32_t k = 0;
    for (; type == DTYPE_BF16 && k + 2 * STRIP <= t->k; k += 2 * STRIP)
#pragma GCC unroll 16
        for (int32_t s = 0; s < strips; s++)
            pairs_add(sums + s * rows, t->a + k * tile_rows, tile_rows, &strip[s], k, rows);
    for (; k + STRIP <= t->k; k += STRIP)
#pragma GCC unroll 16
        for (int32_t s = 0; s < strips; s++)
            octet_add(sums + s * rows, t->a + k * tile_rows, tile_rows, &strip[s], type, k, rows);
    for (; k < t->k; k++)
#pragma GCC unroll 16
        for (int32_t s = 0; s < strips; s++)
            single_add(sums + s * rows, t->a + k * tile_rows, &strip[s], type, k, rows);
    for (k = 0; k < t->k_tail; k++)
#pragma GCC unroll 16
        for (int32_t s = 0; s < strips; s++)
            column_add(sums + s * rows, t->a_tail + k * tile_rows,
                       _mm256_loadu_ps(t->b_tail + k * tile_cols + s * STRIP), rows);
    __m256 factor = _mm256_set1_ps(t->scale);
#pragma GCC unroll 16
    for (int32_t s = 0; s < strips; s++)
#pragma GCC unroll 16
        for (int32_t r = 0; r < rows; r++) {
            float *c = t->c + r * t->c_stride + s * STRIP;
            __m256 value = _mm256_mul_ps(factor, sums[s * rows + r]);
            if (t->add)
                value = _mm256_add_ps(_mm256_loadu_ps(c), value);
            _mm256_storeu_ps(c, value);
        }
}

ALWAYS_INLINE void stored_tile_typed(const gemm_tile *t, const void *b, dtype type, int64_t stride,
                                     const int32_t tile_rows, const int32_t tile_cols) {
    switch (t->rows) {
    case 1:
        stored_tile_of(t, b, type, stride, tile_rows, tile_cols, 1);
        return;
    case 2:
        stored_tile_of(t, b, type, stride, tile_rows, tile_cols, 2);
        return;
    case 3:
        stored_tile_of(t, b, type, stride, tile_rows, tile_cols, 3);
        return;
    default:
        stored_tile_of(t, b, type, stride, tile_rows, tile_cols, STORED_ROWS);
        return;
    }
}

ALWAYS_INLINE void stored_tile(const gemm_tile *t, const void *b, dtype type, int64_t stride,
                               const int32_t tile_rows, const int32_t tile_cols) {
    switch (type) {
    case DTYPE_BF16:
        stored_tile_typed(t, b, DTYPE_BF16, stride, tile_rows, tile_cols);
        return;
    case DTYPE_F16:
        stored_tile_typed(t, b, DTYPE_F16, stride, tile_rows, tile_cols);
        return;
    default:
        stored_tile_typed(t, b, DTYPE_F32, stride, tile_rows, tile_cols);
        return;
    }
}

#endif
