/* The ops of routing under test, and those that carry rows and blocks about: the rest of
 * op_cases.c.
 */
#include "tests/kernelcheck/op_run.h"

#include <assert.h>
#include <stdlib.h>

static const int32_t lengths[] = {3, 5, 0};
enum { WIDTH = 67 };

/* ---- routing: weights of the experts chosen; the choice itself has no gradient ---- */

enum { ROUTE_LOGITS, ROUTE_WEIGHTS, ROUTE_D_WEIGHTS, ROUTE_D_LOGITS, ROUTE_CORRECTION };

typedef struct route_state {
    route_call call;
    int32_t choice[64 * 4];
} route_state;

static void build_route(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const route_call *call = params;
    op_run_begin(run, dev, seed, lengths, NULL, 10);
    run->params = params;
    op_array_add_tokens(run, "logits", call->n_experts, ROLE_INPUT, -1);
    op_array_add_tokens(run, "weights", call->n_chosen, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "d_weights", call->n_chosen, ROLE_COTANGENT, ROUTE_WEIGHTS);
    op_array_add_tokens(run, "d_logits", call->n_experts, ROLE_GRADIENT, ROUTE_LOGITS);
    route_state *state = calloc(1, sizeof *state);
    assert(state);
    run->state = state;
    state->call = *call;
    if (call->kind == ROUTER_SIGMOID) {
        op_array_add(run, "correction", call->n_experts, ROLE_INPUT, -1);
        state->call.correction = op_at(run, ROUTE_CORRECTION);
    }
}

static void forward_route(op_run *run) {
    route_state *state = run->state;
    run->dev->ops->route_fwd(run->dev, op_at(run, ROUTE_WEIGHTS), state->choice,
                             op_at(run, ROUTE_LOGITS), &state->call, run->batch.tokens.n);
}

static void backward_route(op_run *run) {
    const route_state *state = run->state;
    run->dev->ops->route_bwd(run->dev, op_at(run, ROUTE_D_LOGITS), op_at(run, ROUTE_D_WEIGHTS),
                             op_at(run, ROUTE_LOGITS), state->choice, &state->call,
                             run->batch.tokens.n);
}

static const route_call route_all = {
    .kind = ROUTER_SOFTMAX, .n_experts = 7, .n_chosen = 3, .scale = 1, .n_groups = 1};
static const route_call route_normed = {.kind = ROUTER_SOFTMAX,
                                        .n_experts = 7,
                                        .n_chosen = 3,
                                        .normalises = true,
                                        .scale = 1,
                                        .n_groups = 1};
static const route_call route_chosen = {
    .kind = ROUTER_SOFTMAX_CHOSEN, .n_experts = 5, .n_chosen = 2, .scale = 1, .n_groups = 1};
static const route_call route_sigmoid = {.kind = ROUTER_SIGMOID,
                                         .n_experts = 8,
                                         .n_chosen = 3,
                                         .normalises = true,
                                         .scale = 2.5f,
                                         .n_groups = 4,
                                         .n_chosen_groups = 2};

/* ---- clamp, blocks ---- */

enum { CLAMP_X, CLAMP_Y, CLAMP_DY, CLAMP_DX };
static const double CLAMP_LIMIT = 0.8;

static void build_clamp(op_run *run, backend *dev, uint64_t seed, const void *params) {
    (void)params;
    op_run_begin(run, dev, seed, lengths, NULL, 10);
    op_array_add_tokens(run, "x", WIDTH, ROLE_INPUT, -1);
    op_array_add_tokens(run, "y", WIDTH, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "dy", WIDTH, ROLE_COTANGENT, CLAMP_Y);
    op_array_add_tokens(run, "dx", WIDTH, ROLE_GRADIENT, CLAMP_X);
}

static void forward_clamp(op_run *run) {
    int64_t n = run->batch.tokens.n * WIDTH;
    run->dev->ops->copy(run->dev, op_at(run, CLAMP_Y), op_at(run, CLAMP_X), n);
    run->dev->ops->clamp(run->dev, op_at(run, CLAMP_Y), CLAMP_LIMIT, n);
}

static void backward_clamp(op_run *run) {
    int64_t n = run->batch.tokens.n * WIDTH;
    run->dev->ops->copy(run->dev, op_at(run, CLAMP_DX), op_at(run, CLAMP_DY), n);
    run->dev->ops->clamp_bwd(run->dev, op_at(run, CLAMP_DX), op_at(run, CLAMP_Y), CLAMP_LIMIT, n);
}

/* Three blocks of 19 of each row of 67 come together as [3 * 19]; backward sums nothing twice. Then
 * their sum. */
enum {
    BLOCKS_X,
    BLOCKS_Y,
    BLOCKS_SUM,
    BLOCKS_DY,
    BLOCKS_D_SUM,
    BLOCKS_DX,
    N_BLOCKS = 3,
    BLOCK = 19
};
static const block_places blocks_spread = {WIDTH, 24}, blocks_close = {N_BLOCKS * BLOCK, BLOCK},
                          blocks_one = {BLOCK, 0};

static void build_blocks(op_run *run, backend *dev, uint64_t seed, const void *params) {
    (void)params;
    op_run_begin(run, dev, seed, lengths, NULL, 10);
    op_array_add_tokens(run, "x", WIDTH, ROLE_INPUT, -1);
    op_array_add_tokens(run, "y", (int64_t)N_BLOCKS * BLOCK, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "sum", BLOCK, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "dy", (int64_t)N_BLOCKS * BLOCK, ROLE_COTANGENT, BLOCKS_Y);
    op_array_add_tokens(run, "d_sum", BLOCK, ROLE_COTANGENT, BLOCKS_SUM);
    op_array_add_tokens(run, "dx", WIDTH, ROLE_GRADIENT, BLOCKS_X);
}

static void copy_blocks(op_run *run, int to, block_places to_places, int from,
                        block_places from_places, bool add) {
    run->dev->ops->copy_blocks(run->dev, op_at(run, to), to_places, op_at(run, from), from_places,
                               run->batch.tokens.n, N_BLOCKS, BLOCK, add);
}

static void forward_blocks(op_run *run) {
    run->dev->ops->fill(run->dev, op_at(run, BLOCKS_SUM), 0, run->batch.tokens.n * BLOCK);
    copy_blocks(run, BLOCKS_Y, blocks_close, BLOCKS_X, blocks_spread, false);
    copy_blocks(run, BLOCKS_SUM, blocks_one, BLOCKS_X, blocks_spread, true);
}

static void backward_blocks(op_run *run) {
    run->dev->ops->fill(run->dev, op_at(run, BLOCKS_DX), 0, run->batch.tokens.n * WIDTH);
    copy_blocks(run, BLOCKS_DX, blocks_spread, BLOCKS_DY, blocks_close, false);
    copy_blocks(run, BLOCKS_DX, blocks_spread, BLOCKS_D_SUM, blocks_one, true);
}

static const op_case cases[] = {
    {"route_all", build_route, forward_route, backward_route, &route_all, true, 16, false, false},
    {"route_normed", build_route, forward_route, backward_route, &route_normed, true, 16, false,
     false},
    {"route_chosen", build_route, forward_route, backward_route, &route_chosen, true, 16, false,
     false},
    {"route_sigmoid", build_route, forward_route, backward_route, &route_sigmoid, true, 16, false,
     false},
    {"clamp", build_clamp, forward_clamp, backward_clamp, NULL, true, 2, false, false},
    {"blocks", build_blocks, forward_blocks, backward_blocks, NULL, true, 2, false, false},
};

const op_case *routing_case_at(int i) {
    return i < (int)(sizeof cases / sizeof cases[0]) ? &cases[i] : NULL;
}
