/* data: what will be trained. */
#include "tests/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void supervised_text_is_the_completion_and_its_end(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    json_t *data =
        cli_json(ARGS("data", "--model", model, "--data", rows, "--rows", "4", "--json"));
    const json_t *shown = cli_member(data, "rows");
    assert_int_equal(json_array_size(shown), 4);
    const json_t *tokens = cli_member(json_array_get(shown, 0), "tokens");
    strbuf supervised = {0};
    size_t n = json_array_size(tokens), n_supervised = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *token = json_array_get(tokens, i);
        if (!json_is_true(cli_member(token, "supervised")))
            continue;
        strbuf_add_text(&supervised, json_string_value(cli_member(token, "text")));
        n_supervised++;
    }
    assert_string_equal(strbuf_text(&supervised), "The cat sat on the mat and was happy.</s>");
    assert_true(cli_number(json_array_get(shown, 0), "supervised_count") == (double)n_supervised);
    assert_true(cli_number(json_array_get(shown, 0), "tokens_count") == (double)n);
    assert_true(cli_number(json_array_get(shown, 3), "line") == 4);
    strbuf_free(&supervised);
    json_decref(data);
    free(rows);
    free(model);
}

static void summary_counts_all_rows(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    json_t *data = cli_json(ARGS("data", "--model", model, "--data", rows, "--rows", "0",
                                 "--max-length", "30", "--json"));
    const json_t *summary = cli_member(data, "summary");
    assert_int_equal(json_array_size(cli_member(data, "rows")), 0);
    assert_true(cli_number(summary, "rows") == 4 && cli_number(summary, "rows_read") == 4);
    assert_true(cli_number(summary, "longest") == 30);
    assert_true(cli_number(cli_member(summary, "findings"), "cut") == 2);
    double share = cli_number(summary, "supervised_tokens") / cli_number(summary, "tokens");
    test_assert_near(cli_number(summary, "supervised_share"), share, 1e-12, 0, "supervised_share");
    json_decref(data);
    free(rows);
    free(model);
}

/* What data counts is what eval uses. */
static void counts_agree_with_eval(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    json_t *data = cli_json(ARGS("data", "--model", model, "--data", rows, "--json"));
    json_t *loss = cli_json(ARGS("eval", "--model", model, "--data", rows, "--json"));
    const json_t *summary = cli_member(data, "summary");
    assert_true(cli_number(summary, "tokens") == cli_number(loss, "tokens"));
    assert_true(cli_number(summary, "supervised_tokens") == cli_number(loss, "supervised_tokens"));
    json_decref(data);
    json_decref(loss);
    free(rows);
    free(model);
}

static void text_marks_what_is_supervised(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    cli_result result =
        cli_ok(ARGS("data", "--model", model, "--data", rows, "--first-row", "2", "--rows", "1"));
    const char *text = strbuf_text(&result.out);
    assert_non_null(strstr(text, "⟦The dog ran to the park and was glad.</s>⟧"));
    assert_non_null(strstr(text, "rows.jsonl:2 "));
    assert_null(strstr(text, "cat"));
    assert_null(strchr(text, '\033'));
    cli_free(&result);
    free(rows);
    free(model);
}

static void train_on_all_supervises_the_prompt(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    json_t *some = cli_json(ARGS("data", "--model", model, "--data", rows, "--json"));
    json_t *all =
        cli_json(ARGS("data", "--model", model, "--data", rows, "--train-on", "all", "--json"));
    double tokens = cli_number(cli_member(all, "summary"), "tokens");
    assert_true(cli_number(cli_member(all, "summary"), "supervised_tokens") ==
                tokens - 4); /* nothing predicts a first token */
    assert_true(cli_number(cli_member(some, "summary"), "supervised_tokens") < tokens - 4);
    json_decref(some);
    json_decref(all);
    free(rows);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(supervised_text_is_the_completion_and_its_end),
        cmocka_unit_test(summary_counts_all_rows),
        cmocka_unit_test(counts_agree_with_eval),
        cmocka_unit_test(text_marks_what_is_supervised),
        cmocka_unit_test(train_on_all_supervises_the_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
