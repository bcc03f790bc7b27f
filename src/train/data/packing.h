/* From rows to batches. A step's rows are cut, in their order, into micro-batches that hold as many
 * rows as fit; since no padding exists and sums are taken row by row in row order
 * (backend/batch.h), any cut gives the same gradients to the bit. With packing a micro-batch is
 * filled up to max_tokens; without, it holds at most the batch size in rows. */
#ifndef GRAFT_TRAIN_DATA_PACKING_H
#define GRAFT_TRAIN_DATA_PACKING_H

#include "model/batch_builder.h"
#include "train/data/dataset.h"

typedef struct batch_limits {
    int32_t max_tokens; /* of a micro-batch; at least the longest row */
    int32_t max_rows;
    int32_t row_virtual; /* virtual tokens of every row, which max_tokens counts, too */
} batch_limits;

/* The limits that a run asks for before memory is considered: `batch_size` rows of max_row_tokens
 * and row_virtual tokens each, or with packing one bin of max(bin_tokens, one row) tokens that may
 * hold any number of the step's rows. tokens_max > 0 lowers max_tokens (to fit a memory limit),
 * never below one row. */
batch_limits batch_limits_choose(int32_t max_row_tokens, int32_t row_virtual, int32_t bin_tokens,
                                 int32_t batch_size, int64_t rows_per_step, bool packing,
                                 int32_t tokens_max);

/* How many of rows [n] go into the next micro-batch: at least one. */
int64_t micro_batch_rows(const dataset *, const uint64_t *rows, int64_t n, const batch_limits *);

typedef struct batch_settings {
    int64_t step_supervised; /* targets of the whole optimizer step (dataset_supervised): weights
                                are 1 / this */
    uint64_t dropout_key;
    bool training;
} batch_settings;

/* Fills the builder with rows [n] (which must fit it). One job; positions from 0. Borrowed until
 * the next call. */
const batch *batch_build(batch_builder *, const dataset *, const uint64_t *rows, int64_t n,
                         const batch_settings *);

#endif
