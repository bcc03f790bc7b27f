/* F4: a run that is killed at twenty random moments and resumed each time ends with the same bytes
 * as one that was not. */
#include "tests/train/bench.h"

#include "base/atomic_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KILLS = 20, STEPS = 120, ATTEMPTS_MAX = 100, NOTHING_TO_RESUME = 2 };

static const double TO_THE_END = 1e9;
static int progress_pipe[2];

static void tell_parent(void *context, train_event event, const train_metrics *m) {
    (void)context, (void)event, (void)m;
    if (write(progress_pipe[1], ".", 1) != 1)
        _exit(9);
}

/* In a child: threads of the backend must not be there when a process forks. */
static int run_child(const char *name, bool resume) {
    train_bench b;
    bench_open(&b, BENCH_CPU, 1, NULL, name);
    bench_data(&b, 22, 40);
    b.observer.on_metrics = tell_parent;
    b.config.max_steps = STEPS;
    b.config.shuffle = true;
    b.config.save_steps = 1;
    b.config.save_total_limit = 3;
    b.config.resume = resume ? "" : NULL;
    graft_status status = bench_run(&b);
    bench_close(&b);
    return status == GRAFT_OK ? 0 : status == GRAFT_E_INPUT && resume ? NOTHING_TO_RESUME : 1;
}

static pid_t start(const char *name, bool resume) {
    assert_int_equal(pipe(progress_pipe), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(progress_pipe[0]);
        _exit(run_child(name, resume));
    }
    close(progress_pipe[1]);
    return child;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Waits for so many steps (fewer when the run ends before), then a little longer, then kills;
 * TO_THE_END kills nothing. Returns the exit status, or -1 when the kill met a living process. */
static int run_until(const char *name, bool resume, int steps, double extra_s) {
    char dot;
    int code;
    pid_t child = start(name, resume);
    while (steps > 0 && read(progress_pipe[0], &dot, 1) == 1)
        steps--;
    if (extra_s < TO_THE_END) {
        struct timespec pause = {(time_t)extra_s, (long)((extra_s - floor(extra_s)) * 1e9)};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
    }
    assert_int_equal(waitpid(child, &code, 0), child);
    close(progress_pipe[0]);
    return WIFSIGNALED(code) ? -1 : WEXITSTATUS(code);
}

static void killed_twenty_times_ends_with_the_same_bytes(void **state) {
    (void)state;
    (void)test_data("models/stories260K");
    char whole[300], killed[300], last[2][340];
    snprintf(whole, sizeof whole, "%s/whole", test_folder());
    snprintf(killed, sizeof killed, "%s/killed", test_folder());
    double started = now_s();
    assert_int_equal(run_until("whole", false, STEPS, TO_THE_END), 0);
    double step_s = (now_s() - started) / STEPS;
    rng random = rng_create(20240607, 1);
    int kills = 0, code = NOTHING_TO_RESUME;
    for (int attempt = 0; attempt < ATTEMPTS_MAX && code != 0; attempt++) {
        bool is_last = kills == KILLS;
        int steps = is_last ? STEPS : (int)rng_below(&random, 4);
        double extra_s = is_last ? TO_THE_END : 1.5 * step_s * rng_uniform(&random);
        code = run_until("killed", code != NOTHING_TO_RESUME, steps, extra_s);
        assert_int_not_equal(code, 1);
        kills += code == -1;
    }
    assert_int_equal(code, 0);
    assert_int_equal(kills, KILLS);
    assert_same_file(whole, killed, "adapter_model.safetensors");
    snprintf(last[0], sizeof last[0], "%s/checkpoint-%d", whole, STEPS);
    snprintf(last[1], sizeof last[1], "%s/checkpoint-%d", killed, STEPS);
    assert_same_file(last[0], last[1], "state.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_twenty_times_ends_with_the_same_bytes),
    };
    return cmocka_run_group_tests_name("kill", tests, NULL, NULL);
}
