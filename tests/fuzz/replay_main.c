/* replay FOLDER: every file of the folder is a test that passes when the target survives it. */
#include "tests/support/support.h"

#include "base/atomic_file.h"
#include "base/file_map.h"
#include "base/memory.h"
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void replay(void **state) {
    char *bytes = NULL;
    size_t n;
    assert_ok(file_read_all(&bytes, &n, *state, SIZE_MAX / 2, &test_error));
    /* a block of its own size, so that the sanitizer sees a read past the end */
    uint8_t *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, n);
    free(bytes);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

int main(int n_arguments, char **arguments) {
    if (n_arguments != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", arguments[0]);
        return 2;
    }
    struct dirent **entries = NULL;
    int n = scandir(arguments[1], &entries, is_visible, alphasort);
    if (n <= 0) {
        fprintf(stderr, "%s: expected a folder with files to replay, found none\n", arguments[1]);
        return 2;
    }
    struct CMUnitTest *tests = mem_array((size_t)n, sizeof *tests);
    for (int i = 0; i < n; i++)
        tests[i] =
            (struct CMUnitTest){.name = entries[i]->d_name,
                                .test_func = replay,
                                .initial_state = path_join(arguments[1], entries[i]->d_name)};
    int failed = _cmocka_run_group_tests(arguments[1], tests, (size_t)n, NULL, NULL);
    for (int i = 0; i < n; i++) {
        free(tests[i].initial_state);
        free(entries[i]);
    }
    free(tests);
    free(entries);
    return failed;
}
