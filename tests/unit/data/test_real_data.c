/* Real data sets, row for row what Hugging Face's libraries make of them
 * (tests/fixtures/data/make_counts.py). Skipped without GRAFT_TEST_DATA. */
#include "tests/support/support.h"

#include "train/data/dataset_summary.h"
#include "train/data/packing.h"
#include "train/data/sampler.h"
#include "train/data/templates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTH = 512 };

typedef struct model {
    tokenizer *tokens;
    data_templates templates;
} model;

static model load_model(void) {
    model m = {0};
    assert_ok(tokenizer_load(&m.tokens, test_data("tokenizers/smollm"), NULL, &test_error));
    assert_ok(data_templates_load(
        &m.templates, "", test_data("templates_golden/SmolLM2-135M-Instruct.jinja"), &test_error));
    return m;
}

static void free_model(model *m) {
    tokenizer_destroy(&m->tokens);
    data_templates_free(&m->templates);
}

static dataset *open_data(const model *m, const char *path, bool has_template) {
    dataset_options options = {.paths = &path,
                               .n_paths = 1,
                               .tokenizer = m->tokens,
                               .chat = has_template ? m->templates.chat : NULL,
                               .max_length = MAX_LENGTH,
                               .embedding_rows = 49152};
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    return d;
}

/* make_counts.py's checksum: places and values of all ids and targets. */
static uint64_t checksum(const dataset *d) {
    uint64_t sum = 0, place = 0;
    for (int64_t r = 0; r < dataset_rows(d); r++) {
        data_row_view row = dataset_row(d, r);
        for (int32_t i = 0; i < row.n; i++) {
            uint64_t value = (uint64_t)row.ids[i] * 65536 + (uint64_t)(row.targets[i] + 1);
            place++;
            sum += place * value;
        }
    }
    return sum & INT64_MAX;
}

static long long member(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static void assert_counts(const model *m, const json_t *expected) {
    const char *file = json_string_value(json_object_get(expected, "file"));
    const char *template = json_string_value(json_object_get(expected, "template"));
    dataset *d = open_data(m, test_data(file), strcmp(template, "none") != 0);
    dataset_counts counts = dataset_count(d);
    const gate_report *gate = dataset_gate(d);
    if (gate->rows_read != member(expected, "rows_read") ||
        counts.rows != member(expected, "rows") || counts.tokens != member(expected, "tokens") ||
        counts.supervised != member(expected, "supervised") ||
        gate->found[GATE_CUT].rows != member(expected, "cut"))
        fail_msg("%s (%s): %lld rows of %lld, %lld tokens, %lld supervised, %lld cut", file,
                 template, (long long)counts.rows, (long long)gate->rows_read,
                 (long long)counts.tokens, (long long)counts.supervised,
                 (long long)gate->found[GATE_CUT].rows);
    if (checksum(d) != (uint64_t)member(expected, "check"))
        fail_msg("%s (%s): the counts agree, but not the rows", file, template);
    dataset_close(&d);
}

static void test_rows_are_hugging_faces(void **state) {
    (void)state;
    model m = load_model();
    FILE *file = fopen(test_fixture("data/counts.jsonl"), "rb");
    assert_non_null(file);
    char line[1024];
    while (fgets(line, sizeof line, file)) {
        json_t *expected = NULL;
        assert_ok(json_parse(&expected, line, strlen(line), "counts.jsonl", &test_error));
        assert_counts(&m, expected);
        json_decref(expected);
    }
    fclose(file);
    free_model(&m);
}

static void test_math_trains(void **state) {
    (void)state;
    const char *path = test_data("math/train.jsonl");
    model m = load_model();
    dataset *d = open_data(&m, path, true);
    dataset_summary summary;
    assert_int_equal(dataset_rows(d), 7473);
    assert_ok(dataset_summarise(&summary, d, &test_error));
    assert_true(summary.supervised_share > 0.4 && summary.supervised_share < 0.8);
    assert_true(summary.median > 100 && summary.median < summary.percentile_90);
    int32_t eos = tokenizer_token_id(m.tokens, "<|im_end|>");
    for (int64_t r = 0; r < dataset_rows(d);
         r++) { /* every answer that was not cut ends its turn, supervised */
        data_row_view row = dataset_row(d, r);
        assert_true(row.n == MAX_LENGTH || row.targets[row.n - 3] == eos);
    }
    dataset_close(&d);
    free_model(&m);
}

/* Preference data is not fine-tuning data. */
static void test_preference_sets_are_refused(void **state) {
    (void)state;
    static const char *const files[] = {"preference/dpo_en_demo.json",
                                        "preference/kto_en_demo.json"};
    model m = load_model();
    for (size_t i = 0; i < 2; i++) {
        const char *path = test_data(files[i]);
        dataset_options options = {.paths = &path,
                                   .n_paths = 1,
                                   .tokenizer = m.tokens,
                                   .chat = m.templates.chat,
                                   .max_length = MAX_LENGTH};
        dataset *d;
        assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_UNSUPPORTED, "preference");
    }
    free_model(&m);
}

/* A whole epoch of a real set in packed micro-batches covers every row once. */
static void test_packed_epoch(void **state) {
    (void)state;
    const char *path = test_data("instruction/alpaca_en_demo.json");
    model m = load_model();
    dataset *d = open_data(&m, path, true);
    dataset_counts counts = dataset_count(d);
    sampler *s;
    assert_ok(sampler_create(&s, counts.rows, 42, true, &test_error));
    batch_limits packed = batch_limits_choose(counts.longest, 0, MAX_LENGTH, 8, 8, true, 0);
    int64_t tokens = 0, micro_batches = 0;
    while (sampler_cursor(s).epoch == 0) {
        const uint64_t *rows;
        int64_t n = sampler_next(s, &rows, 8);
        while (n > 0) {
            int64_t taken = micro_batch_rows(d, rows, n, &packed), sum = 0;
            for (int64_t i = 0; i < taken; i++)
                sum += dataset_row(d, (int64_t)rows[i]).n;
            assert_true(sum <= packed.max_tokens);
            tokens += sum;
            micro_batches++;
            rows += taken;
            n -= taken;
        }
    }
    assert_int_equal(tokens, counts.tokens);
    assert_true(micro_batches < counts.rows * 2 / 3);
    sampler_destroy(&s);
    dataset_close(&d);
    free_model(&m);
}

/* The stories model has no template, and a tokenizer of SentencePiece's kind. */
static void test_stories_text(void **state) {
    (void)state;
    const char *path = test_data("models/stories260K/tinystories_900.txt");
    tokenizer *tokens;
    data_templates templates;
    assert_ok(tokenizer_load(&tokens, test_data("models/stories260K"), NULL, &test_error));
    assert_ok(data_templates_load(&templates, test_data("models/stories260K"), NULL, &test_error));
    assert_null(templates.chat);
    dataset_options options = {.paths = &path,
                               .n_paths = 1,
                               .tokenizer = tokens,
                               .max_length = 512,
                               .embedding_rows = 512,
                               .for_evaluation = true};
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 1);
    assert_int_equal(dataset_row(d, 0).n, 379);
    assert_int_equal(dataset_row(d, 0).ids[0], tokenizer_bos(tokens));
    assert_int_equal(dataset_row(d, 0).supervised, 378);
    dataset_close(&d);
    tokenizer_destroy(&tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_hugging_faces),
        cmocka_unit_test(test_math_trains),
        cmocka_unit_test(test_preference_sets_are_refused),
        cmocka_unit_test(test_packed_epoch),
        cmocka_unit_test(test_stories_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
