#include "tests/cli/cli.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t start(const char *const *arguments, int in, int out, int err) {
    const char *program = getenv("GRAFT_PROGRAM");
    assert_non_null(program);
    const char *argv[128] = {program};
    int n = 1;
    while (arguments[n - 1] && n < 127) {
        argv[n] = arguments[n - 1];
        n++;
    }
    argv[n] = NULL;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(in, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        dup2(err, STDERR_FILENO);
        execv(program, (char *const *)argv);
        _exit(127);
    }
    return child;
}

/* Takes what both pipes give until both are closed. */
static void drain(int out, int err, cli_result *result) {
    struct pollfd pipes[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
    strbuf *texts[2] = {&result->out, &result->err};
    while (pipes[0].fd >= 0 || pipes[1].fd >= 0) {
        assert_true(poll(pipes, 2, -1) > 0);
        for (int i = 0; i < 2; i++) {
            char bytes[65536];
            if (!pipes[i].revents)
                continue;
            ssize_t n = read(pipes[i].fd, bytes, sizeof bytes);
            if (n > 0)
                strbuf_add(texts[i], bytes, (size_t)n);
            else
                pipes[i].fd = -1;
        }
    }
}

cli_result cli_run(const char *input, const char *const *arguments) {
    cli_result result = {0};
    int out[2], err[2];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(err), 0);
    FILE *in = tmpfile();
    assert_non_null(in);
    if (input)
        assert_int_equal(fwrite(input, 1, strlen(input), in), strlen(input));
    rewind(in);
    pid_t child = start(arguments, fileno(in), out[1], err[1]);
    close(out[1]);
    close(err[1]);
    drain(out[0], err[0], &result);
    close(out[0]);
    close(err[0]);
    fclose(in);
    result.status = cli_wait(child);
    return result;
}

void cli_free(cli_result *result) {
    strbuf_free(&result->out);
    strbuf_free(&result->err);
}

cli_result cli_ok(const char *const *arguments) {
    cli_result result = cli_run(NULL, arguments);
    if (result.status != 0)
        fail_msg("graft %s: exit status %d: %s", arguments[0], result.status,
                 strbuf_text(&result.err));
    return result;
}

json_t *cli_json(const char *const *arguments) {
    cli_result result = cli_ok(arguments);
    json_t *document = NULL;
    const char *text = strbuf_text(&result.out);
    if (json_parse(&document, text, result.out.length, "stdout", &test_error) != GRAFT_OK)
        fail_msg("graft %s: %s in: %s", arguments[0], test_error.message, text);
    cli_free(&result);
    return document;
}

const json_t *cli_member(const json_t *object, const char *key) {
    const json_t *member = json_object_get(object, key);
    if (!member)
        fail_msg("the document has no \"%s\"", key);
    return member;
}

double cli_number(const json_t *object, const char *key) {
    const json_t *member = cli_member(object, key);
    if (!json_is_number(member))
        fail_msg("\"%s\" is %s", key, json_type_name(member));
    return json_number_value(member);
}

pid_t cli_start(int in, int out, int err, const char *const *arguments) {
    int nothing = open("/dev/null", O_RDWR);
    assert_true(nothing >= 0);
    pid_t child = start(arguments, in >= 0 ? in : nothing, out >= 0 ? out : nothing,
                        err >= 0 ? err : nothing);
    close(nothing);
    return child;
}

int cli_wait(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- What the tests share ---- */

char *cli_model(void) {
    return strdup(test_data("models/stories260K"));
}

char *cli_path(const char *name) {
    return path_join(test_folder(), name);
}

char *cli_rows(void) {
    static const char rows[] = "{\"prompt\": \"Tell me of a cat.\", \"completion\": \"The cat sat "
                               "on the mat and was happy.\"}\n"
                               "{\"prompt\": \"Tell me of a dog.\", \"completion\": \"The dog ran "
                               "to the park and was glad.\"}\n"
                               "{\"prompt\": \"Tell me of a bird.\", \"completion\": \"The bird "
                               "flew to the tree and sang.\"}\n"
                               "{\"prompt\": \"Tell me of a girl.\", \"completion\": \"The girl "
                               "went home and ate a big cake.\"}\n";
    return strdup(test_file("rows.jsonl", rows, sizeof rows - 1));
}

void cli_assert_same_file(const char *folder_a, const char *folder_b, const char *name) {
    char *path_a = path_join(folder_a, name), *path_b = path_join(folder_b, name), *a = NULL,
         *b = NULL;
    size_t n_a, n_b;
    assert_ok(file_read_all(&a, &n_a, path_a, 1 << 28, &test_error));
    assert_ok(file_read_all(&b, &n_b, path_b, 1 << 28, &test_error));
    if (n_a != n_b || memcmp(a, b, n_a))
        fail_msg("%s and %s differ", path_a, path_b);
    free(a);
    free(b);
    free(path_a);
    free(path_b);
}

void cli_refused(const char *text, const char *const *arguments) {
    cli_result result = cli_run(NULL, arguments);
    if (result.status != 2)
        fail_msg("graft %s: exit status %d instead of 2: %s", arguments[0], result.status,
                 strbuf_text(&result.err));
    if (!strstr(strbuf_text(&result.err), text))
        fail_msg("graft %s: the message lacks \"%s\": %s", arguments[0], text,
                 strbuf_text(&result.err));
    cli_free(&result);
}
