/* F12: one writer to an output folder. */
#include "tests/support/support.h"

#include "base/atomic_file.h"
#include "train/run_lock.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void second_writer_of_a_folder_is_refused(void **state) {
    (void)state;
    run_lock first, second;
    assert_ok(run_lock_take(&first, test_folder(), &test_error));
    assert_refused(run_lock_take(&second, test_folder(), &test_error), GRAFT_E_INPUT,
                   "held by process");
    run_lock_release(&first);
    assert_ok(run_lock_take(&second, test_folder(), &test_error));
    run_lock_release(&second);
    run_lock_release(&second);
}

static void lock_of_a_dead_process_is_free(void **state) {
    (void)state;
    run_lock lock;
    pid_t child = fork();
    if (child == 0)
        _exit(run_lock_take(&lock, test_folder(), NULL) == GRAFT_OK ? 0 : 1); /* never released */
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    assert_ok(run_lock_take(&lock, test_folder(), &test_error));
    run_lock_release(&lock);
}

/* F18 */
static void open_file_limit_reached_is_named(void **state) {
    (void)state;
    struct rlimit old, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 3;
    const char *folder = test_folder();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    run_lock lock;
    graft_status status = run_lock_take(&lock, folder, &test_error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_refused(status, GRAFT_E_IO, "may open 3 files");
}

/* R11 */
static void output_folder_read_only(void **state) {
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s/read-only", test_folder());
    assert_ok(folder_create(path, &test_error));
    assert_int_equal(chmod(path, 0555), 0);
    pid_t child = fork();
    if (child == 0) { /* root may write anywhere: become nobody */
        run_lock lock;
        if (geteuid() == 0 && seteuid(65534) != 0)
            _exit(77);
        _exit(run_lock_take(&lock, path, NULL) == GRAFT_E_IO ? 0 : 1);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    if (WIFEXITED(code) && WEXITSTATUS(code) == 77)
        skip();
    assert_int_equal(code, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_writer_of_a_folder_is_refused),
        cmocka_unit_test(lock_of_a_dead_process_is_free),
        cmocka_unit_test(open_file_limit_reached_is_named),
        cmocka_unit_test(output_folder_read_only),
    };
    return cmocka_run_group_tests_name("run lock", tests, NULL, NULL);
}
