#include "train/data/sampler.h"

#include "base/memory.h"
#include "base/rng.h"

#include <assert.h>
#include <stdlib.h>

struct sampler {
    uint64_t seed;
    int64_t rows;
    bool shuffle;
    data_cursor cursor;
    int64_t ordered_epoch; /* whose order `order` holds; -1: none yet */
    uint64_t *order;       /* [rows] */
};

graft_status sampler_create(sampler **out, int64_t rows, uint64_t seed, bool shuffle,
                            graft_error *err) {
    assert(rows > 0);
    *out = NULL;
    sampler *s = mem_array(1, sizeof *s);
    uint64_t *order = mem_array((size_t)rows, sizeof *order);
    if (!s || !order) {
        free(s);
        free(order);
        return error_memory(err, (size_t)rows * sizeof *order, "the order of the rows");
    }
    *s = (sampler){
        .seed = seed, .rows = rows, .shuffle = shuffle, .ordered_epoch = -1, .order = order};
    *out = s;
    return GRAFT_OK;
}

void sampler_destroy(sampler **s) {
    if (!*s)
        return;
    free((*s)->order);
    free(*s);
    *s = NULL;
}

static void order_epoch(sampler *s) {
    if (s->ordered_epoch == s->cursor.epoch)
        return;
    for (int64_t i = 0; i < s->rows; i++)
        s->order[i] = (uint64_t)i;
    if (s->shuffle) {
        /* The tag keeps these streams apart from those of other users of the run's seed. */
        rng order = rng_create(s->seed, (uint64_t)0x64617461 << 32 | (uint64_t)s->cursor.epoch);
        rng_shuffle(&order, s->order, (size_t)s->rows);
    }
    s->ordered_epoch = s->cursor.epoch;
}

int64_t sampler_next(sampler *s, const uint64_t **rows, int64_t wanted) {
    assert(wanted > 0);
    order_epoch(s);
    int64_t left = s->rows - s->cursor.index;
    int64_t taken = wanted < left ? wanted : left;
    *rows = s->order + s->cursor.index;
    s->cursor.index += taken;
    if (s->cursor.index == s->rows)
        s->cursor = (data_cursor){.epoch = s->cursor.epoch + 1};
    return taken;
}

data_cursor sampler_cursor(const sampler *s) {
    return s->cursor;
}

graft_status sampler_seek(sampler *s, data_cursor cursor, graft_error *err) {
    if (cursor.epoch < 0 || cursor.epoch > UINT32_MAX || cursor.index < 0 ||
        cursor.index >= s->rows)
        return error_set(
            err, GRAFT_E_INPUT,
            "data cursor: epoch %lld, row %lld does not exist in a data set of %lld rows; "
            "resume with the data the run began with",
            (long long)cursor.epoch, (long long)cursor.index, (long long)s->rows);
    s->cursor = cursor;
    return GRAFT_OK;
}

int64_t sampler_steps_per_epoch(int64_t rows, int64_t rows_per_step) {
    assert(rows >= 0 && rows_per_step > 0);
    return rows / rows_per_step + (rows % rows_per_step != 0);
}
