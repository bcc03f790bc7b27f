/* Signals, and an output that nobody reads any more. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Lines of metrics.jsonl: steps done. */
static int steps_logged(const char *output) {
    char *path = path_join(output, "metrics.jsonl");
    FILE *file = fopen(path, "r");
    int lines = 0;
    for (int c; file && (c = fgetc(file)) != EOF;)
        lines += c == '\n';
    if (file)
        fclose(file);
    free(path);
    return lines;
}

static void wait_for_steps(const char *output, int steps) {
    const struct timespec pause = {0, 2000000};
    for (int i = 0; i < 15000 && steps_logged(output) < steps; i++)
        nanosleep(&pause, NULL);
    assert_true(steps_logged(output) >= steps);
}

static pid_t start_training(const char *model, const char *rows, const char *output) {
    return cli_start(-1, -1, -1,
                     ARGS("train", "--model", model, "--data", rows, "--output-dir", output,
                          "--max-steps", "150", "--per-device-train-batch-size", "3",
                          "--save-steps", "30", "--learning-rate", "1e-3"));
}

/* The bytes of a run that nobody interrupted. */
static char *whole_run(const char *model, const char *rows) {
    char *output = cli_path("whole");
    if (!path_exists(output))
        assert_int_equal(cli_wait(start_training(model, rows, output)), 0);
    return output;
}

static void resume_to_the_end(const char *output) {
    char *recipe = path_join(output, "recipe.yaml");
    cli_result result = cli_ok(ARGS("train", recipe, "--resume", "--quiet"));
    cli_free(&result);
    free(recipe);
}

static void signal_then_resume(const char *name, int number) {
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path(name),
         *whole = whole_run(model, rows);
    pid_t child = start_training(model, rows, output);
    wait_for_steps(output, 20);
    kill(child, number);
    assert_int_equal(cli_wait(child), 128 + number);
    char *adapter = path_join(output, "adapter_model.safetensors");
    assert_false(path_exists(adapter)); /* nothing unfinished is published */
    resume_to_the_end(output);
    cli_assert_same_file(whole, output, "adapter_model.safetensors");
    assert_int_equal(steps_logged(output), 150);
    free(adapter);
    free(whole);
    free(output);
    free(rows);
    free(model);
}

static void sigint_then_resume_equals_an_uninterrupted_run(void **state) {
    (void)state;
    signal_then_resume("int", SIGINT);
}

static void sigterm_then_resume_equals_an_uninterrupted_run(void **state) {
    (void)state;
    signal_then_resume("term", SIGTERM);
}

/* Both signals wait while the process stands still, so that the second meets the first before
 * anything is saved. */
static void second_signal_ends_at_once(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("second"),
         *whole = whole_run(model, rows);
    pid_t child = start_training(model, rows, output);
    wait_for_steps(output, 40); /* checkpoint-30 is there */
    kill(child, SIGSTOP);
    kill(child, SIGINT);
    kill(child, SIGTERM);
    kill(child, SIGCONT);
    int status = cli_wait(child);
    assert_true(status == 128 + SIGINT || status == 128 + SIGTERM);
    resume_to_the_end(output);
    cli_assert_same_file(whole, output, "adapter_model.safetensors");
    free(whole);
    free(output);
    free(rows);
    free(model);
}

/* Waiting for input is no reason not to listen. */
static void sigint_while_reading_stdin(void **state) {
    (void)state;
    char *model = cli_model();
    const char *const *const verbs[] = {
        ARGS("tokenize", "--model", model),
        ARGS("chat", "--model", model, "--chat-template", "chatml", "--max-new-tokens", "2")};
    static const char *const lines[] = {"{\"text\": \"a\"}\n", "Hello\n"};
    for (int i = 0; i < 2; i++) {
        int in[2], out[2];
        char byte;
        assert_int_equal(pipe2(in, O_CLOEXEC), 0);
        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        pid_t child = cli_start(in[0], out[1], -1, verbs[i]);
        close(in[0]);
        close(out[1]);
        assert_int_equal(write(in[1], lines[i], strlen(lines[i])), (ssize_t)strlen(lines[i]));
        if (i == 1) /* it answered, and waits for more */
            assert_int_equal(read(out[0], &byte, 1), 1);
        else
            nanosleep(&(struct timespec){0, 200000000}, NULL);
        kill(child, SIGINT);
        assert_int_equal(cli_wait(child), 128 + SIGINT);
        close(in[1]);
        close(out[0]);
    }
    free(model);
}

/* Training goes on when nobody reads its output; what could not be said makes the exit status 1. */
static void closed_stdout(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("closed");
    int out[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    close(out[0]);
    pid_t child = cli_start(-1, out[1], -1,
                            ARGS("train", "--model", model, "--data", rows, "--output-dir", output,
                                 "--max-steps", "3", "--json"));
    close(out[1]);
    assert_int_equal(cli_wait(child), 1);
    char *adapter = path_join(output, "adapter_model.safetensors");
    assert_true(path_exists(adapter));
    free(adapter);
    free(output);
    free(rows);
    free(model);
}

/* ---- Streaming ---- */

static pid_t start_streaming(const char *model, const char *rows, const char *output) {
    return cli_start(-1, -1, -1,
                     ARGS("train", "--model", model, "--data", rows, "--output-dir", output,
                          "--streaming", "--shuffle-buffer", "3", "--max-steps", "150",
                          "--per-device-train-batch-size", "3", "--save-steps", "30",
                          "--lora-dropout", "0.1", "--learning-rate", "1e-3"));
}

/* The shuffle buffer's place, too, is found again. */
static void streamed_run_resumes_to_the_same_bytes(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("stream"),
         *whole = cli_path("stream-whole");
    assert_int_equal(cli_wait(start_streaming(model, rows, whole)), 0);
    pid_t child = start_streaming(model, rows, output);
    wait_for_steps(output, 20);
    kill(child, SIGINT);
    assert_int_equal(cli_wait(child), 128 + SIGINT);
    resume_to_the_end(output);
    cli_assert_same_file(whole, output, "adapter_model.safetensors");
    assert_int_equal(steps_logged(output), 150);
    free(whole);
    free(output);
    free(rows);
    free(model);
}

/* A row that cannot be read costs nothing that was learnt: mended, the run goes on. */
static void bad_row_in_a_stream_leaves_a_checkpoint(void **state) {
    (void)state;
    static const char good[] = "{\"text\": \"Once upon a time\"}\n{\"text\": \"there was a cat\"}\n"
                               "{\"text\": \"and a dog\"}\n";
    char *model = cli_model(), *output = cli_path("bad-row"), text[256];
    snprintf(text, sizeof text, "%s{\"text\": 5}\n", good);
    char *rows = strdup(test_file("late.jsonl", text, strlen(text)));
    const char *const *train =
        ARGS("train", "--model", model, "--data", rows, "--output-dir", output, "--streaming",
             "--no-shuffle", "--max-steps", "8", "--per-device-train-batch-size", "1");
    cli_refused("late.jsonl:4: text is", train);
    char *checkpoint = path_join(output, "checkpoint-2"); /* the third row waited for the fourth */
    assert_true(path_exists(checkpoint));
    snprintf(text, sizeof text, "%s{\"text\": \"again\"}\n", good);
    test_file("late.jsonl", text, strlen(text));
    resume_to_the_end(output);
    assert_int_equal(steps_logged(output), 8);
    free(checkpoint);
    free(rows);
    free(output);
    free(model);
}

static void streaming_needs_max_steps(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    cli_refused("give --max-steps", ARGS("train", "--model", model, "--data", rows, "--output-dir",
                                         "none", "--streaming"));
    cli_refused("give --eval-data",
                ARGS("train", "--model", model, "--data", rows, "--output-dir", "none",
                     "--streaming", "--max-steps", "2", "--eval-split", "0.5"));
    free(rows);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sigint_then_resume_equals_an_uninterrupted_run),
        cmocka_unit_test(sigterm_then_resume_equals_an_uninterrupted_run),
        cmocka_unit_test(second_signal_ends_at_once),
        cmocka_unit_test(sigint_while_reading_stdin),
        cmocka_unit_test(closed_stdout),
        cmocka_unit_test(streamed_run_resumes_to_the_same_bytes),
        cmocka_unit_test(bad_row_in_a_stream_leaves_a_checkpoint),
        cmocka_unit_test(streaming_needs_max_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
