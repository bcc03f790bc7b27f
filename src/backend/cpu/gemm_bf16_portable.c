/* Products in bf16 for any processor: operands rounded to bf16 and kept as f32, sums in f32. */
#include "backend/cpu/gemm_narrow_pack.h"

enum { ROWS = 4, COLS = 8 };

typedef struct a_block {
    _Alignas(64) float value[ROWS][NARROW_BLOCK];
} a_block;

typedef struct b_block {
    _Alignas(64) float value[NARROW_BLOCK][COLS];
} b_block;

static void tile(float *c, int64_t c_stride, const void *a_, const void *b_, int32_t n_blocks,
                 int32_t rows, bool add) {
    const a_block *a = a_;
    const b_block *b = b_;
    for (int32_t r = 0; r < rows; r++) {
        float sum[COLS] = {0};
        if (add)
            memcpy(sum, c + r * c_stride, sizeof sum);
        for (int32_t i = 0; i < n_blocks; i++)
            for (int32_t k = 0; k < NARROW_BLOCK; k++)
                for (int32_t j = 0; j < COLS; j++)
                    sum[j] += a[i].value[r][k] * b[i].value[k][j];
        memcpy(c + r * c_stride, sum, sizeof sum);
    }
}

static void round_all(float *to, const float *values, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        to[i] = f32_from_bits((uint32_t)bf16_of_f32(values[i]) << 16);
}

static void pack_a(void *to, const float *a, int64_t stride, int32_t n, int32_t k) {
    a_block *out = to;
    float values[ROWS * NARROW_BLOCK];
    read_rows(values, a, DTYPE_F32, stride, n, k, ROWS);
    round_all(out->value[0], values, ROWS * NARROW_BLOCK);
}

static void pack_b_rows(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    float values[COLS * NARROW_BLOCK], rounded[COLS * NARROW_BLOCK];
    read_rows_any(values, b, type, stride, n, k, COLS);
    round_all(rounded, values, COLS * NARROW_BLOCK);
    for (int32_t i = 0; i < COLS; i++)
        for (int32_t j = 0; j < NARROW_BLOCK; j++)
            out->value[j][i] = rounded[i * NARROW_BLOCK + j];
}

static void pack_b_cols(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    float values[COLS * NARROW_BLOCK];
    read_cols_any(values, b, type, stride, n, k, COLS);
    round_all(out->value[0], values, COLS * NARROW_BLOCK);
}

const narrow_kernels *narrow_bf16_portable(void) {
    static const narrow_kernels kernels = {.name = "portable",
                                           .type = COMPUTE_BF16,
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
