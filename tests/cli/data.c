/* data: what will be trained. */
#include "tests/cli/cli.h"

#include "base/file_map.h"

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
    assert_null(strstr(text, "The cat"));
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

static void a_page_needs_nothing_else(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *page = cli_path("page.html");
    cli_result result = cli_ok(ARGS("data", "--model", model, "--data", rows, "--html", page));
    cli_free(&result);
    char *html = NULL;
    size_t n = 0;
    assert_ok(file_read_all(&html, &n, page, 1 << 20, &test_error));
    assert_non_null(strstr(html, "<!DOCTYPE html>"));
    assert_non_null(strstr(html, "color-scheme:light dark"));
    assert_non_null(strstr(html, "</mark></pre>"));
    assert_non_null(strstr(html, "rows.jsonl:3</h2>"));
    assert_null(strstr(html, "rows.jsonl:4</h2>"));
    static const char *const parts[] = {
        "<script", "<link", "<img", "src=", "href=", "url(", "@import"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_null(strstr(html, parts[i]));
    free(html);
    free(page);
    free(rows);
    free(model);
}

static char *file_of(const char *name, const char *text) {
    const char *path = test_file(name, text, strlen(text));
    return strdup(path);
}

/* What a row says in HTML stays text. */
static void a_page_escapes_rows(void **state) {
    (void)state;
    char *model = cli_model(), *page = cli_path("page.html");
    char *rows = file_of("bad.jsonl", "{\"text\": \"<script>x</script> & more\"}\n");
    cli_result result = cli_ok(ARGS("data", "--model", model, "--data", rows, "--html", page));
    cli_free(&result);
    char *html = NULL;
    size_t n = 0;
    assert_ok(file_read_all(&html, &n, page, 1 << 20, &test_error));
    assert_null(strstr(html, "<script"));
    assert_non_null(strstr(html, "&lt;"));
    free(html);
    free(rows);
    free(page);
    free(model);
}

static void both_answers_are_shown(void **state) {
    (void)state;
    char *model = cli_model();
    char *rows =
        file_of("pairs.jsonl",
                "{\"prompt\": \"Once\", \"chosen\": \" a cat\", \"rejected\": \" a dog\"}\n");
    json_t *data = cli_json(ARGS("data", "--model", model, "--data", rows, "--json"));
    const json_t *shown = cli_member(data, "rows");
    assert_int_equal(json_array_size(shown), 2);
    assert_string_equal(json_string_value(cli_member(json_array_get(shown, 0), "answer")),
                        "chosen");
    assert_string_equal(json_string_value(cli_member(json_array_get(shown, 1), "answer")),
                        "rejected");
    json_decref(data);
    data =
        cli_json(ARGS("data", "--model", model, "--data", rows, "--train-on", "chosen", "--json"));
    assert_true(cli_number(cli_member(data, "summary"), "rows") == 1);
    json_decref(data);
    cli_result result = cli_run(NULL, ARGS("eval", "--model", model, "--data", rows));
    assert_int_equal(result.status, 2);
    assert_non_null(strstr(strbuf_text(&result.err), "pairs.jsonl:1: a preference row"));
    cli_free(&result);
    free(rows);
    free(model);
}

static void statistics(void **state) {
    (void)state;
    char *model = cli_model();
    char *rows = file_of("mixed.jsonl", "{\"body\": \"ab\"}\n{\"body\": \"\u0431\u0432\"}\n"
                                        "{\"body\": \"ab\"}\n");
    json_t *data = cli_json(
        ARGS("data", "--model", model, "--data", rows, "--columns", "text=body", "--json"));
    const json_t *summary = cli_member(data, "summary");
    assert_true(cli_number(cli_member(summary, "letters_by_script"), "Latin") == 4);
    assert_true(cli_number(cli_member(summary, "letters_by_script"), "Cyrillic") == 2);
    assert_true(cli_number(cli_member(summary, "findings"), "duplicate") == 1);
    json_decref(data);
    data = cli_json(ARGS("data", "--model", model, "--data", rows, "--columns", "text=body",
                         "--dedup", "near", "--json"));
    assert_true(cli_number(cli_member(data, "summary"), "rows") == 2);
    json_decref(data);
    free(rows);
    free(model);
}

/* Half of the pairs once an epoch, one row held out: 1 + 2 * 3 rows less the held-out one. */
static void shares_and_a_split_make_the_steps(void **state) {
    (void)state;
    char *model = cli_model(), *output = cli_path("shares"), named[512];
    char *pairs = file_of("two.jsonl",
                          "{\"prompt\": \"Once\", \"chosen\": \" a cat\", \"rejected\": \"x\"}\n"
                          "{\"prompt\": \"Once\", \"chosen\": \" a dog\", \"rejected\": \"y\"}\n");
    char *texts =
        file_of("three.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"cd\"}\n{\"text\": \"ef\"}\n");
    snprintf(named, sizeof named, "%s:2", texts);
    json_t *result =
        cli_json(ARGS("train", "--model", model, "--data", pairs, "--data", named, "--train-on",
                      "chosen", "--eval-split", "0.2", "--output-dir", output, "--num-train-epochs",
                      "1", "--per-device-train-batch-size", "1", "--json"));
    double steps = cli_number(result, "steps");
    assert_true(steps == 7 || steps == 6); /* the held-out row was a pair, or came twice */
    assert_true(cli_number(result, "eval_loss") > 0);
    json_decref(result);
    cli_refused("give one", ARGS("train", "--model", model, "--data", texts, "--eval-data", texts,
                                 "--eval-split", "0.2", "--output-dir", "none"));
    cli_refused("--train-on chosen",
                ARGS("train", "--model", model, "--data", pairs, "--output-dir", "none"));
    free(texts);
    free(pairs);
    free(output);
    free(model);
}

/* The plan knows what an epoch has: shares, the split, and rows that are not there yet. */
static void plan_is_the_run(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), named[512];
    snprintf(named, sizeof named, "%s:3", rows);
    const char *const options[][6] = {
        {"--data", named, "--eval-split", "0.3", "--num-train-epochs", "1"},
        {"--data", rows, "--streaming", "--max-length=64", "--max-steps", "2"}};
    for (size_t i = 0; i < 2; i++) {
        const char *const *o = options[i];
        char *output = cli_path(i ? "planned-stream" : "planned");
        json_t *plan =
            cli_json(ARGS("plan", "--model", model, o[0], o[1], o[2], o[3], o[4], o[5], "--json"));
        json_t *run = cli_json(ARGS("train", "--model", model, o[0], o[1], o[2], o[3], o[4], o[5],
                                    "--output-dir", output, "--json"));
        assert_true(cli_number(cli_member(plan, "bytes"), "total") ==
                    cli_number(run, "planned_memory_bytes"));
        json_decref(plan);
        json_decref(run);
        free(output);
    }
    free(rows);
    free(model);
}

/* Row numbers of what the gate refuses. */
static void a_refused_set_names_its_rows(void **state) {
    (void)state;
    char *model = cli_model();
    char *rows = file_of("none.jsonl", "{\"input_ids\": [5, 6], \"labels\": [-100, -100]}\n"
                                       "{\"input_ids\": [5]}\n");
    cli_result result = cli_run(NULL, ARGS("data", "--model", model, "--data", rows));
    assert_int_equal(result.status, 2);
    assert_non_null(strstr(strbuf_text(&result.err), "1 with nothing supervised: "));
    assert_non_null(strstr(strbuf_text(&result.err), "none.jsonl:1; 1 of one token: "));
    assert_non_null(strstr(strbuf_text(&result.err), "none.jsonl:2)"));
    assert_int_equal(result.out.length, 0);
    cli_free(&result);
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
        cmocka_unit_test(a_page_needs_nothing_else),
        cmocka_unit_test(a_page_escapes_rows),
        cmocka_unit_test(both_answers_are_shown),
        cmocka_unit_test(statistics),
        cmocka_unit_test(shares_and_a_split_make_the_steps),
        cmocka_unit_test(plan_is_the_run),
        cmocka_unit_test(a_refused_set_names_its_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
