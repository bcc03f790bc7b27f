/* Attention in blocks of 64 queries by 64 keys; scores never exist beyond one block (Dao,
 * "FlashAttention-2", 2023). The blocks of keys are counted from the past's start, then from the
 * segment's, and visited in order: a token's bits depend on its segment alone. */
#ifndef GRAFT_BACKEND_CPU_ATTENTION_H
#define GRAFT_BACKEND_CPU_ATTENTION_H

#include "backend/cpu/gemm.h"

#include <assert.h>

enum {
    ATTENTION_BLOCK = 64,
    ATTENTION_HEADS = 4, /* query heads of one key head that one task works on: they share packed
                            keys and values */
    HEAD_DIM_MAX = ATTENTION_HEAD_DIM_MAX,
    BLOCK_ROWS = ATTENTION_BLOCK + TILE_ROWS_MAX, /* of a packed A operand */
};

typedef struct attention_scratch {
    float q[ATTENTION_HEADS][BLOCK_ROWS * HEAD_DIM_MAX];   /* packed as A, over head_dim */
    float d_o[ATTENTION_HEADS][BLOCK_ROWS * HEAD_DIM_MAX]; /* likewise */
    float k[ATTENTION_BLOCK * HEAD_DIM_MAX];               /* packed as B, over head_dim */
    float v[ATTENTION_BLOCK * HEAD_DIM_MAX];               /* likewise */
    float by_keys[ATTENTION_BLOCK * HEAD_DIM_MAX];         /* packed as B, over keys or queries */
    float k_by_keys[ATTENTION_BLOCK * HEAD_DIM_MAX];       /* k packed as B, over keys */
    float s[ATTENTION_BLOCK * ATTENTION_BLOCK]; /* scores, then probabilities: [query, key] */
    float ds[ATTENTION_BLOCK * ATTENTION_BLOCK];
    float panels[BLOCK_ROWS * ATTENTION_BLOCK]; /* s or ds packed as A */
    float largest[ATTENTION_HEADS][ATTENTION_BLOCK], total[ATTENTION_HEADS][ATTENTION_BLOCK];
    float change[ATTENTION_BLOCK];
} attention_scratch;
static_assert(sizeof(attention_scratch) <= CPU_SCRATCH_BYTES, "a thread's scratch is too small");

/* The arrays of an op; forward uses some. */
typedef struct attention_run {
    cpu_backend *cpu;
    const attention_call *call;
    const batch *batch;
    int32_t layer;
    int32_t group, chunks; /* query heads of one key head, and their pieces of ATTENTION_HEADS */
    int32_t value_dim;
    int64_t q_stride, k_stride, v_stride, o_stride; /* elements from one token to the next */
    float *o_out, *lse_out;
    const float *q, *k, *v, *o, *d_o, *lse;
    float *dq, *dk, *dv;
    float *delta; /* [n, n_heads] d_o . o */
} attention_run;

/* Blocks that n tokens make. */
static inline int32_t block_count(int32_t n) {
    return (n + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK;
}

attention_run attention_run_of(backend *, const attention_call *, const batch *, int32_t layer);
/* Blocks of the segments' own tokens, over all segments. */
int64_t attention_blocks(const batch *);

/* 64 queries of one segment at most, and heads [head, head + n_heads) which share key head kv_head.
 */
typedef struct query_block {
    const segment *seg;
    const kv_view *past;  /* NULL: none */
    int32_t token, count; /* first token in the batch */
    int32_t place;        /* of the first query: past length + index in the segment */
    int32_t kv_head, head, n_heads;
} query_block;

/* 64 keys at most, from the past or from the segment. */
typedef struct key_block {
    const float *k, *v; /* [count], rows k_stride and v_stride apart */
    int32_t place, count;
} key_block;

/* Block b (see attention_blocks) of the batch's queries, for one chunk of heads. */
query_block query_block_at(const attention_run *, int64_t b, int32_t kv_head, int32_t chunk);
/* Key blocks of a segment: the past's first. */
int32_t key_blocks(const kv_view *past, const segment *);
key_block key_block_at(const attention_run *, const segment *, const kv_view *past, int32_t kv_head,
                       int32_t i);
/* Does any query of places [first, first + n) see any key of the block? */
bool sees_block(const attention_call *, int32_t first, int32_t n, const key_block *);
/* The block's keys [*begin, *end) that the query at `place` sees. */
void visible_keys(int32_t *begin, int32_t *end, const attention_call *, int32_t place,
                  const key_block *);

/* s [queries, keys] = scale a b^T for packed a, b over k elements. */
void product_block(const attention_run *, float *s, const float *a, const float *b, int32_t k,
                   int32_t queries, int32_t keys, float scale);
/* Soft cap and ALiBi on scores [begin, end) of the query at `place`. */
void adjust_scores(const attention_run *, float *s, int32_t begin, int32_t end, int32_t head,
                   int32_t place, const key_block *);
static inline bool adjusts_scores(const attention_call *call) {
    return call->soft_cap > 0 || call->slopes;
}

#endif
