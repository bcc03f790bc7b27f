/* A batch made of rows, in buffers laid out once: for training, evaluation and generation. */
#ifndef GRAFT_MODEL_BATCH_BUILDER_H
#define GRAFT_MODEL_BATCH_BUILDER_H

#include "base/layout.h"
#include "model/hooks.h"

typedef struct batch_row {
    const int32_t *ids;     /* [n] */
    const int32_t *targets; /* [n], already shifted, -1: no label; NULL: none has */
    int32_t n;
    float weight; /* of each label's loss */
    int32_t position_first;
    int32_t job;  /* not below the row's before it */
    int32_t task; /* see segment.task */
    uint64_t row_id;
    const kv_view *past; /* [n_layers]: the row goes on from a cache; NULL: it begins here */
} batch_row;

typedef struct batch_builder {
    batch batch; /* complete after batch_builder_finish */
    int32_t max_tokens, max_segments, max_jobs;
    const sequence_hook *sequence; /* what stands before a row that begins; NULL: nothing */
    bool labels_virtual;           /* virtual tokens have their labels: set by begin for training */
    segment *segments;
    int32_t *ids, *targets, *grid, *job_begin;
    float *weights;
    uint64_t *dropout_counter;
} batch_builder;

/* Counts or assigns; max_jobs 0: 1. Every batch has max_jobs jobs, those without a row an empty
 * one, so that the hooks' terms find theirs. max_tokens counts virtual tokens, too. `sequence`
 * (borrowed; may be NULL) is read when rows are added. */
void batch_builder_layout(batch_builder *, layout *host, int32_t max_tokens, int32_t max_segments,
                          int32_t max_jobs, const sequence_hook *sequence);
/* Starts an empty batch; dropout acts only with training. */
void batch_builder_begin(batch_builder *, bool training, uint64_t dropout_key);
/* Copies a row's ids and targets, behind its virtual tokens; false when it does not fit (then
 * nothing has changed). */
bool batch_builder_add(batch_builder *, const batch_row *);
/* Borrowed until the next begin. */
const batch *batch_builder_finish(batch_builder *);

#endif
