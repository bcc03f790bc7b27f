#include "train/data/sampler.h"

#include "base/memory.h"
#include "base/rng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct sampler {
    uint64_t seed;
    sampler_group *groups; /* [n_groups] */
    size_t n_groups;
    int64_t rows; /* of one epoch */
    bool shuffle;
    data_cursor cursor;
    int64_t ordered_epoch; /* whose order `order` holds; -1: none yet */
    uint64_t *order;       /* [rows] */
    uint64_t *drawn;       /* [rows of the largest group]: scratch of a part that is drawn */
};

int64_t sampler_group_rows(const sampler_group *group) {
    double exact = group->share * (double)group->rows;
    int64_t rows = (int64_t)(exact + 0.5);
    return rows > 0 ? rows : 1;
}

graft_status sampler_create_groups(sampler **out, const sampler_group *groups, size_t n,
                                   uint64_t seed, bool shuffle, graft_error *err) {
    *out = NULL;
    int64_t rows = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        assert(groups[i].rows > 0 && groups[i].share > 0);
        rows += sampler_group_rows(&groups[i]);
        if (groups[i].rows > largest)
            largest = groups[i].rows;
    }
    assert(rows > 0);
    sampler *s = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the order of the rows");
    *s = (sampler){
        .seed = seed, .n_groups = n, .rows = rows, .shuffle = shuffle, .ordered_epoch = -1};
    s->groups = mem_array(n, sizeof *s->groups);
    s->order = mem_array((size_t)rows, sizeof *s->order);
    s->drawn = mem_array((size_t)largest, sizeof *s->drawn);
    if (!s->groups || !s->order || !s->drawn) {
        sampler_destroy(&s);
        return error_memory(err, (size_t)(rows + largest) * sizeof *s->order,
                            "the order of the rows");
    }
    memcpy(s->groups, groups, n * sizeof *groups);
    *out = s;
    return GRAFT_OK;
}

graft_status sampler_create(sampler **out, int64_t rows, uint64_t seed, bool shuffle,
                            graft_error *err) {
    assert(rows > 0);
    const sampler_group all = {rows, 1};
    return sampler_create_groups(out, &all, 1, seed, shuffle, err);
}

void sampler_destroy(sampler **s) {
    if (!*s)
        return;
    free((*s)->groups);
    free((*s)->order);
    free((*s)->drawn);
    free(*s);
    *s = NULL;
}

int64_t sampler_rows_per_epoch(const sampler *s) {
    return s->rows;
}

/* Streams of the run's seed: the tag keeps the epochs' apart from those of other users, and the
 * groups' apart from the whole order's. */
static rng epoch_stream(const sampler *s, size_t group) {
    uint64_t tag = (uint64_t)0x64617461 + group;
    return rng_create(s->seed, tag << 32 | (uint64_t)s->cursor.epoch);
}

static int compare_rows(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Rows first .. first + group->rows - 1, as often as the group's share says. */
static int64_t order_group(sampler *s, size_t i, uint64_t first, uint64_t *order) {
    const sampler_group *group = &s->groups[i];
    int64_t wanted = sampler_group_rows(group), n = 0;
    for (; n + group->rows <= wanted; n += group->rows)
        for (int64_t k = 0; k < group->rows; k++)
            order[n + k] = first + (uint64_t)k;
    if (n == wanted)
        return wanted;
    for (int64_t k = 0; k < group->rows; k++)
        s->drawn[k] = first + (uint64_t)k;
    rng random = epoch_stream(s, i + 1);
    rng_shuffle(&random, s->drawn, (size_t)group->rows);
    qsort(s->drawn, (size_t)(wanted - n), sizeof *s->drawn, compare_rows);
    memcpy(order + n, s->drawn, (size_t)(wanted - n) * sizeof *order);
    return wanted;
}

static void order_epoch(sampler *s) {
    if (s->ordered_epoch == s->cursor.epoch)
        return;
    uint64_t first = 0;
    int64_t n = 0;
    for (size_t i = 0; i < s->n_groups; i++) {
        n += order_group(s, i, first, s->order + n);
        first += (uint64_t)s->groups[i].rows;
    }
    if (s->shuffle) {
        rng random = epoch_stream(s, 0);
        rng_shuffle(&random, s->order, (size_t)s->rows);
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
