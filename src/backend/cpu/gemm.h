/* Matrix products on packed panels: one driver for every product of the backend.
 *
 *   C_t [rows, cols_t] (+)= scale_t sum over sources s of A_s B_ts, for each target t
 *
 * and low-rank terms, made beside them from the same packed A:
 *
 *   XA [rows, rank] = thin_scale A_s thin,   C_t += scale XA b
 *
 * A is packed once, by all threads, into memory that they share, and then serves every target; a
 * low-rank term lengthens the last sum over k, so that C is not visited again for it.
 *
 * The sum over k is cut into blocks, always at the same places: each block's sum starts from zero
 * and is then added to C. Work is divided over rows and columns of C only. So an element's bits
 * depend on its own row of A, its column of B and the terms of its row, and on nothing else. */
#ifndef GRAFT_BACKEND_CPU_GEMM_H
#define GRAFT_BACKEND_CPU_GEMM_H

#include "backend/cpu/cpu_backend.h"

/* Element [i, k] of an operand (i: row of C for A, column of C for B) is at i * stride + k, or k *
 * stride + i. */
typedef struct gemm_operand {
    const void *data;
    dtype type; /* A: F32 */
    int64_t stride;
    bool is_k_major;
} gemm_operand;

typedef struct gemm_source {
    gemm_operand a; /* [rows, k] */
    int64_t k;      /* > 0 */
    /* Where the sum over k is cut: [n_cuts + 1] ascending, less cuts[0]; NULL: at multiples of a
     * block size that depends on k alone. No piece is longer than K_BLOCK_MAX. */
    const int32_t *cuts;
    int32_t n_cuts;
} gemm_source;

typedef struct gemm_target {
    float *c;
    int64_t c_stride, cols;
    const gemm_operand *b; /* [n_sources] */
    float scale;
    bool add;
    bool is_turned; /* c is [cols, rows] */
} gemm_target;

typedef struct gemm_low_rank {
    float *xa; /* [rows, rank] */
    int64_t xa_stride;
    int32_t rank;
    int64_t row_begin, row_end; /* the rows it applies to */
    int32_t source;             /* that xa is made from; -1: xa is there already */
    gemm_operand thin;          /* as a B of that source, rank columns */
    float thin_scale;
    int32_t target; /* that it is added to (of scale 1, not turned); -1: only xa is wanted */
    gemm_operand b; /* k: rank */
    float scale;
} gemm_low_rank;

typedef struct gemm_call {
    int64_t rows;
    const gemm_source *sources;
    const gemm_target *targets;
    const gemm_low_rank *low_rank;
    int32_t n_sources, n_targets, n_low_rank;
} gemm_call;

void gemm_run(cpu_backend *, const gemm_call *);

/* c [rows, cols] (+)= scale a b: one source, one target. */
typedef struct gemm_product {
    float *c;
    int64_t c_stride, rows, cols;
    gemm_source a;
    gemm_operand b;
    float scale;
    bool add, is_turned;
} gemm_product;
void gemm_product_run(cpu_backend *, const gemm_product *);

/* Memory that will be read next, fetched a little after each tile: packing would wait for all of it
 * at once. */
typedef struct gemm_ahead {
    const char *at;
    int64_t stride; /* bytes */
    int32_t rows, bytes;
} gemm_ahead;

/* c [rows, cols] (+)= scale (a b + a_tail b_tail) for packed panels of one k block each. */
typedef struct gemm_block {
    float *c;
    int64_t c_stride;
    const float *a, *b;
    const void *b_stored; /* NULL: b is packed; else see gemm_kernels.tile_stored: one tile */
    dtype b_type;
    int64_t b_stride;
    int32_t rows, cols, k;
    const float *a_tail, *b_tail; /* of one panel of columns; k_tail 0: none */
    int64_t a_tail_stride;        /* elements from one panel of rows to the next */
    int32_t k_tail;
    float scale;
    bool add, is_turned;
    gemm_ahead ahead; /* rows 0: nothing */
} gemm_block;
void gemm_block_run(const gemm_kernels *, const gemm_block *);

/* Packs n rows of A, or columns of B, for k in [k_begin, k_begin + k), panel after panel. */
void gemm_pack_a(const gemm_kernels *, float *panels, const gemm_operand *, int64_t first,
                 int32_t n, int64_t k_begin, int32_t k);
void gemm_pack_b(const gemm_kernels *, float *panels, const gemm_operand *, int64_t first,
                 int32_t n, int64_t k_begin, int32_t k);

/* Whether rows by cols of a product may take B as it is stored; and where it is. */
bool gemm_takes_stored(const gemm_kernels *, const gemm_operand *b, int64_t rows, int32_t cols);
const void *gemm_operand_at(const gemm_operand *, int64_t i, int64_t k);

/* What gemm_pack_b would read. */
gemm_ahead gemm_ahead_of(const gemm_operand *, int64_t first, int32_t n, int64_t k_begin,
                         int32_t k);

static inline int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

#endif
