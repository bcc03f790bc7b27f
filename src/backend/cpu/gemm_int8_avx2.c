/* Products in int8 for AVX2: the integers are widened to 16 bits when they are packed, two of them
 * to a 32-bit word, and vpmaddwd adds the two products exactly. (vpmaddubsw takes bytes, but then
 * the sign has to be moved from one factor to the other for every product, and its sum of two
 * widened again: as many instructions.) Tiles of 6 x 16. */
#include "backend/cpu/gemm_narrow_pack.h"
#include "backend/cpu/gemm_pack_x86.h"

enum { ROWS = 6, COLS = 16, WIDTH = 8, PAIRS = NARROW_BLOCK / 2 };

typedef struct a_block {
    _Alignas(64) float scale[ROWS];
    int32_t pair[PAIRS][ROWS];
    int32_t spare[WIDTH - ROWS]; /* whole vectors are stored */
} a_block;

typedef struct b_block {
    _Alignas(64) float scale[COLS];
    int32_t pair[PAIRS][COLS];
} b_block;

/* Left to itself GCC gathers products before it adds them, runs out of registers, and the loop
 * takes twice as long. */
ALWAYS_INLINE void accumulate(__m256i *sum, __m256i products) {
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(products));
}

ALWAYS_INLINE void add_block(float *row, __m256i sum, __m256 a_scale, const float *b_scale) {
    __m256 scale = _mm256_mul_ps(a_scale, _mm256_load_ps(b_scale));
    _mm256_storeu_ps(row, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_loadu_ps(row)));
}

/* rows is a constant wherever this is inlined, so that the sums stay in registers. */
ALWAYS_INLINE void tile_of(float *c, int64_t c_stride, const a_block *a, const b_block *b,
                           int32_t n_blocks, const int32_t rows) {
    for (int32_t i = 0; i < n_blocks; i++) {
        __m256i low[ROWS], high[ROWS];
#pragma GCC unroll 16
        for (int32_t r = 0; r < rows; r++)
            low[r] = high[r] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int32_t p = 0; p < PAIRS; p++) {
            __m256i b_low = _mm256_load_si256((const __m256i *)(const void *)b[i].pair[p]);
            __m256i b_high =
                _mm256_load_si256((const __m256i *)(const void *)(b[i].pair[p] + WIDTH));
#pragma GCC unroll 16
            for (int32_t r = 0; r < rows; r++) {
                __m256i element = _mm256_set1_epi32(a[i].pair[p][r]);
                accumulate(&low[r], _mm256_madd_epi16(element, b_low));
                accumulate(&high[r], _mm256_madd_epi16(element, b_high));
            }
        }
#pragma GCC unroll 16
        for (int32_t r = 0; r < rows; r++) {
            __m256 scale = _mm256_set1_ps(a[i].scale[r]);
            add_block(c + r * c_stride, low[r], scale, b[i].scale);
            add_block(c + r * c_stride + WIDTH, high[r], scale, b[i].scale + WIDTH);
        }
    }
}

static void tile(float *c, int64_t c_stride, const void *a, const void *b, int32_t n_blocks,
                 int32_t rows, bool add) {
    for (int32_t r = 0; r < rows && !add; r++)
        memset(c + r * c_stride, 0, COLS * sizeof *c);
    switch (rows) {
    case 1:
        tile_of(c, c_stride, a, b, n_blocks, 1);
        return;
    case 2:
        tile_of(c, c_stride, a, b, n_blocks, 2);
        return;
    case 3:
        tile_of(c, c_stride, a, b, n_blocks, 3);
        return;
    case 4:
        tile_of(c, c_stride, a, b, n_blocks, 4);
        return;
    case 5:
        tile_of(c, c_stride, a, b, n_blocks, 5);
        return;
    default:
        tile_of(c, c_stride, a, b, n_blocks, ROWS);
        return;
    }
}

/* ---- packing: the rule of backend/quantize.h in vectors ---- */

ALWAYS_INLINE __m256i magnitude8(__m256 x) {
    return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7FFFFFFF));
}

/* Ties to even, as the processor rounds unless it is told otherwise. */
ALWAYS_INLINE __m256i quantize8(__m256 x, __m256 inverse) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
}

ALWAYS_INLINE int32_t largest_of(__m256i x) {
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xB1));
    return _mm_cvtsi128_si32(four);
}

/* One whole row of a block: its pairs, and its scale. */
ALWAYS_INLINE float quantize_row(__m256i pairs[PAIRS / WIDTH], const void *source, dtype type,
                                 int64_t at) {
    __m256 x[NARROW_BLOCK / WIDTH];
    __m256i largest = _mm256_setzero_si256();
    for (int32_t i = 0; i < NARROW_BLOCK / WIDTH; i++) {
        x[i] = load8(source, type, at + i * WIDTH);
        largest = _mm256_max_epi32(largest, magnitude8(x[i]));
    }
    float inverse, scale = quantize_scale(&inverse, largest_of(largest));
    for (int32_t i = 0; i < PAIRS / WIDTH; i++) {
        __m256i low = quantize8(x[2 * i], _mm256_set1_ps(inverse));
        __m256i high = quantize8(x[2 * i + 1], _mm256_set1_ps(inverse));
        pairs[i] = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
    }
    return scale;
}

/* to[p][row] of eight rows at most, `width` words from one p to the next; whole vectors are stored.
 */
ALWAYS_INLINE void pack_rows8(int32_t *to, float *scale, const void *source, dtype type,
                              int64_t stride, const int32_t rows, const int32_t width) {
    __m256i pairs[WIDTH][PAIRS / WIDTH];
    for (int32_t i = 0; i < rows; i++)
        scale[i] = quantize_row(pairs[i], source, type, i * stride);
    for (int32_t first = 0; first < PAIRS; first += WIDTH) {
        __m256 row[WIDTH];
        for (int32_t i = 0; i < WIDTH; i++)
            row[i] = i < rows ? _mm256_castsi256_ps(pairs[i][first / WIDTH]) : _mm256_setzero_ps();
        transpose8(row);
        for (int32_t p = 0; p < WIDTH; p++)
            _mm256_storeu_si256((__m256i *)(void *)(to + (first + p) * width),
                                _mm256_castps_si256(row[p]));
    }
}

/* Eight whole columns of a block. */
ALWAYS_INLINE void pack_cols8(int32_t *to, float *scale, const void *source, dtype type,
                              int64_t stride) {
    __m256i largest = _mm256_setzero_si256();
    for (int32_t j = 0; j < NARROW_BLOCK; j++)
        largest = _mm256_max_epi32(largest, magnitude8(load8(source, type, j * stride)));
    int32_t bits[WIDTH];
    float inverse[WIDTH];
    _mm256_storeu_si256((__m256i *)(void *)bits, largest);
    for (int32_t i = 0; i < WIDTH; i++)
        scale[i] = quantize_scale(&inverse[i], bits[i]);
    __m256 factor = _mm256_loadu_ps(inverse);
    for (int32_t p = 0; p < PAIRS; p++) {
        __m256i even = quantize8(load8(source, type, 2 * p * stride), factor);
        __m256i odd = quantize8(load8(source, type, (2 * p + 1) * stride), factor);
        _mm256_store_si256((__m256i *)(void *)(to + p * COLS),
                           _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xAA));
    }
}

static void pack_a(void *to, const float *a, int64_t stride, int32_t n, int32_t k) {
    a_block *out = to;
    float whole[ROWS * NARROW_BLOCK];
    if (n < ROWS || k < NARROW_BLOCK) {
        read_rows(whole, a, DTYPE_F32, stride, n, k, ROWS);
        a = whole;
        stride = NARROW_BLOCK;
    }
    pack_rows8(out->pair[0], out->scale, a, DTYPE_F32, stride, ROWS, ROWS);
}

ALWAYS_INLINE void pack_b_rows_of(b_block *out, const void *b, dtype type, int64_t stride) {
    for (int32_t i = 0; i < COLS; i += WIDTH)
        pack_rows8(out->pair[0] + i, out->scale + i, element_at(b, type, i * stride), type, stride,
                   WIDTH, COLS);
}

static void pack_b_rows(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    float whole[COLS * NARROW_BLOCK];
    if (n < COLS || k < NARROW_BLOCK) {
        read_rows_any(whole, b, type, stride, n, k, COLS);
        pack_b_rows_of(to, whole, DTYPE_F32, NARROW_BLOCK);
    } else if (type == DTYPE_BF16)
        pack_b_rows_of(to, b, DTYPE_BF16, stride);
    else if (type == DTYPE_F16)
        pack_b_rows_of(to, b, DTYPE_F16, stride);
    else
        pack_b_rows_of(to, b, DTYPE_F32, stride);
}

ALWAYS_INLINE void pack_b_cols_of(b_block *out, const void *b, dtype type, int64_t stride) {
    for (int32_t i = 0; i < COLS; i += WIDTH)
        pack_cols8(out->pair[0] + i, out->scale + i, element_at(b, type, i), type, stride);
}

static void pack_b_cols(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    float whole[COLS * NARROW_BLOCK];
    if (n < COLS || k < NARROW_BLOCK) {
        read_cols_any(whole, b, type, stride, n, k, COLS);
        pack_b_cols_of(to, whole, DTYPE_F32, COLS);
    } else if (type == DTYPE_BF16)
        pack_b_cols_of(to, b, DTYPE_BF16, stride);
    else if (type == DTYPE_F16)
        pack_b_cols_of(to, b, DTYPE_F16, stride);
    else
        pack_b_cols_of(to, b, DTYPE_F32, stride);
}

const narrow_kernels *narrow_int8_avx2(void) {
    static const narrow_kernels kernels = {.name = "avx2",
                                           .type = COMPUTE_INT8,
                                           .tile_rows = ROWS,
                                           .tile_cols = COLS,
                                           .a_bytes = sizeof(a_block),
                                           .b_bytes = sizeof(b_block),
                                           .pack_a = pack_a,
                                           .pack_b_rows = pack_b_rows,
                                           .pack_b_cols = pack_b_cols,
                                           .tile = tile};
    return &kernels;
}
