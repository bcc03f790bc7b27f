#include "tests/support/support.h"

#include "base/rng.h"
#include "train/data/dataset_summary.h"
#include "train/data/packing.h"
#include "train/data/row_packer.h"
#include "train/data/sampler.h"

#include <stdlib.h>
#include <string.h>

/* Rows of odd lengths, some longer than a grid block, with a random part of the labels untrained.
 */
static dataset *make_rows(size_t n, uint64_t seed) {
    dataset *d;
    assert_ok(dataset_create(&d, &test_error));
    rng r = rng_create(seed, 0);
    for (size_t i = 0; i < n; i++) {
        int32_t ids[700], labels[700];
        int32_t length = 1 + (int32_t)rng_below(&r, i % 5 ? 60 : 700);
        for (int32_t t = 0; t < length; t++) {
            ids[t] = (int32_t)rng_below(&r, 1000);
            labels[t] = rng_below(&r, 3) ? ids[t] : -100;
        }
        assert_ok(dataset_add(d, ids, labels, length, (data_source){.line = (int64_t)i + 1},
                              &test_error));
    }
    return d;
}

typedef struct room {
    batch_builder builder;
    void *memory;
} room;

static room make_room(batch_limits limits) {
    room r = {0};
    layout counted = layout_counting();
    batch_builder_layout(&r.builder, &counted, limits.max_tokens, limits.max_rows, 1, NULL);
    assert_false(counted.overflow);
    r.memory = aligned_alloc(LAYOUT_ALIGNMENT, counted.high_water);
    assert_non_null(r.memory);
    layout given = layout_over(r.memory, counted.high_water);
    batch_builder_layout(&r.builder, &given, limits.max_tokens, limits.max_rows, 1, NULL);
    assert_int_equal(given.high_water, counted.high_water);
    return r;
}

static void test_targets_are_shifted(void **state) {
    (void)state;
    dataset *d;
    assert_ok(dataset_create(&d, &test_error));
    const int32_t ids[] = {10, 11, 12, 13}, labels[] = {10, -100, 99, 13};
    assert_ok(dataset_add(d, ids, labels, 4, (data_source){0}, &test_error));
    assert_ok(dataset_add(d, ids, NULL, 4, (data_source){0}, &test_error));
    data_row_view a = dataset_row(d, 0), b = dataset_row(d, 1);
    const int32_t expected_a[] = {NO_TARGET, 99, 13, NO_TARGET}; /* labels need not equal ids */
    const int32_t expected_b[] = {11, 12, 13, NO_TARGET};
    assert_memory_equal(a.ids, ids, sizeof ids);
    assert_memory_equal(a.targets, expected_a, sizeof expected_a);
    assert_memory_equal(b.targets, expected_b, sizeof expected_b);
    assert_int_equal(a.supervised, 2);
    assert_int_equal(b.supervised, 3);
    dataset_counts counts = dataset_count(d);
    assert_int_equal(counts.rows, 2);
    assert_int_equal(counts.tokens, 8);
    assert_int_equal(counts.supervised, 5);
    assert_int_equal(counts.longest, 4);
    assert_int_equal(counts.most_supervised, 3);
    dataset_close(&d);
    dataset_close(&d);
}

/* What every batch promises (backend/batch.h). */
static void assert_batch_is_sound(const batch *b, const dataset *d, const uint64_t *rows, int64_t n,
                                  float weight) {
    const token_rows *t = &b->tokens;
    assert_int_equal(b->n_segments, n);
    assert_int_equal(t->n_jobs, 1);
    assert_int_equal(t->job_begin[0], 0);
    assert_int_equal(t->job_begin[1], t->n);
    assert_int_equal(t->grid[0], 0);
    assert_int_equal(t->grid[t->n_grid], t->n);
    int32_t at = 0, block = 0;
    for (int64_t i = 0; i < n; i++) {
        data_row_view row = dataset_row(d, (int64_t)rows[i]);
        const segment *s = &b->segments[i];
        assert_int_equal(s->token_begin, at);
        assert_int_equal(s->token_end, at + row.n);
        assert_int_equal(s->position_first, 0);
        assert_int_equal(s->job, 0);
        assert_int_equal(s->row_id, rows[i]);
        assert_null(s->past);
        for (int32_t k = 0; k < row.n; k++) {
            assert_int_equal(b->ids[at + k], row.ids[k]);
            assert_int_equal(b->targets[at + k], row.targets[k]);
            assert_int_equal(t->dropout_counter[at + k], rows[i] << 20 | (uint64_t)k);
            bool is_target = row.targets[k] != NO_TARGET;
            assert_true(is_target ? b->weights[at + k] >= weight && b->weights[at + k] <= weight
                                  : b->weights[at + k] >= 0.0f && b->weights[at + k] <= 0.0f);
            if (k % GRID_TOKENS == 0) /* blocks are counted from the row's start */
                assert_int_equal(t->grid[block++], at + k);
        }
        at += row.n;
    }
    assert_int_equal(at, t->n);
    assert_int_equal(block, t->n_grid);
}

/* All micro-batches of one step under some limits; appends the targets and weights they carry. */
static size_t build_step(float *weights, int32_t *targets, const dataset *d, const uint64_t *rows,
                         int64_t n, batch_limits limits) {
    room r = make_room(limits);
    int64_t supervised = dataset_supervised(d, rows, n);
    size_t out = 0;
    while (n > 0) {
        int64_t taken = micro_batch_rows(d, rows, n, &limits);
        assert_true(taken >= 1 && taken <= limits.max_rows);
        batch_settings settings = {
            .step_supervised = supervised, .dropout_key = 5, .training = true};
        batch b = *batch_build(&r.builder, d, rows, taken, &settings);
        assert_batch_is_sound(&b, d, rows, taken, (float)(1.0 / (double)supervised));
        assert_true(b.tokens.n <= limits.max_tokens);
        assert_int_equal(b.tokens.dropout_key, 5);
        assert_true(b.tokens.training);
        memcpy(weights + out, b.weights, (size_t)b.tokens.n * sizeof *weights);
        memcpy(targets + out, b.targets, (size_t)b.tokens.n * sizeof *targets);
        out += (size_t)b.tokens.n;
        rows += taken;
        n -= taken;
    }
    free(r.memory);
    return out;
}

/* However a step is cut, it holds the same rows in the same order with the same weights. */
static void test_packed_equals_unpacked(void **state) {
    (void)state;
    static float w[4][40000];
    static int32_t t[4][40000];
    dataset *d = make_rows(61, 3);
    sampler *s;
    assert_ok(sampler_create(&s, dataset_rows(d), 1, true, &test_error));
    int32_t longest = dataset_count(d).longest;
    for (int step = 0; step < 10; step++) {
        const uint64_t *rows;
        int64_t n = sampler_next(s, &rows, 12);
        const batch_limits limits[] = {
            batch_limits_choose(longest, 0, 0, 1, 12, false, 0),
            batch_limits_choose(longest, 0, 0, 4, 12, false, 0),
            batch_limits_choose(longest, 0, 2048, 4, 12, true, 0),
            batch_limits_choose(longest, 0, 2048, 4, 12, true, longest),
        };
        size_t tokens = build_step(w[0], t[0], d, rows, n, limits[0]);
        for (int i = 1; i < 4; i++) {
            assert_int_equal(build_step(w[i], t[i], d, rows, n, limits[i]), tokens);
            assert_memory_equal(w[i], w[0], tokens * sizeof **w);
            assert_memory_equal(t[i], t[0], tokens * sizeof **t);
        }
        double sum = 0;
        for (size_t i = 0; i < tokens; i++)
            sum += (double)w[0][i];
        test_assert_near(sum, 1.0, 1e-4, 0, "weights of a step");
    }
    sampler_destroy(&s);
    dataset_close(&d);
}

static void test_micro_batches_fill_up(void **state) {
    (void)state;
    dataset *d;
    assert_ok(dataset_create(&d, &test_error));
    const int32_t ids[100] = {0};
    const int32_t lengths[] = {40, 40, 40, 10, 100, 5, 5};
    for (size_t i = 0; i < 7; i++)
        assert_ok(dataset_add(d, ids, NULL, lengths[i], (data_source){0}, &test_error));
    const uint64_t rows[] = {0, 1, 2, 3, 4, 5, 6};
    batch_limits packed = batch_limits_choose(100, 0, 100, 2, 7, true, 0);
    assert_int_equal(packed.max_tokens, 100);
    assert_int_equal(packed.max_rows, 7);
    assert_int_equal(micro_batch_rows(d, rows, 7, &packed), 2);
    assert_int_equal(micro_batch_rows(d, rows + 2, 5, &packed), 2);
    assert_int_equal(micro_batch_rows(d, rows + 4, 3, &packed), 1);
    assert_int_equal(micro_batch_rows(d, rows + 5, 2, &packed), 2);
    batch_limits rowwise = batch_limits_choose(100, 0, 100, 3, 7, false, 0);
    assert_int_equal(rowwise.max_tokens, 300);
    assert_int_equal(micro_batch_rows(d, rows, 7, &rowwise), 3);
    assert_int_equal(micro_batch_rows(d, rows + 6, 1, &rowwise), 1);
    batch_limits tight = batch_limits_choose(100, 0, 100, 3, 7, false, 50);
    assert_int_equal(tight.max_tokens, 100); /* never below one row */
    dataset_close(&d);
}

/* ---- The order rows are packed in ---- */

static row_packer make_packer(void **memory, int64_t capacity) {
    row_packer p;
    layout l = layout_counting();
    row_packer_layout(&p, &l, capacity);
    *memory = aligned_alloc(LAYOUT_ALIGNMENT, l.high_water);
    assert_non_null(*memory);
    l = layout_over(*memory, l.high_water);
    row_packer_layout(&p, &l, capacity);
    return p;
}

static int64_t count_micro_batches(const dataset *d, const uint64_t *rows, int64_t n,
                                   int32_t tokens) {
    const batch_limits limits = {.max_tokens = tokens, .max_rows = INT32_MAX};
    int64_t batches = 0;
    for (int64_t at = 0; at < n; batches++)
        at += micro_batch_rows(d, rows + at, n - at, &limits);
    return batches;
}

static void assert_is_permutation(const uint64_t *order, const uint64_t *rows, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        int found = 0;
        for (int64_t k = 0; k < n; k++)
            found += order[k] == rows[i];
        assert_int_equal(found, 1);
    }
}

/* 60 and 40, 55 and 45, 50 and 50 fill three bins of 100 whole; as they come they need five. */
static void test_best_fit_fills_bins(void **state) {
    (void)state;
    dataset *d;
    void *memory;
    assert_ok(dataset_create(&d, &test_error));
    static const int32_t ids[200], lengths[] = {60, 55, 50, 40, 150, 50, 45};
    for (size_t i = 0; i < 7; i++)
        assert_ok(dataset_add(d, ids, NULL, lengths[i], (data_source){0}, &test_error));
    row_packer p = make_packer(&memory, 7);
    const uint64_t rows[] = {0, 1, 2, 3, 4, 5, 6}, other[] = {6, 3, 4, 0, 5, 1, 2};
    const uint64_t expected[] = {4, 0, 3, 1, 6, 2, 5};
    assert_int_equal(count_micro_batches(d, rows, 7, 100), 5);
    const uint64_t *order = row_packer_fit(&p, d, rows, 7, 0, 100);
    assert_memory_equal(order, expected, sizeof expected);
    assert_int_equal(count_micro_batches(d, order, 7, 100), 4);
    assert_memory_equal(row_packer_fit(&p, d, other, 7, 0, 100), expected, sizeof expected);
    const uint64_t by_length[] = {4, 0, 1, 2, 5, 6, 3};
    assert_memory_equal(row_packer_longest_first(&p, d), by_length, sizeof by_length);
    free(memory);
    dataset_close(&d);
}

/* Any rows, more bins than stay open: every row once, never more micro-batches than before. */
static void test_best_fit_keeps_every_row(void **state) {
    (void)state;
    enum { N = 700 };
    dataset *d = make_rows(N, 9);
    uint64_t rows[N];
    void *memory;
    row_packer p = make_packer(&memory, N);
    rng random = rng_create(5, 5);
    for (int round = 0; round < 6; round++) {
        for (uint64_t i = 0; i < N; i++)
            rows[i] = i;
        rng_shuffle(&random, rows, N);
        int32_t longest = dataset_count(d).longest, bin = longest + 300 * round;
        int64_t n = round % 2 ? N : 40;
        int64_t before = count_micro_batches(d, rows, n, bin);
        const uint64_t *order = row_packer_fit(&p, d, rows, n, 0, bin);
        assert_is_permutation(order, rows, n);
        assert_true(count_micro_batches(d, order, n, bin) <= before);
    }
    free(memory);
    dataset_close(&d);
}

static void test_step_without_targets(void **state) {
    (void)state;
    dataset *d;
    assert_ok(dataset_create(&d, &test_error));
    const int32_t ids[] = {1, 2}, labels[] = {-100, -100};
    assert_ok(dataset_add(d, ids, labels, 2, (data_source){0}, &test_error));
    room r = make_room((batch_limits){.max_tokens = 2, .max_rows = 1});
    uint64_t row = 0;
    batch b = *batch_build(&r.builder, d, &row, 1, &(batch_settings){.step_supervised = 0});
    assert_int_equal(b.targets[0], NO_TARGET);
    test_assert_near((double)b.weights[0], 0, 0, 0, "weight");
    free(r.memory);
    dataset_close(&d);
}

static void test_hash_sees_every_change(void **state) {
    (void)state;
    const int32_t ids[] = {1, 2, 3, 4}, changed[] = {1, 2, 3, 5}, labels[] = {1, -100, 3, 4};
    uint64_t hashes[5];
    for (int i = 0; i < 5; i++) {
        dataset *d;
        assert_ok(dataset_create(&d, &test_error));
        if (i == 3) { /* the same tokens, another border */
            assert_ok(dataset_add(d, ids, NULL, 1, (data_source){0}, &test_error));
            assert_ok(dataset_add(d, ids + 1, NULL, 3, (data_source){0}, &test_error));
        } else {
            assert_ok(dataset_add(d, i == 1 ? changed : ids, i == 2 ? labels : NULL, 4,
                                  (data_source){.line = i}, &test_error));
        }
        hashes[i] = dataset_hash(d);
        dataset_close(&d);
    }
    for (int i = 1; i < 4; i++)
        assert_int_not_equal(hashes[i], hashes[0]);
    assert_int_equal(hashes[4], hashes[0]); /* where a row came from is not part of it */
}

static void test_summary(void **state) {
    (void)state;
    dataset *d;
    assert_ok(dataset_create(&d, &test_error));
    static const int32_t ids[1000];
    for (int32_t n = 1; n <= 100; n++)
        assert_ok(dataset_add(d, ids, NULL, n, (data_source){0}, &test_error));
    dataset_summary s;
    assert_ok(dataset_summarise(&s, d, &test_error));
    assert_int_equal(s.counts.rows, 100);
    assert_int_equal(s.counts.tokens, 5050);
    assert_int_equal(s.counts.supervised, 4950);
    assert_int_equal(s.shortest, 1);
    assert_int_equal(s.median, 50);
    assert_int_equal(s.percentile_90, 90);
    assert_int_equal(s.percentile_99, 99);
    test_assert_near(s.supervised_share, 4950.0 / 5050.0, 0, 1e-12, "share");
    assert_int_equal(s.bin_tokens, 5); /* with 2 there were 51 bins */
    assert_int_equal(s.n_bins, 21);
    int64_t rows = 0;
    for (int32_t i = 0; i < s.n_bins; i++) {
        assert_int_equal(s.lengths[i], i == 0 ? 4 : i < 20 ? 5 : 1);
        rows += s.lengths[i];
    }
    assert_int_equal(rows, 100);
    dataset_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets_are_shifted),
        cmocka_unit_test(test_packed_equals_unpacked),
        cmocka_unit_test(test_micro_batches_fill_up),
        cmocka_unit_test(test_best_fit_fills_bins),
        cmocka_unit_test(test_best_fit_keeps_every_row),
        cmocka_unit_test(test_step_without_targets),
        cmocka_unit_test(test_hash_sees_every_change),
        cmocka_unit_test(test_summary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
