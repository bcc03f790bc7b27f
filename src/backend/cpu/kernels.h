/* What an instruction set provides: two tables, one for matrix products, one for rows. Every table
 * computes the same values up to rounding; a value's bits depend on the table, the row and its
 * length alone, never on addresses, on the neighbours or on the thread. */
#ifndef GRAFT_BACKEND_CPU_KERNELS_H
#define GRAFT_BACKEND_CPU_KERNELS_H

#include "backend/ops.h"

/* A tile of a product: c [rows <= tile_rows, tile_cols] (+)= scale (a b + a_tail b_tail) of packed
 * panels. */
typedef struct gemm_tile {
    float *c;
    int64_t c_stride;
    const float *a, *b;
    const float *a_tail, *b_tail; /* k_tail 0: none */
    int32_t k, k_tail, rows;
    float scale;
    bool add;
} gemm_tile;

/* Products of packed panels. A panel of A holds tile_rows rows as [k][tile_rows]; one of B holds
 * tile_cols columns as [k][tile_cols]. What a panel lacks is zero. */
typedef struct gemm_kernels {
    const char *name;
    int32_t tile_rows, tile_cols;
    int32_t k_block; /* longest sum between two visits of C */

    /* Each element is one chain acc = acc + a[k] b[k] over k = 0, 1, ... and then over the tail,
     * from zero; then c = add ? c + scale acc : scale acc: the same for every place in a tile and
     * every number of rows. */
    void (*tile)(const gemm_tile *);
    /* The same bits for at most STORED_ROWS rows from B as it is stored, element [k, column] at
     * column * stride + k, all tile_cols of them; the tile's own b is not read. NULL: none. */
    void (*tile_stored)(const gemm_tile *, const void *b, dtype, int64_t stride);

    /* Packing. `rows`: the operand's element [i, k] is at i * stride + k; `cols`: at k * stride +
     * i. n <= tile_rows or tile_cols. A is f32; B any weight type. */
    void (*pack_a_rows)(float *panel, const float *a, int64_t stride, int32_t n, int32_t k);
    void (*pack_a_cols)(float *panel, const float *a, int64_t stride, int32_t n, int32_t k);
    void (*pack_b_rows)(float *panel, const void *b, dtype, int64_t stride, int32_t n, int32_t k);
    void (*pack_b_cols)(float *panel, const void *b, dtype, int64_t stride, int32_t n, int32_t k);
} gemm_kernels;

typedef struct dropout_row { /* of one token's row */
    uint64_t key, token_counter;
    uint32_t stream, threshold; /* kept when word >= threshold */
    float factor;               /* of what is kept */
} dropout_row;

typedef struct norm_row {       /* what a row's norm takes, see ops.h */
    const float *weight, *bias; /* [n]; NULL: 1 and 0 */
    float eps, offset;          /* added to the weight */
    bool is_centred;
} norm_row;

/* Rows of n elements. Sums go into 16 lanes (element i into lane i % 16), added pairwise at the
 * end. */
typedef struct row_kernels {
    void (*load)(float *y, const void *stored, dtype, int64_t n); /* any weight type, F64 */
    void (*fill)(float *y, float value, int64_t n);
    void (*add)(float *y, const float *x, int64_t n);                      /* y += x */
    void (*scale)(float *y, float factor, int64_t n);                      /* y *= factor */
    void (*add_scaled)(float *y, const float *x, float factor, int64_t n); /* y += factor x */
    float (*dot)(const float *a, const float *b, int64_t n);
    float (*max)(const float *x, int64_t n); /* -inf for n = 0; NaN are skipped */

    float (*norm_fwd)(float *y, const float *x, const norm_row *, int64_t n); /* returns rstd */
    void (*norm_bwd)(float *dx, const float *dy, const float *x, const norm_row *, float rstd,
                     int64_t n, bool add);
    float (*mean)(const float *x, int64_t n);
    /* dw += dy (x - mean) rstd */
    void (*norm_weight_bwd)(float *dw, const float *dy, const float *x, float mean, float rstd,
                            int64_t n);
    /* One head's pairs (x[i], x[half + i]), or (x[2i], x[2i + 1]). */
    void (*rope)(float *x, const float *cos, const float *sin, int64_t half, bool inverse);
    void (*rope_interleaved)(float *x, const float *cos, const float *sin, int64_t half,
                             bool inverse);
    void (*gated_fwd)(float *h, const float *gate, const float *up, const gate_call *, int64_t n);
    void (*gated_bwd)(float *d_gate, float *d_up, const float *dh, const float *gate,
                      const float *up, const gate_call *, int64_t n);
    /* y = cap tanh(scale y / cap) */
    void (*soft_cap)(float *y, float scale, float cap, int64_t n);
    /* y *= 1 - (x / cap)^2 */
    void (*soft_cap_slope)(float *y, const float *x, float cap, int64_t n);

    /* p = exp(x - shift), which is at most e^88, or zero below e^-87; returns the sum. p may alias
     * x. */
    float (*exp_row)(float *p, const float *x, float shift, int64_t n);
    /* dp = scale p (dp - delta), in place: the gradient of scores before scaling. */
    void (*softmax_bwd)(float *dp, const float *p, float delta, float scale, int64_t n);
    /* See ops.h; returns the loss. */
    float (*cross_entropy)(float *logits, int32_t target, float weight, float cap, int64_t n,
                           bool gradient);

    /* y (+)= x * (kept ? factor : 0) */
    void (*dropout)(float *y, const float *x, const dropout_row *, int64_t n, bool add);

    double (*sum_squares)(const float *x, int64_t n);
    void (*adamw)(float *p, const float *g, float *m, float *v, int64_t n, const adamw_step *);
} row_kernels;

typedef struct cpu_kernels {
    const char *name;
    const gemm_kernels *gemm;
    const row_kernels *rows;
} cpu_kernels;

/* The best tables these features allow. */
const cpu_kernels *cpu_kernels_choose(const cpu_features *);
/* All tables in this build, slowest first; NULL past the end. */
const cpu_kernels *cpu_kernels_at(size_t i);

/* One per file of an instruction set. */
const gemm_kernels *gemm_kernels_portable(void);
const gemm_kernels *gemm_kernels_avx2(void);
const gemm_kernels *gemm_kernels_avx512(void);
const row_kernels *row_kernels_portable(void);
const row_kernels *row_kernels_avx2(void);
const row_kernels *row_kernels_avx512(void);

/* Bounds over all tables: buffers are sized by them. */
enum { TILE_ROWS_MAX = 14, TILE_COLS_MAX = 32, K_BLOCK_MAX = 320, STORED_ROWS = 4 };

#endif
