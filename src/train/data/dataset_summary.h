/* How long the rows are: what `graft data` shows beside the rows themselves. */
#ifndef GRAFT_TRAIN_DATA_DATASET_SUMMARY_H
#define GRAFT_TRAIN_DATA_DATASET_SUMMARY_H

#include "train/data/dataset.h"

enum { LENGTH_BUCKETS = 21 }; /* up to ROW_TOKENS_MAX */

typedef struct dataset_summary {
    dataset_counts counts;
    double supervised_share;                                /* of the tokens; 0 without tokens */
    int32_t shortest, median, percentile_90, percentile_99; /* tokens of a row */
    int64_t lengths[LENGTH_BUCKETS];                        /* rows of 2^i to 2^(i+1) - 1 tokens */
} dataset_summary;

graft_status dataset_summarise(dataset_summary *, const dataset *, graft_error *);

#endif
