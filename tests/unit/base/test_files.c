#include "tests/support/support.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void assert_holds(const char *path, const char *expected) {
    char *text;
    size_t n;
    assert_ok(file_read_all(&text, &n, path, 1 << 20, &test_error));
    assert_int_equal(n, strlen(expected));
    assert_string_equal(text, expected);
    free(text);
}

static int entries_of(const char *folder) {
    DIR *files = opendir(folder);
    assert_non_null(files);
    int n = -2; /* . and .. */
    while (readdir(files))
        n++;
    closedir(files);
    return n;
}

static char *fresh_folder(const char *name) {
    char *folder = path_join(test_folder(), name);
    assert_ok(folder_create(folder, &test_error));
    return folder;
}

/* ---- file_map ---- */

static void maps_show_the_file(void **state) {
    (void)state;
    file_map map;
    assert_ok(file_map_open(&map, test_file("m", "bytes", 5), &test_error));
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.data, "bytes", 5);
    file_map_close(&map);
    assert_null(map.data);
    file_map_close(&map);
    file_map_close(NULL);
    assert_ok(file_map_open(&map, test_file("m", "", 0), &test_error));
    assert_null(map.data);
    file_map_close(&map);
}

static void map_of_a_file_that_changes(void **state) {
    (void)state;
    file_map map;
    const char *path = test_file("v", "bytes", 5);
    assert_ok(file_map_open(&map, path, &test_error));
    assert_ok(file_map_verify(&map, path, &test_error));
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_refused(file_map_verify(&map, path, &test_error), GRAFT_E_INPUT, "was written to");
    test_file("v", "bytes and more", 14);
    assert_refused(file_map_verify(&map, path, &test_error), GRAFT_E_INPUT, "has 14 now");
    assert_ok(file_write_atomic(path, "bytes", 5, &test_error));
    assert_refused(file_map_verify(&map, path, &test_error), GRAFT_E_INPUT, "was replaced");
    unlink(path);
    assert_refused(file_map_verify(&map, path, &test_error), GRAFT_E_INPUT, "has vanished");
    file_map_close(&map);
}

static void files_are_read_whole_up_to_the_limit(void **state) {
    (void)state;
    const char *path = test_file("w", "12345", 5);
    char *text = NULL;
    size_t n;
    assert_ok(file_read_all(&text, &n, path, 5, &test_error));
    assert_string_equal(text, "12345");
    free(text);
    assert_refused(file_read_all(&text, &n, path, 4, &test_error), GRAFT_E_INPUT,
                   "expected at most 4 bytes, found 5");
    assert_null(text);
    /* a file that says it has 0 bytes */
    assert_ok(file_read_all(&text, &n, "/proc/self/status", 1 << 20, &test_error));
    assert_true(n > 100 && strlen(text) == n);
    free(text);
    assert_refused(file_read_all(&text, &n, "/proc/self/status", 10, &test_error), GRAFT_E_INPUT,
                   "expected at most 10 bytes, found more");
}

static void open_files_over_the_limit(void **state) {
    (void)state;
    struct rlimit old, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 3;
    const char *path = test_file("l", "x", 1);
    file_map map;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    graft_status status = file_map_open(&map, path, &test_error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_refused(status, GRAFT_E_IO, "the limit of open files (3) is reached");
}

/* ---- atomic_file ---- */

static void committed_files_appear_whole(void **state) {
    (void)state;
    char *folder = fresh_folder("commit"), *path = path_join(folder, "f");
    assert_ok(file_write_atomic(path, "old", 3, &test_error));
    atomic_file *file = NULL;
    assert_ok(atomic_file_open(&file, path, &test_error));
    assert_ok(atomic_file_write(file, "new ", 4, &test_error));
    assert_ok(atomic_file_write(file, "words", 5, &test_error));
    assert_holds(path, "old");
    assert_int_equal(entries_of(folder), 2);
    assert_ok(atomic_file_commit(&file, &test_error));
    assert_null(file);
    assert_holds(path, "new words");
    assert_int_equal(entries_of(folder), 1);
    free(path);
    free(folder);
}

static void abandoned_files_leave_nothing(void **state) {
    (void)state;
    char *folder = fresh_folder("abandon"), *path = path_join(folder, "f");
    atomic_file *file = NULL;
    assert_ok(atomic_file_open(&file, path, &test_error));
    assert_ok(atomic_file_write(file, "x", 1, &test_error));
    atomic_file_abandon(&file);
    assert_null(file);
    atomic_file_abandon(&file);
    assert_int_equal(entries_of(folder), 0);
    free(path);
    free(folder);
}

static void large_writes_pass_the_buffer(void **state) {
    (void)state;
    enum { N = 3000000, STEP = 7919 };
    unsigned char *bytes = malloc(N);
    for (int i = 0; i < N; i++)
        bytes[i] = (unsigned char)(i * 31 >> 3);
    char *path = path_join(test_folder(), "large");
    atomic_file *file = NULL;
    assert_ok(atomic_file_open(&file, path, &test_error));
    size_t at = 0;
    for (int i = 0; i < 100; i++, at += STEP)
        assert_ok(atomic_file_write(file, bytes + at, STEP, &test_error));
    assert_ok(atomic_file_write(file, bytes + at, N - at, &test_error));
    assert_ok(atomic_file_commit(&file, &test_error));
    file_map map;
    assert_ok(file_map_open(&map, path, &test_error));
    assert_int_equal(map.size, N);
    assert_memory_equal(map.data, bytes, N);
    file_map_close(&map);
    free(path);
    free(bytes);
}

static void full_disk_keeps_the_old_file(void **state) {
    (void)state;
    char *folder = fresh_folder("full"), *path = path_join(folder, "f");
    assert_ok(file_write_atomic(path, "old", 3, &test_error));
    static unsigned char bytes[1 << 20];
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    graft_status status = file_write_atomic(path, bytes, sizeof bytes, &test_error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_refused(status, GRAFT_E_IO, "cannot be written");
    assert_holds(path, "old");
    assert_int_equal(entries_of(folder), 1);
    free(path);
    free(folder);
}

static void file_in_a_folder_that_is_not_there(void **state) {
    (void)state;
    assert_refused(file_write_atomic("/nonexistent/f", "x", 1, &test_error), GRAFT_E_INPUT,
                   "its folder does not exist");
    assert_refused(file_write_atomic(test_folder(), "x", 1, &test_error), GRAFT_E_INPUT,
                   "found a folder");
}

static void stale_temporary_link_is_not_followed(void **state) {
    (void)state;
    char *folder = fresh_folder("stale"), *path = path_join(folder, "f");
    char temporary[4096];
    const char *victim = test_file("victim", "precious", 8);
    snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    assert_int_equal(symlink(victim, temporary), 0);
    assert_ok(file_write_atomic(path, "x", 1, &test_error));
    assert_holds(victim, "precious");
    assert_holds(path, "x");
    free(path);
    free(folder);
}

/* ---- folders ---- */

static void folders_are_created_and_removed(void **state) {
    (void)state;
    char *top = path_join(test_folder(), "top"), *deep = path_join(top, "a//b/c/");
    assert_ok(folder_create(deep, &test_error));
    assert_ok(folder_create(deep, &test_error));
    assert_true(path_is_folder(deep));
    assert_ok(folder_sync(deep, &test_error));
    char *file = path_join(deep, "f"), *below = path_join(file, "x"),
         *link = path_join(top, "link");
    assert_ok(file_write_atomic(file, "x", 1, &test_error));
    assert_true(path_exists(file));
    assert_false(path_is_folder(file));
    assert_refused(folder_create(file, &test_error), GRAFT_E_INPUT, "found a file");
    assert_refused(folder_create(below, &test_error), GRAFT_E_INPUT, "found a file");
    assert_refused(folder_remove(file, &test_error), GRAFT_E_INPUT, "found a file");
    char *outside = fresh_folder("outside"), *kept = path_join(outside, "kept");
    assert_ok(file_write_atomic(kept, "x", 1, &test_error));
    assert_int_equal(symlink(outside, link), 0);
    assert_ok(folder_remove(top, &test_error));
    assert_false(path_exists(top));
    assert_true(path_exists(kept));
    assert_ok(folder_remove(top, &test_error));
    assert_refused(folder_sync(top, &test_error), GRAFT_E_IO, "cannot be opened");
    char *const owned[] = {top, deep, file, below, link, outside, kept};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
}

static void paths_are_joined(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *joined = path_join(cases[i][0], cases[i][1]);
        assert_string_equal(joined, cases[i][2]);
        free(joined);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_show_the_file),
        cmocka_unit_test(map_of_a_file_that_changes),
        cmocka_unit_test(files_are_read_whole_up_to_the_limit),
        cmocka_unit_test(open_files_over_the_limit),
        cmocka_unit_test(committed_files_appear_whole),
        cmocka_unit_test(abandoned_files_leave_nothing),
        cmocka_unit_test(large_writes_pass_the_buffer),
        cmocka_unit_test(full_disk_keeps_the_old_file),
        cmocka_unit_test(file_in_a_folder_that_is_not_there),
        cmocka_unit_test(stale_temporary_link_is_not_followed),
        cmocka_unit_test(folders_are_created_and_removed),
        cmocka_unit_test(paths_are_joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
