/* Products of frozen weights in fewer bits than f32:
 *
 *     C [rows, cols] = (add ? C : 0) + round(A) round(B)
 *
 * A is f32, B a stored weight; both are rounded while they are packed, each direction along its own
 * sum, so that no rounded copy of a weight exists and nothing is kept between calls.
 *
 *   int8  blocks of 64 along the sum with one scale each (backend/quantize.h). A block's sum of
 *         products is exact in int32; then c = fma(sum, scale_a * scale_b, c), block by block in
 *         order. Every table gives the same bits.
 *   bf16  operands to the nearest bf16, products and sums in f32.
 *
 * The chain of additions starts from C and follows k: an element's bits depend on its own row of A
 * and column of B alone. */
#ifndef GRAFT_BACKEND_CPU_GEMM_NARROW_H
#define GRAFT_BACKEND_CPU_GEMM_NARROW_H

#include "backend/cpu/gemm.h"
#include "backend/quantize.h"

/* k is packed in blocks of NARROW_BLOCK: a packed block of A holds tile_rows rows with what belongs
 * to them (scales), one of B tile_cols columns. What is lacking is zero. */
enum { NARROW_BLOCK = QUANTIZE_BLOCK, NARROW_TILE_ROWS_MAX = 32, NARROW_TILE_COLS_MAX = 32 };

typedef struct narrow_kernels {
    const char *name;
    compute_type type;
    bool gains; /* enough over the f32 products of the same processor to be worth less exact ones */
    int32_t tile_rows, tile_cols;
    size_t a_bytes, b_bytes; /* of a packed block; multiples of 64 */

    /* Pack one block, k <= NARROW_BLOCK. `rows`: element [i, k] is at i * stride + k; `cols`: at k
     * * stride + i. n <= tile_rows or tile_cols. */
    void (*pack_a)(void *block, const float *a, int64_t stride, int32_t n, int32_t k);
    void (*pack_b_rows)(void *block, const void *b, dtype, int64_t stride, int32_t n, int32_t k);
    void (*pack_b_cols)(void *block, const void *b, dtype, int64_t stride, int32_t n, int32_t k);

    /* c [rows <= tile_rows, tile_cols] (+)= the product of n_blocks packed blocks. */
    void (*tile)(float *c, int64_t c_stride, const void *a, const void *b, int32_t n_blocks,
                 int32_t rows, bool add);

    /* Around any number of packings and tiles in one thread; NULL: nothing to do. */
    void (*enter)(void);
    void (*leave)(void);
} narrow_kernels;

/* One per file. */
const narrow_kernels *narrow_int8_portable(void);
const narrow_kernels *narrow_int8_avx2(void);
const narrow_kernels *narrow_int8_vnni(void);
const narrow_kernels *narrow_int8_amx(void);
const narrow_kernels *narrow_bf16_portable(void);
const narrow_kernels *narrow_bf16_amx(void);

/* The best table that these features allow; NULL for f32. */
const narrow_kernels *narrow_kernels_choose(compute_type, const cpu_features *);
/* All tables in this build; NULL past the end. Whether the processor can run one. */
const narrow_kernels *narrow_kernels_at(size_t i);
bool narrow_kernels_are_allowed(const narrow_kernels *, const cpu_features *);

typedef struct narrow_call {
    float *c;       /* [rows, cols], dense */
    const float *a; /* [rows, k], dense */
    gemm_operand b;
    int64_t rows, cols, k;
    bool add;
} narrow_call;

/* cpu->narrow must not be NULL. */
void narrow_run(cpu_backend *, const narrow_call *);

#endif
