/* What must not change a bit of a run: threads, packing, how a step is cut, checkpointing, an
 * evaluation in between. And the plan: what it says is what is allocated. */
#include "tests/train/bench.h"
#include "tests/train/spy.h"

#include "base/atomic_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char ADAPTER[] = "adapter_model.safetensors";

/* Dropout is on: it must follow the row, not its place in a buffer. */
static void open_dropout(train_bench *b, int32_t n_threads, const char *name) {
    adapter_config config = {0};
    bench_open(b, BENCH_CPU, n_threads, NULL, name);
    assert_ok(adapter_config_copy(&config, &b->adapter->config, &test_error));
    config.lora_dropout = 0.1;
    adapter_destroy(&b->adapter);
    assert_ok(adapter_create(&b->adapter, &config, &b->spec, 0, NULL, &test_error));
    adapter_config_free(&config);
    b->inputs.adapter = b->adapter;
    b->config.shuffle = true;
    b->config.num_train_epochs = 2;
}

typedef void change_fn(train_bench *);

static void nothing(train_bench *b) {
    (void)b;
}

/* Runs 12 rows twice over in steps of 4, changed by `change`; the output folder is named. */
static void run_changed(const char *name, int32_t n_threads, change_fn *change, memory_plan *plan,
                        char output[BENCH_PATH_BYTES]) {
    train_bench b;
    open_dropout(&b, n_threads, name);
    bench_data(&b, 14, 300); /* longer than a block of the grid */
    b.config.per_device_train_batch_size = 4;
    change(&b);
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_steps, 8);
    *plan = b.result.plan;
    snprintf(output, BENCH_PATH_BYTES, "%s", b.output);
    bench_close(&b);
}

static void expect_same(const char *name, int32_t n_threads, change_fn *change, memory_plan *plan) {
    static char expected[BENCH_PATH_BYTES];
    char got[BENCH_PATH_BYTES];
    memory_plan unused;
    if (!*expected)
        run_changed("plain", 1, nothing, &unused, expected);
    run_changed(name, n_threads, change, plan ? plan : &unused, got);
    assert_same_file(expected, got, ADAPTER);
}

static void run_to_run_same_bits(void **state) {
    (void)state;
    expect_same("again", 1, nothing, NULL);
}

static void threads_same_bits(void **state) {
    (void)state;
    expect_same("two", 2, nothing, NULL);
    expect_same("three", 3, nothing, NULL);
}

static void accumulate(train_bench *b) {
    b->config.per_device_train_batch_size = 1;
    b->config.gradient_accumulation_steps = 4;
}

static void accumulate_pairs(train_bench *b) {
    b->config.per_device_train_batch_size = 2;
    b->config.gradient_accumulation_steps = 2;
}

static void accumulation_equals_one_large_batch(void **state) {
    (void)state;
    expect_same("accumulated", 2, accumulate, NULL);
    expect_same("pairs", 2, accumulate_pairs, NULL);
}

static void pack(train_bench *b) {
    b->config.packing = true;
}

static void packed_equals_unpacked(void **state) {
    (void)state;
    expect_same("packed", 2, pack, NULL);
}

static void recompute(train_bench *b) {
    b->config.checkpointing = CHECKPOINTING_ON;
}

static void checkpointing_same_bits(void **state) {
    (void)state;
    memory_plan plan;
    expect_same("recomputed", 2, recompute, &plan);
    assert_int_equal(plan.layers_from_input, plan.backward_layers);
}

static void evaluate_often(train_bench *b) {
    assert_ok(dataset_create(&b->eval_data, &test_error));
    bench_add_rows(b->eval_data, 5, 200, 7);
    b->config.eval_steps = 1;
}

static void evaluation_leaves_training_alone(void **state) {
    (void)state;
    expect_same("evaluated", 2, evaluate_often, NULL);
}

/* ---- The plan ---- */

static void auto_plan(train_bench *b) {
    b->config.checkpointing = CHECKPOINTING_AUTO;
}

/* Whether a run of run_changed's data fits. */
static bool plan_fits(size_t bytes) {
    train_bench b;
    memory_plan plan;
    open_dropout(&b, 2, "planned");
    bench_data(&b, 14, 300);
    b.config.per_device_train_batch_size = 4;
    b.config.checkpointing = CHECKPOINTING_AUTO;
    b.config.memory_limit_bytes = (int64_t)bytes;
    graft_status status =
        train_plan(&plan, &b.spec, b.adapter, &b.config, data_shape_of(b.data, NULL), 2,
                   weight_source_mapped_bytes(b.weights), &test_error);
    bench_close(&b);
    return status == GRAFT_OK;
}

static size_t limit_bytes;
static void limit(train_bench *b) {
    b->config.checkpointing = CHECKPOINTING_AUTO;
    b->config.memory_limit_bytes = (int64_t)limit_bytes;
}

/* The limit goes down to what just does not fit any more, until nothing does: every shape that
 * `auto` comes by trains the same adapter. */
static void auto_splits_then_recomputes_and_bits_stay(void **state) {
    (void)state;
    memory_plan plan, before = {0};
    int splits = 0, without_mlp = 0, from_input = 0;
    expect_same("auto", 2, auto_plan, &before);
    assert_int_equal(before.layers_from_input + before.layers_without_mlp, 0);
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof name, "tight-%d", i);
        limit_bytes = before.total - 1;
        if (!plan_fits(limit_bytes))
            break;
        expect_same(name, 2, limit, &plan);
        assert_true(plan.total <= limit_bytes);
        splits += plan.max_tokens < before.max_tokens;
        without_mlp += plan.layers_without_mlp > before.layers_without_mlp;
        from_input += plan.layers_from_input > before.layers_from_input;
        before = plan;
    }
    assert_true(splits > 0 && without_mlp > 0 && from_input > 0);
    assert_int_equal(before.layers_from_input, before.backward_layers);
}

static void memory_limit_too_small(void **state) {
    (void)state;
    train_bench b;
    bench_open(&b, BENCH_CPU, 1, NULL, "too-small");
    bench_data(&b, 4, 100);
    b.config.memory_limit_bytes = 1 << 20;
    b.config.checkpointing = CHECKPOINTING_AUTO;
    assert_refused(bench_run(&b), GRAFT_E_MEMORY, "Largest: ");
    assert_non_null(strstr(test_error.message, "max_length"));
    assert_false(path_exists(b.output));
    bench_close(&b);
}

static size_t sum(const size_t parts[N_COMPONENTS]) {
    size_t total = 0;
    for (int i = 0; i < N_COMPONENTS; i++)
        total += parts[i];
    return total;
}

static void plan_equals_what_a_run_allocates(void **state) {
    (void)state;
    for (int checkpointing = CHECKPOINTING_ON; checkpointing <= CHECKPOINTING_OFF;
         checkpointing++) {
        train_bench b;
        char name[32];
        snprintf(name, sizeof name, "plan-%d", checkpointing);
        bench_open(&b, BENCH_CPU, 2, NULL, name);
        bench_data(&b, 8, 200);
        b.config.checkpointing = (checkpointing_mode)checkpointing;
        memory_plan plan;
        assert_ok(train_plan(&plan, &b.spec, b.adapter, &b.config, data_shape_of(b.data, NULL), 2,
                             weight_source_mapped_bytes(b.weights), &test_error));
        spy_put_in(b.dev);
        assert_ok(bench_run(&b));
        assert_int_equal(plan.total, b.result.plan.total);
        assert_memory_equal(plan.trainer, b.result.plan.trainer, sizeof plan.trainer);
        assert_memory_equal(plan.step, b.result.plan.step, sizeof plan.step);
        assert_int_equal(plan.host, b.result.plan.host);
        assert_int_equal(plan.max_tokens, b.result.plan.max_tokens);
        assert_int_equal(the_spy.n_allocated, 2);
        assert_int_equal(the_spy.allocated[0], sum(plan.trainer));
        assert_int_equal(the_spy.allocated[1], sum(plan.step));
        assert_int_equal(plan.total, plan.model_mapped + plan.model_uploaded + sum(plan.trainer) +
                                         sum(plan.step) + plan.backend_workspace + plan.host);
        bench_close(&b);
    }
}

static void evaluation_loss_is_the_mean_over_tokens(void **state) {
    (void)state;
    train_bench b;
    bench_open(&b, BENCH_CPU, 2, NULL, "evaluation");
    bench_data(&b, 6, 100);
    assert_ok(dataset_create(&b.eval_data, &test_error));
    bench_add_rows(b.eval_data, 6, 100, 1); /* the training rows */
    b.config.per_device_train_batch_size = 6;
    b.config.learning_rate = 0;
    b.config.max_steps = 2;
    assert_ok(bench_run(&b));
    assert_int_equal(b.n_evaluations, 1);
    test_assert_near(b.eval_loss, b.losses[0], 0, 1e-7, "evaluation");
    test_assert_near(b.result.eval_loss, b.losses[1], 0, 1e-7, "result");
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_to_run_same_bits),
        cmocka_unit_test(threads_same_bits),
        cmocka_unit_test(accumulation_equals_one_large_batch),
        cmocka_unit_test(packed_equals_unpacked),
        cmocka_unit_test(checkpointing_same_bits),
        cmocka_unit_test(evaluation_leaves_training_alone),
        cmocka_unit_test(auto_splits_then_recomputes_and_bits_stay),
        cmocka_unit_test(memory_limit_too_small),
        cmocka_unit_test(plan_equals_what_a_run_allocates),
        cmocka_unit_test(evaluation_loss_is_the_mean_over_tokens),
    };
    return cmocka_run_group_tests_name("invariance", tests, NULL, NULL);
}
