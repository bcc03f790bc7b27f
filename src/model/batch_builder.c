#include "model/batch_builder.h"

#include <assert.h>
#include <string.h>

void batch_builder_layout(batch_builder *b, layout *host, int32_t max_tokens, int32_t max_segments,
                          int32_t max_jobs) {
    const component what = COMPONENT_WORKSPACE;
    size_t n = (size_t)max_tokens, segments = (size_t)max_segments;
    *b = (batch_builder){.max_tokens = max_tokens,
                         .max_segments = max_segments,
                         .max_jobs = max_jobs > 0 ? max_jobs : 1};
    b->segments = layout_take(host, what, segments, sizeof *b->segments);
    b->ids = layout_take(host, what, n, sizeof *b->ids);
    b->targets = layout_take(host, what, n, sizeof *b->targets);
    b->weights = layout_take(host, what, n, sizeof *b->weights);
    b->dropout_counter = layout_take(host, what, n, sizeof *b->dropout_counter);
    b->grid = layout_take(host, what, n / GRID_TOKENS + segments + 1, sizeof *b->grid);
    b->job_begin = layout_take(host, what, (size_t)b->max_jobs + 1, sizeof *b->job_begin);
}

void batch_builder_begin(batch_builder *b, bool training, uint64_t dropout_key) {
    b->batch = (batch){.tokens = {.grid = b->grid,
                                  .job_begin = b->job_begin,
                                  .n_jobs = b->max_jobs,
                                  .dropout_counter = b->dropout_counter,
                                  .dropout_key = dropout_key,
                                  .training = training},
                       .segments = b->segments,
                       .ids = b->ids,
                       .targets = b->targets,
                       .weights = b->weights};
    b->grid[0] = 0;
    memset(b->job_begin, 0, ((size_t)b->max_jobs + 1) * sizeof *b->job_begin);
}

bool batch_builder_add(batch_builder *b, const batch_row *row) {
    token_rows *tokens = &b->batch.tokens;
    int32_t begin = tokens->n;
    assert(row->n > 0 && row->job >= 0 && row->job < b->max_jobs &&
           b->job_begin[row->job + 1] == begin);
    if (row->n > b->max_tokens - begin || b->batch.n_segments == b->max_segments)
        return false;
    b->segments[b->batch.n_segments++] = (segment){.token_begin = begin,
                                                   .token_end = begin + row->n,
                                                   .position_first = row->position_first,
                                                   .job = row->job,
                                                   .row_id = row->row_id,
                                                   .past = row->past};
    memcpy(b->ids + begin, row->ids, (size_t)row->n * sizeof *b->ids);
    for (int32_t i = 0; i < row->n; i++) {
        b->targets[begin + i] = row->targets ? row->targets[i] : -1;
        b->weights[begin + i] = b->targets[begin + i] < 0 ? 0.0f : row->weight;
        b->dropout_counter[begin + i] = row->row_id << 20 | (uint64_t)i;
    }
    for (int32_t done = 0; done < row->n; done += GRID_TOKENS) {
        int32_t left = row->n - done;
        b->grid[++tokens->n_grid] = begin + done + (left < GRID_TOKENS ? left : GRID_TOKENS);
    }
    tokens->n = begin + row->n;
    for (int32_t job = row->job + 1; job <= b->max_jobs; job++)
        b->job_begin[job] = tokens->n;
    return true;
}

const batch *batch_builder_finish(batch_builder *b) {
    return &b->batch;
}
