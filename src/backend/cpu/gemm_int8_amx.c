/* Products in int8 for AMX: one tdpbssd is a whole block of 64 for 16 x 16 of C. Its integers are
 * stored and added up in f32 by vector code. */
#include "backend/cpu/gemm_amx.h"

#include <math.h>

enum { QUADS = NARROW_BLOCK / 4 };

typedef struct a_block {
    _Alignas(64) float scale[AMX_TILE];
    int8_t q[AMX_TILE][NARROW_BLOCK];
} a_block;

typedef struct b_block {
    _Alignas(64) float scale[AMX_TILE];
    int8_t quad[2][QUADS][AMX_HALF][4];
} b_block;

typedef struct tile_sums {
    _Alignas(64) float sum[AMX_TILE][AMX_TILE];
    int32_t product[AMX_TILE][AMX_TILE];
} tile_sums;

static void multiply_block(tile_sums *t, const a_block *a, const b_block *b, bool has_lower) {
    enum { STRIDE = AMX_TILE * sizeof(int32_t) };
    _tile_zero(0);
    _tile_zero(1);
    _tile_loadd(4, a->q[0], NARROW_BLOCK);
    _tile_loadd(6, b->quad[0], AMX_BYTES);
    _tile_loadd(7, b->quad[1], AMX_BYTES);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_stored(0, t->product[0], STRIDE);
    _tile_stored(1, t->product[0] + AMX_HALF, STRIDE);
    if (!has_lower)
        return;
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(5, a->q[AMX_HALF], NARROW_BLOCK);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
    _tile_stored(2, t->product[AMX_HALF], STRIDE);
    _tile_stored(3, t->product[AMX_HALF] + AMX_HALF, STRIDE);
}

static void tile(float *c, int64_t c_stride, const void *a_, const void *b_, int32_t n_blocks,
                 int32_t rows, bool add) {
    const a_block *a = a_;
    const b_block *b = b_;
    tile_sums t;
    for (int32_t r = 0; r < rows; r++) {
        if (add)
            memcpy(t.sum[r], c + r * c_stride, sizeof t.sum[r]);
        else
            memset(t.sum[r], 0, sizeof t.sum[r]);
    }
    for (int32_t i = 0; i < n_blocks; i++) {
        multiply_block(&t, &a[i], &b[i], rows > AMX_HALF);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t j = 0; j < AMX_TILE; j++)
                t.sum[r][j] =
                    fmaf((float)t.product[r][j], a[i].scale[r] * b[i].scale[j], t.sum[r][j]);
    }
    for (int32_t r = 0; r < rows; r++)
        memcpy(c + r * c_stride, t.sum[r], sizeof t.sum[r]);
}

static void pack_a(void *to, const float *a, int64_t stride, int32_t n, int32_t k) {
    a_block *out = to;
    int8_block block;
    quantize_rows(&block, a, DTYPE_F32, stride, n, k, AMX_TILE);
    memcpy(out->scale, block.scale, sizeof out->scale);
    memcpy(out->q, block.q, sizeof out->q);
}

static void pack_b_rows(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    int8_block block;
    quantize_rows_any(&block, b, type, stride, n, k, AMX_TILE);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t i = 0; i < AMX_TILE; i++)
        for (int32_t j = 0; j < QUADS; j++)
            memcpy(out->quad[i / AMX_HALF][j][i % AMX_HALF], block.q + i * NARROW_BLOCK + 4 * j, 4);
}

static void pack_b_cols(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    int8_block block;
    quantize_cols_any(&block, b, type, stride, n, k, AMX_TILE);
    memcpy(out->scale, block.scale, sizeof out->scale);
    for (int32_t j = 0; j < NARROW_BLOCK; j++)
        for (int32_t half = 0; half < 2; half++)
            for (int32_t i = 0; i < AMX_HALF; i++)
                out->quad[half][j / 4][i][j % 4] = block.q[j * AMX_TILE + half * AMX_HALF + i];
}

const narrow_kernels *narrow_int8_amx(void) {
    static const narrow_kernels kernels = {.name = "amx_int8",
                                           .type = COMPUTE_INT8,
                                           .gains = true,
                                           .tile_rows = AMX_TILE,
                                           .tile_cols = AMX_TILE,
                                           .a_bytes = sizeof(a_block),
                                           .b_bytes = sizeof(b_block),
                                           .pack_a = pack_a,
                                           .pack_b_rows = pack_b_rows,
                                           .pack_b_cols = pack_b_cols,
                                           .tile = tile,
                                           .enter = amx_enter,
                                           .leave = amx_leave};
    return &kernels;
}
