/* Arrays that an op's contract lets share memory: the result must be the one without sharing, bit
 * for bit. */
#include "backend/ops.h"
#include "base/rng.h"
#include "tests/support/support.h"

#include <string.h>

enum { ROWS = 5, COLS = 83, N = ROWS * COLS, INPUTS = 5 };

typedef struct rig {
    backend *dev;
    device_array *x[INPUTS]; /* random; restored by restore() */
    device_array *out[2];    /* results without sharing */
    device_array *rstd;
    double values[INPUTS][N];
} rig;

static void restore(rig *b) {
    for (int i = 0; i < INPUTS; i++)
        b->dev->ops->upload(b->dev, b->x[i], b->values[i], DTYPE_F64, N);
}

static int set_up(void **state) {
    static rig b;
    memset(&b, 0, sizeof b);
    b.dev = *state;
    if (b.dev) { /* the state says which backend */
        cpu_features features = cpu_features_detect();
        if (backend_create_cpu(&b.dev, 2, &features, &test_error) != GRAFT_OK)
            return 1;
    } else if (backend_create_reference(&b.dev, &test_error) != GRAFT_OK)
        return 1;
    rng r = rng_create(5, 6);
    for (int i = 0; i < INPUTS; i++) {
        b.x[i] = b.dev->ops->alloc(b.dev, N * b.dev->element_bytes);
        for (int j = 0; j < N; j++)
            b.values[i][j] = rng_normal(&r);
    }
    for (int i = 0; i < 2; i++)
        b.out[i] = b.dev->ops->alloc(b.dev, N * b.dev->element_bytes);
    b.rstd = b.dev->ops->alloc(b.dev, ROWS * b.dev->element_bytes);
    restore(&b);
    *state = &b;
    return 0;
}

static int tear_down(void **state) {
    rig *b = *state;
    for (int i = 0; i < INPUTS; i++)
        b->dev->ops->release(b->dev, b->x[i]);
    for (int i = 0; i < 2; i++)
        b->dev->ops->release(b->dev, b->out[i]);
    b->dev->ops->release(b->dev, b->rstd);
    backend_destroy(&b->dev);
    return 0;
}

static void assert_same(const rig *b, const device_array *shared, const device_array *apart) {
    assert_memory_equal(shared, apart, N * b->dev->element_bytes);
}

static const gate_call silu = {.kind = ACTIVATION_SILU};

static void gated_fwd_over_gate_or_up(void **state) {
    rig *b = *state;
    const op_table *ops = b->dev->ops;
    ops->gated_fwd(b->dev, b->out[0], b->x[0], b->x[1], &silu, N);
    for (int i = 0; i < 2; i++) {
        restore(b);
        ops->gated_fwd(b->dev, b->x[i], b->x[0], b->x[1], &silu, N);
        assert_same(b, b->x[i], b->out[0]);
    }
}

static void gated_bwd_over_gate_and_up_or_dh(void **state) {
    rig *b = *state;
    const op_table *ops = b->dev->ops;
    restore(b);
    ops->gated_bwd(b->dev, b->out[0], b->out[1], b->x[2], b->x[0], b->x[1], &silu, N);
    for (int i = 1; i < 3; i++) {
        restore(b);
        ops->gated_bwd(b->dev, b->x[0], b->x[i], b->x[2], b->x[0], b->x[1], &silu, N);
        assert_same(b, b->x[0], b->out[0]);
        assert_same(b, b->x[i], b->out[1]);
    }
}

static void norm_fwd_in_place(void **state) {
    rig *b = *state;
    norm_call call = {.weight = b->x[1], .eps = 1e-6f};
    const op_table *ops = b->dev->ops;
    restore(b);
    ops->norm_fwd(b->dev, b->out[0], b->rstd, b->x[0], &call, ROWS, COLS);
    ops->norm_fwd(b->dev, b->x[0], b->rstd, b->x[0], &call, ROWS, COLS);
    assert_same(b, b->x[0], b->out[0]);
}

static void norm_bwd_over_dy(void **state) {
    rig *b = *state;
    norm_call call = {.weight = b->x[1], .eps = 1e-6f};
    const op_table *ops = b->dev->ops;
    const int32_t grid[2] = {0, ROWS};
    const token_rows tokens = {.n = ROWS, .grid = grid, .n_grid = 1};
    restore(b);
    ops->norm_fwd(b->dev, b->out[1], b->rstd, b->x[0], &call, ROWS, COLS);
    ops->fill(b->dev, b->x[3], 0, N);
    ops->fill(b->dev, b->x[4], 0, N);
    call.d_weight = b->x[3];
    ops->norm_bwd(b->dev, b->out[0], b->x[2], b->x[0], b->rstd, &call, 1, COLS, false, &tokens);
    call.d_weight = b->x[4];
    ops->norm_bwd(b->dev, b->x[2], b->x[2], b->x[0], b->rstd, &call, 1, COLS, false, &tokens);
    assert_same(b, b->x[2], b->out[0]);
    assert_same(b, b->x[4], b->x[3]);
}

int main(void) {
    static char is_cpu; /* any address: the CPU backend; NULL: the reference */
    const struct CMUnitTest tests[] = {
        {"gated_fwd_over_gate_or_up", gated_fwd_over_gate_or_up, set_up, tear_down, &is_cpu},
        {"gated_bwd_over_gate_and_up_or_dh", gated_bwd_over_gate_and_up_or_dh, set_up, tear_down,
         &is_cpu},
        {"norm_fwd_in_place", norm_fwd_in_place, set_up, tear_down, &is_cpu},
        {"norm_bwd_over_dy", norm_bwd_over_dy, set_up, tear_down, &is_cpu},
        {"reference_gated_fwd_over_gate_or_up", gated_fwd_over_gate_or_up, set_up, tear_down, NULL},
        {"reference_gated_bwd_over_gate_and_up_or_dh", gated_bwd_over_gate_and_up_or_dh, set_up,
         tear_down, NULL},
        {"reference_norm_fwd_in_place", norm_fwd_in_place, set_up, tear_down, NULL},
        {"reference_norm_bwd_over_dy", norm_bwd_over_dy, set_up, tear_down, NULL},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
