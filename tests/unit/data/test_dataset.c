/* Files to data sets: what is kept, cut and left out, and what is refused. */
#include "tests/support/support.h"

#include "train/data/dataset.h"
#include "train/data/templates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tokenizer *bytes; /* one token a byte; BOS 258, EOS 257 */
static data_templates own;
static strbuf said;

static int setup(void **state) {
    (void)state;
    assert_ok(tokenizer_load(&bytes, test_fixture("data/bytes"), NULL, &test_error));
    assert_ok(data_templates_load(&own, test_fixture("data/bytes"), NULL, &test_error));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tokenizer_destroy(&bytes);
    data_templates_free(&own);
    strbuf_free(&said);
    return 0;
}

static void hear(void *context, message_level level, const char *text) {
    (void)context;
    strbuf_printf(&said, "%s%s\n", level == MESSAGE_WARNING ? "warning: " : "", text);
}

static dataset_options options_for(const char *const *paths, size_t n, int32_t max_length) {
    strbuf_clear(&said);
    return (dataset_options){.paths = paths,
                             .n_paths = n,
                             .tokenizer = bytes,
                             .chat = own.chat,
                             .max_length = max_length,
                             .messages = {.emit = hear}};
}

static const char *text_file(const char *name, const char *text) {
    return test_file(name, text, strlen(text));
}

static dataset *open_file(const char *name, const char *text, int32_t max_length) {
    const char *path = text_file(name, text);
    dataset_options options = options_for(&path, 1, max_length);
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    return d;
}

static void assert_bad(const char *name, const char *text, const char *message) {
    const char *path = text_file(name, text);
    dataset_options options = options_for(&path, 1, 64);
    dataset *d;
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_INPUT, message);
    assert_null(d);
}

static void assert_said(const char *text) {
    if (!strstr(strbuf_text(&said), text))
        fail_msg("\"%s\" was not said, but:\n%s", text, strbuf_text(&said));
}

static const char four_rows[] = "{\"input_ids\": [1, 2, 3]}\n"
                                "{\"input_ids\": [4]}\n"
                                "{\"input_ids\": [5, 6], \"labels\": [5, -100]}\n"
                                "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7, 8]}\n";

static void test_rows_cut_and_left_out_are_told(void **state) {
    (void)state;
    dataset *d = open_file("d.jsonl", four_rows, 5);
    assert_int_equal(dataset_rows(d), 2);
    assert_int_equal(dataset_row(d, 1).n, 5);
    assert_int_equal(dataset_row(d, 1).source.line, 4);
    assert_int_equal(dataset_row(d, 1).source.ordinal, 3);
    assert_int_equal(dataset_row(d, 1).targets[4], NO_TARGET);
    assert_non_null(strstr(dataset_path(d, 0), "/d.jsonl"));
    assert_null(dataset_path(d, 1));
    const gate_report *gate = dataset_gate(d);
    assert_int_equal(gate->rows_read, 4);
    assert_int_equal(gate->found[GATE_ONE_TOKEN].rows, 1);
    assert_int_equal(gate->found[GATE_ONE_TOKEN].shown[0].line, 2);
    assert_int_equal(gate->found[GATE_UNSUPERVISED].rows, 1);
    assert_int_equal(gate->found[GATE_CUT].rows, 1);
    assert_said("warning: 1 of 4 rows have one token, which predicts nothing, and are left out");
    assert_said("d.jsonl:3)");
    assert_said("1 of 4 rows are longer than max_length and were cut at the end");
    assert_said("d.jsonl:4)");
    dataset_close(&d);
}

static void test_evaluation_keeps_every_row(void **state) {
    (void)state;
    const char *path = text_file("d.jsonl", four_rows);
    dataset_options options = options_for(&path, 1, 5);
    options.for_evaluation = true;
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 4);
    assert_int_equal(dataset_row(d, 1).n, 1);
    assert_int_equal(dataset_count(d).supervised, 2 + 0 + 0 + 4);
    assert_said("have one token, which predicts nothing (");
    dataset_close(&d);
    options.rows_max = 2;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 2);
    dataset_close(&d);
}

/* D9 */
static void test_every_label_masked_after_truncation(void **state) {
    (void)state;
    static const char row[] = "{\"prompt\": \"a prompt that is longer than sixty-four bytes, all "
                              "of it before the answer\", "
                              "\"completion\": \"yes\"}\n";
    assert_bad("d.jsonl", row,
               "not one of 1 rows has a supervised token within max_length 64 (1 with nothing "
               "supervised: ");
    assert_said("d.jsonl:1");
    char two[1024];
    snprintf(two, sizeof two, "%s{\"prompt\": \"a\", \"completion\": \"b\"}\n", row);
    dataset *d = open_file("d.jsonl", two, 64);
    assert_int_equal(dataset_rows(d), 1);
    assert_said("1 of 2 rows have no supervised token within the length limit and are left out");
    dataset_close(&d);
}

/* A document is split into windows for training, and cut for evaluation. */
static void test_text_file(void **state) {
    (void)state;
    const char *path = text_file("t.txt", "abcdefg\n\n");
    dataset_options options = options_for(&path, 1, 4);
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 3);
    const int32_t first[] = {258, 'a', 'b', 'c'}, last[] = {'\n', '\n'};
    assert_memory_equal(dataset_row(d, 0).ids, first,
                        sizeof first); /* BOS, as the post-processor says */
    assert_int_equal(dataset_row(d, 1).n, 4);
    assert_int_equal(dataset_row(d, 2).n, 2); /* the final newline is kept, and no EOS is added */
    assert_memory_equal(dataset_row(d, 2).ids, last, sizeof last);
    assert_int_equal(dataset_row(d, 2).source.first_token, 8);
    assert_int_equal(dataset_gate(d)->rows_read, 1);
    assert_int_equal(dataset_gate(d)->found[GATE_CUT].rows, 0);
    dataset_close(&d);
    options.for_evaluation = true;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 1);
    assert_int_equal(dataset_row(d, 0).n, 4);
    assert_int_equal(dataset_gate(d)->found[GATE_CUT].rows, 1);
    dataset_close(&d);
}

static void test_several_files(void **state) {
    (void)state;
    char first[256], second[256];
    snprintf(first, sizeof first, "%s", text_file("a.jsonl", "{\"text\": \"ab\"}\n"));
    snprintf(second, sizeof second, "%s",
             text_file("b.json", "[{\"input_ids\": [1, 2]}, {\"input_ids\": [3, 4]}]"));
    const char *paths[] = {first, second};
    dataset_options options = options_for(paths, 2, 64);
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 3);
    assert_int_equal(dataset_row(d, 2).source.file, 1);
    assert_int_equal(dataset_row(d, 2).source.line, 2);
    assert_int_equal(dataset_row(d, 2).source.ordinal, 2);
    assert_string_equal(dataset_path(d, 1), second);
    dataset_close(&d);
}

/* D1 */
static void test_empty_file(void **state) {
    (void)state;
    assert_bad("e.jsonl", "", "e.jsonl");
    assert_bad("e.jsonl", "\n\n", "e.jsonl");
    assert_bad("e.json", "[]", "e.json: expected rows of data, found none");
    const char *path = "/nowhere/d.jsonl";
    dataset_options options = options_for(&path, 1, 64);
    dataset *d;
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_INPUT, "/nowhere/d.jsonl");
}

/* D2 */
static void test_blank_lines_crlf_and_bom(void **state) {
    (void)state;
    dataset *d =
        open_file("d.jsonl", "\xEF\xBB\xBF{\"text\": \"ab\"}\r\n\r\n\n{\"text\": \"cd\"}\r\n", 64);
    assert_int_equal(dataset_rows(d), 2);
    assert_int_equal(dataset_row(d, 1).source.line, 4);
    dataset_close(&d);
}

/* D3, D4, D6, D7, D11: the place reaches the message. */
static void test_bad_lines(void **state) {
    (void)state;
    assert_bad("d.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"c", "d.jsonl:2");
    assert_bad("d.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"\xFF\"}\n", "d.jsonl:2");
    assert_bad("d.jsonl", "{\"text\": \"ab\"}\n[1]\n", "d.jsonl:2");
    assert_bad("d.jsonl", "{\"text\": \"ab\"}\n{\"texts\": \"cd\"}\n",
               "d.jsonl:2: the row's keys (texts)");
    assert_bad("d.jsonl", "{\"text\": \"ab\", \"text\": \"cd\"}\n", "d.jsonl:1");
}

/* D8 */
static void test_mixed_kinds(void **state) {
    (void)state;
    assert_bad(
        "d.jsonl", "{\"text\": \"ab\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n",
        "d.jsonl:2: this row has prompt + completion, but the file began (line 1) with text");
    dataset *d = open_file("d.jsonl",
                           "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n"
                           "{\"conversations\": [{\"from\": \"gpt\", \"value\": \"a\"}]}\n",
                           64);
    assert_int_equal(dataset_rows(d), 2); /* equal once normalised */
    data_row_view a = dataset_row(d, 0), b = dataset_row(d, 1);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.ids, b.ids, (size_t)a.n * sizeof *a.ids);
    assert_memory_equal(a.targets, b.targets, (size_t)a.n * sizeof *a.targets);
    dataset_close(&d);
}

/* D10 */
static void test_one_token_sample(void **state) {
    (void)state;
    assert_bad("d.jsonl", "{\"input_ids\": [1]}\n{\"input_ids\": []}\n",
               "d.jsonl:1; 1 without a token: ");
}

/* D15 */
static void test_file_edited_between_run_and_resume(void **state) {
    (void)state;
    uint64_t hashes[4];
    static const char *const files[] = {"{\"text\": \"ab\"}\n", "{\"text\": \"ab\"}\n\n",
                                        "{\"text\": \"aB\"}\n",
                                        "{\"text\": \"a\"}\n{\"text\": \"b\"}\n"};
    for (int i = 0; i < 4; i++) {
        dataset *d = open_file("d.jsonl", files[i], 64);
        hashes[i] = dataset_hash(d);
        dataset_close(&d);
    }
    assert_int_equal(hashes[1], hashes[0]); /* the rows are what counts */
    assert_int_not_equal(hashes[2], hashes[0]);
    assert_int_not_equal(hashes[3], hashes[0]);
}

/* F6: tokenising stops too. */
static void test_stop_while_reading(void **state) {
    (void)state;
    const char *path = text_file("d.jsonl", "{\"text\": \"ab\"}\n");
    dataset_options options = options_for(&path, 1, 64);
    volatile sig_atomic_t stop = 1;
    options.stop = &stop;
    dataset *d;
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_INTERRUPTED, "stopped");
}

static void test_many_findings_show_the_first_places(void **state) {
    (void)state;
    strbuf rows = {0};
    for (int i = 0; i < 20; i++)
        strbuf_add_text(&rows, "{\"text\": \"<s>ab\", \"a\": 1, \"b\": 2, \"aa\": 3}\n");
    dataset *d = open_file("d.jsonl", strbuf_text(&rows), 64);
    assert_said("20 of 20 rows began with two BOS tokens");
    assert_said("d.jsonl:1, :2, :3, :4, :5, ...)");
    assert_said("20 of 20 rows have columns that are not used: a, b, aa (");
    dataset_close(&d);
    strbuf_free(&rows);
}

static void test_template_that_prints_the_date(void **state) {
    (void)state;
    static const char source[] =
        "{% for m in messages %}{{ strftime_now('%Y') }}{{ m.content }}<|im_end|>{% endfor %}";
    const char *path =
        text_file("d.jsonl", "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n");
    dataset_options options = options_for(&path, 1, 64);
    chat_template *dated;
    assert_ok(template_parse(&dated, source, sizeof source - 1, "t.jinja", &test_error));
    options.chat = dated;
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_said("prints the current date");
    dataset_close(&d);
    options.now = 1000000000; /* 2001 */
    strbuf_clear(&said);
    assert_ok(dataset_open(&d, &options, &test_error));
    const int32_t expected[] = {'2', '0', '0', '1', 'a', 257};
    assert_int_equal(dataset_row(d, 0).n, 6);
    assert_memory_equal(dataset_row(d, 0).ids, expected, sizeof expected);
    assert_null(strstr(strbuf_text(&said), "date"));
    dataset_close(&d);
    template_destroy(&dated);
}

static void test_template_choice(void **state) {
    (void)state;
    data_templates t;
    assert_ok(data_templates_load(&t, test_fixture("data/bytes"), "none", &test_error));
    assert_null(t.chat);
    data_templates_free(&t);
    assert_ok(data_templates_load(&t, test_fixture("data/bytes"), "chatml", &test_error));
    assert_non_null(t.chat);
    data_templates_free(&t);
    assert_ok(data_templates_load(&t, "/nowhere", test_fixture("data/bytes/chat_template.jinja"),
                                  &test_error));
    assert_string_equal(template_source(t.chat), template_source(own.chat));
    data_templates_free(&t);
    assert_int_not_equal(data_templates_load(&t, "/nowhere", "no-such-file.jinja", &test_error),
                         GRAFT_OK);
    assert_non_null(strstr(test_error.message, "no-such-file.jinja"));
    const char *bad = text_file("bad.jinja", "{% if %}");
    assert_int_not_equal(data_templates_load(&t, "/nowhere", bad, &test_error), GRAFT_OK);
    assert_non_null(strstr(test_error.message, "bad.jinja"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_cut_and_left_out_are_told),
        cmocka_unit_test(test_evaluation_keeps_every_row),
        cmocka_unit_test(test_every_label_masked_after_truncation),
        cmocka_unit_test(test_text_file),
        cmocka_unit_test(test_several_files),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_blank_lines_crlf_and_bom),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_mixed_kinds),
        cmocka_unit_test(test_one_token_sample),
        cmocka_unit_test(test_file_edited_between_run_and_resume),
        cmocka_unit_test(test_stop_while_reading),
        cmocka_unit_test(test_many_findings_show_the_first_places),
        cmocka_unit_test(test_template_that_prints_the_date),
        cmocka_unit_test(test_template_choice),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
