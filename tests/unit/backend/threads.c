#include "backend/cpu/threads.h"
#include "tests/support/support.h"

#include <stdatomic.h>

enum { TASKS = 1000, THREADS = 5 };

typedef struct counts {
    atomic_int of_task[TASKS];
    atomic_int inside[THREADS]; /* tasks that run under a thread's number now */
    atomic_int violations;
} counts;

static void count_task(void *context, int64_t i, int32_t thread) {
    counts *c = context;
    if (thread < 0 || thread >= THREADS || atomic_fetch_add(&c->inside[thread], 1) != 0)
        atomic_fetch_add(&c->violations, 1);
    atomic_fetch_add(&c->of_task[i], 1);
    atomic_fetch_sub(&c->inside[thread], 1);
}

static void every_task_runs_once(void **state) {
    (void)state;
    for (int32_t n_threads = 1; n_threads <= THREADS; n_threads++) {
        thread_team *team;
        assert_ok(thread_team_create(&team, n_threads, &test_error));
        counts c = {0};
        for (int round = 1; round <= 300; round++) {
            int64_t n_tasks = round % 10 == 0 ? TASKS : round % 4;
            counts before = {0};
            for (int64_t i = 0; i < TASKS; i++)
                before.of_task[i] = atomic_load(&c.of_task[i]);
            thread_team_run(team, n_tasks, count_task, &c);
            for (int64_t i = 0; i < TASKS; i++)
                assert_int_equal(atomic_load(&c.of_task[i]), before.of_task[i] + (i < n_tasks));
        }
        assert_int_equal(atomic_load(&c.violations), 0);
        thread_team_destroy(&team);
        assert_null(team);
    }
}

static void what_tasks_wrote_is_seen_after_the_run(void **state) {
    (void)state;
    thread_team *team;
    assert_ok(thread_team_create(&team, 3, &test_error));
    for (int round = 0; round < 2000; round++) {
        counts c = {0};
        thread_team_run(team, 7, count_task, &c);
        for (int i = 0; i < 7; i++)
            assert_int_equal(atomic_load_explicit(&c.of_task[i], memory_order_relaxed), 1);
    }
    thread_team_destroy(&team);
}

static void destroying_nothing_is_allowed(void **state) {
    (void)state;
    thread_team *none = NULL;
    thread_team_destroy(&none);
    thread_team_destroy(NULL);
    assert_true(thread_count_default() >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(what_tasks_wrote_is_seen_after_the_run),
        cmocka_unit_test(destroying_nothing_is_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
