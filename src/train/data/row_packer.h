/* In which order rows are computed. No padding exists, so an order costs nothing by itself: it
 * decides how well micro-batches are filled, since a micro-batch is a run of neighbours.
 *
 * Invariant: an order depends on the rows and their lengths alone, never on how much memory there
 * is or how a step is cut. Sums over rows follow it, so every cut gives the same bits. */
#ifndef GRAFT_TRAIN_DATA_ROW_PACKER_H
#define GRAFT_TRAIN_DATA_ROW_PACKER_H

#include "base/layout.h"
#include "train/data/dataset.h"

typedef struct packed_row {
    uint64_t row;
    int32_t tokens;
    int64_t bin;
} packed_row;

typedef struct row_packer {
    packed_row *rows; /* [capacity] */
    uint64_t *order;  /* [capacity] what the last call gave */
    int64_t capacity;
} row_packer;

/* Counts or assigns. */
void row_packer_layout(row_packer *, layout *host, int64_t capacity);

/* Best fit, longest first: each row, with its row_virtual tokens, goes into the fullest bin of
 * bin_tokens that still has room.
 * Bins follow each other in the order they were begun; a row longer than bin_tokens has its own.
 * [n], until the next call. */
const uint64_t *row_packer_fit(row_packer *, const dataset *, const uint64_t *rows, int64_t n,
                               int32_t row_virtual, int32_t bin_tokens);

/* Longest first, equal lengths in row order; of all rows of the data. [dataset_rows]. */
const uint64_t *row_packer_longest_first(row_packer *, const dataset *);

#endif
