/* A run that was stopped and goes on ends with the same bytes as one that was not; and what a
 * resume refuses (table R of docs/bad-input.md). */
#include "tests/train/bench.h"
#include "tests/train/spy.h"

#include "base/atomic_file.h"
#include "base/file_map.h"
#include "train/run_lock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS = 10,
    LONGEST = 40,
    TOTAL = 9,
    SAVE_EVERY = 3
}; /* steps of 4, 4 and 2 rows; 3 epochs */

static void open_run(train_bench *b, bench_backend kind, const char *name) {
    bench_open(b, kind, 1, NULL, name);
    bench_data(b, ROWS, LONGEST);
    b->config.num_train_epochs = 3;
    b->config.shuffle = true;
    b->config.per_device_train_batch_size = 1;
    b->config.gradient_accumulation_steps = 4;
    b->config.schedule = SCHEDULE_COSINE;
    b->config.warmup_ratio = 0.2;
    b->config.max_grad_norm = 1;
    b->config.save_steps = SAVE_EVERY;
}

static const char *last_checkpoint(const char *output) {
    static char paths[2][BENCH_PATH_BYTES * 2];
    static unsigned turn;
    char *path = paths[turn++ % 2];
    snprintf(path, sizeof paths[0], "%s/checkpoint-%d", output, TOTAL);
    return path;
}

/* The folder of a run that nothing disturbed. */
static const char *whole_run(bench_backend kind) {
    static char outputs[2][BENCH_PATH_BYTES];
    if (!*outputs[kind]) {
        train_bench b;
        open_run(&b, kind, kind == BENCH_CPU ? "whole-cpu" : "whole-reference");
        assert_ok(bench_run(&b));
        assert_int_equal(b.n_steps, TOTAL);
        snprintf(outputs[kind], sizeof outputs[kind], "%s", b.output);
        bench_close(&b);
    }
    return outputs[kind];
}

static void expect_same_end(const char *a, const char *b) {
    assert_same_file(a, b, "adapter_model.safetensors");
    assert_same_file(last_checkpoint(a), last_checkpoint(b), "state.safetensors");
}

/* Stops at a place, expects a checkpoint of `step` steps, goes on, compares. */
static void stop_and_go_on(bench_backend kind, const char *name, int64_t stop_at_step,
                           int64_t stop_at_pass, int64_t step) {
    train_bench b;
    open_run(&b, kind, name);
    spy_put_in(b.dev);
    the_spy.stop = &b.stop;
    the_spy.stop_at_pass = stop_at_pass;
    b.stop_at = stop_at_step;
    char expected[64];
    snprintf(expected, sizeof expected, "stopped after step %d of %d", (int)step, TOTAL);
    assert_refused(bench_run(&b), GRAFT_E_INTERRUPTED, expected);
    assert_false(path_exists(bench_path(&b, "adapter_model.safetensors")));
    bench_close(&b);

    open_run(&b, kind, name);
    b.config.resume = "";
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_steps, TOTAL - step);
    expect_same_end(whole_run(kind), b.output);
    bench_close(&b);
}

static void stop_after_a_step_in_the_second_epoch(void **state) {
    (void)state;
    stop_and_go_on(BENCH_CPU, "epoch", 5, 0, 5);
    stop_and_go_on(BENCH_REFERENCE, "epoch-reference", 5, 0, 5);
}

/* Micro-batches of one row: pass 15 is the fifth of step 4's four rows and so on. */
static void stop_in_the_middle_of_accumulation(void **state) {
    (void)state;
    stop_and_go_on(BENCH_CPU, "middle", 0, 16, 4); /* 4+4+2+4 rows, then one of four */
}

static void stop_before_the_first_step_is_done(void **state) {
    (void)state;
    stop_and_go_on(BENCH_CPU, "first", 0, 2, 0);
}

static void stop_after_the_last_step(void **state) {
    (void)state;
    train_bench b;
    open_run(&b, BENCH_CPU, "last");
    b.stop_at = TOTAL;
    assert_ok(bench_run(&b)); /* nothing was left to stop */
    expect_same_end(whole_run(BENCH_CPU), b.output);
    bench_close(&b);
}

static void stop_during_evaluation_saves_the_step(void **state) {
    (void)state;
    train_bench b;
    open_run(&b, BENCH_CPU, "evaluating");
    assert_ok(dataset_create(&b.eval_data, &test_error));
    bench_add_rows(b.eval_data, 4, LONGEST, 9);
    b.config.eval_steps = 1;
    spy_put_in(b.dev);
    the_spy.stop = &b.stop;
    the_spy.stop_at_pass = 6; /* four rows of step 1, then the evaluation */
    assert_refused(bench_run(&b), GRAFT_E_INTERRUPTED, "stopped after step 1");
    assert_true(path_exists(bench_path(&b, "checkpoint-1/manifest.json")));
    bench_close(&b);
}

static void count_lines(const train_bench *b, int expected) {
    char *text;
    size_t n;
    int lines = 0;
    assert_ok(file_read_all(&text, &n, bench_path(b, "metrics.jsonl"), 1 << 20, &test_error));
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, expected);
    free(text);
}

/* Steps 7 and 8 were logged, then the process was lost: the log goes on from step 6. */
static void resume_from_an_older_checkpoint_rewrites_the_log(void **state) {
    (void)state;
    train_bench b;
    open_run(&b, BENCH_CPU, "log");
    b.stop_at = 8;
    assert_refused(bench_run(&b), GRAFT_E_INTERRUPTED, "");
    bench_close(&b);
    char lost[BENCH_PATH_BYTES * 2];
    snprintf(lost, sizeof lost, "%s", bench_path(&b, "checkpoint-8"));
    assert_ok(folder_remove(lost, &test_error));
    open_run(&b, BENCH_CPU, "log");
    b.config.resume = "";
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_steps, 3);
    count_lines(&b, TOTAL);
    expect_same_end(whole_run(BENCH_CPU), b.output);
    bench_close(&b);
}

static void resume_of_a_finished_run_publishes_again(void **state) {
    (void)state;
    train_bench b;
    open_run(&b, BENCH_CPU, "finished");
    assert_ok(bench_run(&b));
    bench_close(&b);
    char first[BENCH_PATH_BYTES * 2];
    snprintf(first, sizeof first, "%s", bench_path(&b, "adapter_model.safetensors"));
    assert_int_equal(remove(first), 0);
    open_run(&b, BENCH_CPU, "finished");
    b.config.resume = "";
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_steps, 0);
    expect_same_end(whole_run(BENCH_CPU), b.output);
    bench_close(&b);
}

/* ---- What is refused ---- */

typedef void change_fn(train_bench *);

/* A resume of the whole run, changed: refused, naming `text`. */
static void refused_resume(change_fn *change, graft_status status, const char *text) {
    char name[64];
    snprintf(name, sizeof name, "%s", strrchr(whole_run(BENCH_CPU), '/') + 1);
    train_bench b;
    open_run(&b, BENCH_CPU, name);
    b.config.resume = "";
    change(&b);
    assert_refused(bench_run(&b), status, text);
    bench_close(&b);
}

static void other_seed(train_bench *b) {
    b->config.seed++;
}

static void other_batch(train_bench *b) {
    b->config.per_device_train_batch_size = 2;
}

/* R4 */
static void resume_with_another_seed_or_batch(void **state) {
    (void)state;
    refused_resume(other_seed, GRAFT_E_INPUT, "seed: expected \"42\"");
    refused_resume(other_batch, GRAFT_E_INPUT, "per_device_train_batch_size: expected 1");
}

static void other_rows(train_bench *b) {
    bench_add_rows(b->data, 1, LONGEST, 5);
}

/* D15 */
static void resume_with_edited_data(void **state) {
    (void)state;
    refused_resume(other_rows, GRAFT_E_INPUT, "the training data has changed");
}

static void other_base(train_bench *b) {
    b->spec.norm_eps *= 2; /* a config.json that says otherwise */
}

/* R5 */
static void resume_on_another_base(void **state) {
    (void)state;
    refused_resume(other_base, GRAFT_E_INPUT, "another base model");
}

static void fewer_steps(train_bench *b) {
    b->config.max_steps = TOTAL - 1;
}

/* R7 */
static void resume_past_max_steps(void **state) {
    (void)state;
    refused_resume(fewer_steps, GRAFT_E_INPUT, "expected a checkpoint of at most 8 steps");
}

static void other_adapter(train_bench *b) {
    adapter_config config = {0};
    assert_ok(adapter_config_copy(&config, &b->adapter->config, &test_error));
    config.lora_alpha = 99;
    adapter_destroy(&b->adapter);
    assert_ok(adapter_create(&b->adapter, &config, &b->spec, 0, NULL, &test_error));
    b->inputs.adapter = b->adapter;
    adapter_config_free(&config);
}

static void resume_with_another_alpha(void **state) {
    (void)state;
    refused_resume(other_adapter, GRAFT_E_INPUT, "adapter: expected");
}

static void named_missing(train_bench *b) {
    b->config.resume = "/nonexistent/checkpoint-1";
}

static void resume_from_a_missing_checkpoint(void **state) {
    (void)state;
    refused_resume(named_missing, GRAFT_E_INPUT,
                   "expected the folder of a checkpoint, found nothing");
}

static void resume_into_an_empty_folder(void **state) {
    (void)state;
    train_bench b;
    open_run(&b, BENCH_CPU, "empty");
    b.config.resume = "";
    assert_refused(bench_run(&b), GRAFT_E_INPUT, "found none");
    assert_false(path_exists(b.output));
    bench_close(&b);
}

static void named_checkpoint_goes_on_elsewhere(void **state) {
    (void)state;
    char from[BENCH_PATH_BYTES * 2];
    snprintf(from, sizeof from, "%s/checkpoint-%d", whole_run(BENCH_CPU), SAVE_EVERY);
    train_bench b;
    open_run(&b, BENCH_CPU, "elsewhere");
    b.config.resume = from;
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_steps, TOTAL - SAVE_EVERY);
    expect_same_end(whole_run(BENCH_CPU), b.output);
    bench_close(&b);
}

/* Back to an earlier step in the same folder: the later checkpoints stay, and are another run's. */
static void named_earlier_checkpoint_begins_a_new_run(void **state) {
    (void)state;
    train_bench b;
    char from[BENCH_PATH_BYTES * 2];
    open_run(&b, BENCH_CPU, "rewound");
    assert_ok(bench_run(&b));
    snprintf(from, sizeof from, "%s", bench_path(&b, "checkpoint-3"));
    bench_close(&b);
    open_run(&b, BENCH_CPU, "rewound");
    b.config.resume = from;
    b.config.learning_rate *= 2;
    b.stop_at = 4;
    assert_refused(bench_run(&b), GRAFT_E_INTERRUPTED, "stopped after step 4");
    assert_non_null(strstr(b.messages, "learning_rate was 0.001"));
    bench_close(&b);
    open_run(&b, BENCH_CPU, "rewound");
    b.config.resume = "";
    b.config.learning_rate *= 2;
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_steps, TOTAL - 4); /* from checkpoint-4, not from the older run's 9 */
    bench_close(&b);
}

/* R10: a fresh run into a folder with an older run's checkpoints resumes from its own only. */
static void resume_ignores_an_older_run_in_the_folder(void **state) {
    (void)state;
    train_bench b;
    open_run(&b, BENCH_CPU, "twice");
    assert_ok(bench_run(&b));
    bench_close(&b);
    open_run(&b, BENCH_CPU, "twice");
    b.stop_at = 4;
    assert_refused(bench_run(&b), GRAFT_E_INTERRUPTED, "stopped after step 4");
    bench_close(&b);
    open_run(&b, BENCH_CPU, "twice");
    b.config.resume = "";
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_steps, TOTAL - 4);
    assert_non_null(strstr(b.messages, "checkpoint-9: of run "));
    expect_same_end(whole_run(BENCH_CPU), b.output);
    bench_close(&b);
}

/* F12 */
static void second_run_into_a_folder_is_refused(void **state) {
    (void)state;
    train_bench b;
    open_run(&b, BENCH_CPU, "locked");
    run_lock lock;
    assert_ok(folder_create(b.output, &test_error));
    assert_ok(run_lock_take(&lock, b.output, &test_error));
    assert_refused(bench_run(&b), GRAFT_E_INPUT, "held by process");
    assert_false(path_exists(bench_path(&b, "metrics.jsonl")));
    run_lock_release(&lock);
    assert_ok(bench_run(&b));
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_after_a_step_in_the_second_epoch),
        cmocka_unit_test(stop_in_the_middle_of_accumulation),
        cmocka_unit_test(stop_before_the_first_step_is_done),
        cmocka_unit_test(stop_after_the_last_step),
        cmocka_unit_test(stop_during_evaluation_saves_the_step),
        cmocka_unit_test(resume_from_an_older_checkpoint_rewrites_the_log),
        cmocka_unit_test(resume_of_a_finished_run_publishes_again),
        cmocka_unit_test(resume_with_another_seed_or_batch),
        cmocka_unit_test(resume_with_edited_data),
        cmocka_unit_test(resume_on_another_base),
        cmocka_unit_test(resume_past_max_steps),
        cmocka_unit_test(resume_with_another_alpha),
        cmocka_unit_test(resume_from_a_missing_checkpoint),
        cmocka_unit_test(resume_into_an_empty_folder),
        cmocka_unit_test(named_checkpoint_goes_on_elsewhere),
        cmocka_unit_test(named_earlier_checkpoint_begins_a_new_run),
        cmocka_unit_test(resume_ignores_an_older_run_in_the_folder),
        cmocka_unit_test(second_run_into_a_folder_is_refused),
    };
    return cmocka_run_group_tests_name("resume", tests, NULL, NULL);
}
