#include "train/data/packing.h"

#include <assert.h>

static int64_t at_most(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t at_least(int64_t a, int64_t b) {
    return a > b ? a : b;
}

batch_limits batch_limits_choose(int32_t max_row_tokens, int32_t row_virtual, int32_t bin_tokens,
                                 int32_t batch_size, int64_t rows_per_step, bool packing,
                                 int32_t tokens_max) {
    assert(max_row_tokens > 0 && batch_size > 0 && rows_per_step > 0);
    max_row_tokens += row_virtual;
    int64_t rows = packing ? rows_per_step : at_most(batch_size, rows_per_step);
    int64_t tokens = packing ? at_least(bin_tokens, max_row_tokens) : rows * max_row_tokens;
    tokens = at_most(tokens, rows * max_row_tokens);
    if (tokens_max > 0)
        tokens = at_least(at_most(tokens, tokens_max), max_row_tokens);
    /* A row has at least one token. */
    tokens = at_most(tokens, INT32_MAX);
    return (batch_limits){.max_tokens = (int32_t)tokens,
                          .max_rows = (int32_t)at_most(rows, tokens),
                          .row_virtual = row_virtual};
}

int64_t micro_batch_rows(const dataset *data, const uint64_t *rows, int64_t n,
                         const batch_limits *limits) {
    assert(n > 0);
    int64_t most = at_most(n, limits->max_rows);
    int64_t taken = 0, tokens = 0;
    while (taken < most) {
        tokens += dataset_row(data, (int64_t)rows[taken]).n + limits->row_virtual;
        if (taken > 0 && tokens > limits->max_tokens)
            break;
        taken++;
    }
    return taken;
}

const batch *batch_build(batch_builder *b, const dataset *data, const uint64_t *rows, int64_t n,
                         const batch_settings *settings) {
    assert(n > 0);
    /* A step without targets has no loss: its weights are never used, but must not be infinite. */
    float weight = (float)(1.0 / (double)at_least(settings->step_supervised, 1));
    batch_builder_begin(b, settings->training, settings->dropout_key);
    for (int64_t i = 0; i < n; i++) {
        data_row_view view = dataset_row(data, (int64_t)rows[i]);
        const batch_row row = {.ids = view.ids,
                               .targets = view.targets,
                               .n = view.n,
                               .weight = weight * view.weight,
                               .task = view.task,
                               .row_id = view.id};
        bool fits = batch_builder_add(b, &row);
        assert(fits);
        (void)fits;
    }
    return batch_builder_finish(b);
}
