/* Duplicates, and the split into training and evaluation rows. */
#include "tests/support/support.h"

#include "base/rng.h"
#include "train/data/dataset.h"

#include <stdlib.h>
#include <string.h>

enum { WORDS = 60, ROWS = 300 };

typedef struct made_rows {
    int32_t ids[ROWS][WORDS], targets[ROWS][WORDS];
    unit_tokens rows[ROWS];
    size_t n;
} made_rows;

/* A random row: the first `prompt` tokens are no targets. */
static size_t add_random(made_rows *m, rng *r, size_t prompt) {
    size_t row = m->n++;
    for (size_t i = 0; i < WORDS; i++)
        m->ids[row][i] = (int32_t)rng_below(r, 30000);
    for (size_t i = 0; i < WORDS; i++)
        m->targets[row][i] = i + 1 < WORDS && i + 1 >= prompt ? m->ids[row][i + 1] : NO_TARGET;
    m->rows[row] = (unit_tokens){m->ids[row], m->targets[row], WORDS};
    return row;
}

/* A copy with one token changed, as input and as target. */
static size_t add_changed(made_rows *m, size_t of, size_t at, int32_t id) {
    size_t row = m->n++;
    memcpy(m->ids[row], m->ids[of], sizeof m->ids[row]);
    memcpy(m->targets[row], m->targets[of], sizeof m->targets[row]);
    m->ids[row][at] = id;
    if (at > 0 && m->targets[row][at - 1] != NO_TARGET)
        m->targets[row][at - 1] = id;
    m->rows[row] = (unit_tokens){m->ids[row], m->targets[row], WORDS};
    return row;
}

static void find(uint8_t *found, const made_rows *m, dedup_kind kind) {
    memset(found, 7, m->n);
    assert_ok(duplicates_find(found, m->rows, m->n, kind, NULL, &test_error));
}

static void test_exact(void **state) {
    (void)state;
    made_rows *m = calloc(1, sizeof *m);
    uint8_t found[ROWS];
    rng r = rng_create(1, 0);
    size_t a = add_random(m, &r, 0), b = add_random(m, &r, 0);
    size_t c = add_changed(m, a, 10, m->ids[a][10]); /* the same */
    size_t d = add_changed(m, b, WORDS - 1, 5);
    size_t e = add_changed(m, a, 0, m->ids[a][0]); /* other targets: another row */
    m->targets[e][0] = NO_TARGET;
    find(found, m, DEDUP_EXACT);
    const uint8_t expected[] = {NOT_DUPLICATE, NOT_DUPLICATE, DUPLICATE_EXACT, NOT_DUPLICATE,
                                NOT_DUPLICATE};
    assert_memory_equal(found, expected, 5);
    assert_true(c == 2 && d == 3);
    free(m);
}

static void test_near(void **state) {
    (void)state;
    made_rows *m = calloc(1, sizeof *m);
    uint8_t found[ROWS];
    rng r = rng_create(2, 0);
    size_t a = add_random(m, &r, 0);
    while (m->n < 100)
        add_random(m, &r, 0);
    /* One changed token of 60 changes 5 of 56 shingles: 51 / 61 = 0.84 are shared. */
    size_t near = add_changed(m, a, 30, 30001);
    /* A second one, elsewhere: 46 / 66 = 0.70. */
    size_t far = add_changed(m, near, 10, 30002);
    find(found, m, DEDUP_NEAR);
    for (size_t i = 0; i < m->n; i++)
        assert_int_equal(found[i], i == near ? DUPLICATE_NEAR : NOT_DUPLICATE);
    assert_true(far == near + 1);
    find(found, m, DEDUP_EXACT);
    assert_int_equal(found[near], NOT_DUPLICATE);
    free(m);
}

/* Rows that share a long prompt and differ in their answers are no duplicates. */
static void test_the_same_prompt_with_another_answer(void **state) {
    (void)state;
    made_rows *m = calloc(1, sizeof *m);
    uint8_t found[ROWS];
    rng r = rng_create(3, 0);
    size_t a = add_random(m, &r, WORDS - 2);
    size_t other_answer = add_changed(m, a, WORDS - 1, 30001);
    size_t other_prompt = add_changed(m, a, 20, 30002); /* the same answer: a near duplicate */
    find(found, m, DEDUP_NEAR);
    assert_int_equal(found[other_answer], NOT_DUPLICATE);
    assert_int_equal(found[other_prompt], DUPLICATE_NEAR);
    free(m);
}

/* A beginning that all rows have (a system prompt) does not make them alike. */
static void test_words_of_all_rows_do_not_count(void **state) {
    (void)state;
    made_rows *m = calloc(1, sizeof *m);
    uint8_t found[ROWS];
    rng r = rng_create(4, 0);
    add_random(m, &r, WORDS - 1);
    int32_t answer = m->ids[0][WORDS - 1];
    while (m->n < 200) { /* the same 54 words, 5 of its own, the same answer */
        size_t row = add_random(m, &r, WORDS - 1);
        memcpy(m->ids[row], m->ids[0], 54 * sizeof(int32_t));
        m->ids[row][WORDS - 1] = m->targets[row][WORDS - 2] = answer;
    }
    find(found, m, DEDUP_NEAR);
    for (size_t i = 0; i < m->n; i++)
        assert_int_equal(found[i], NOT_DUPLICATE);
    free(m);
}

/* Of many pairs at 0.84 hardly one is missed. */
static void test_recall(void **state) {
    (void)state;
    made_rows *m = calloc(1, sizeof *m);
    uint8_t found[ROWS];
    rng r = rng_create(5, 0);
    for (int i = 0; i < 150; i++)
        add_changed(m, add_random(m, &r, 0), 30, 30001);
    find(found, m, DEDUP_NEAR);
    int n = 0;
    for (size_t i = 0; i < m->n; i++)
        n += found[i] == DUPLICATE_NEAR;
    assert_true(n >= 149);
    free(m);
}

static void test_stop(void **state) {
    (void)state;
    made_rows *m = calloc(1, sizeof *m);
    uint8_t found[ROWS];
    rng r = rng_create(6, 0);
    volatile sig_atomic_t stop = 1;
    add_random(m, &r, 0);
    assert_refused(duplicates_find(found, m->rows, 1, DEDUP_NEAR, &stop, &test_error),
                   GRAFT_E_INTERRUPTED, "stopped");
    free(m);
}

/* ---- In a data set ----------------------------------------------------------------------------
 */

static const char *rows_file(void) {
    static strbuf text;
    strbuf_clear(&text);
    for (int i = 0; i < 40; i++)
        strbuf_printf(&text, "{\"input_ids\": [%d, %d, 3]}\n", i % 30, i % 30 + 1);
    return test_file("rows.jsonl", strbuf_text(&text), text.length);
}

static dataset *open_rows(dedup_kind kind) {
    const char *path = rows_file();
    dataset_options options = {.paths = &path, .n_paths = 1, .max_length = 64, .dedup = kind};
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    return d;
}

static void test_duplicates_are_counted_or_left_out(void **state) {
    (void)state;
    dataset *d = open_rows(DEDUP_NONE);
    assert_int_equal(dataset_rows(d), 40);
    assert_int_equal(dataset_gate(d)->found[GATE_DUPLICATE].rows, 10);
    assert_int_equal(dataset_gate(d)->found[GATE_DUPLICATE].shown[0].line, 31);
    dataset_close(&d);
    d = open_rows(DEDUP_EXACT);
    assert_int_equal(dataset_rows(d), 30);
    assert_int_equal(dataset_count(d).tokens, 90);
    assert_int_equal(dataset_gate(d)->found[GATE_DUPLICATE_OUT].rows, 10);
    for (int64_t i = 0; i < 30; i++) {
        assert_int_equal(dataset_row(d, i).ids[0], i);
        assert_int_equal(dataset_row(d, i).targets[0], i + 1);
        assert_int_equal(dataset_row(d, i).source.line, i + 1);
    }
    dataset_close(&d);
}

/* Which sides the rows with a given first id are on: bit 0 training, bit 1 held out. */
static void sides_of(uint8_t sides[30], double share, uint64_t seed, int64_t *held) {
    dataset *d = open_rows(DEDUP_NONE), *out;
    assert_ok(dataset_split(&out, d, share, seed, &test_error));
    assert_int_equal(dataset_rows(d) + dataset_rows(out), 40);
    memset(sides, 0, 30);
    for (int64_t i = 0; i < dataset_rows(d); i++)
        sides[dataset_row(d, i).ids[0]] |= 1;
    for (int64_t i = 0; i < dataset_rows(out); i++)
        sides[dataset_row(out, i).ids[0]] |= 2;
    assert_non_null(dataset_path(out, 0));
    *held = dataset_rows(out);
    dataset_close(&d);
    dataset_close(&out);
}

static void test_split(void **state) {
    (void)state;
    uint8_t once[30], again[30], other[30], more[30];
    int64_t held, n;
    sides_of(once, 0.2, 42, &held);
    assert_true(held == 8 || held == 9); /* equal rows go together */
    for (int i = 0; i < 30; i++)
        assert_true(once[i] == 1 || once[i] == 2); /* never on both sides */
    sides_of(again, 0.2, 42, &n);
    assert_memory_equal(once, again, 30);
    sides_of(other, 0.2, 43, &n);
    assert_memory_not_equal(once, other, 30);
    sides_of(more, 0.5, 42, &n); /* a larger share holds the smaller one's rows */
    for (int i = 0; i < 30; i++)
        assert_true(once[i] == 1 || more[i] == 2);
    sides_of(other, 1e-9, 42, &held);
    assert_true(held == 1 || held == 2);
}

static void test_split_of_one_row(void **state) {
    (void)state;
    const char *path = test_file("one.jsonl", "{\"input_ids\": [1, 2]}\n", 22);
    dataset_options options = {.paths = &path, .n_paths = 1, .max_length = 64};
    dataset *d, *out;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_refused(dataset_split(&out, d, 0.5, 1, &test_error), GRAFT_E_INPUT,
                   "leaves none to train on");
    assert_null(out);
    assert_int_equal(dataset_rows(d), 1);
    dataset_close(&d);
}

/* The windows of a document share tokens: they stay on one side. */
static void test_split_keeps_windows_together(void **state) {
    (void)state;
    tokenizer *bytes;
    assert_ok(tokenizer_load(&bytes, test_fixture("data/bytes"), NULL, &test_error));
    static const char rows[] = "{\"text\": \"abcdefghij\"}\n{\"text\": \"klmnopqrst\"}\n";
    const char *path = test_file("w.jsonl", rows, sizeof rows - 1);
    dataset_options options = {.paths = &path,
                               .n_paths = 1,
                               .tokenizer = bytes,
                               .max_length = 4,
                               .text_windows = true,
                               .stride = 2};
    dataset *d, *out;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 10);
    assert_ok(dataset_split(&out, d, 0.5, 1, &test_error));
    assert_int_equal(dataset_rows(d), 5);
    assert_int_equal(dataset_rows(out), 5);
    for (int64_t i = 0; i < 5; i++) {
        assert_int_equal(dataset_row(out, i).source.ordinal, dataset_row(out, 0).source.ordinal);
        assert_int_equal(dataset_row(d, i).source.first_token, 2 * i);
    }
    dataset_close(&d);
    dataset_close(&out);
    tokenizer_destroy(&bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_near),
        cmocka_unit_test(test_the_same_prompt_with_another_answer),
        cmocka_unit_test(test_words_of_all_rows_do_not_count),
        cmocka_unit_test(test_recall),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_duplicates_are_counted_or_left_out),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_split_of_one_row),
        cmocka_unit_test(test_split_keeps_windows_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
