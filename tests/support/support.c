#include "tests/support/support.h"

#include "base/atomic_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

graft_error test_error;

static const char *keep_path(const char *folder, const char *name) {
    static char paths[4][4096];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

const char *test_data(const char *path) {
    const char *root = getenv("GRAFT_TEST_DATA");
    if (!root || !*root)
        skip();
    const char *full = keep_path(root, path);
    if (access(full, R_OK) != 0)
        skip();
    return full;
}

const char *test_fixture(const char *path) {
    const char *root = getenv("GRAFT_FIXTURES");
    assert_non_null(root);
    return keep_path(root, path);
}

static char folder[64];

static void remove_folder(void) {
    folder_remove(folder, NULL);
}

const char *test_folder(void) {
    if (!folder[0]) {
        strcpy(folder, "/tmp/graft-test-XXXXXX");
        assert_non_null(mkdtemp(folder));
        atexit(remove_folder);
    }
    return folder;
}

const char *test_file(const char *name, const void *bytes, size_t n) {
    const char *path = keep_path(test_folder(), name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    return path;
}

void test_assert_refused(graft_status got, graft_status expected, const char *text,
                         const char *call) {
    if (got != expected)
        fail_msg("%s: status %d instead of %d (%s)", call, got, expected,
                 got == GRAFT_OK ? "accepted" : test_error.message);
    if (!strstr(test_error.message, text))
        fail_msg("%s: the message lacks \"%s\": %s", call, text, test_error.message);
}

void test_assert_near(double a, double b, double absolute, double relative, const char *what) {
    if (!(fabs(a - b) <= absolute + relative * fabs(b)))
        fail_msg("%s: %.9g instead of %.9g (difference %.3g)", what, a, b, a - b);
}
