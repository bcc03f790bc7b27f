/* A step's tokens: a flat run without padding, cut into segments (rows). Packing only decides which
 * rows share a buffer. */
#ifndef GRAFT_BACKEND_BATCH_H
#define GRAFT_BACKEND_BATCH_H

#include "backend/backend.h"

/* Sums over tokens (gradients of weights) add blocks of at most this many tokens, counted from each
 * row's start, in row order: so packed equals unpacked and any thread count gives the same bits. */
enum { GRID_TOKENS = 256 };

/* Keys and values before a segment's first token, for one layer: a KV cache or a trained prefix. */
typedef struct kv_view {
    const device_array *k, *v; /* [length, n_kv_heads * head_dim]; keys already rotated */
    device_array *dk, *dv;     /* added to by backward; NULL: frozen */
    int32_t length;
} kv_view;

typedef struct segment {
    int32_t token_begin, token_end; /* half-open, in the flat batch */
    int32_t position_first;         /* > 0 after a cache or virtual tokens */
    int32_t job;     /* whose adapter, loss, gradient; jobs' segments are contiguous, ascending */
    uint64_t row_id; /* which data row: dropout counts from it */
    const kv_view *past; /* [n_layers]; NULL: none */
    int32_t n_virtual;   /* of its first tokens: virtual ones, whose ids mean nothing */
    int32_t task;        /* of the row, for adapters that know several */
} segment;

/* The rows of a [n, ...] array as tokens: where sums start, whose they are, and what dropout
 * counts. */
typedef struct token_rows {
    int32_t n;
    const int32_t *grid; /* [n_grid + 1] ascending, grid[0] = 0, grid[n_grid] = n */
    int32_t n_grid;
    const int32_t *job_begin; /* [n_jobs + 1]: job j owns rows [job_begin[j], job_begin[j + 1]) */
    int32_t n_jobs;
    const uint64_t
        *dropout_counter; /* [n], unique for each token of the data: row_id << 20 | index in row */
    uint64_t dropout_key; /* changes every step */
    bool training;        /* false: no dropout */
} token_rows;

typedef struct batch {
    token_rows tokens;
    const segment *segments;
    int32_t n_segments;
    const int32_t *ids; /* [n] */
    /* Loss: token t predicts targets[t] (already shifted: the row's next token); -1: no label. Its
     * cross-entropy is weighted by weights[t] (1 / supervised tokens of the step, times the row's
     * own weight). NULL without a loss. */
    const int32_t *targets; /* [n] */
    const float *weights;   /* [n] */
} batch;

#endif
