/* Real rows against what TRL's SFTTrainer makes of them (tests/fixtures/data/make_trl.py): the same
 * ids, the same trained places. One difference is meant: TRL trains all that follows a prompt, so
 * also the newline that a template prints after the end of the last turn, which nothing ever
 * samples. Skipped without GRAFT_TEST_DATA. */
#include "tests/support/support.h"

#include "train/data/dataset.h"
#include "train/data/templates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTH = 256 };

static tokenizer *tokens;
static data_templates templates;

static const char *text_member(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static dataset *open_set(const json_t *set) {
    const char *path = test_data(text_member(set, "file"));
    const char *columns[] = {text_member(set, "columns")};
    bool has_template = !strcmp(text_member(set, "template"), "chat");
    bool is_chosen = !strcmp(text_member(set, "preferences"), "chosen");
    bool is_all = !strcmp(text_member(set, "train_on"), "all");
    dataset_options options = {.paths = &path,
                               .n_paths = 1,
                               .columns = columns,
                               .n_columns = *columns[0] != '\0',
                               .tokenizer = tokens,
                               .chat = has_template ? templates.chat : NULL,
                               .train_on = is_all ? TRAIN_ON_ALL : TRAIN_ON_COMPLETIONS,
                               .preferences = is_chosen ? PREFERENCE_CHOSEN : PREFERENCE_REFUSED,
                               .text_ends = true,
                               .max_length = MAX_LENGTH,
                               .rows_max = json_integer_value(json_object_get(set, "rows"))};
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    return d;
}

static bool is_trained_there(const json_t *runs, int32_t place) {
    size_t i;
    json_t *run;
    json_array_foreach(runs, i, run) {
        if (place >= json_integer_value(json_array_get(run, 0)) &&
            place < json_integer_value(json_array_get(run, 1)))
            return true;
    }
    return false;
}

/* The newline after the end of the last turn. */
static bool is_end_of_template(const data_row_view *row, int32_t place) {
    const char *end = place > 0 ? tokenizer_token_text(tokens, row->ids[place - 1]) : NULL;
    return place == row->n - 1 && end && !strcmp(end, "<|im_end|>");
}

static void assert_row(const char *name, int64_t i, const data_row_view *row,
                       const json_t *expected) {
    const json_t *ids = json_object_get(expected, "ids"),
                 *runs = json_object_get(expected, "trained");
    if ((size_t)row->n != json_array_size(ids))
        fail_msg("%s, row %lld: %d tokens instead of %zu", name, (long long)i, (int)row->n,
                 json_array_size(ids));
    for (int32_t t = 0; t < row->n; t++) {
        if (row->ids[t] != json_integer_value(json_array_get(ids, (size_t)t)))
            fail_msg("%s, row %lld, token %d: another id", name, (long long)i, (int)t);
        if (t == 0) /* nothing predicts it */
            continue;
        bool is = row->targets[t - 1] != NO_TARGET, is_there = is_trained_there(runs, t);
        assert_true(!is || row->targets[t - 1] == row->ids[t]);
        if (is != is_there && !(is_there && is_end_of_template(row, t)))
            fail_msg("%s, row %lld, token %d: %strained", name, (long long)i, (int)t,
                     is ? "" : "not ");
    }
}

static void test_rows_are_trls(void **state) {
    (void)state;
    assert_ok(tokenizer_load(&tokens, test_data("tokenizers/smollm"), NULL, &test_error));
    assert_ok(data_templates_load(
        &templates, "", test_data("templates_golden/SmolLM2-135M-Instruct.jinja"), &test_error));
    FILE *file = fopen(test_fixture("data/trl.jsonl"), "rb");
    assert_non_null(file);
    char *line = NULL;
    size_t capacity = 0;
    int n_sets = 0;
    for (ssize_t n; (n = getline(&line, &capacity, file)) > 0; n_sets++) {
        json_t *set = NULL;
        assert_ok(json_parse(&set, line, (size_t)n, "trl.jsonl", &test_error));
        const json_t *cases = json_object_get(set, "cases");
        dataset *d = open_set(set);
        if ((size_t)dataset_rows(d) != json_array_size(cases))
            fail_msg("%s: %lld rows instead of %zu", text_member(set, "name"),
                     (long long)dataset_rows(d), json_array_size(cases));
        for (int64_t i = 0; i < dataset_rows(d); i++) {
            data_row_view row = dataset_row(d, i);
            assert_row(text_member(set, "name"), i, &row, json_array_get(cases, (size_t)i));
        }
        dataset_close(&d);
        json_decref(set);
    }
    assert_int_equal(n_sets, 10);
    free(line);
    fclose(file);
    data_templates_free(&templates);
    tokenizer_destroy(&tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows_are_trls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
