/* Products in bf16 for AMX: tdpbf16ps adds 32 products to each of 16 x 16 sums in f32. The sums
 * stay in tile registers from C and back to C. */
#include "backend/cpu/gemm_amx.h"

enum { STEP = 32, STEPS = NARROW_BLOCK / STEP, PAIRS = STEP / 2 };

typedef struct a_block {
    _Alignas(64) uint16_t value[STEPS][AMX_TILE][STEP];
} a_block;

typedef struct b_block {
    _Alignas(64) uint16_t pair[STEPS][2][PAIRS][AMX_HALF][2];
} b_block;

static void multiply_step(const a_block *a, const b_block *b, int32_t step) {
    _tile_loadd(4, a->value[step][0], AMX_BYTES);
    _tile_loadd(5, a->value[step][AMX_HALF], AMX_BYTES);
    _tile_loadd(6, b->pair[step][0], AMX_BYTES);
    _tile_loadd(7, b->pair[step][1], AMX_BYTES);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* c: all 32 rows exist. */
static void whole_tile(float *c, int64_t c_stride, const a_block *a, const b_block *b,
                       int32_t n_blocks) {
    size_t stride = (size_t)c_stride * sizeof *c;
    _tile_loadd(0, c, stride);
    _tile_loadd(1, c + AMX_HALF, stride);
    _tile_loadd(2, c + AMX_HALF * c_stride, stride);
    _tile_loadd(3, c + AMX_HALF * c_stride + AMX_HALF, stride);
    for (int32_t i = 0; i < n_blocks; i++)
        for (int32_t step = 0; step < STEPS; step++)
            multiply_step(&a[i], &b[i], step);
    _tile_stored(0, c, stride);
    _tile_stored(1, c + AMX_HALF, stride);
    _tile_stored(2, c + AMX_HALF * c_stride, stride);
    _tile_stored(3, c + AMX_HALF * c_stride + AMX_HALF, stride);
}

static void tile(float *c, int64_t c_stride, const void *a, const void *b, int32_t n_blocks,
                 int32_t rows, bool add) {
    for (int32_t r = 0; r < rows && !add; r++)
        memset(c + r * c_stride, 0, AMX_TILE * sizeof *c);
    if (rows == AMX_TILE) {
        whole_tile(c, c_stride, a, b, n_blocks);
        return;
    }
    float whole[AMX_TILE][AMX_TILE] = {{0}};
    for (int32_t r = 0; r < rows; r++)
        memcpy(whole[r], c + r * c_stride, sizeof whole[r]);
    whole_tile(whole[0], AMX_TILE, a, b, n_blocks);
    for (int32_t r = 0; r < rows; r++)
        memcpy(c + r * c_stride, whole[r], sizeof whole[r]);
}

static void pack_a(void *to, const float *a, int64_t stride, int32_t n, int32_t k) {
    a_block *out = to;
    float values[AMX_TILE * NARROW_BLOCK];
    read_rows(values, a, DTYPE_F32, stride, n, k, AMX_TILE);
    for (int32_t step = 0; step < STEPS; step++)
        for (int32_t r = 0; r < AMX_TILE; r++)
            for (int32_t j = 0; j < STEP; j++)
                out->value[step][r][j] = bf16_of_f32(values[r * NARROW_BLOCK + step * STEP + j]);
}

static void pack_b_rows(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    float values[AMX_TILE * NARROW_BLOCK];
    read_rows_any(values, b, type, stride, n, k, AMX_TILE);
    for (int32_t i = 0; i < AMX_TILE; i++)
        for (int32_t j = 0; j < NARROW_BLOCK; j++)
            out->pair[j / STEP][i / AMX_HALF][j % STEP / 2][i % AMX_HALF][j % 2] =
                bf16_of_f32(values[i * NARROW_BLOCK + j]);
}

static void pack_b_cols(void *to, const void *b, dtype type, int64_t stride, int32_t n, int32_t k) {
    b_block *out = to;
    float values[AMX_TILE * NARROW_BLOCK];
    read_cols_any(values, b, type, stride, n, k, AMX_TILE);
    for (int32_t j = 0; j < NARROW_BLOCK; j++)
        for (int32_t half = 0; half < 2; half++)
            for (int32_t i = 0; i < AMX_HALF; i++)
                out->pair[j / STEP][half][j % STEP / 2][i][j % 2] =
                    bf16_of_f32(values[j * AMX_TILE + half * AMX_HALF + i]);
}

const narrow_kernels *narrow_bf16_amx(void) {
    static const narrow_kernels kernels = {.name = "amx_bf16",
                                           .type = COMPUTE_BF16,
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
