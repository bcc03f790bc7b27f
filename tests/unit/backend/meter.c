/* The meter: every op is handed on, and counted for what it is. */
#include "tests/support/support.h"

#include "backend/meter/meter.h"

#include <string.h>

/* An op without a line would crash the first profile that meets it. */
static void the_table_has_no_gap(void **state) {
    (void)state;
    backend *meter;
    assert_ok(backend_create_meter(&meter, NULL, &test_error));
    void *ops[sizeof(op_table) / sizeof(void *)];
    memcpy(ops, meter->ops, sizeof ops);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (!ops[i])
            fail_msg("entry %zu of op_table has no counterpart in the meter", i);
    for (int i = 0; i < N_METER_OPS; i++)
        assert_non_null(meter_op_name((meter_op)i));
    backend_destroy(&meter);
    assert_null(meter);
}

static void hands_on_and_counts(void **state) {
    (void)state;
    enum { N = 100 };
    backend *inner, *meter;
    float values[N];
    assert_ok(backend_create_reference(&inner, &test_error));
    assert_ok(backend_create_meter(&meter, inner, &test_error));
    assert_int_equal(meter->element, DTYPE_F64);
    device_array *x = meter->ops->alloc(meter, 2 * N * meter->element_bytes);
    device_array *y = array_at(meter, x, N);
    meter->ops->fill(meter, x, 3, N);
    meter->ops->fill(meter, y, 4, N);
    meter->ops->add(meter, y, x, N);
    meter->ops->download(meter, values, y, N);
    assert_true(values[0] == 7.0f && values[N - 1] == 7.0f);
    assert_true(meter->ops->sum_squares(meter, y, N) == 49.0 * N);
    const meter_tally *tallies = meter_tallies(meter);
    assert_int_equal(tallies[METER_FILL].calls, 2);
    assert_int_equal(tallies[METER_ADD].calls, 1);
    assert_true(tallies[METER_ADD].cost.bytes == 3.0 * N * sizeof(double));
    assert_true(tallies[METER_ADD].cost.flops == 0);
    assert_true(tallies[METER_FILL].seconds > 0);
    meter_reset(meter);
    assert_int_equal(tallies[METER_FILL].calls, 0);
    meter->ops->release(meter, x);
    backend_destroy(&meter);
}

static void without_an_inner_one_memory_is_addresses(void **state) {
    (void)state;
    backend *meter;
    float first = 1;
    assert_ok(backend_create_meter(&meter, NULL, &test_error));
    const size_t bytes = (size_t)1 << 40; /* more than any machine here has */
    device_array *x = meter->ops->alloc(meter, bytes);
    assert_non_null(x);
    meter->ops->fill(meter, x, 1, (int64_t)1 << 38);
    meter->ops->download(meter, &first, x, 1);
    assert_true(first == 0);
    meter->ops->release(meter, x);
    assert_null(meter->ops->alloc(meter, SIZE_MAX - 100));
    backend_destroy(&meter);
}

static void only_a_meter_has_tallies(void **state) {
    (void)state;
    backend *reference;
    assert_ok(backend_create_reference(&reference, &test_error));
    assert_null(meter_tallies(reference));
    meter_reset(reference);
    backend_destroy(&reference);
}

/* ---- Costs ---- */

static double pairs_one_by_one(int32_t n, int32_t past, int32_t window) {
    double pairs = 0;
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = 0; j <= past + i; j++)
            pairs += window == 0 || past + i - j < window;
    return pairs;
}

static void attention_counts_the_pairs_it_sees(void **state) {
    (void)state;
    static const int32_t cases[][3] = {{1, 0, 0},   {7, 0, 0},   {7, 5, 0},  {40, 0, 16},
                                       {40, 0, 40}, {40, 0, 64}, {9, 20, 8}, {9, 20, 24},
                                       {9, 20, 28}, {1, 30, 4},  {3, 2, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t n = cases[i][0];
        const kv_view past = {.length = cases[i][1]};
        const segment row = {.token_end = n, .past = cases[i][1] ? &past : NULL};
        const batch b = {.tokens = {.n = n}, .segments = &row, .n_segments = 1};
        const attention_call call = {
            .n_heads = 3, .n_kv_heads = 1, .head_dim = 8, .window = cases[i][2]};
        double pairs = pairs_one_by_one(n, cases[i][1], cases[i][2]);
        assert_true(attention_cost(&call, &b, 0, 4, false).flops == 4 * pairs * 3 * 8);
        assert_true(attention_cost(&call, &b, 0, 4, true).flops == 10 * pairs * 3 * 8);
    }
}

/* One term for the second job's 3 of 10 tokens. */
static void linear_counts_what_it_needs(void **state) {
    (void)state;
    enum { N = 10, IN = 6, OUT = 4, RANK = 2, MINE = 3 };
    float gradient;
    device_array *some = (device_array *)(void *)&gradient;
    const int32_t jobs[] = {0, N - MINE, N};
    const token_rows rows = {.n = N, .job_begin = jobs, .n_jobs = 2};
    low_rank_term term = {.rank = RANK, .job = 1};
    linear_call call = {
        .weight = {.type = DTYPE_BF16, .rows = OUT, .cols = IN}, .terms = &term, .n_terms = 1};
    op_cost forward = linear_fwd_cost(&call, &rows, 4, false);
    assert_true(forward.flops == 2 * N * IN * OUT + 2 * MINE * RANK * (IN + OUT));
    assert_true(forward.trained_flops == 2 * MINE * RANK * (IN + OUT));
    /* Frozen term: only dX passes. */
    op_cost backward = linear_bwd_cost(&call, &rows, 4, true, false);
    assert_true(backward.flops == forward.flops);
    term.da = term.db = some;
    backward = linear_bwd_cost(&call, &rows, 4, true, false);
    assert_true(backward.trained_flops == 4 * MINE * RANK * (IN + OUT));
    backward = linear_bwd_cost(&call, &rows, 4, false, false);
    assert_true(backward.flops == 2 * MINE * RANK * (IN + 2 * OUT));
    call.d_weight = some;
    backward = linear_bwd_cost(&call, &rows, 4, false, false);
    assert_true(backward.flops == 2 * MINE * RANK * (IN + 2 * OUT) + 2 * N * IN * OUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_has_no_gap),
        cmocka_unit_test(hands_on_and_counts),
        cmocka_unit_test(without_an_inner_one_memory_is_addresses),
        cmocka_unit_test(only_a_meter_has_tallies),
        cmocka_unit_test(attention_counts_the_pairs_it_sees),
        cmocka_unit_test(linear_counts_what_it_needs),
    };
    return cmocka_run_group_tests_name("meter", tests, NULL, NULL);
}
