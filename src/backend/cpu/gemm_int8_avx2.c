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

/* Eight rows of q, from k on: to[p][row] for the eight pairs that 16 of k are. Rows that are not
 * there give zeros. */
ALWAYS_INLINE void transpose_pairs(int32_t *to, int64_t to_stride, const int8_t *q, int32_t rows) {
    __m256 row[WIDTH];
    for (int32_t i = 0; i < WIDTH; i++) {
        __m128i bytes = i < rows
                            ? _mm_loadu_si128((const __m128i *)(const void *)(q + i * NARROW_BLOCK))
                            : _mm_setzero_si128();
        row[i] = _mm256_castsi256_ps(_mm256_cvtepi8_epi16(bytes));
    }
    transpose8(row);
    for (int32_t p = 0; p < WIDTH; p++)
        _mm256_storeu_si256((__m256i *)(void *)(to + p * to_stride), _mm256_castps_si256(row[p]));
}

static void pack_a(void *to, const float *a, int64_t stride, int32_t n, int32_t k) {
    a_block *out = to;
    int8_block block;
    quantize_rows(&block, a, DTYPE_F32, stride, n, k, ROWS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t p = 0; p < PAIRS; p += WIDTH) /* in order: each store's spare end is overwritten */
        transpose_pairs(out->pair[p], ROWS, block.q + 2 * p, ROWS);
}

static void pack_b_rows(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    int8_block block;
    quantize_rows_any(&block, b, type, stride, n, k, COLS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t p = 0; p < PAIRS; p += WIDTH)
        for (int32_t j = 0; j < COLS; j += WIDTH)
            transpose_pairs(out->pair[p] + j, COLS, block.q + j * NARROW_BLOCK + 2 * p, WIDTH);
}

static void pack_b_cols(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    int8_block block;
    quantize_cols_any(&block, b, type, stride, n, k, COLS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t p = 0; p < PAIRS; p++) {
        const __m128i *q = (const __m128i *)(const void *)(block.q + 2 * p * COLS);
        __m128i even = _mm_loadu_si128(q), odd = _mm_loadu_si128(q + 1);
        __m256i *pair = (__m256i *)(void *)out->pair[p];
        _mm256_store_si256(pair, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(even, odd)));
        _mm256_store_si256(pair + 1, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(even, odd)));
    }
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
