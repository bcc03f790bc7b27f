/* Packing, and products of packed panels. */
#include "backend/cpu/gemm.h"

const void *gemm_operand_at(const gemm_operand *x, int64_t i, int64_t k) {
    int64_t at = x->is_k_major ? k * x->stride + i : i * x->stride + k;
    return (const char *)x->data + at * (int64_t)dtype_bytes(x->type);
}

bool gemm_takes_stored(const gemm_kernels *kernels, const gemm_operand *b, int64_t rows,
                       int32_t cols) {
    return kernels->tile_stored && rows <= STORED_ROWS && cols == kernels->tile_cols &&
           !b->is_k_major;
}

void gemm_pack_a(const gemm_kernels *kernels, float *panels, const gemm_operand *a, int64_t first,
                 int32_t n, int64_t k_begin, int32_t k) {
    int32_t step = kernels->tile_rows;
    for (int32_t i = 0; i < n; i += step) {
        const float *source = gemm_operand_at(a, first + i, k_begin);
        int32_t count = n - i < step ? n - i : step;
        if (a->is_k_major)
            kernels->pack_a_cols(panels, source, a->stride, count, k);
        else
            kernels->pack_a_rows(panels, source, a->stride, count, k);
        panels += (int64_t)step * k;
    }
}

void gemm_pack_b(const gemm_kernels *kernels, float *panels, const gemm_operand *b, int64_t first,
                 int32_t n, int64_t k_begin, int32_t k) {
    int32_t step = kernels->tile_cols;
    for (int32_t i = 0; i < n; i += step) {
        const void *source = gemm_operand_at(b, first + i, k_begin);
        int32_t count = n - i < step ? n - i : step;
        if (b->is_k_major)
            kernels->pack_b_cols(panels, source, b->type, b->stride, count, k);
        else
            kernels->pack_b_rows(panels, source, b->type, b->stride, count, k);
        panels += (int64_t)step * k;
    }
}

gemm_ahead gemm_ahead_of(const gemm_operand *x, int64_t first, int32_t n, int64_t k_begin,
                         int32_t k) {
    int32_t element = (int32_t)dtype_bytes(x->type);
    return (gemm_ahead){.at = gemm_operand_at(x, first, k_begin),
                        .stride = x->stride * element,
                        .rows = x->is_k_major ? k : n,
                        .bytes = (x->is_k_major ? n : k) * element};
}

enum { CACHE_LINE = 64 };

/* Fetches the next n lines of what lies ahead, from *row, byte *byte on. */
static void fetch_ahead(const gemm_ahead *ahead, int32_t *row, int32_t *byte, int32_t n) {
    for (; n > 0 && *row < ahead->rows; n--) {
        const char *at = ahead->at + *row * ahead->stride + *byte;
        __builtin_prefetch(at, 0, 2);
        *byte += CACHE_LINE - (int32_t)((uintptr_t)at % CACHE_LINE);
        if (*byte >= ahead->bytes) {
            *byte = 0;
            ++*row;
        }
    }
}

/* A tile at the right edge, or one to be turned, is computed whole, aside, and what exists of it is
 * added: the same operations as inside. */
static void tile_aside(const gemm_kernels *kernels, gemm_tile tile, int32_t cols, bool is_turned) {
    float whole[TILE_ROWS_MAX * TILE_COLS_MAX];
    float *c = tile.c;
    int64_t row_step = is_turned ? 1 : tile.c_stride, col_step = is_turned ? tile.c_stride : 1;
    bool add = tile.add;
    tile.c = whole;
    tile.c_stride = kernels->tile_cols;
    tile.add = false;
    kernels->tile(&tile);
    for (int32_t r = 0; r < tile.rows; r++)
        for (int32_t j = 0; j < cols; j++) {
            float value = whole[r * kernels->tile_cols + j], *at = c + r * row_step + j * col_step;
            *at = add ? *at + value : value;
        }
}

void gemm_block_run(const gemm_kernels *kernels, const gemm_block *block) {
    int32_t tile_rows = kernels->tile_rows, tile_cols = kernels->tile_cols;
    gemm_tile tile = {.c_stride = block->c_stride,
                      .b = block->b,
                      .b_tail = block->b_tail,
                      .k = block->k,
                      .k_tail = block->k_tail,
                      .scale = block->scale,
                      .add = block->add};
    int64_t row_step = block->is_turned ? 1 : block->c_stride;
    int64_t col_step = block->is_turned ? block->c_stride : 1;
    const gemm_ahead *ahead = &block->ahead;
    int32_t tiles =
        (block->rows + tile_rows - 1) / tile_rows * ((block->cols + tile_cols - 1) / tile_cols);
    int32_t lines = ahead->rows * (ahead->bytes / CACHE_LINE + 1); /* about */
    int32_t row = 0, byte = 0, lines_a_tile = (lines + tiles - 1) / tiles;
    for (int32_t j = 0; j < block->cols; j += tile_cols) {
        int32_t cols = block->cols - j;
        tile.a = block->a;
        tile.a_tail = block->a_tail;
        for (int32_t i = 0; i < block->rows; i += tile_rows) {
            tile.rows = block->rows - i < tile_rows ? block->rows - i : tile_rows;
            tile.c = block->c + i * row_step + j * col_step;
            if (block->b_stored)
                kernels->tile_stored(&tile, block->b_stored, block->b_type, block->b_stride);
            else if (cols >= tile_cols && !block->is_turned)
                kernels->tile(&tile);
            else
                tile_aside(kernels, tile, cols < tile_cols ? cols : tile_cols, block->is_turned);
            fetch_ahead(ahead, &row, &byte, lines_a_tile);
            tile.a += (int64_t)tile_rows * block->k;
            if (tile.a_tail)
                tile.a_tail += block->a_tail_stride;
        }
        tile.b += (int64_t)tile_cols * block->k;
    }
}
