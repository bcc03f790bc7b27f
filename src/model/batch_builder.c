#include "model/batch_builder.h"

#include <assert.h>
#include <string.h>

void batch_builder_layout(batch_builder *b, layout *host, int32_t max_tokens, int32_t max_segments,
                          int32_t max_jobs, const sequence_hook *sequence) {
    const component what = COMPONENT_WORKSPACE;
    size_t n = (size_t)max_tokens, segments = (size_t)max_segments;
    *b = (batch_builder){.max_tokens = max_tokens,
                         .max_segments = max_segments,
                         .max_jobs = max_jobs > 0 ? max_jobs : 1,
                         .sequence = sequence};
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
    b->labels_virtual = training;
    b->grid[0] = 0;
    memset(b->job_begin, 0, ((size_t)b->max_jobs + 1) * sizeof *b->job_begin);
}

/* Where a row begins its segment: behind virtual tokens or a trained past, or in a cache. */
static segment begin_segment(const batch_builder *b, const batch_row *row) {
    segment s = {.token_begin = b->batch.tokens.n,
                 .position_first = row->position_first,
                 .job = row->job,
                 .row_id = row->row_id,
                 .past = row->past,
                 .task = row->task};
    if (b->sequence && !row->past) {
        s.n_virtual = b->sequence->n_virtual;
        s.past = b->sequence->past;
        s.position_first += b->sequence->past_length;
    }
    s.token_end = s.token_begin + s.n_virtual + row->n;
    return s;
}

static void add_token(batch_builder *b, int32_t token, int32_t id, int32_t target, float weight,
                      const batch_row *row, int32_t index) {
    b->ids[token] = id;
    b->targets[token] = target;
    b->weights[token] = target < 0 ? 0.0f : weight;
    b->dropout_counter[token] = row->row_id << 20 | (uint64_t)index;
}

static void add_virtual(batch_builder *b, int32_t token, const batch_row *row, int32_t index) {
    const sequence_hook *sequence = b->sequence;
    bool is_labelled = b->labels_virtual && sequence->virtual_targets;
    add_token(b, token, 0, is_labelled ? sequence->virtual_targets[index] : -1,
              is_labelled ? row->weight * sequence->virtual_weights[index] : 0, row, index);
}

bool batch_builder_add(batch_builder *b, const batch_row *row) {
    token_rows *tokens = &b->batch.tokens;
    segment s = begin_segment(b, row);
    int32_t begin = s.token_begin, n = s.token_end - begin;
    assert(row->n > 0 && row->job >= 0 && row->job < b->max_jobs &&
           b->job_begin[row->job + 1] == begin);
    if (n > b->max_tokens - begin || b->batch.n_segments == b->max_segments)
        return false;
    b->segments[b->batch.n_segments++] = s;
    for (int32_t i = 0; i < s.n_virtual; i++)
        add_virtual(b, begin + i, row, i);
    for (int32_t i = 0; i < row->n; i++)
        add_token(b, begin + s.n_virtual + i, row->ids[i], row->targets ? row->targets[i] : -1,
                  row->weight, row, s.n_virtual + i);
    for (int32_t done = 0; done < n; done += GRID_TOKENS) {
        int32_t left = n - done;
        b->grid[++tokens->n_grid] = begin + done + (left < GRID_TOKENS ? left : GRID_TOKENS);
    }
    tokens->n = begin + n;
    for (int32_t job = row->job + 1; job <= b->max_jobs; job++)
        b->job_begin[job] = tokens->n;
    return true;
}

const batch *batch_builder_finish(batch_builder *b) {
    return &b->batch;
}
