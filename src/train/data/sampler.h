/* The order in which rows are trained: a fresh permutation each epoch that depends on the seed and
 * the epoch only, or file order. So a resumed run needs no more than a cursor. */
#ifndef GRAFT_TRAIN_DATA_SAMPLER_H
#define GRAFT_TRAIN_DATA_SAMPLER_H

#include "base/status.h"

/* The next row to train; saved in checkpoints. */
typedef struct data_cursor {
    int64_t epoch; /* from 0 */
    int64_t index; /* rows of this epoch already taken, below the number of rows */
} data_cursor;

typedef struct sampler sampler;

/* rows > 0, each once an epoch. */
graft_status sampler_create(sampler **, int64_t rows, uint64_t seed, bool shuffle, graft_error *);

/* Rows one after another that are taken `share` times an epoch: share * rows of them, rounded, at
 * least one. Whole numbers of times take every row; what is left over is drawn anew each epoch. */
typedef struct sampler_group {
    int64_t rows; /* > 0 */
    double share; /* > 0 */
} sampler_group;
int64_t sampler_group_rows(const sampler_group *); /* that it gives to one epoch */
graft_status sampler_create_groups(sampler **, const sampler_group *, size_t n, uint64_t seed,
                                   bool shuffle, graft_error *);
int64_t sampler_rows_per_epoch(const sampler *);
void sampler_destroy(sampler **);

/* The rows of the next step: `wanted` of them, fewer at an epoch's end (a step never spans two
 * epochs). Points *rows into the sampler (valid until the next call) and moves the cursor past
 * them. */
int64_t sampler_next(sampler *, const uint64_t **rows, int64_t wanted);

data_cursor sampler_cursor(const sampler *);
/* GRAFT_E_INPUT when the cursor does not fit this data. */
graft_status sampler_seek(sampler *, data_cursor, graft_error *);

/* Steps of one epoch: the last may have fewer rows. */
int64_t sampler_steps_per_epoch(int64_t rows, int64_t rows_per_step);

#endif
