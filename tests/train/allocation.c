/* A step, a logged line and an evaluation allocate nothing: the C library's allocator is counted.
 */
#include "tests/train/bench.h"

#include <stdatomic.h>
#include <stdlib.h>

static atomic_llong allocations;

#if TEST_MALLOC_IS_OURS
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

/* Visible: libraries that this program loads must find them too. */
__attribute__((visibility("default"))) void *malloc(size_t n) {
    allocations++;
    return __libc_malloc(n);
}
__attribute__((visibility("default"))) void *calloc(size_t n, size_t bytes) {
    allocations++;
    return __libc_calloc(n, bytes);
}
__attribute__((visibility("default"))) void *realloc(void *old, size_t n) {
    allocations++;
    return __libc_realloc(old, n);
}
__attribute__((visibility("default"))) void *aligned_alloc(size_t alignment, size_t n) {
    allocations++;
    return __libc_memalign(alignment, n);
}
#endif

enum { EVENTS_MAX = 64 };
static long long at_event[EVENTS_MAX];
static int n_events;

static void note_event(void *context, train_event event, const train_metrics *m) {
    (void)context, (void)event, (void)m;
    if (n_events < EVENTS_MAX)
        at_event[n_events++] = allocations;
}

static void run_and_count(int32_t n_threads, const char *name) {
    train_bench b;
    bench_open(&b, BENCH_CPU, n_threads, NULL, name);
    bench_data(&b, 12, 60);
    assert_ok(dataset_create(&b.eval_data, &test_error));
    bench_add_rows(b.eval_data, 4, 60, 3);
    b.config.num_train_epochs = 2;
    b.config.shuffle = true;
    b.config.eval_steps = 2;
    b.observer.on_metrics = note_event;
    n_events = 0;
    assert_ok(bench_run(&b));
    bench_close(&b);
    assert_int_equal(n_events, 12 + 6);
    assert_true(at_event[0] > 0); /* the count works */
    for (int i = 1; i < n_events; i++)
        if (at_event[i] != at_event[i - 1])
            fail_msg("%lld allocations between event %d and %d", at_event[i] - at_event[i - 1],
                     i - 1, i);
}

static void step_and_evaluation_allocate_nothing(void **state) {
    (void)state;
    if (!TEST_MALLOC_IS_OURS)
        skip();
    run_and_count(1, "one");
    run_and_count(2, "two");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_and_evaluation_allocate_nothing),
    };
    return cmocka_run_group_tests_name("allocation", tests, NULL, NULL);
}
