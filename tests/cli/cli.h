/* Running the program as a user does. */
#ifndef GRAFT_TESTS_CLI_H
#define GRAFT_TESTS_CLI_H

#include "base/strbuf.h"
#include "formats/json.h"
#include "tests/support/support.h"

#include <sys/types.h>

typedef struct cli_result {
    int status; /* exit status; 128 + N after signal N */
    strbuf out, err;
} cli_result;

/* Runs graft with the arguments (NULL-terminated), stdin from `input` (NULL: empty), and waits. */
cli_result cli_run(const char *input, const char *const *arguments);
void cli_free(cli_result *);

/* Runs and fails the test unless the exit status is 0. */
cli_result cli_ok(const char *const *arguments);
/* Runs and fails the test unless the exit status is 2 and the message holds the text. */
void cli_refused(const char *text, const char *const *arguments);

/* cli_ok with --json in the arguments: the one document on stdout, which holds nothing else. The
 * caller json_decref()s. */
json_t *cli_json(const char *const *arguments);
/* Its member; fails when there is none. */
double cli_number(const json_t *object, const char *key);
const json_t *cli_member(const json_t *object, const char *key);

/* Starts graft with these as stdin, stdout and stderr (-1: /dev/null); cli_wait gives the exit
 * status. */
pid_t cli_start(int in, int out, int err, const char *const *arguments);
int cli_wait(pid_t);

/* The test model's folder (skips without test data); a path in the test's folder. Both caller
 * frees. */
char *cli_model(void);
char *cli_path(const char *name);
/* Four prompt/completion rows, as a file. Caller frees. */
char *cli_rows(void);
void cli_assert_same_file(const char *folder_a, const char *folder_b, const char *name);

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

#endif
