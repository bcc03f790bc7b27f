/* Matrix-product kernels for any processor: vectors of four, which every 64-bit one has. */
#include "backend/cpu/kernels.h"

#include <string.h>

enum { ROWS = 4, COLS = 8, WIDTH = 4 };

typedef float vector4 __attribute__((vector_size(16)));

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void sums_add(vector4 sums[ROWS][COLS / WIDTH], const float *a, const float *b,
                            int32_t k, const int32_t rows) {
    for (int32_t i = 0; i < k; i++) {
        vector4 columns[COLS / WIDTH];
        memcpy(columns, b + (int64_t)i * COLS, sizeof columns);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t v = 0; v < COLS / WIDTH; v++)
                sums[r][v] += a[i * ROWS + r] * columns[v];
    }
}

ALWAYS_INLINE void tile_of(const gemm_tile *t, const int32_t rows) {
    vector4 sums[ROWS][COLS / WIDTH] = {0};
    sums_add(sums, t->a, t->b, t->k, rows);
    sums_add(sums, t->a_tail, t->b_tail, t->k_tail, rows);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t v = 0; v < COLS / WIDTH; v++) {
            float *c = t->c + r * t->c_stride + v * WIDTH;
            vector4 value = t->scale * sums[r][v], old;
            if (t->add) {
                memcpy(&old, c, sizeof old);
                value += old;
            }
            memcpy(c, &value, sizeof value);
        }
}

static void tile(const gemm_tile *t) {
    switch (t->rows) {
    case 1:
        tile_of(t, 1);
        return;
    case 2:
        tile_of(t, 2);
        return;
    case 3:
        tile_of(t, 3);
        return;
    default:
        tile_of(t, ROWS);
        return;
    }
}

/* Decodes one row at a time: what a new stored type needs is its case in dtype_load_f32. */
static void pack_rows(float *panel, const void *source, dtype type, int64_t stride, int32_t n,
                      int32_t k, int32_t width) {
    float row[K_BLOCK_MAX];
    for (int32_t i = 0; i < width; i++) {
        if (i < n)
            dtype_load_f32(row, (const char *)source + i * stride * (int64_t)dtype_bytes(type),
                           type, (size_t)k);
        for (int32_t j = 0; j < k; j++)
            panel[j * width + i] = i < n ? row[j] : 0;
    }
}

static void pack_cols(float *panel, const void *source, dtype type, int64_t stride, int32_t n,
                      int32_t k, int32_t width) {
    for (int32_t j = 0; j < k; j++) {
        dtype_load_f32(panel + j * width,
                       (const char *)source + j * stride * (int64_t)dtype_bytes(type), type,
                       (size_t)n);
        for (int32_t i = n; i < width; i++)
            panel[j * width + i] = 0;
    }
}

static void pack_a_rows(float *panel, const float *a, int64_t stride, int32_t n, int32_t k) {
    pack_rows(panel, a, DTYPE_F32, stride, n, k, ROWS);
}

static void pack_a_cols(float *panel, const float *a, int64_t stride, int32_t n, int32_t k) {
    pack_cols(panel, a, DTYPE_F32, stride, n, k, ROWS);
}

static void pack_b_rows(float *panel, const void *b, dtype type, int64_t stride, int32_t n,
                        int32_t k) {
    pack_rows(panel, b, type, stride, n, k, COLS);
}

static void pack_b_cols(float *panel, const void *b, dtype type, int64_t stride, int32_t n,
                        int32_t k) {
    pack_cols(panel, b, type, stride, n, k, COLS);
}

const gemm_kernels *gemm_kernels_portable(void) {
    static const gemm_kernels kernels = {.name = "portable",
                                         .tile_rows = ROWS,
                                         .tile_cols = COLS,
                                         .k_block = K_BLOCK_MAX,
                                         .tile = tile,
                                         .pack_a_rows = pack_a_rows,
                                         .pack_a_cols = pack_a_cols,
                                         .pack_b_rows = pack_b_rows,
                                         .pack_b_cols = pack_b_cols};
    return &kernels;
}
