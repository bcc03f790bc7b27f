/* Matrix products on packed panels: one driver for every product of the backend.
 *
 *   C [rows, cols] (+)= sum over parts of scale_p A_p B_p
 *
 * A part's sum over k is cut into blocks, always at the same places; each block's sum starts from
 * zero and is then added to C. Work is divided over rows and columns of C only. So an element's
 * bits depend on its own row of A and column of B and on the parts, and on nothing else. */
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

typedef struct gemm_part {
    gemm_operand a, b;
    int64_t k;
    /* Where the sum over k is cut: [n_cuts + 1] ascending, less cuts[0]; NULL: at multiples of a
     * block size that depends on k alone. No piece is longer than K_BLOCK_MAX. */
    const int32_t *cuts;
    int32_t n_cuts;
    int64_t row_begin, row_end; /* the rows of C it adds to; A's row 0 is row_begin */
    float scale;
} gemm_part;

typedef struct gemm_call {
    float *c;
    int64_t c_stride, rows, cols;
    const gemm_part *parts; /* without add, the first covers all rows */
    int32_t n_parts;
    bool add;
} gemm_call;

void gemm_run(cpu_backend *, const gemm_call *);

/* c [rows, cols] (+)= scale a b for packed panels of one k block (see gemm_panels). */
typedef struct gemm_block {
    float *c;
    int64_t c_stride;
    const float *a, *b;
    int32_t rows, cols, k;
    float scale;
    bool add;
} gemm_block;
void gemm_block_run(const gemm_kernels *, const gemm_block *);

/* Packs n rows of A, or columns of B, for k in [k_begin, k_begin + k), panel after panel. */
void gemm_pack_a(const gemm_kernels *, float *panels, const gemm_operand *, int64_t first,
                 int32_t n, int64_t k_begin, int32_t k);
void gemm_pack_b(const gemm_kernels *, float *panels, const gemm_operand *, int64_t first,
                 int32_t n, int64_t k_begin, int32_t k);

static inline int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

#endif
