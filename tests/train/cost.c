/* What a plan counts is what a run computes, to the last operation; and both are what the equations
 * say. */
#include "tests/train/bench.h"

#include "plan/advice.h"
#include "plan/step_cost.h"

#include <stdio.h>
#include <string.h>

/* Puts a meter around the bench's backend. */
static void meter_put_in(train_bench *b) {
    backend *meter;
    assert_ok(backend_create_meter(&meter, b->dev, &test_error));
    b->dev = b->inputs.dev = meter;
}

static double run_flops(const train_bench *b) {
    double flops = 0;
    for (int i = 0; i < N_METER_OPS; i++)
        flops += meter_tallies(b->dev)[i].cost.flops;
    return flops;
}

static void count(step_cost *cost, memory_plan *plan, train_bench *b) {
    data_shape shape = data_shape_of(b->data, NULL);
    assert_ok(train_plan(plan, &b->spec, b->adapter, &b->config, shape, 2,
                         weight_source_mapped_bytes(b->weights), &test_error));
    const step_cost_request request = {.spec = &b->spec,
                                       .adapter = b->adapter,
                                       .config = &b->config,
                                       .data = b->data,
                                       .plan = plan,
                                       .shape = shape};
    assert_ok(step_cost_count(cost, &request, &test_error));
}

static double all(const step_cost *c) {
    return flop_total(&c->forward) + flop_total(&c->backward) + flop_total(&c->recompute);
}

typedef struct counted_case {
    const char *name;
    const char *targets; /* NULL: q and v */
    const char *method;
    bool packing;
    checkpointing_mode checkpointing;
    int64_t rows;
} counted_case;

static void open_case(train_bench *b, const counted_case *c) {
    adapter_config config = {0};
    assert_ok(adapter_config_default(&config, c->method, &test_error));
    if (c->targets)
        config.target_regex = strdup(c->targets);
    bench_open(b, BENCH_CPU, 2, &config, c->name);
    adapter_config_free(&config);
    bench_data(b, c->rows, 200);
    b->config.per_device_train_batch_size = 4;
    b->config.packing = c->packing;
    b->config.checkpointing = c->checkpointing;
}

static void counted_equals_computed(void **state) {
    (void)state;
    static const counted_case cases[] = {
        {"lora", NULL, "lora", true, CHECKPOINTING_OFF, 12},
        {"every-linear", "all-linear", "lora", false, CHECKPOINTING_OFF, 7},
        {"recomputed", "all-linear", "lora", true, CHECKPOINTING_ON, 8},
        {"whole", NULL, "full", true, CHECKPOINTING_OFF, 4},
        {"scales", NULL, "ia3", true, CHECKPOINTING_ON, 4},
        {"made-weights", NULL, "loha", true, CHECKPOINTING_OFF, 4},
        {"prefix", NULL, "prefix_tuning", true, CHECKPOINTING_OFF, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        train_bench b;
        step_cost cost;
        memory_plan plan;
        open_case(&b, &cases[i]);
        count(&cost, &plan, &b);
        meter_put_in(&b);
        assert_ok(bench_run(&b));
        assert_int_equal(cost.steps, b.n_steps);
        assert_int_equal(cost.tokens, b.result.tokens);
        assert_int_equal(cost.supervised, b.result.supervised_tokens);
        test_assert_near(all(&cost), run_flops(&b), 0, 0, cases[i].name);
        assert_true((flop_total(&cost.recompute) > 0) ==
                    (cases[i].checkpointing == CHECKPOINTING_ON));
        bench_close(&b);
    }
}

/* LoRA on every linear layer of a Llama, all tokens labelled but each row's last:
 * docs/numerics.md's equations. */
static void counted_equals_the_equations(void **state) {
    (void)state;
    static const counted_case c = {"equations", "all-linear", "lora", true, CHECKPOINTING_OFF, 0};
    enum { ROWS = 3, LENGTH = 50, N = ROWS * LENGTH, LABELLED = ROWS * (LENGTH - 1), RANK = 8 };
    train_bench b;
    step_cost cost;
    memory_plan plan;
    int32_t ids[LENGTH] = {1};
    open_case(&b, &c);
    for (int row = 0; row < ROWS; row++)
        assert_ok(dataset_add(b.data, ids, NULL, LENGTH, (data_source){0}, &test_error));
    count(&cost, &plan, &b);
    const model_spec *s = &b.spec;
    double d = s->hidden, f = s->intermediate, a = (double)s->n_heads * s->head_dim,
           kv = (double)s->n_kv_heads * s->head_dim, layers = s->n_layers;
    double qkv = d * a + 2 * d * kv, rest = a * d + 3 * d * f; /* what follows attention */
    double head = (double)s->vocab * d;
    double low_qkv = RANK * (3 * d + a + 2 * kv), low_rest = RANK * (a + d + 3 * (d + f));
    double pairs = ROWS * LENGTH * (LENGTH + 1) / 2.0;
    double frozen = 2 * N * ((layers - 1) * (qkv + rest) + qkv) + 2 * LABELLED * rest;
    double low = 2 * N * ((layers - 1) * (low_qkv + low_rest) + low_qkv) + 2 * LABELLED * low_rest;
    /* Nothing is trained below block 0: no dX of its q, k and v. */
    double no_dx = 2 * N * qkv, low_no_dx = 2 * N * RANK * 3 * d;
    test_assert_near(cost.forward.frozen, frozen + 2 * LABELLED * head, 0, 0, "forward");
    test_assert_near(cost.backward.frozen, frozen + 2 * LABELLED * head - no_dx, 0, 0, "backward");
    test_assert_near(cost.forward.trained, low, 0, 0, "low rank forward");
    test_assert_near(cost.backward.trained, 2 * low - low_no_dx, 0, 0, "low rank backward");
    test_assert_near(cost.forward.attention, 4 * pairs * a * layers, 0, 0, "attention");
    test_assert_near(cost.backward.attention, 10 * pairs * a * layers, 0, 0, "its backward");
    test_assert_near(cost.head, 4 * LABELLED * head, 0, 0, "head");
    bench_close(&b);
}

/* More steps than are counted: each counted one stands for as many. */
static void long_data_is_sampled(void **state) {
    (void)state;
    static const counted_case c = {"sampled", NULL, "lora", true, CHECKPOINTING_OFF, 400};
    train_bench b;
    step_cost cost;
    memory_plan plan;
    open_case(&b, &c);
    count(&cost, &plan, &b);
    assert_int_equal(cost.steps, COST_STEPS_MAX);
    assert_int_equal(cost.rows, 4 * COST_STEPS_MAX);
    bench_close(&b);
}

/* ---- What makes it fit ---- */

static void find(advice out[ADVICE_MAX], int *n, train_bench *b, size_t limit) {
    const advice_request request = {.spec = &b->spec,
                                    .adapter = &b->adapter->config,
                                    .config = &b->config,
                                    .data = data_shape_of(b->data, NULL),
                                    .n_threads = 2,
                                    .mapped_bytes = weight_source_mapped_bytes(b->weights),
                                    .limit_bytes = limit};
    assert_ok(advice_find(out, n, &request, &test_error));
    for (int i = 0; i < *n; i++)
        assert_true(out[i].total > 0 && out[i].total <= limit);
}

static bool has_change(const advice *list, int n, const char *text) {
    for (int i = 0; i < n; i++)
        if (strstr(list[i].change, text))
            return true;
    return false;
}

static void advice_fits(void **state) {
    (void)state;
    static const counted_case lora = {"advice", "all-linear", "lora", true, CHECKPOINTING_OFF, 8},
                              whole = {"whole", NULL, "full", true, CHECKPOINTING_AUTO, 8};
    advice list[ADVICE_MAX];
    int n;
    train_bench b;
    memory_plan plan;
    step_cost cost;
    open_case(&b, &lora);
    b.config.per_device_train_batch_size = 1;
    count(&cost, &plan, &b);
    find(list, &n, &b, plan.total - 1000);
    assert_true(has_change(list, n, "--gradient-checkpointing auto"));
    assert_true(has_change(list, n, "--max-length 1"));
    assert_true(has_change(list, n, "-r 7"));
    find(list, &n, &b, 1 << 20); /* less than the base */
    assert_int_equal(n, 0);
    bench_close(&b);

    open_case(&b, &whole);
    b.config.memory_limit_bytes = 1 << 20;
    assert_int_equal(train_plan(&plan, &b.spec, b.adapter, &b.config, data_shape_of(b.data, NULL),
                                2, weight_source_mapped_bytes(b.weights), &test_error),
                     GRAFT_E_MEMORY);
    find(list, &n, &b, plan.total - plan.trainer[COMPONENT_OPTIMIZER]);
    assert_true(has_change(list, n, "--method lora"));
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counted_equals_computed),
        cmocka_unit_test(counted_equals_the_equations),
        cmocka_unit_test(long_data_is_sampled),
        cmocka_unit_test(advice_fits),
    };
    return cmocka_run_group_tests_name("cost", tests, NULL, NULL);
}
