/* Which files, which rows of them, under which names, how often and with what weight. */
#include "tests/support/support.h"

#include "train/data/data_files.h"
#include "train/data/dataset.h"
#include "train/data/packing.h"
#include "train/data/rows.h"
#include "train/data/templates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
    (void)level;
    strbuf_printf(&said, "%s\n", text);
}

static char path_of[512];

static dataset_options options_for(const char *const *path, const char *rows) {
    snprintf(path_of, sizeof path_of, "%s", test_file("d.jsonl", rows, strlen(rows)));
    strbuf_clear(&said);
    return (dataset_options){.paths = path,
                             .n_paths = 1,
                             .tokenizer = bytes,
                             .max_length = 64,
                             .messages = {.emit = hear}};
}

static const char *const one_path[] = {path_of};

static void assert_said(const char *text) {
    if (!strstr(strbuf_text(&said), text))
        fail_msg("\"%s\" was not said, but:\n%s", text, strbuf_text(&said));
}

/* ---- Files ------------------------------------------------------------------------------------
 */

static void test_folders_patterns_and_shares(void **state) {
    (void)state;
    char folder[256], named[512];
    snprintf(folder, sizeof folder, "%s/set", test_folder());
    mkdir(folder, 0700);
    static const char *const names[] = {"b.jsonl",   "a.jsonl.gz",    "c.txt",
                                        "README.md", ".hidden.jsonl", "dataset_info.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(named, sizeof named, "set/%s", names[i]);
        test_file(named, "x", 1);
    }
    data_files files = {0};
    assert_ok(data_files_add(&files, folder, &test_error));
    assert_int_equal(files.n, 3);
    assert_non_null(strstr(files.paths[0], "/a.jsonl.gz"));
    assert_non_null(strstr(files.paths[2], "/c.txt"));
    snprintf(named, sizeof named, "%s/[bc].*:0.25", folder);
    assert_ok(data_files_add(&files, named, &test_error));
    assert_int_equal(files.n, 5);
    assert_non_null(strstr(files.paths[3], "/b.jsonl"));
    assert_true(files.shares[3] == 0.25 && files.shares[0] == 1);
    assert_ok(data_files_add(&files, "missing.jsonl:2", &test_error)); /* its reader refuses it */
    assert_string_equal(files.paths[5], "missing.jsonl");
    assert_true(files.shares[5] == 2);
    assert_ok(data_files_add(&files, "c:rows.jsonl", &test_error));
    assert_string_equal(files.paths[6], "c:rows.jsonl");
    test_file("set/x.jsonl:3", "x", 1); /* a file of that whole name wins */
    snprintf(named, sizeof named, "%s/x.jsonl:3", folder);
    assert_ok(data_files_add(&files, named, &test_error));
    assert_string_equal(files.paths[7], named);
    data_files_free(&files);
}

static void test_refused_files(void **state) {
    (void)state;
    char folder[256], named[512];
    data_files files = {0};
    snprintf(folder, sizeof folder, "%s/other", test_folder());
    mkdir(folder, 0700);
    assert_refused(data_files_add(&files, folder, &test_error), GRAFT_E_INPUT,
                   "expected data files (.jsonl, .ndjson, .json, .txt) in this folder, found none");
    test_file("other/state.json", "{}", 2);
    test_file("other/data-00000-of-00001.arrow", "x", 1);
    assert_ok(data_files_add(&files, folder, &test_error)); /* the reader says how to convert */
    assert_int_equal(files.n, 1);
    dataset_options options = {.paths = (const char *const *)files.paths,
                               .n_paths = 1,
                               .tokenizer = bytes,
                               .max_length = 64};
    dataset *d;
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_UNSUPPORTED,
                   "datasets.Dataset.from_file(\"FILE\").to_json");
    snprintf(named, sizeof named, "%s/*.jsonl", folder);
    assert_refused(data_files_add(&files, named, &test_error), GRAFT_E_INPUT,
                   "no file matches this pattern");
    assert_refused(data_files_add(&files, "a.jsonl:0", &test_error), GRAFT_E_USAGE,
                   "expected more than 0");
    assert_refused(data_files_add(&files, "a.jsonl:1e9", &test_error), GRAFT_E_USAGE, "at most");
    data_files_free(&files);
}

/* Half of the first file and twice the second, every epoch; each epoch draws its own half. */
static void test_shares_make_the_epoch(void **state) {
    (void)state;
    const sampler_group groups[] = {{10, 0.5}, {3, 2}, {4, 1}, {1000, 1e-6}};
    sampler *s;
    assert_ok(sampler_create_groups(&s, groups, 4, 7, true, &test_error));
    assert_int_equal(sampler_rows_per_epoch(s), 5 + 6 + 4 + 1);
    int counts[2][1017] = {{0}};
    for (int epoch = 0; epoch < 2; epoch++)
        while (sampler_cursor(s).epoch == epoch) {
            const uint64_t *rows;
            int64_t n = sampler_next(s, &rows, 3);
            for (int64_t i = 0; i < n; i++)
                counts[epoch][rows[i]]++;
        }
    int half[2] = {0}, differ = 0;
    for (int epoch = 0; epoch < 2; epoch++) {
        for (int i = 0; i < 10; i++) {
            assert_true(counts[epoch][i] <= 1);
            half[epoch] += counts[epoch][i];
        }
        for (int i = 10; i < 13; i++)
            assert_int_equal(counts[epoch][i], 2);
        for (int i = 13; i < 17; i++)
            assert_int_equal(counts[epoch][i], 1);
        assert_int_equal(half[epoch], 5);
    }
    for (int i = 0; i < 10; i++)
        differ += counts[0][i] != counts[1][i];
    assert_true(differ > 0);
    sampler_destroy(&s);
    assert_ok(sampler_create_groups(&s, groups, 2, 7, false, &test_error)); /* files in order */
    const uint64_t *rows;
    assert_int_equal(sampler_next(s, &rows, 99), 11);
    for (int i = 1; i < 5; i++)
        assert_true(rows[i] > rows[i - 1] && rows[i] < 10);
    for (int i = 0; i < 6; i++)
        assert_int_equal(rows[5 + i], 10 + i % 3);
    sampler_destroy(&s);
}

static void test_shares_weights_and_tasks_are_in_the_hash(void **state) {
    (void)state;
    const double half = 0.5;
    dataset_options options = options_for(one_path, "{\"text\": \"ab\"}\n");
    uint64_t hash[4];
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    hash[0] = dataset_hash(d);
    dataset_close(&d);
    options.shares = &half;
    assert_ok(dataset_open(&d, &options, &test_error));
    hash[1] = dataset_hash(d);
    sampler_group *groups;
    size_t n;
    assert_ok(dataset_groups(&groups, &n, d, &test_error));
    assert_int_equal(n, 1);
    assert_true(groups[0].rows == 1 && groups[0].share == 0.5);
    free(groups);
    dataset_close(&d);
    options = options_for(one_path, "{\"text\": \"ab\", \"weight\": 2}\n");
    assert_ok(dataset_open(&d, &options, &test_error));
    hash[2] = dataset_hash(d);
    dataset_close(&d);
    options = options_for(one_path, "{\"text\": \"ab\", \"task_id\": 2}\n");
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_row(d, 0).task, 2);
    hash[3] = dataset_hash(d);
    dataset_close(&d);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            assert_true(hash[i] != hash[k]);
}

/* ---- Columns ----------------------------------------------------------------------------------
 */

static void test_columns(void **state) {
    (void)state;
    static const char *const swap[] = {"prompt=completion", "completion=prompt"};
    dataset_options options = options_for(one_path, "{\"prompt\": \"a\", \"completion\": \"q\"}\n");
    options.columns = swap;
    options.n_columns = 2;
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    const int32_t expected[] = {258, 'q', 'a', 257};
    assert_memory_equal(dataset_row(d, 0).ids, expected, sizeof expected);
    dataset_close(&d);

    static const char *const one[] = {"text=body"};
    options = options_for(one_path, "{\"body\": \"a\", \"text\": \"dropped\"}\n");
    options.columns = one;
    options.n_columns = 1;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_row(d, 0).n, 2);
    assert_null(strstr(strbuf_text(&said), "not used"));
    dataset_close(&d);
}

static void assert_columns_refused(const char *const *columns, size_t n, const char *message) {
    dataset_options options = options_for(one_path, "{\"text\": \"abc\"}\n");
    options.columns = columns;
    options.n_columns = n;
    dataset *d;
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_USAGE, message);
}

static void test_bad_columns(void **state) {
    (void)state;
    assert_columns_refused((const char *const[]){"text"}, 1, "expected NAME=COLUMN");
    assert_columns_refused((const char *const[]){"promt=text"}, 1, "no row has a \"promt\"");
    assert_columns_refused((const char *const[]){"text=a", "text=b"}, 2, "names a column again");
    assert_columns_refused((const char *const[]){"prompt=question"}, 1,
                           "no row has a column \"question\"");
}

/* ---- Preference rows --------------------------------------------------------------------------
 */

static const char pairs[] = "{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}\n"
                            "{\"prompt\": \"q\", \"chosen\": \"c\", \"rejected\": \"d\"}\n";
static const char judged[] = "{\"prompt\": \"p\", \"completion\": \"a\", \"label\": false}\n"
                             "{\"prompt\": \"q\", \"completion\": \"c\", \"label\": true}\n";

static void test_preference_rows_are_refused_by_name(void **state) {
    (void)state;
    dataset *d;
    dataset_options options = options_for(one_path, pairs);
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_UNSUPPORTED,
                   "d.jsonl:1: a preference row (chosen + rejected)");
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_UNSUPPORTED,
                   "--train-on chosen trains the better answers");
    options = options_for(one_path, judged);
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_UNSUPPORTED,
                   "a preference row (a label of true or false)");
}

static void test_chosen_answers_are_completions(void **state) {
    (void)state;
    dataset *d;
    dataset_options options = options_for(one_path, pairs);
    options.preferences = PREFERENCE_CHOSEN;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 2);
    const int32_t second[] = {258, 'q', 'c', 257};
    assert_memory_equal(dataset_row(d, 1).ids, second, sizeof second);
    assert_int_equal(dataset_row(d, 1).supervised, 2);
    assert_int_equal(dataset_row(d, 1).source.line, 2);
    dataset_close(&d);
    options = options_for(one_path, judged);
    options.preferences = PREFERENCE_CHOSEN;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 1);
    assert_int_equal(dataset_row(d, 0).source.line, 2);
    assert_said("1 of 2 rows are judged bad (label false) and are left out");
    dataset_close(&d);
}

static void test_both_answers(void **state) {
    (void)state;
    dataset *d;
    dataset_options options = options_for(one_path, pairs);
    options.preferences = PREFERENCE_BOTH;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 4);
    for (int64_t i = 0; i < 4; i++) {
        data_row_view row = dataset_row(d, i);
        assert_int_equal(row.source.answer, i % 2 ? ANSWER_REJECTED : ANSWER_CHOSEN);
        assert_int_equal(row.source.ordinal, i / 2);
        assert_int_equal(row.ids[2], "abcd"[i]);
    }
    dataset_close(&d);
    options.rows_max = 1; /* rows, not answers */
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 2);
    dataset_close(&d);
}

/* ---- Weights ----------------------------------------------------------------------------------
 */

static void test_weights_scale_the_loss(void **state) {
    (void)state;
    dataset *d;
    dataset_options options = options_for(one_path, "{\"text\": \"ab\", \"weight\": 0.5}\n"
                                                    "{\"text\": \"cd\"}\n"
                                                    "{\"text\": \"ef\", \"weight\": 0}\n");
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 2);
    assert_said("1 of 3 rows have weight 0 and are left out");
    batch_builder b = {0};
    layout counted = layout_counting();
    batch_builder_layout(&b, &counted, 6, 2, 1, 0);
    void *memory = aligned_alloc(LAYOUT_ALIGNMENT, counted.high_water);
    layout assigned = layout_over(memory, counted.high_water);
    batch_builder_layout(&b, &assigned, 6, 2, 1, 0);
    const uint64_t rows[] = {0, 1};
    const batch *built =
        batch_build(&b, d, rows, 2, &(batch_settings){.step_supervised = 4, .training = true});
    assert_true(built->weights[0] == 0.125f); /* the divisor counts targets, not weights */
    assert_true(built->weights[3] == 0.25f);
    free(memory);
    dataset_close(&d);
    options.for_evaluation = true;
    assert_ok(dataset_open(&d, &options, &test_error));
    assert_int_equal(dataset_rows(d), 3);
    assert_true(dataset_row(d, 0).weight == 1);
    dataset_close(&d);
}

/* ---- Long texts -------------------------------------------------------------------------------
 */

/* Every token but the first is a target once, whatever the stride; in the windows' overlap the
 * second time as context. */
static void test_windows_train_every_token_once(void **state) {
    (void)state;
    for (int32_t stride = 1; stride < 5; stride++) {
        dataset_options options = options_for(one_path, "{\"text\": \"abcdefghijklmnopq\"}\n");
        options.max_length = 5;
        options.text_windows = true;
        options.stride = stride;
        dataset *d;
        assert_ok(dataset_open(&d, &options, &test_error));
        int trained[256] = {0};
        for (int64_t i = 0; i < dataset_rows(d); i++) {
            data_row_view row = dataset_row(d, i);
            assert_true(row.n <= 5 && row.supervised > 0);
            for (int32_t t = 0; t < row.n; t++)
                if (row.targets[t] != NO_TARGET)
                    trained[row.targets[t]]++;
        }
        for (int c = 'a'; c <= 'q'; c++)
            assert_int_equal(trained[c], 1);
        assert_int_equal(dataset_gate(d)->found[GATE_CUT].rows, 0);
        dataset_close(&d);
    }
    dataset_options options = options_for(one_path, "{\"text\": \"abcdefghij\"}\n");
    options.max_length = 5;
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error)); /* without a stride rows are cut */
    assert_int_equal(dataset_rows(d), 1);
    assert_said("longer than max_length");
    dataset_close(&d);
    options.stride = 5;
    assert_refused(dataset_open(&d, &options, &test_error), GRAFT_E_USAGE, "stride is 5");
}

static void test_texts_end_in_eos_when_they_are_trained(void **state) {
    (void)state;
    dataset_options options = options_for(one_path, "{\"text\": \"ab\"}\n"
                                                    "{\"text\": \"ab<|im_end|>\"}\n");
    options.text_ends = true;
    dataset *d;
    assert_ok(dataset_open(&d, &options, &test_error));
    const int32_t expected[] = {258, 'a', 'b', 257};
    for (int64_t i = 0; i < 2; i++) {
        assert_int_equal(dataset_row(d, i).n, 4);
        assert_memory_equal(dataset_row(d, i).ids, expected, sizeof expected);
        assert_int_equal(dataset_row(d, i).supervised, 3);
    }
    assert_said("1 of 2 rows are the same as an earlier row");
    dataset_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders_patterns_and_shares),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_shares_make_the_epoch),
        cmocka_unit_test(test_shares_weights_and_tasks_are_in_the_hash),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_bad_columns),
        cmocka_unit_test(test_preference_rows_are_refused_by_name),
        cmocka_unit_test(test_chosen_answers_are_completions),
        cmocka_unit_test(test_both_answers),
        cmocka_unit_test(test_weights_scale_the_loss),
        cmocka_unit_test(test_windows_train_every_token_once),
        cmocka_unit_test(test_texts_end_in_eos_when_they_are_trained),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
