/* How long the rows are: what `graft data` shows beside the rows themselves. */
#ifndef GRAFT_TRAIN_DATA_DATASET_SUMMARY_H
#define GRAFT_TRAIN_DATA_DATASET_SUMMARY_H

#include "train/data/dataset.h"

enum { LENGTH_BINS_MAX = 21 };

typedef struct dataset_summary {
    dataset_counts counts;
    double supervised_share;                                /* of the tokens; 0 without tokens */
    int32_t shortest, median, percentile_90, percentile_99; /* tokens of a row */
    /* Rows of i * bin_tokens to (i + 1) * bin_tokens - 1 tokens; bin_tokens is 1, 2 or 5 times a
     * power of ten. */
    int64_t lengths[LENGTH_BINS_MAX];
    int32_t bin_tokens, n_bins;
} dataset_summary;

graft_status dataset_summarise(dataset_summary *, const dataset *, graft_error *);

#endif
