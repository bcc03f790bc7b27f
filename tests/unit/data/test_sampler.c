#include "tests/support/support.h"

#include "train/data/sampler.h"

#include <stdlib.h>
#include <string.h>

static sampler *make(int64_t rows, uint64_t seed, bool shuffle) {
    sampler *s;
    assert_ok(sampler_create(&s, rows, seed, shuffle, &test_error));
    return s;
}

/* Draws steps until `epochs` epochs are over; the rows in order. */
static size_t draw(uint64_t *out, sampler *s, int64_t per_step, int64_t epochs) {
    size_t n = 0;
    while (sampler_cursor(s).epoch < epochs) {
        const uint64_t *rows;
        int64_t taken = sampler_next(s, &rows, per_step);
        assert_true(taken >= 1 && taken <= per_step);
        memcpy(out + n, rows, (size_t)taken * sizeof *rows);
        n += (size_t)taken;
    }
    return n;
}

static void test_file_order(void **state) {
    (void)state;
    sampler *s = make(5, 1, false);
    uint64_t drawn[10];
    assert_int_equal(draw(drawn, s, 2, 2), 10);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(drawn[i], i % 5);
    sampler_destroy(&s);
    sampler_destroy(&s);
    assert_null(s);
}

static void test_each_epoch_is_a_permutation(void **state) {
    (void)state;
    sampler *s = make(97, 7, true);
    uint64_t drawn[3 * 97];
    assert_int_equal(draw(drawn, s, 8, 3), 3 * 97);
    for (size_t epoch = 0; epoch < 3; epoch++) {
        bool seen[97] = {false};
        for (size_t i = 0; i < 97; i++) {
            assert_false(seen[drawn[epoch * 97 + i]]);
            seen[drawn[epoch * 97 + i]] = true;
        }
    }
    assert_memory_not_equal(drawn, drawn + 97, 97 * sizeof *drawn);
    sampler_destroy(&s);
}

static void test_same_seed_same_order_other_seed_other_order(void **state) {
    (void)state;
    uint64_t a[200], b[200], c[200];
    sampler *s = make(100, 3, true), *t = make(100, 3, true), *u = make(100, 4, true);
    draw(a, s, 7, 2);
    draw(b, t, 13, 2); /* the size of steps changes nothing about the order */
    draw(c, u, 7, 2);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    sampler_destroy(&s);
    sampler_destroy(&t);
    sampler_destroy(&u);
}

static void test_step_ends_with_its_epoch(void **state) {
    (void)state;
    sampler *s = make(5, 1, true);
    const uint64_t *rows;
    assert_int_equal(sampler_next(s, &rows, 4), 4);
    assert_int_equal(sampler_next(s, &rows, 4), 1);
    assert_int_equal(sampler_cursor(s).epoch, 1);
    assert_int_equal(sampler_cursor(s).index, 0);
    assert_int_equal(sampler_next(s, &rows, 99), 5);
    assert_int_equal(sampler_steps_per_epoch(5, 4), 2);
    assert_int_equal(sampler_steps_per_epoch(8, 4), 2);
    assert_int_equal(sampler_steps_per_epoch(3, 4), 1);
    sampler_destroy(&s);
}

static void test_resume_from_any_cursor(void **state) {
    (void)state;
    uint64_t whole[3 * 23], rest[3 * 23];
    sampler *s = make(23, 9, true);
    size_t n = draw(whole, s, 4, 3);
    sampler_destroy(&s);
    for (size_t done = 0; done < n;) {
        sampler *t = make(23, 9, true);
        data_cursor cursor = {.epoch = (int64_t)(done / 23), .index = (int64_t)(done % 23)};
        assert_ok(sampler_seek(t, cursor, &test_error));
        size_t left = draw(rest, t, 4, 3);
        assert_int_equal(left, n - done);
        assert_memory_equal(rest, whole + done, left * sizeof *rest);
        sampler_destroy(&t);
        done += done % 23 == 20 ? 3 : 4;
    }
}

static void test_seek_back_within_one_sampler(void **state) {
    (void)state;
    sampler *s = make(11, 2, true);
    uint64_t first[22], again[22];
    draw(first, s, 3, 2);
    assert_ok(sampler_seek(s, (data_cursor){0}, &test_error));
    draw(again, s, 3, 2);
    assert_memory_equal(first, again, sizeof first);
    sampler_destroy(&s);
}

static void test_cursor_beyond_the_data(void **state) {
    (void)state;
    sampler *s = make(10, 1, true);
    assert_refused(sampler_seek(s, (data_cursor){.index = 10}, &test_error), GRAFT_E_INPUT,
                   "10 rows");
    assert_refused(sampler_seek(s, (data_cursor){.index = -1}, &test_error), GRAFT_E_INPUT,
                   "row -1");
    assert_refused(sampler_seek(s, (data_cursor){.epoch = -1}, &test_error), GRAFT_E_INPUT,
                   "epoch -1");
    sampler_destroy(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_order),
        cmocka_unit_test(test_each_epoch_is_a_permutation),
        cmocka_unit_test(test_same_seed_same_order_other_seed_other_order),
        cmocka_unit_test(test_step_ends_with_its_epoch),
        cmocka_unit_test(test_resume_from_any_cursor),
        cmocka_unit_test(test_seek_back_within_one_sampler),
        cmocka_unit_test(test_cursor_beyond_the_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
