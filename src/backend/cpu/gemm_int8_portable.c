/* Products in int8 for any processor: the specification of the other tables, which must give its
 * bits. */
#include "backend/cpu/gemm_narrow_pack.h"

#include <math.h>

enum { ROWS = 4, COLS = 8 };

typedef struct a_block {
    _Alignas(64) float scale[ROWS];
    int8_t q[ROWS][NARROW_BLOCK];
} a_block;

typedef struct b_block {
    _Alignas(64) float scale[COLS];
    int8_t q[COLS][NARROW_BLOCK];
} b_block;

static int32_t dot(const int8_t *a, const int8_t *b) {
    int32_t sum = 0;
    for (int32_t k = 0; k < NARROW_BLOCK; k++)
        sum += a[k] * b[k];
    return sum;
}

static void tile(float *c, int64_t c_stride, const void *a_, const void *b_, int32_t n_blocks,
                 int32_t rows, bool add) {
    const a_block *a = a_;
    const b_block *b = b_;
    for (int32_t r = 0; r < rows; r++)
        for (int32_t j = 0; j < COLS; j++) {
            float sum = add ? c[r * c_stride + j] : 0;
            for (int32_t i = 0; i < n_blocks; i++)
                sum = fmaf((float)dot(a[i].q[r], b[i].q[j]), a[i].scale[r] * b[i].scale[j], sum);
            c[r * c_stride + j] = sum;
        }
}

static void pack_a(void *to, const float *a, int64_t stride, int32_t n, int32_t k) {
    a_block *out = to;
    int8_block block;
    quantize_rows(&block, a, DTYPE_F32, stride, n, k, ROWS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    memcpy(out->q, block.q, sizeof out->q);
}

static void pack_b_rows(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    int8_block block;
    quantize_rows_any(&block, b, type, stride, n, k, COLS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    memcpy(out->q, block.q, sizeof out->q);
}

static void pack_b_cols(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    int8_block block;
    quantize_cols_any(&block, b, type, stride, n, k, COLS);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t i = 0; i < COLS; i++)
        for (int32_t j = 0; j < NARROW_BLOCK; j++)
            out->q[i][j] = block.q[j * COLS + i];
}

const narrow_kernels *narrow_int8_portable(void) {
    static const narrow_kernels kernels = {.name = "portable",
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
