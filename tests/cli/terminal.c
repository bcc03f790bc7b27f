/* What the program does on a terminal, and what it leaves out where there is none. */
#include "tests/cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COLUMNS = 60 };

/* Runs graft with a terminal of COLUMNS as stdout and stderr; all that it wrote. Caller frees. */
static strbuf run_on_terminal(const char *const *arguments) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0) /* a machine without pseudo-terminals: a bare chroot */
        skip();
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    const struct winsize size = {.ws_row = 24, .ws_col = COLUMNS};
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &size), 0);
    pid_t child = cli_start(-1, terminal, terminal, arguments);
    close(terminal);
    strbuf text = {0};
    char bytes[4096];
    ssize_t n;
    while ((n = read(master, bytes, sizeof bytes)) > 0)
        strbuf_add(&text, bytes, (size_t)n);
    close(master);
    if (cli_wait(child) != 0)
        fail_msg("graft %s: %s", arguments[0], strbuf_text(&text));
    return text;
}

static void progress_is_one_line_that_fits(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("out");
    setenv("TERM", "xterm", 1);
    strbuf text =
        run_on_terminal(ARGS("train", "--model", model, "--data", rows, "--output-dir", output,
                             "--max-steps", "60", "--per-device-train-batch-size", "2"));
    assert_non_null(strstr(strbuf_text(&text), "[>                   ] step 1/60"));
    int drawn = 0;
    for (char *line = strtok(text.data, "\r\n"); line; line = strtok(NULL, "\r\n")) {
        const char *step = strstr(line, "] step ");
        if (!step)
            continue;
        drawn++;
        const char *begin = strchr(line, '[');
        begin = begin[1] == 'K' ? strchr(begin + 1, '[') : begin; /* after "erase the line" */
        assert_true(strlen(begin) < COLUMNS);
    }
    assert_true(drawn >= 2);
    strbuf_free(&text);
    free(output);
    free(rows);
    free(model);
}

static void colour_only_where_it_is_wanted(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    const char *const *arguments = ARGS("data", "--model", model, "--data", rows, "--rows", "1");
    setenv("TERM", "xterm", 1);
    strbuf coloured = run_on_terminal(arguments);
    setenv("NO_COLOR", "1", 1);
    strbuf plain = run_on_terminal(arguments);
    unsetenv("NO_COLOR");
    setenv("TERM", "dumb", 1);
    strbuf dumb = run_on_terminal(arguments);
    assert_non_null(strstr(strbuf_text(&coloured), "\033[32mThe cat"));
    assert_null(strchr(strbuf_text(&plain), '\033'));
    assert_null(strchr(strbuf_text(&dumb), '\033'));
    assert_non_null(strstr(strbuf_text(&plain), "⟦The cat"));
    strbuf_free(&coloured);
    strbuf_free(&plain);
    strbuf_free(&dumb);
    free(rows);
    free(model);
}

/* A log has whole lines, few of them, and nothing that moves a cursor. */
/* What a row holds is shown to the terminal, not obeyed by it. */
static void control_characters_in_rows_are_shown(void **state) {
    (void)state;
    static const char row[] = "{\"text\": \"a\\u001b[2Jb\"}\n";
    char *model = cli_model(), *rows = strdup(test_file("esc.jsonl", row, sizeof row - 1));
    setenv("TERM", "xterm", 1);
    strbuf text = run_on_terminal(ARGS("data", "--model", model, "--data", rows));
    assert_null(strstr(strbuf_text(&text), "\033[2J"));
    assert_non_null(strstr(strbuf_text(&text), "\\x1b[2J"));
    strbuf_free(&text);
    free(rows);
    free(model);
}

static void progress_in_a_log(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("log");
    const char *const *arguments = ARGS("train", "--model", model, "--data", rows, "--output-dir",
                                        output, "--max-steps", "250");
    cli_result result = cli_ok(arguments);
    int lines = 0;
    for (const char *at = strbuf_text(&result.err); (at = strstr(at, "step ")); at++)
        lines++;
    assert_true(lines > 100 && lines < 140);
    assert_null(strchr(strbuf_text(&result.err), '\033'));
    assert_null(strchr(strbuf_text(&result.err), '\r'));
    assert_null(strchr(strbuf_text(&result.out), '\033'));
    cli_free(&result);
    free(output);
    free(rows);
    free(model);
}

static void quiet_says_nothing_but_the_result(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("quiet");
    cli_result result = cli_ok(ARGS("train", "--model", model, "--data", rows, "--output-dir",
                                    output, "--max-steps", "2", "--quiet", "--json"));
    assert_string_equal(strbuf_text(&result.err), "");
    assert_int_equal(result.out.data[0], '{');
    cli_free(&result);
    free(output);
    free(rows);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(progress_is_one_line_that_fits),
        cmocka_unit_test(colour_only_where_it_is_wanted),
        cmocka_unit_test(control_characters_in_rows_are_shown),
        cmocka_unit_test(progress_in_a_log),
        cmocka_unit_test(quiet_says_nothing_but_the_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
