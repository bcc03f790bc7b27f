/* Every allocation of a run fails once (promise 2): the run ends with a clean error or goes on;
 * what it publishes is whole; nothing half-written stays. On the reference backend, which has no
 * threads. */
#include "tests/train/bench.h"

#include "base/atomic_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long long failing; /* this allocation fails, counted down; 0: none */

#if TEST_MALLOC_IS_OURS
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static bool fails(void) {
    bool is_it = failing > 0 && --failing == 0;
    if (is_it)
        errno = ENOMEM;
    return is_it;
}

/* Visible: libraries that this program loads must find them too. */
__attribute__((visibility("default"))) void *malloc(size_t n) {
    return fails() ? NULL : __libc_malloc(n);
}
__attribute__((visibility("default"))) void *calloc(size_t n, size_t bytes) {
    return fails() ? NULL : __libc_calloc(n, bytes);
}
__attribute__((visibility("default"))) void *realloc(void *old, size_t n) {
    return fails() ? NULL : __libc_realloc(old, n);
}
__attribute__((visibility("default"))) void *aligned_alloc(size_t alignment, size_t n) {
    return fails() ? NULL : __libc_memalign(alignment, n);
}
#endif

enum { ALLOCATIONS_MAX = 20000 };

static int is_leftover(const struct dirent *entry) {
    return strstr(entry->d_name, ".tmp") != NULL;
}

static void expect_no_leftover(const char *folder) {
    struct dirent **left;
    int n = scandir(folder, &left, is_leftover, alphasort);
    if (n > 0)
        fail_msg("%s was left", left[0]->d_name);
    if (n == 0)
        free(left);
}

static char folder[BENCH_PATH_BYTES];

static void open_small(train_bench *b, const char *name) {
    static const int32_t ids[] = {1, 5, 9, 7};
    bench_open(b, BENCH_REFERENCE, 1, NULL, name);
    snprintf(b->output, sizeof b->output, "%.400s/%s", folder, name);
    assert_ok(dataset_create(&b->data, &test_error));
    for (int row = 0; row < 2; row++)
        assert_ok(dataset_add(b->data, ids, NULL, 4, (data_source){.line = row + 1}, &test_error));
    b->config.per_device_train_batch_size = 1;
    b->config.save_steps = 1;
}

/* In memory where the machine offers that: each of hundreds of runs syncs its files. */
static void choose_folder(void) {
    snprintf(folder, sizeof folder, "/dev/shm/graft-test-XXXXXX");
    if (!mkdtemp(folder))
        snprintf(folder, sizeof folder, "%s", test_folder());
}

static void every_allocation_of_a_run_fails_once(void **state) {
    (void)state;
    char whole[BENCH_PATH_BYTES], name[32];
    train_bench b;
    choose_folder();
    open_small(&b, "whole");
    if (!TEST_MALLOC_IS_OURS) {
        bench_close(&b);
        skip();
    }
    assert_ok(bench_run(&b));
    snprintf(whole, sizeof whole, "%s", b.output);
    bench_close(&b);
    for (long long nth = 1; nth < ALLOCATIONS_MAX; nth++) {
        snprintf(name, sizeof name, "run-%lld", nth);
        open_small(&b, name);
        failing = nth;
        graft_status status = bench_run(&b);
        bool is_over = failing > 0;
        failing = 0;
        if (status == GRAFT_OK) /* where it was the cleaning up that failed, the next run does it */
            assert_same_file(whole, b.output, "adapter_model.safetensors");
        else if (status == GRAFT_E_MEMORY)
            expect_no_leftover(b.output);
        else
            fail_msg("allocation %lld: status %d: %s", nth, status, test_error.message);
        folder_remove(b.output, NULL);
        bench_close(&b);
        if (is_over) {
            assert_true(nth > 100);
            folder_remove(folder, NULL);
            return;
        }
    }
    fail_msg("a run makes more than %d allocations", ALLOCATIONS_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_of_a_run_fails_once),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
