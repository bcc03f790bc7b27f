/* Packing for the x86 kernels (AVX2, F16C): blocks of 8 x 8 are transposed in registers. Included
 * by the files of those instruction sets, so that each compiles it under its own flags. */
#ifndef GRAFT_BACKEND_CPU_GEMM_PACK_X86_H
#define GRAFT_BACKEND_CPU_GEMM_PACK_X86_H

#include "backend/cpu/kernels.h"

#include <immintrin.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Elements at .. at + 7 as f32. The type is a constant wherever this is inlined. */
ALWAYS_INLINE __m256 load8(const void *source, dtype type, int64_t at) {
    if (type == DTYPE_F32)
        return _mm256_loadu_ps((const float *)source + at);
    __m128i half = _mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)source + at));
    if (type == DTYPE_BF16)
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    return _mm256_cvtph_ps(half);
}

ALWAYS_INLINE float load1(const void *source, dtype type, int64_t at) {
    if (type == DTYPE_F32)
        return ((const float *)source)[at];
    uint16_t half = ((const uint16_t *)source)[at];
    return type == DTYPE_BF16 ? bf16_to_f32(half) : _cvtsh_ss(half);
}

ALWAYS_INLINE void transpose8(__m256 r[8]) {
    __m256 pairs[8], quads[8];
    for (int i = 0; i < 4; i++) {
        pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            quads[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
            quads[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xEE);
        }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
    }
}

/* The first `count` (even) of 8 elements. */
ALWAYS_INLINE void store_first(float *to, __m256 values, int32_t count) {
    if (count >= 8) {
        _mm256_storeu_ps(to, values);
        return;
    }
    __m128 half = _mm256_castps256_ps128(values);
    if (count >= 4) {
        _mm_storeu_ps(to, half);
        half = _mm256_extractf128_ps(values, 1);
        to += 4;
    }
    if (count & 2)
        _mm_storel_pi((__m64 *)(void *)to, half);
}

/* 8 rows by 16 k of bf16, in half the shuffles: pairs of k are turned as one 32-bit element, then
 * split. */
ALWAYS_INLINE void pack_pairs_bf16(float *panel, const uint16_t *source, int64_t stride, int32_t n,
                                   const int32_t width, const int32_t count) {
    __m256 block[8];
    for (int32_t i = 0; i < 8; i++)
        block[i] = i < n ? _mm256_loadu_ps((const float *)(const void *)(source + i * stride))
                         : _mm256_setzero_ps();
    transpose8(block);
    const __m256 high_half = _mm256_castsi256_ps(_mm256_set1_epi32((int32_t)0xFFFF0000));
    for (int32_t i = 0; i < 8; i++) {
        __m256 even = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(block[i]), 16));
        store_first(panel + 2 * i * width, even, count);
        store_first(panel + (2 * i + 1) * width, _mm256_and_ps(block[i], high_half), count);
    }
}

/* panel[k][i] = source[i * stride + k], i < n; zero for n <= i < width. */
ALWAYS_INLINE void pack_rows(float *panel, const void *source, dtype type, int64_t stride,
                             int32_t n, int32_t k, const int32_t width) {
    int32_t j = 0;
    for (; type == DTYPE_BF16 && j + 16 <= k; j += 16)
        for (int32_t first = 0; first < width; first += 8)
            pack_pairs_bf16(panel + j * width + first,
                            (const uint16_t *)source + first * stride + j, stride, n - first, width,
                            width - first);
    for (; j + 8 <= k; j += 8)
        for (int32_t first = 0; first < width; first += 8) {
            __m256 block[8];
            for (int32_t i = 0; i < 8; i++)
                block[i] = first + i < n ? load8(source, type, (first + i) * stride + j)
                                         : _mm256_setzero_ps();
            transpose8(block);
            for (int32_t i = 0; i < 8; i++)
                store_first(panel + (j + i) * width + first, block[i], width - first);
        }
    for (; j < k; j++)
        for (int32_t i = 0; i < width; i++)
            panel[j * width + i] = i < n ? load1(source, type, i * stride + j) : 0;
}

/* The common case of a full panel, without a test for each row. */
ALWAYS_INLINE void pack_rows_any(float *panel, const void *source, dtype type, int64_t stride,
                                 int32_t n, int32_t k, const int32_t width) {
    if (n == width)
        pack_rows(panel, source, type, stride, width, k, width);
    else
        pack_rows(panel, source, type, stride, n, k, width);
}

/* panel[k][i] = source[k * stride + i], i < n; zero for n <= i < width. Widths of
 * stored types (B) are multiples of 8. */
ALWAYS_INLINE void pack_cols(float *panel, const void *source, dtype type, int64_t stride,
                             int32_t n, int32_t k, const int32_t width) {
    if (n < width) {
        for (int32_t j = 0; j < k; j++)
            for (int32_t i = 0; i < width; i++)
                panel[j * width + i] = i < n ? load1(source, type, j * stride + i) : 0;
        return;
    }
    for (int32_t j = 0; j < k; j++) {
        if (type == DTYPE_F32)
            memcpy(panel + j * width, (const float *)source + j * stride,
                   (size_t)width * sizeof *panel);
        else
            for (int32_t i = 0; i < width; i += 8)
                _mm256_storeu_ps(panel + j * width + i, load8(source, type, j * stride + i));
    }
}

ALWAYS_INLINE void pack_b_rows_typed(float *panel, const void *b, dtype type, int64_t stride,
                                     int32_t n, int32_t k, const int32_t width) {
    switch (type) {
    case DTYPE_BF16:
        pack_rows_any(panel, b, DTYPE_BF16, stride, n, k, width);
        return;
    case DTYPE_F16:
        pack_rows_any(panel, b, DTYPE_F16, stride, n, k, width);
        return;
    default:
        pack_rows_any(panel, b, DTYPE_F32, stride, n, k, width);
        return;
    }
}

ALWAYS_INLINE void pack_b_cols_typed(float *panel, const void *b, dtype type, int64_t stride,
                                     int32_t n, int32_t k, const int32_t width) {
    switch (type) {
    case DTYPE_BF16:
        pack_cols(panel, b, DTYPE_BF16, stride, n, k, width);
        return;
    case DTYPE_F16:
        pack_cols(panel, b, DTYPE_F16, stride, n, k, width);
        return;
    default:
        pack_cols(panel, b, DTYPE_F32, stride, n, k, width);
        return;
    }
}

#endif
