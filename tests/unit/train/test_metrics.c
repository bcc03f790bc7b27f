/* metrics.jsonl: its fields and digits, what a resume keeps, and a disk that does not take it. */
#include "tests/support/support.h"

#include "base/atomic_file.h"
#include "base/file_map.h"
#include "train/metrics.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int warnings;
static void count_warning(void *context, message_level level, const char *text) {
    (void)context, (void)text;
    warnings += level == MESSAGE_WARNING;
}
static const message_sink sink = {count_warning, NULL};

static const char *folder_named(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    assert_ok(folder_create(path, &test_error));
    return path;
}

static char *read_log(const char *folder) {
    char path[300], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    assert_ok(file_read_all(&text, &n, path, 1 << 20, &test_error));
    return text;
}

static train_metrics step_metrics(int64_t step) {
    return (train_metrics){.step = step,
                           .epoch = 0.25,
                           .loss = 1.23456789012,
                           .grad_norm = 0.5,
                           .learning_rate = 2e-4,
                           .tokens = 96,
                           .supervised_tokens = 60,
                           .tokens_per_second = 1234.5,
                           .step_time_s = 0.0777,
                           .peak_memory_bytes = 1 << 20};
}

static void line_has_the_fields_of_the_manual(void **state) {
    (void)state;
    char line[METRICS_LINE_BYTES];
    train_metrics m = step_metrics(3);
    line[metrics_line(line, &m)] = '\0';
    assert_string_equal(line,
                        "{\"step\": 3, \"epoch\": 0.25, \"loss\": 1.23456789, \"grad_norm\": 0.5, "
                        "\"learning_rate\": 0.0002, \"tokens\": 96, \"supervised_tokens\": 60, "
                        "\"tokens_per_second\": 1234.5, \"step_time_s\": 0.0777, "
                        "\"peak_memory_bytes\": 1048576}\n");
    m = (train_metrics){
        .step = 4, .is_evaluation = true, .eval_loss = 1.5, .eval_perplexity = exp(1.5)};
    line[metrics_line(line, &m)] = '\0';
    assert_string_equal(line,
                        "{\"step\": 4, \"eval_loss\": 1.5, \"eval_perplexity\": 4.48168907}\n");
}

static void loss_not_finite_is_null(void **state) {
    (void)state;
    char line[METRICS_LINE_BYTES];
    train_metrics m = step_metrics(1);
    m.loss = (double)NAN;
    m.grad_norm = (double)INFINITY;
    line[metrics_line(line, &m)] = '\0';
    assert_non_null(strstr(line, "\"loss\": null, \"grad_norm\": null"));
}

static void write_steps(metrics_log *log, int64_t from, int64_t to) {
    for (int64_t step = from; step <= to; step++) {
        train_metrics m = step_metrics(step);
        metrics_write(log, &m);
    }
}

static void resume_drops_lines_past_the_checkpoint(void **state) {
    (void)state;
    const char *folder = folder_named("resume");
    metrics_log log;
    assert_ok(metrics_open(&log, folder, -1, 10, 2, &sink, &test_error));
    write_steps(&log, 1, 4);
    metrics_write(&log, &(train_metrics){.step = 4, .is_evaluation = true, .eval_loss = 1.25});
    write_steps(&log, 5, 7);
    assert_int_equal(write(log.fd, "{\"step\": 8, \"lo", 15),
                     15); /* killed in the middle of a line */
    metrics_close(&log);

    assert_ok(metrics_open(&log, folder, 5, 10, 2, &sink, &test_error));
    assert_int_equal(log.history.n_steps, 5);
    assert_int_equal(log.history.n_evaluations, 1);
    test_assert_near(log.history.evaluations[0].loss, 1.25, 0, 0, "loss");
    write_steps(&log, 6, 6);
    metrics_close(&log);
    char *text = read_log(folder);
    assert_non_null(strstr(text, "\"step\": 6,"));
    assert_null(strstr(text, "\"step\": 7,"));
    assert_null(strstr(text, "\"step\": 8"));
    assert_int_equal(text[strlen(text) - 1], '\n');
    free(text);
}

static void fresh_run_starts_a_new_log(void **state) {
    (void)state;
    const char *folder = folder_named("fresh");
    metrics_log log;
    for (int run = 0; run < 2; run++) {
        assert_ok(metrics_open(&log, folder, -1, 10, 2, &sink, &test_error));
        write_steps(&log, 1, 1);
        metrics_close(&log);
    }
    char *text = read_log(folder);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    free(text);
}

/* F19 */
static void log_disk_full_drops_lines_with_one_warning(void **state) {
    (void)state;
    int full = open("/dev/full", O_WRONLY);
    if (full < 0)
        skip();
    metrics_log log;
    warnings = 0;
    assert_ok(metrics_open(&log, folder_named("full"), -1, 10, 2, &sink, &test_error));
    assert_int_equal(dup2(full, log.fd), log.fd);
    write_steps(&log, 1, 3);
    assert_int_equal(warnings, 1);
    assert_int_equal(log.history.n_steps, 3); /* the report still has them */
    metrics_close(&log);
    close(full);
}

static void log_that_is_a_folder_warns_once(void **state) {
    (void)state;
    char path[300];
    const char *folder = folder_named("blocked");
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    assert_ok(folder_create(path, &test_error));
    metrics_log log;
    warnings = 0;
    assert_ok(metrics_open(&log, folder, -1, 10, 2, &sink, &test_error));
    write_steps(&log, 1, 3);
    assert_int_equal(warnings, 1);
    metrics_close(&log);
}

static void history_is_thinned_and_keeps_its_span(void **state) {
    (void)state;
    metrics_log log;
    assert_ok(metrics_open(&log, folder_named("long"), -1, 64, 1, &sink, &test_error));
    write_steps(&log, 1, 1000);
    assert_true(log.history.n_steps >= 32 && log.history.n_steps <= 64);
    assert_int_equal(log.history.steps[0].step, 1);
    for (size_t i = 1; i < log.history.n_steps; i++)
        assert_int_equal(log.history.steps[i].step - log.history.steps[i - 1].step,
                         log.history.stride);
    assert_true(log.history.steps[log.history.n_steps - 1].step > 1000 - log.history.stride);
    metrics_close(&log);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_has_the_fields_of_the_manual),
        cmocka_unit_test(loss_not_finite_is_null),
        cmocka_unit_test(resume_drops_lines_past_the_checkpoint),
        cmocka_unit_test(fresh_run_starts_a_new_log),
        cmocka_unit_test(log_disk_full_drops_lines_with_one_warning),
        cmocka_unit_test(log_that_is_a_folder_warns_once),
        cmocka_unit_test(history_is_thinned_and_keeps_its_span),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
