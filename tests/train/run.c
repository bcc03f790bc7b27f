/* One run from end to end: what it writes, what it reports, and what it does when numbers stop
 * being finite. */
#include "tests/train/bench.h"
#include "tests/train/spy.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int has_no_leftover(const struct dirent *entry) {
    return strstr(entry->d_name, "tmp") != NULL;
}

static void run_writes_what_the_manual_says(void **state) {
    (void)state;
    static const char *const files[] = {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
        "recipe.yaml",
        "metrics.jsonl",
        "report.html",
        "checkpoint-2",
        "checkpoint-3",
    };
    train_bench b;
    bench_open(&b, BENCH_CPU, 2, NULL, "files");
    bench_data(&b, 6, 60);
    b.config.save_steps = 1;
    b.config.save_total_limit = 2;
    assert_ok(bench_run(&b));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!path_exists(bench_path(&b, files[i])))
            fail_msg("%s is missing", files[i]);
    assert_false(path_exists(bench_path(&b, "checkpoint-1")));
    assert_int_equal(b.n_saved, 4); /* three checkpoints and the end */
    struct dirent **left;
    assert_int_equal(scandir(b.output, &left, has_no_leftover, alphasort), 0);
    free(left);
    assert_int_equal(b.result.steps, 3);
    test_assert_near(b.result.first_loss, b.losses[0], 0, 0, "first loss");
    test_assert_near(b.result.last_loss, b.losses[2], 0, 0, "last loss");
    test_assert_near(b.result.mean_loss, (b.losses[0] + b.losses[1] + b.losses[2]) / 3, 0, 1e-12,
                     "mean");
    assert_int_equal(b.result.tokens, dataset_count(b.data).tokens);
    assert_int_equal(b.result.supervised_tokens, dataset_count(b.data).supervised);
    assert_true(b.result.peak_memory_bytes > 0 && b.result.wall_s > 0);
    assert_true(isnan(b.result.eval_loss));
    bench_close(&b);
}

/* A checkpoint's own adapter is the one the run would publish there. */
static void checkpoint_is_a_peft_folder(void **state) {
    (void)state;
    train_bench b;
    bench_open(&b, BENCH_CPU, 2, NULL, "peft");
    bench_data(&b, 6, 60);
    b.config.save_steps = 3;
    assert_ok(bench_run(&b));
    assert_same_file(b.output, bench_path(&b, "checkpoint-3"), "adapter_model.safetensors");
    assert_same_file(b.output, bench_path(&b, "checkpoint-3"), "adapter_config.json");
    bench_close(&b);
}

static void logging_and_evaluation_steps(void **state) {
    (void)state;
    train_bench b;
    bench_open(&b, BENCH_CPU, 2, NULL, "logging");
    bench_data(&b, 14, 30);
    assert_ok(dataset_create(&b.eval_data, &test_error));
    bench_add_rows(b.eval_data, 3, 30, 3);
    b.config.logging_steps = 3;
    b.config.eval_steps = 2;
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_steps, 3);       /* steps 3, 6 and the last, 7 */
    assert_int_equal(b.n_evaluations, 4); /* 2, 4, 6, 7 */
    char *text;
    size_t n;
    assert_ok(file_read_all(&text, &n, bench_path(&b, "metrics.jsonl"), 1 << 20, &test_error));
    assert_non_null(strstr(text, "{\"step\": 7, \"eval_loss\": "));
    free(text);
    bench_close(&b);
}

static void adapter_of_a_run_is_where_the_next_starts(void **state) {
    (void)state;
    train_bench first, second;
    bench_open(&first, BENCH_CPU, 2, NULL, "start");
    bench_data(&first, 4, 30);
    assert_ok(bench_run(&first));
    bench_open(&second, BENCH_CPU, 2, NULL, "second");
    bench_data(&second, 4, 30);
    second.inputs.init_adapter = first.output;
    second.config.learning_rate = 0;
    assert_ok(bench_run(&second));
    assert_same_file(first.output, second.output, "adapter_model.safetensors");
    bench_close(&first);
    bench_close(&second);
}

/* The gate leaves such rows out; rows that a caller adds may be so. */
static void step_without_supervised_tokens_changes_nothing(void **state) {
    (void)state;
    static const int32_t ids[] = {1, 5, 9}, labels[] = {-100, -100, -100};
    train_bench b;
    bench_open(&b, BENCH_CPU, 1, NULL, "unsupervised");
    assert_ok(dataset_create(&b.data, &test_error));
    assert_ok(dataset_add(b.data, ids, NULL, 3, (data_source){.line = 1}, &test_error));
    assert_ok(dataset_add(b.data, ids, labels, 3, (data_source){.line = 2}, &test_error));
    b.config.per_device_train_batch_size = 1;
    b.config.save_steps = 1;
    assert_ok(bench_run(&b));
    assert_true(isfinite(b.losses[0]) && isnan(b.losses[1]));
    assert_int_equal(b.result.skipped_steps, 0);
    char first[BENCH_PATH_BYTES * 2];
    snprintf(first, sizeof first, "%s", bench_path(&b, "checkpoint-1"));
    assert_same_file(first, bench_path(&b, "checkpoint-2"), "state.safetensors");
    bench_close(&b);
}

/* ---- Not finite ---- */

static void open_poisoned(train_bench *b, const char *name, int32_t layer, bool backward,
                          uint64_t passes) {
    bench_open(b, BENCH_CPU, 2, NULL, name);
    bench_data(b, 12, 30); /* six steps of one micro-batch */
    b->config.save_steps = 1;
    spy_put_in(b->dev);
    the_spy.poisoned_layer = layer;
    the_spy.poisons_backward = backward;
    the_spy.poisoned_passes = passes;
}

/* F10 */
static void one_loss_that_is_not_finite_skips_the_step(void **state) {
    (void)state;
    train_bench b;
    open_poisoned(&b, "skip", 2, false, 3 << 3);
    assert_ok(bench_run(&b));
    assert_int_equal(b.result.skipped_steps, 1);
    assert_true(isnan(b.losses[2]) && isfinite(b.losses[3]));
    assert_true(isfinite(b.result.mean_loss));
    assert_non_null(strstr(b.messages,
                           "step 3: the output of model.layers.2 is not finite: the step "
                           "was skipped (1 in a row"));
    /* Nothing was learnt in it. */
    char before[BENCH_PATH_BYTES * 2];
    snprintf(before, sizeof before, "%s", bench_path(&b, "checkpoint-2"));
    assert_same_file(before, bench_path(&b, "checkpoint-3"), "state.safetensors");
    bench_close(&b);
}

static void one_gradient_that_is_not_finite_skips_the_step(void **state) {
    (void)state;
    train_bench b;
    open_poisoned(&b, "skip-gradient", 1, true, 1 << 2);
    assert_ok(bench_run(&b));
    assert_int_equal(b.result.skipped_steps, 1);
    assert_true(isfinite(b.losses[1]) && !isfinite(b.norms[1]));
    assert_non_null(
        strstr(b.messages, "the gradient of base_model.model.model.layers.1.self_attn."));
    bench_close(&b);
}

/* F11 */
static void three_steps_in_a_row_not_finite_end_the_run(void **state) {
    (void)state;
    train_bench b;
    open_poisoned(&b, "stop", 3, false, ~(uint64_t)0 << 3);
    assert_refused(bench_run(&b), GRAFT_E_NUMERIC, "the output of model.layers.3 is not finite");
    assert_non_null(strstr(test_error.message, "step 5"));
    assert_non_null(
        strstr(test_error.message, "checkpoint-4")); /* saved with two skips, still good */
    assert_int_equal(b.result.skipped_steps, 3);
    assert_false(path_exists(bench_path(&b, "adapter_model.safetensors")));
    assert_false(path_exists(bench_path(&b, "report.html")));
    bench_close(&b);
}

static void skips_that_are_not_in_a_row_do_not_add_up(void **state) {
    (void)state;
    train_bench b;
    open_poisoned(&b, "apart", 0, false, 3 << 2 | 3 << 5 | 3 << 8); /* steps 2, 4 and 6 */
    assert_ok(bench_run(&b));
    assert_int_equal(b.result.skipped_steps, 3);
    bench_close(&b);
}

static void evaluation_that_is_not_finite_publishes_nothing(void **state) {
    (void)state;
    train_bench b;
    open_poisoned(&b, "evaluation-nan", 4, false,
                  ~(uint64_t)0 << 7); /* six training passes, then the evaluation */
    assert_ok(dataset_create(&b.eval_data, &test_error));
    bench_add_rows(b.eval_data, 2, 30, 3);
    assert_refused(bench_run(&b), GRAFT_E_NUMERIC, "the output of model.layers.4 is not finite");
    assert_false(path_exists(bench_path(&b, "adapter_model.safetensors")));
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_writes_what_the_manual_says),
        cmocka_unit_test(checkpoint_is_a_peft_folder),
        cmocka_unit_test(logging_and_evaluation_steps),
        cmocka_unit_test(adapter_of_a_run_is_where_the_next_starts),
        cmocka_unit_test(step_without_supervised_tokens_changes_nothing),
        cmocka_unit_test(one_loss_that_is_not_finite_skips_the_step),
        cmocka_unit_test(one_gradient_that_is_not_finite_skips_the_step),
        cmocka_unit_test(three_steps_in_a_row_not_finite_end_the_run),
        cmocka_unit_test(skips_that_are_not_in_a_row_do_not_add_up),
        cmocka_unit_test(evaluation_that_is_not_finite_publishes_nothing),
    };
    return cmocka_run_group_tests_name("run", tests, NULL, NULL);
}
