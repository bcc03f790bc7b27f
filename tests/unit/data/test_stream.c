/* Rows as they are read: each once an epoch, in an order that can be found again. */
#include "tests/support/support.h"

#include "train/data/data_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 50 };

static char path[512];
static const char *const paths[] = {path};

/* ROWS rows [i + 1, 7, 9]; `edited` has another second token (-1: none). */
static void write_rows(int edited) {
    strbuf text = {0};
    for (int i = 0; i < ROWS; i++)
        strbuf_printf(&text, "{\"input_ids\": [%d, %d, 9]}\n", i + 1, i == edited ? 8 : 7);
    snprintf(path, sizeof path, "%s", test_file("stream.jsonl", strbuf_text(&text), text.length));
    strbuf_free(&text);
}

static data_stream *open_stream(int64_t buffer, uint64_t seed) {
    const dataset_options options = {.paths = paths, .n_paths = 1, .max_length = 64};
    data_stream *s;
    assert_ok(data_stream_open(&s, &options, buffer, seed, &test_error));
    return s;
}

/* Takes `n` rows in steps of `step`; their first ids. */
static void take(int *out, data_stream *s, int n, int64_t step) {
    for (int i = 0; i < n;) {
        stream_rows rows;
        int64_t wanted = n - i < step ? n - i : step;
        assert_ok(data_stream_next(s, &rows, wanted, &test_error));
        assert_true(rows.n >= 1 && rows.n <= wanted);
        for (int64_t k = 0; k < rows.n; k++) {
            data_row_view row = dataset_row(rows.data, (int64_t)rows.rows[k]);
            assert_int_equal(row.n, 3);
            assert_int_equal(row.supervised, 2);
            out[i++] = row.ids[0];
        }
    }
}

static void test_each_row_once_an_epoch(void **state) {
    (void)state;
    write_rows(-1);
    int taken[3 * ROWS];
    data_stream *s = open_stream(8, 42);
    take(taken, s, 3 * ROWS, 7);
    for (int epoch = 0; epoch < 3; epoch++) {
        bool seen[ROWS + 1] = {false};
        for (int i = 0; i < ROWS; i++) {
            int id = taken[epoch * ROWS + i];
            assert_false(seen[id]);
            seen[id] = true;
            assert_true(id - 1 <= i + 7); /* no row comes before it is in the buffer */
        }
    }
    assert_memory_not_equal(taken, taken + ROWS, sizeof(int) * ROWS);
    data_cursor cursor = data_stream_cursor(s);
    assert_true(cursor.epoch == 3 && cursor.index == 0);
    assert_true(data_stream_epochs(s) == 3);
    data_stream_close(&s);
    data_stream_close(&s);
}

/* A step does not reach over an epoch's end, and rows count from each epoch's start. */
static void test_steps_end_with_the_epoch(void **state) {
    (void)state;
    write_rows(-1);
    data_stream *s = open_stream(1, 1);
    stream_rows rows;
    assert_ok(data_stream_next(s, &rows, ROWS - 3, &test_error));
    assert_ok(data_stream_next(s, &rows, 8, &test_error));
    assert_int_equal(rows.n, 3);
    for (int i = 0; i < 3; i++) { /* buffer 1: file order */
        assert_int_equal(dataset_row(rows.data, i).ids[0], ROWS - 2 + i);
        assert_int_equal(dataset_row(rows.data, i).id, ROWS - 3 + i);
        assert_int_equal(dataset_row(rows.data, i).source.line, ROWS - 2 + i);
    }
    assert_ok(data_stream_next(s, &rows, 8, &test_error));
    assert_int_equal(rows.n, 8);
    assert_int_equal(dataset_row(rows.data, 0).id, 0);
    assert_true(data_stream_epochs(s) == 1 + 8.0 / ROWS);
    data_stream_close(&s);
}

static void test_the_same_place_is_found_again(void **state) {
    (void)state;
    write_rows(-1);
    int whole[3 * ROWS], rest[3 * ROWS], others[ROWS];
    data_stream *s = open_stream(11, 5);
    take(whole, s, 3 * ROWS, 4);
    data_stream_close(&s);
    for (int at = 0; at < 2 * ROWS; at += 13) {
        s = open_stream(11, 5);
        if (at)
            take(rest, s, at, 3); /* the size of steps changes nothing */
        data_cursor cursor = data_stream_cursor(s);
        uint64_t hash = data_stream_hash(s);
        data_stream_close(&s);
        s = open_stream(11, 5);
        assert_ok(data_stream_seek(s, cursor, hash, &test_error));
        take(rest, s, 3 * ROWS - at, 5);
        assert_memory_equal(rest, whole + at, sizeof(int) * (size_t)(3 * ROWS - at));
        data_stream_close(&s);
    }
    s = open_stream(11, 6);
    take(others, s, ROWS, 4);
    assert_memory_not_equal(others, whole, sizeof others);
    data_stream_close(&s);
}

static void test_edited_files_are_noticed(void **state) {
    (void)state;
    int taken[ROWS];
    write_rows(-1);
    data_stream *s = open_stream(4, 5);
    take(taken, s, 20, 4);
    data_cursor cursor = data_stream_cursor(s);
    uint64_t hash = data_stream_hash(s);
    data_stream_close(&s);
    write_rows(taken[10] - 1);
    s = open_stream(4, 5);
    assert_refused(data_stream_seek(s, cursor, hash, &test_error), GRAFT_E_INPUT,
                   "the training data has changed since this checkpoint");
    data_stream_close(&s);
    write_rows(ROWS - 1); /* a row that was not read yet may be mended */
    s = open_stream(4, 5);
    assert_ok(data_stream_seek(s, cursor, hash, &test_error));
    data_stream_close(&s);
    test_file("stream.jsonl", "{\"input_ids\": [1, 7, 9]}\n", 25);
    s = open_stream(4, 5);
    assert_refused(data_stream_seek(s, cursor, hash, &test_error), GRAFT_E_INPUT, "has changed");
    data_stream_close(&s);
}

static void test_refused(void **state) {
    (void)state;
    write_rows(-1);
    data_stream *s;
    stream_rows rows;
    const double half = 0.5;
    dataset_options options = {.paths = paths, .n_paths = 1, .max_length = 64, .shares = &half};
    assert_refused(data_stream_open(&s, &options, 4, 1, &test_error), GRAFT_E_USAGE,
                   "shares need all rows at once");
    options.shares = NULL;
    options.dedup = DEDUP_EXACT;
    assert_refused(data_stream_open(&s, &options, 4, 1, &test_error), GRAFT_E_USAGE,
                   "--dedup needs all rows at once");
    options.dedup = DEDUP_NONE;
    assert_refused(data_stream_open(&s, &options, 0, 1, &test_error), GRAFT_E_USAGE,
                   "expected at least 1 row");
    static const char nothing[] = "{\"input_ids\": [1, 2], \"labels\": [-100, -100]}\n";
    snprintf(path, sizeof path, "%s", test_file("none.jsonl", nothing, sizeof nothing - 1));
    s = open_stream(4, 1);
    assert_refused(data_stream_next(s, &rows, 4, &test_error), GRAFT_E_INPUT,
                   "no row has a supervised token");
    data_stream_close(&s);
    volatile sig_atomic_t stop = 1;
    write_rows(-1);
    options.stop = &stop;
    assert_ok(data_stream_open(&s, &options, 4, 1, &test_error));
    assert_refused(data_stream_next(s, &rows, 4, &test_error), GRAFT_E_INTERRUPTED, "stopped");
    data_stream_close(&s);
}

/* A document's windows are rows like others. */
static void test_windows(void **state) {
    (void)state;
    tokenizer *bytes;
    assert_ok(tokenizer_load(&bytes, test_fixture("data/bytes"), NULL, &test_error));
    const char *text = test_file("w.txt", "abcdefghij", 10);
    const dataset_options options = {
        .paths = &text, .n_paths = 1, .tokenizer = bytes, .max_length = 4};
    data_stream *s;
    stream_rows rows;
    assert_ok(data_stream_open(&s, &options, 1, 1, &test_error));
    assert_ok(data_stream_next(s, &rows, 10, &test_error));
    assert_int_equal(rows.n, 3);
    assert_int_equal(dataset_row(rows.data, 2).source.first_token, 8);
    assert_string_equal(data_stream_path(s, 0), text);
    assert_null(data_stream_path(s, 1));
    data_stream_close(&s);
    tokenizer_destroy(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_row_once_an_epoch),
        cmocka_unit_test(test_steps_end_with_the_epoch),
        cmocka_unit_test(test_the_same_place_is_found_again),
        cmocka_unit_test(test_edited_files_are_noticed),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
