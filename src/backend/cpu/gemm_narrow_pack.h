/* Reading and rounding one block of an operand, for the packing of narrow products. Plain C,
 * included by the kernels' files so that each compiles it for its own instruction set.
 *
 * A block is kept `rows`-wise, [width][NARROW_BLOCK], or `cols`-wise, [NARROW_BLOCK][width], as it
 * lies in memory: width rows of A or columns of B. */
#ifndef GRAFT_BACKEND_CPU_GEMM_NARROW_PACK_H
#define GRAFT_BACKEND_CPU_GEMM_NARROW_PACK_H

#include "backend/cpu/gemm_narrow.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef struct int8_block {
    float scale[NARROW_TILE_COLS_MAX]; /* [width] */
    int8_t q[NARROW_TILE_COLS_MAX * NARROW_BLOCK];
} int8_block;

ALWAYS_INLINE float f32_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Without branches, so that it becomes vector code. Subnormals come out right because the
 * multiplication by 2^112 is exact. */
ALWAYS_INLINE float f32_of_f16(uint16_t half) {
    uint32_t magnitude = half & 0x7FFFu, shifted = magnitude << 13;
    float finite = f32_from_bits(shifted) * 0x1p112f;
    float value = magnitude >= 0x7C00u ? f32_from_bits(shifted | 0x7F800000u) : finite;
    return half & 0x8000u ? -value : value;
}

/* Nearest, ties to even; NaN stays NaN. */
ALWAYS_INLINE uint16_t bf16_of_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? bits >> 16 | 0x40u : rounded);
}

/* `n` elements from `source` on, zeros up to `width`. The type is a constant wherever this is
 * inlined. */
ALWAYS_INLINE void read_run(float *to, const void *source, dtype type, int32_t n,
                            const int32_t width) {
    const float *f32 = source;
    const uint16_t *half = source;
    if (n == width) { /* a constant number of turns */
        for (int32_t i = 0; i < width; i++)
            to[i] = type == DTYPE_F32    ? f32[i]
                    : type == DTYPE_BF16 ? f32_from_bits((uint32_t)half[i] << 16)
                                         : f32_of_f16(half[i]);
        return;
    }
    for (int32_t i = 0; i < width; i++)
        to[i] = i >= n               ? 0
                : type == DTYPE_F32  ? f32[i]
                : type == DTYPE_BF16 ? f32_from_bits((uint32_t)half[i] << 16)
                                     : f32_of_f16(half[i]);
}

ALWAYS_INLINE const void *element_at(const void *source, dtype type, int64_t at) {
    return (const char *)source + at * (type == DTYPE_F32 ? 4 : 2);
}

/* values [width][NARROW_BLOCK] */
ALWAYS_INLINE void read_rows(float *values, const void *source, dtype type, int64_t stride,
                             int32_t n, int32_t k, const int32_t width) {
    for (int32_t i = 0; i < width; i++)
        read_run(values + i * NARROW_BLOCK, element_at(source, type, i < n ? i * stride : 0), type,
                 i < n ? k : 0, NARROW_BLOCK);
}

/* values [NARROW_BLOCK][width] */
ALWAYS_INLINE void read_cols(float *values, const void *source, dtype type, int64_t stride,
                             int32_t n, int32_t k, const int32_t width) {
    for (int32_t j = 0; j < NARROW_BLOCK; j++)
        read_run(values + j * width, element_at(source, type, j < k ? j * stride : 0), type,
                 j < k ? n : 0, width);
}

/* The type as a constant. */
ALWAYS_INLINE void read_rows_any(float *values, const void *source, dtype type, int64_t stride,
                                 int32_t n, int32_t k, const int32_t width) {
    switch (type) {
    case DTYPE_BF16:
        read_rows(values, source, DTYPE_BF16, stride, n, k, width);
        return;
    case DTYPE_F16:
        read_rows(values, source, DTYPE_F16, stride, n, k, width);
        return;
    default:
        read_rows(values, source, DTYPE_F32, stride, n, k, width);
        return;
    }
}

ALWAYS_INLINE void read_cols_any(float *values, const void *source, dtype type, int64_t stride,
                                 int32_t n, int32_t k, const int32_t width) {
    switch (type) {
    case DTYPE_BF16:
        read_cols(values, source, DTYPE_BF16, stride, n, k, width);
        return;
    case DTYPE_F16:
        read_cols(values, source, DTYPE_F16, stride, n, k, width);
        return;
    default:
        read_cols(values, source, DTYPE_F32, stride, n, k, width);
        return;
    }
}

/* q [width][NARROW_BLOCK] */
ALWAYS_INLINE void quantize_rows(int8_block *block, const void *source, dtype type, int64_t stride,
                                 int32_t n, int32_t k, const int32_t width) {
    for (int32_t i = 0; i < width; i++) {
        float values[NARROW_BLOCK], inverse;
        int32_t largest = 0;
        read_run(values, element_at(source, type, i < n ? i * stride : 0), type, i < n ? k : 0,
                 NARROW_BLOCK);
        for (int32_t j = 0; j < NARROW_BLOCK; j++) {
            int32_t magnitude = quantize_magnitude(values[j]);
            largest = magnitude > largest ? magnitude : largest;
        }
        block->scale[i] = quantize_scale(&inverse, largest);
        for (int32_t j = 0; j < NARROW_BLOCK; j++)
            block->q[i * NARROW_BLOCK + j] = quantize_value(values[j], inverse);
    }
}

/* q [NARROW_BLOCK][width] */
ALWAYS_INLINE void quantize_cols(int8_block *block, const void *source, dtype type, int64_t stride,
                                 int32_t n, int32_t k, const int32_t width) {
    float values[NARROW_BLOCK * NARROW_TILE_COLS_MAX], inverse[NARROW_TILE_COLS_MAX];
    int32_t largest[NARROW_TILE_COLS_MAX] = {0};
    read_cols(values, source, type, stride, n, k, width);
    for (int32_t j = 0; j < NARROW_BLOCK; j++)
        for (int32_t i = 0; i < width; i++) {
            int32_t magnitude = quantize_magnitude(values[j * width + i]);
            largest[i] = magnitude > largest[i] ? magnitude : largest[i];
        }
    for (int32_t i = 0; i < width; i++)
        block->scale[i] = quantize_scale(&inverse[i], largest[i]);
    for (int32_t j = 0; j < NARROW_BLOCK; j++)
        for (int32_t i = 0; i < width; i++)
            block->q[j * width + i] = quantize_value(values[j * width + i], inverse[i]);
}

/* The type as a constant. */
ALWAYS_INLINE void quantize_rows_any(int8_block *block, const void *source, dtype type,
                                     int64_t stride, int32_t n, int32_t k, const int32_t width) {
    switch (type) {
    case DTYPE_BF16:
        quantize_rows(block, source, DTYPE_BF16, stride, n, k, width);
        return;
    case DTYPE_F16:
        quantize_rows(block, source, DTYPE_F16, stride, n, k, width);
        return;
    default:
        quantize_rows(block, source, DTYPE_F32, stride, n, k, width);
        return;
    }
}

ALWAYS_INLINE void quantize_cols_any(int8_block *block, const void *source, dtype type,
                                     int64_t stride, int32_t n, int32_t k, const int32_t width) {
    switch (type) {
    case DTYPE_BF16:
        quantize_cols(block, source, DTYPE_BF16, stride, n, k, width);
        return;
    case DTYPE_F16:
        quantize_cols(block, source, DTYPE_F16, stride, n, k, width);
        return;
    default:
        quantize_cols(block, source, DTYPE_F32, stride, n, k, width);
        return;
    }
}

#endif
