/* Products in int8 for AVX-512 with VNNI. vpdpbusd adds four products to a 32-bit sum, of unsigned
 * by signed bytes. B is stored with 128 added, which makes it unsigned, and every sum starts from
 * -128 times the sum of A's integers, which takes that away again: exact. Tiles of 12 x 32. */
#include "backend/cpu/gemm_narrow_pack.h"

#include <immintrin.h>

enum { ROWS = 12, COLS = 32, WIDTH = 16, QUADS = NARROW_BLOCK / 4 };

typedef struct a_block {
    _Alignas(64) float scale[ROWS];
    int32_t start[ROWS]; /* -128 sum of q */
    int32_t quad[QUADS][ROWS];
} a_block;

typedef struct b_block {
    _Alignas(64) float scale[COLS];
    uint8_t quad[QUADS][COLS][4];
} b_block;

ALWAYS_INLINE void add_block(float *row, __m512i sum, __m512 a_scale, const float *b_scale) {
    __m512 scale = _mm512_mul_ps(a_scale, _mm512_loadu_ps(b_scale));
    _mm512_storeu_ps(row, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_loadu_ps(row)));
}

/* Rows first .. first + rows of a tile. rows is a constant wherever this is inlined, so that the
 * sums stay in registers. */
ALWAYS_INLINE void rows_of(float *c, int64_t c_stride, const a_block *a, const b_block *b,
                           int32_t n_blocks, int32_t first, const int32_t rows) {
    c += first * c_stride;
    for (int32_t i = 0; i < n_blocks; i++) {
        __m512i low[ROWS], high[ROWS];
#pragma GCC unroll 16
        for (int32_t r = 0; r < rows; r++)
            low[r] = high[r] = _mm512_set1_epi32(a[i].start[first + r]);
        for (int32_t q = 0; q < QUADS; q++) {
            __m512i b_low = _mm512_loadu_si512(b[i].quad[q]);
            __m512i b_high = _mm512_loadu_si512(b[i].quad[q] + WIDTH);
#pragma GCC unroll 16
            for (int32_t r = 0; r < rows; r++) {
                __m512i element = _mm512_set1_epi32(a[i].quad[q][first + r]);
                low[r] = _mm512_dpbusd_epi32(low[r], b_low, element);
                high[r] = _mm512_dpbusd_epi32(high[r], b_high, element);
            }
        }
#pragma GCC unroll 16
        for (int32_t r = 0; r < rows; r++) {
            __m512 scale = _mm512_set1_ps(a[i].scale[first + r]);
            add_block(c + r * c_stride, low[r], scale, b[i].scale);
            add_block(c + r * c_stride + WIDTH, high[r], scale, b[i].scale + WIDTH);
        }
    }
}

static void tile(float *c, int64_t c_stride, const void *a, const void *b, int32_t n_blocks,
                 int32_t rows, bool add) {
    for (int32_t r = 0; r < rows && !add; r++)
        memset(c + r * c_stride, 0, COLS * sizeof *c);
    int32_t first = 0;
    if (rows == ROWS) {
        rows_of(c, c_stride, a, b, n_blocks, 0, ROWS);
        return;
    }
    for (; rows - first >= 4; first += 4)
        rows_of(c, c_stride, a, b, n_blocks, first, 4);
    for (; first < rows; first++)
        rows_of(c, c_stride, a, b, n_blocks, first, 1);
}

static int32_t quad_of(const int8_t *q, int64_t stride) {
    uint32_t quad = 0;
    for (int32_t i = 3; i >= 0; i--)
        quad = quad << 8 | (uint8_t)q[i * stride];
    return (int32_t)quad;
}

static void pack_a(void *to, const float *a, int64_t stride, int32_t n, int32_t k) {
    a_block *out = to;
    int8_block block;
    quantize_rows(&block, a, DTYPE_F32, stride, n, k, ROWS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t r = 0; r < ROWS; r++) {
        const int8_t *q = block.q + r * NARROW_BLOCK;
        int32_t sum = 0;
        for (int32_t j = 0; j < NARROW_BLOCK; j++)
            sum += q[j];
        out->start[r] = -128 * sum;
        for (int32_t j = 0; j < QUADS; j++)
            out->quad[j][r] = quad_of(q + 4 * j, 1);
    }
}

static void pack_b_rows(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    int8_block block;
    quantize_rows_any(&block, b, type, stride, n, k, COLS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t i = 0; i < COLS * NARROW_BLOCK; i++)
        block.q[i] = (int8_t)(block.q[i] ^ -128); /* adds 128 */
    for (int32_t i = 0; i < COLS; i++)
        for (int32_t j = 0; j < QUADS; j++)
            memcpy(out->quad[j][i], block.q + i * NARROW_BLOCK + 4 * j, 4);
}

static void pack_b_cols(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    int8_block block;
    quantize_cols_any(&block, b, type, stride, n, k, COLS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t i = 0; i < COLS * NARROW_BLOCK; i++)
        block.q[i] = (int8_t)(block.q[i] ^ -128);
    for (int32_t j = 0; j < NARROW_BLOCK; j++)
        for (int32_t i = 0; i < COLS; i++)
            out->quad[j / 4][i][j % 4] = (uint8_t)block.q[j * COLS + i];
}

const narrow_kernels *narrow_int8_vnni(void) {
    static const narrow_kernels kernels = {.name = "avx512_vnni",
                                           .type = COMPUTE_INT8,
                                           .gains = true,
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
