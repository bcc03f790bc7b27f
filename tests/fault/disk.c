/* Disks that fill, bases that are replaced, memory that is not there: in a whole run. */
#include "tests/train/bench.h"
#include "tests/train/spy.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* ---- Files may not grow past a limit: the nearest to a full disk that needs no mount ---- */

static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static int lift_limit(void **state) {
    (void)state;
    limit_files(RLIM_INFINITY);
    return 0;
}

enum { SMALL_FILE = 12000 }; /* metrics fit, tensors do not */

static void open_saving(train_bench *b, const char *name) {
    bench_open(b, BENCH_CPU, 1, NULL, name);
    bench_data(b, 12, 20); /* six steps */
    b->config.save_steps = 2;
    signal(SIGXFSZ, SIG_IGN);
}

/* F2 at every save and at the end. */
static void disk_full_for_the_whole_run(void **state) {
    (void)state;
    train_bench b;
    open_saving(&b, "full");
    limit_files(SMALL_FILE);
    graft_status status = bench_run(&b);
    limit_files(RLIM_INFINITY);
    assert_refused(status, GRAFT_E_IO, "adapter_model.safetensors");
    assert_int_equal(b.n_steps, 6);
    assert_non_null(strstr(b.messages, "no checkpoint at step 2: "));
    assert_non_null(strstr(b.messages, "tries again at step 3"));
    assert_non_null(strstr(b.messages, "no checkpoint at step 3: "));
    assert_false(path_exists(bench_path(&b, "adapter_config.json")));
    assert_false(path_exists(bench_path(&b, "README.md")));
    assert_false(path_exists(bench_path(&b, "checkpoint-2.tmp")));
    assert_false(path_exists(bench_path(&b, ".publish.tmp")));
    bench_close(&b);
}

static void lift_at_step_3(void *context, train_event event, const train_metrics *m) {
    (void)context, (void)event;
    if (m->step == 3)
        limit_files(RLIM_INFINITY);
}

static void disk_full_for_a_while(void **state) {
    (void)state;
    train_bench b;
    open_saving(&b, "while");
    b.observer.on_metrics = lift_at_step_3;
    limit_files(SMALL_FILE);
    assert_ok(bench_run(&b));
    assert_false(path_exists(bench_path(&b, "checkpoint-2")));
    assert_true(path_exists(bench_path(&b, "checkpoint-3/manifest.json")));
    assert_true(path_exists(bench_path(&b, "adapter_model.safetensors")));
    bench_close(&b);
}

/* A stop that cannot save says so: its exit status must not promise a checkpoint. */
static void disk_full_when_stopped(void **state) {
    (void)state;
    train_bench b;
    open_saving(&b, "stopped");
    b.stop_at = 1;
    limit_files(SMALL_FILE);
    graft_status status = bench_run(&b);
    limit_files(RLIM_INFINITY);
    assert_refused(status, GRAFT_E_IO, "state.safetensors");
    bench_close(&b);
}

/* F1 */
static void disk_too_small_for_the_run_warns_at_the_start(void **state) {
    (void)state;
    train_bench b;
    open_saving(&b, "preflight");
    b.config.max_steps = (int64_t)1 << 50;
    b.config.save_steps = 1;
    b.stop_at = 1;
    assert_refused(bench_run(&b), GRAFT_E_INTERRUPTED, "stopped after step 1");
    assert_non_null(strstr(b.messages, "this run will write about"));
    bench_close(&b);
}

/* ---- F14 ---- */

static char base_folder[BENCH_PATH_BYTES];

static void copy_base_file(const char *name) {
    char path[BENCH_PATH_BYTES + 64], *text;
    size_t n;
    snprintf(path, sizeof path, "models/stories260K/%s", name);
    assert_ok(file_read_all(&text, &n, test_data(path), 1 << 26, &test_error));
    snprintf(path, sizeof path, "%s/%s", base_folder, name);
    assert_ok(file_write_atomic(path, text, n, &test_error));
    free(text);
}

static void replace_base(void *context, train_event event, const train_metrics *m) {
    (void)context, (void)event;
    if (m->step == 3)
        copy_base_file("model.safetensors"); /* the same bytes, and yet another file */
}

static void base_replaced_during_the_run(void **state) {
    (void)state;
    train_bench b;
    open_saving(&b, "replaced");
    snprintf(base_folder, sizeof base_folder, "%s/base", test_folder());
    assert_ok(folder_create(base_folder, &test_error));
    copy_base_file("model.safetensors");
    weight_source_close(&b.weights);
    assert_ok(weight_source_open(&b.weights, b.dev, &b.spec, base_folder, NULL, &test_error));
    b.inputs.weights = b.weights;
    b.observer.on_metrics = replace_base;
    assert_refused(bench_run(&b), GRAFT_E_INPUT, "base/model.safetensors");
    assert_true(path_exists(bench_path(&b, "checkpoint-2")));
    assert_false(path_exists(bench_path(&b, "checkpoint-4")));
    assert_false(path_exists(bench_path(&b, "adapter_model.safetensors")));
    bench_close(&b);
}

/* ---- F8 ---- */

static void device_memory_that_is_not_there(void **state) {
    (void)state;
    for (int nth = 1; nth <= 2; nth++) {
        train_bench b;
        open_saving(&b, "no-memory");
        spy_put_in(b.dev);
        the_spy.failing_alloc = nth;
        assert_refused(bench_run(&b), GRAFT_E_MEMORY, nth == 1 ? "moments" : "activations");
        assert_false(path_exists(b.output));
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(disk_full_for_the_whole_run, lift_limit),
        cmocka_unit_test_teardown(disk_full_for_a_while, lift_limit),
        cmocka_unit_test_teardown(disk_full_when_stopped, lift_limit),
        cmocka_unit_test(disk_too_small_for_the_run_warns_at_the_start),
        cmocka_unit_test(base_replaced_during_the_run),
        cmocka_unit_test(device_memory_that_is_not_there),
    };
    return cmocka_run_group_tests_name("disk and memory", tests, NULL, NULL);
}
