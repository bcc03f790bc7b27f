/* The ops under test, as data: sizes are odd on purpose, and every option of an op's contract
 * occurs. */
#include "tests/kernelcheck/op_run.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- linear ---- */

typedef struct linear_params {
    int32_t lengths[OP_SEGMENTS_MAX], jobs[OP_SEGMENTS_MAX];
    int64_t in, out;
    int64_t extra_stride; /* of the stored weight's rows */
    bool is_transposed;
    dtype type; /* stored, frozen; N_DTYPES: a trained master in the backend's own type */
    bool has_bias, add;
    int32_t ranks[3]; /* 0 ends */
    int32_t term_jobs[3];
    float dropout;
    bool has_term_bias;
} linear_params;

typedef struct linear_state {
    linear_call call;
    low_rank_term terms[3];
    int x, y, xa, dy, dx, scratch, y_start, dx_start;
} linear_state;

static void build_terms(op_run *run, linear_state *state, const linear_params *p) {
    static const char *const names[3][6] = {{"A0", "B0", "bias0", "dA0", "dB0", "dbias0"},
                                            {"A1", "B1", "bias1", "dA1", "dB1", "dbias1"},
                                            {"A2", "B2", "bias2", "dA2", "dB2", "dbias2"}};
    for (int32_t i = 0; i < 3 && p->ranks[i]; i++) {
        int64_t rank = p->ranks[i];
        int a = op_array_add(run, names[i][0], rank * p->in, ROLE_INPUT, -1);
        int b = op_array_add(run, names[i][1], p->out * rank, ROLE_INPUT, -1);
        int bias = p->has_term_bias ? op_array_add(run, names[i][2], p->out, ROLE_INPUT, -1) : -1;
        int da = op_array_add(run, names[i][3], rank * p->in, ROLE_GRADIENT, a);
        int db = op_array_add(run, names[i][4], p->out * rank, ROLE_GRADIENT, b);
        int dbias =
            p->has_term_bias ? op_array_add(run, names[i][5], p->out, ROLE_GRADIENT, bias) : -1;
        state->terms[i] = (low_rank_term){.a = op_at(run, a),
                                          .b = op_at(run, b),
                                          .bias = op_at(run, bias),
                                          .da = op_at(run, da),
                                          .db = op_at(run, db),
                                          .dbias = op_at(run, dbias),
                                          .scale = 0.75f,
                                          .rank = p->ranks[i],
                                          .job = p->term_jobs[i],
                                          .dropout = p->dropout,
                                          .dropout_stream = 7u + (uint32_t)i};
        state->call.n_terms = i + 1;
    }
    state->call.terms = state->terms;
}

static void build_linear(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const linear_params *p = params;
    op_run_begin(run, dev, seed, p->lengths, p->jobs, 10);
    linear_state *state = calloc(1, sizeof *state);
    assert(state);
    run->state = state;
    run->params = params;
    state->x = op_array_add_tokens(run, "x", p->in, ROLE_INPUT, -1);
    state->y = op_array_add_tokens(run, "y", p->out, ROLE_OUTPUT, -1);
    state->dy = op_array_add_tokens(run, "dy", p->out, ROLE_COTANGENT, state->y);
    state->dx = op_array_add_tokens(run, "dx", p->in, ROLE_GRADIENT, p->add ? -1 : state->x);
    state->y_start = op_array_add_tokens(run, "y before", p->out, ROLE_INPUT, -1);
    state->dx_start = op_array_add_tokens(run, "dx before", p->in, ROLE_INPUT, -1);
    int64_t stride = (p->is_transposed ? p->out : p->in) + p->extra_stride;
    state->call.weight = (weight_ref){.type = p->type,
                                      .rows = p->out,
                                      .cols = p->in,
                                      .row_stride = stride,
                                      .is_transposed = p->is_transposed};
    if (p->type == N_DTYPES) {
        int w = op_array_add(run, "W", p->out * p->in, ROLE_INPUT, -1);
        int dw = op_array_add(run, "dW", p->out * p->in, ROLE_GRADIENT, w);
        state->call.weight.data = op_at(run, w);
        state->call.weight.type = dev->element;
        state->call.d_weight = op_at(run, dw);
        state->call.is_exact = true;
    } else
        state->call.weight.data =
            op_stored(run, p->type, (p->is_transposed ? p->in : p->out) * stride, 1);
    if (p->has_bias) {
        int bias = op_array_add(run, "bias", p->out, ROLE_INPUT, -1);
        state->call.bias = op_at(run, bias);
        state->call.d_bias = op_at(run, op_array_add(run, "dbias", p->out, ROLE_GRADIENT, bias));
    }
    build_terms(run, state, p);
    int32_t ranks = 0;
    for (int32_t i = 0; i < state->call.n_terms; i++)
        ranks += state->terms[i].rank;
    state->xa = ranks ? op_array_add_tokens(run, "xa", ranks, ROLE_OUTPUT, -1) : -1;
    int64_t scratch = linear_scratch_elements(&state->call, run->batch.tokens.n);
    state->scratch = op_array_add(run, "scratch", scratch, ROLE_INPUT, -1);
}

static void forward_linear(op_run *run) {
    const linear_state *state = run->state;
    const linear_params *p = run->params;
    const op_table *ops = run->dev->ops;
    int32_t n = run->batch.tokens.n;
    ops->copy(run->dev, op_at(run, state->y), op_at(run, state->y_start), n * p->out);
    ops->linear_fwd(run->dev, op_at(run, state->y), op_at(run, state->xa), op_at(run, state->x),
                    &state->call, p->add, op_at(run, state->scratch), &run->batch.tokens);
}

static void backward_linear(op_run *run) {
    const linear_state *state = run->state;
    const linear_params *p = run->params;
    const op_table *ops = run->dev->ops;
    int32_t n = run->batch.tokens.n;
    ops->copy(run->dev, op_at(run, state->dx), op_at(run, state->dx_start), n * p->in);
    ops->linear_bwd(run->dev, op_at(run, state->dx), op_at(run, state->dy), op_at(run, state->x),
                    op_at(run, state->xa), &state->call, p->add, op_at(run, state->scratch),
                    &run->batch.tokens);
}

static const linear_params linear_plain = {.lengths = {5, 1, 9},
                                           .in = 37,
                                           .out = 29,
                                           .extra_stride = 3,
                                           .type = DTYPE_BF16,
                                           .has_bias = true};
static const linear_params linear_f16_add = {
    .lengths = {70}, .in = 333, .out = 50, .type = DTYPE_F16, .add = true};
static const linear_params linear_f32 = {
    .lengths = {13, 300}, .in = 65, .out = 131, .type = DTYPE_F32};
static const linear_params linear_one_token = {
    .lengths = {1}, .in = 700, .out = 97, .type = DTYPE_BF16, .ranks = {3}, .term_jobs = {-1}};
/* Few rows a job, more ranks than a block of k: B is read as it is stored. */
static const linear_params linear_few_tokens = {.lengths = {3, 1},
                                                .jobs = {0, 1},
                                                .in = 653,
                                                .out = 85,
                                                .extra_stride = 3,
                                                .type = DTYPE_BF16,
                                                .add = true,
                                                .ranks = {325, 5},
                                                .term_jobs = {-1, 1}};
static const linear_params linear_master = {
    .lengths = {257, 3, 600}, .in = 21, .out = 19, .type = N_DTYPES, .has_bias = true};
static const linear_params linear_lora = {.lengths = {7, 261, 2},
                                          .in = 35,
                                          .out = 27,
                                          .type = DTYPE_BF16,
                                          .has_bias = true,
                                          .ranks = {5, 16},
                                          .term_jobs = {-1, -1},
                                          .has_term_bias = true};
static const linear_params linear_jobs = {.lengths = {7, 3, 270, 4},
                                          .jobs = {0, 0, 1, 2},
                                          .in = 33,
                                          .out = 22,
                                          .type = DTYPE_F32,
                                          .ranks = {4, 1, 8},
                                          .term_jobs = {0, 1, 2},
                                          .dropout = 0.3f,
                                          .has_term_bias = true};
static const linear_params linear_dropout_add = {.lengths = {19, 6},
                                                 .in = 43,
                                                 .out = 18,
                                                 .type = DTYPE_BF16,
                                                 .add = true,
                                                 .ranks = {6},
                                                 .term_jobs = {-1},
                                                 .dropout = 0.5f};

/* Several k blocks, row pieces and column pieces of the CPU's products. */
static const linear_params linear_blocks = {.lengths = {300, 220},
                                            .jobs = {0, 1},
                                            .in = 653,
                                            .out = 291,
                                            .type = DTYPE_BF16,
                                            .ranks = {16, 5},
                                            .term_jobs = {-1, 1}};

static const linear_params linear_transposed = {.lengths = {7, 66, 2},
                                                .in = 35,
                                                .out = 27,
                                                .extra_stride = 5,
                                                .is_transposed = true,
                                                .type = DTYPE_BF16,
                                                .has_bias = true,
                                                .ranks = {5},
                                                .term_jobs = {-1}};
static const linear_params linear_transposed_master = {
    .lengths = {257, 3}, .in = 21, .out = 19, .is_transposed = true, .type = N_DTYPES};

/* A sum over k that takes several rounds of packing: 520 rows of 4,100. */
static const linear_params linear_rounds = {
    .lengths = {300, 220}, .in = 9, .out = 4100, .type = DTYPE_BF16};

/* More ranks than one block of k. */
static const linear_params linear_ranks = {.lengths = {31, 9},
                                           .in = 40,
                                           .out = 21,
                                           .type = DTYPE_F32,
                                           .ranks = {350, 3},
                                           .term_jobs = {-1, -1}};

/* ---- linear layers that share their input ---- */

enum { GROUP = 3 };

typedef struct group_params {
    int32_t lengths[OP_SEGMENTS_MAX], jobs[OP_SEGMENTS_MAX];
    int64_t in, out[GROUP];
    int32_t ranks[GROUP], term_jobs[GROUP]; /* rank 0: no term */
    float dropout[GROUP];
    bool add, has_bias;
} group_params;

typedef struct group_state {
    linear_call calls[GROUP];
    low_rank_term terms[GROUP];
    int x, dx, dx_start, y[GROUP], dy[GROUP], y_start[GROUP], xa[GROUP], scratch;
} group_state;

static void build_branch(op_run *run, group_state *state, const group_params *p, int j) {
    static const char *const names[GROUP][6] = {{"y0", "dy0", "A0", "B0", "dA0", "dB0"},
                                                {"y1", "dy1", "A1", "B1", "dA1", "dB1"},
                                                {"y2", "dy2", "A2", "B2", "dA2", "dB2"}};
    int64_t in = p->in, out = p->out[j], rank = p->ranks[j];
    state->y[j] = op_array_add_tokens(run, names[j][0], out, ROLE_OUTPUT, -1);
    state->dy[j] = op_array_add_tokens(run, names[j][1], out, ROLE_COTANGENT, state->y[j]);
    state->y_start[j] = op_array_add_tokens(run, "y before", out, ROLE_INPUT, -1);
    linear_call *call = &state->calls[j];
    call->weight = (weight_ref){.data = op_stored(run, DTYPE_BF16, out * in, 1),
                                .type = DTYPE_BF16,
                                .rows = out,
                                .cols = in,
                                .row_stride = in};
    if (p->has_bias)
        call->bias = op_at(run, op_array_add(run, "bias", out, ROLE_INPUT, -1));
    state->xa[j] = -1;
    if (rank == 0)
        return;
    int a = op_array_add(run, names[j][2], rank * in, ROLE_INPUT, -1);
    int b = op_array_add(run, names[j][3], out * rank, ROLE_INPUT, -1);
    state->terms[j] = (low_rank_term){
        .a = op_at(run, a),
        .b = op_at(run, b),
        .da = op_at(run, op_array_add(run, names[j][4], rank * in, ROLE_GRADIENT, a)),
        .db = op_at(run, op_array_add(run, names[j][5], out * rank, ROLE_GRADIENT, b)),
        .scale = 0.5f + (float)j,
        .rank = p->ranks[j],
        .job = p->term_jobs[j],
        .dropout = p->dropout[j],
        .dropout_stream = 3u + (uint32_t)j};
    call->terms = &state->terms[j];
    call->n_terms = 1;
    state->xa[j] = op_array_add_tokens(run, "xa", rank, ROLE_OUTPUT, -1);
}

static void build_group(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const group_params *p = params;
    op_run_begin(run, dev, seed, p->lengths, p->jobs, 10);
    group_state *state = calloc(1, sizeof *state);
    assert(state);
    run->state = state;
    run->params = params;
    state->x = op_array_add_tokens(run, "x", p->in, ROLE_INPUT, -1);
    state->dx = op_array_add_tokens(run, "dx", p->in, ROLE_GRADIENT, p->add ? -1 : state->x);
    state->dx_start = op_array_add_tokens(run, "dx before", p->in, ROLE_INPUT, -1);
    const linear_call *calls[GROUP];
    for (int j = 0; j < GROUP; j++) {
        build_branch(run, state, p, j);
        calls[j] = &state->calls[j];
    }
    int64_t scratch = linear_group_scratch_elements(calls, GROUP, run->batch.tokens.n);
    state->scratch = op_array_add(run, "scratch", scratch, ROLE_INPUT, -1);
}

static void group_branches(linear_branch *branches, const op_run *run, const int *y) {
    const group_state *state = run->state;
    for (int j = 0; j < GROUP; j++)
        branches[j] = (linear_branch){
            .call = &state->calls[j], .y = op_at(run, y[j]), .xa = op_at(run, state->xa[j])};
}

static void forward_group(op_run *run) {
    const group_state *state = run->state;
    const group_params *p = run->params;
    linear_branch branches[GROUP];
    group_branches(branches, run, state->y);
    for (int j = 0; j < GROUP; j++)
        run->dev->ops->copy(run->dev, branches[j].y, op_at(run, state->y_start[j]),
                            run->batch.tokens.n * p->out[j]);
    run->dev->ops->linear_group_fwd(run->dev, branches, GROUP, op_at(run, state->x), p->add,
                                    op_at(run, state->scratch), &run->batch.tokens);
}

static void backward_group(op_run *run) {
    const group_state *state = run->state;
    const group_params *p = run->params;
    linear_branch branches[GROUP];
    group_branches(branches, run, state->dy);
    run->dev->ops->copy(run->dev, op_at(run, state->dx), op_at(run, state->dx_start),
                        run->batch.tokens.n * p->in);
    run->dev->ops->linear_group_bwd(run->dev, op_at(run, state->dx), branches, GROUP,
                                    op_at(run, state->x), p->add, op_at(run, state->scratch),
                                    &run->batch.tokens);
}

static const group_params group_qkv = {.lengths = {9, 21},
                                       .in = 35,
                                       .out = {37, 18, 5},
                                       .ranks = {16, 3, 5},
                                       .term_jobs = {-1, -1, -1},
                                       .has_bias = true};
static const group_params group_jobs_add = {.lengths = {7, 12, 3},
                                            .jobs = {0, 1, 1},
                                            .in = 22,
                                            .out = {19, 4, 33},
                                            .ranks = {4, 0, 6},
                                            .term_jobs = {1, 0, -1},
                                            .dropout = {0.25f, 0, 0},
                                            .add = true};
static const group_params group_blocks = {.lengths = {301, 260},
                                          .jobs = {0, 1},
                                          .in = 403,
                                          .out = {391, 70, 130},
                                          .ranks = {16, 8, 16},
                                          .term_jobs = {-1, 1, -1}};

/* ---- embedding ---- */

typedef struct embed_params {
    int32_t lengths[OP_SEGMENTS_MAX], jobs[OP_SEGMENTS_MAX];
    int64_t vocab, cols;
    int32_t ranks[2], term_jobs[2];
    bool has_term_bias;
    int32_t padding_id; /* no id has it where gradients are slopes */
} embed_params;

typedef struct embed_state {
    weight_ref table;
    low_rank_term terms[2];
    int32_t n_terms;
    int y, dy, d_table;
} embed_state;

static void build_embed(op_run *run, backend *dev, uint64_t seed, const void *params) {
    static const char *const names[2][6] = {{"A0", "B0", "bias0", "dA0", "dB0", "dbias0"},
                                            {"A1", "B1", "bias1", "dA1", "dB1", "dbias1"}};
    const embed_params *p = params;
    op_run_begin(run, dev, seed, p->lengths, p->jobs, (int32_t)p->vocab);
    embed_state *state = calloc(1, sizeof *state);
    assert(state);
    run->state = state;
    run->params = params;
    int table = op_array_add(run, "table", p->vocab * p->cols, ROLE_INPUT, -1);
    state->table = (weight_ref){.data = op_at(run, table),
                                .type = dev->element,
                                .rows = p->vocab,
                                .cols = p->cols,
                                .row_stride = p->cols};
    state->y = op_array_add_tokens(run, "y", p->cols, ROLE_OUTPUT, -1);
    state->dy = op_array_add_tokens(run, "dy", p->cols, ROLE_COTANGENT, state->y);
    state->d_table = op_array_add(run, "d_table", p->vocab * p->cols, ROLE_GRADIENT, table);
    for (int32_t i = 0; i < 2 && p->ranks[i]; i++) {
        int64_t rank = p->ranks[i];
        int a = op_array_add(run, names[i][0], rank * p->vocab, ROLE_INPUT, -1);
        int b = op_array_add(run, names[i][1], p->cols * rank, ROLE_INPUT, -1);
        int bias = p->has_term_bias ? op_array_add(run, names[i][2], p->cols, ROLE_INPUT, -1) : -1;
        int da = op_array_add(run, names[i][3], rank * p->vocab, ROLE_GRADIENT, a);
        int db = op_array_add(run, names[i][4], p->cols * rank, ROLE_GRADIENT, b);
        int dbias =
            p->has_term_bias ? op_array_add(run, names[i][5], p->cols, ROLE_GRADIENT, bias) : -1;
        state->terms[i] = (low_rank_term){.a = op_at(run, a),
                                          .b = op_at(run, b),
                                          .bias = op_at(run, bias),
                                          .da = op_at(run, da),
                                          .db = op_at(run, db),
                                          .dbias = op_at(run, dbias),
                                          .scale = 1.25f,
                                          .rank = p->ranks[i],
                                          .job = p->term_jobs[i],
                                          .dropout = 0.5f};
        state->n_terms = i + 1;
    }
}

static void forward_embed(op_run *run) {
    const embed_state *state = run->state;
    run->dev->ops->embed_fwd(run->dev, op_at(run, state->y), &state->table, state->terms,
                             state->n_terms, run->batch.ids, &run->batch.tokens);
}

static void backward_embed(op_run *run) {
    const embed_state *state = run->state;
    const embed_params *p = run->params;
    run->dev->ops->embed_bwd(run->dev, op_at(run, state->d_table), op_at(run, state->dy),
                             &state->table, state->terms, state->n_terms, run->batch.ids,
                             p->padding_id, &run->batch.tokens);
}

static const embed_params embed_plain = {
    .lengths = {5, 19, 1}, .vocab = 11, .cols = 33, .padding_id = -1};
static const embed_params embed_terms = {.lengths = {300, 2, 70},
                                         .jobs = {0, 1, 1},
                                         .vocab = 23,
                                         .cols = 21,
                                         .ranks = {5, 70},
                                         .term_jobs = {-1, 1},
                                         .has_term_bias = true,
                                         .padding_id = -1};

/* ---- norms ---- */

typedef struct norm_params {
    int32_t lengths[OP_SEGMENTS_MAX];
    int32_t per_token, groups;
    int64_t cols;
    bool add, is_centred, adds_one, has_no_weight, has_bias;
} norm_params;

enum { NORM_X, NORM_Y, NORM_RSTD, NORM_DY, NORM_DX, NORM_DX_START };

static void build_norm(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const norm_params *p = params;
    op_run_begin(run, dev, seed, p->lengths, NULL, 10);
    run->params = params;
    int64_t width = p->per_token * p->cols, n_weights = p->cols * (p->groups ? p->groups : 1);
    op_array_add_tokens(run, "x", width, ROLE_INPUT, -1);
    op_array_add_tokens(run, "y", width, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "rstd", p->per_token, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "dy", width, ROLE_COTANGENT, NORM_Y);
    op_array_add_tokens(run, "dx", width, ROLE_GRADIENT, p->add ? -1 : NORM_X);
    op_array_add_tokens(run, "dx before", width, ROLE_INPUT, -1);
    norm_call *call = calloc(1, sizeof *call);
    assert(call);
    run->state = call;
    *call = (norm_call){
        .eps = 1e-5f, .is_centred = p->is_centred, .adds_one = p->adds_one, .groups = p->groups};
    if (!p->has_no_weight) {
        int w = op_array_add(run, "w", n_weights, ROLE_INPUT, -1);
        call->weight = op_at(run, w);
        call->d_weight = op_at(run, op_array_add(run, "dw", n_weights, ROLE_GRADIENT, w));
    }
    if (p->has_bias) {
        int bias = op_array_add(run, "b", n_weights, ROLE_INPUT, -1);
        call->bias = op_at(run, bias);
        call->d_bias = op_at(run, op_array_add(run, "db", n_weights, ROLE_GRADIENT, bias));
    }
}

static void forward_norm(op_run *run) {
    const norm_params *p = run->params;
    run->dev->ops->norm_fwd(run->dev, op_at(run, NORM_Y), op_at(run, NORM_RSTD), op_at(run, NORM_X),
                            run->state, (int64_t)run->batch.tokens.n * p->per_token, p->cols);
}

static void backward_norm(op_run *run) {
    const norm_params *p = run->params;
    int64_t n = run->batch.tokens.n * p->per_token * p->cols;
    run->dev->ops->copy(run->dev, op_at(run, NORM_DX), op_at(run, NORM_DX_START), n);
    run->dev->ops->norm_bwd(run->dev, op_at(run, NORM_DX), op_at(run, NORM_DY), op_at(run, NORM_X),
                            op_at(run, NORM_RSTD), run->state, p->per_token, p->cols, p->add,
                            &run->batch.tokens);
}

static const norm_params norm_hidden = {.lengths = {3, 259, 1}, .per_token = 1, .cols = 77};
static const norm_params norm_heads_add = {
    .lengths = {9, 4}, .per_token = 3, .cols = 16, .add = true};
static const norm_params norm_plus_one = {
    .lengths = {5, 2}, .per_token = 1, .cols = 301, .adds_one = true};
static const norm_params norm_layer = {
    .lengths = {3, 259, 1}, .per_token = 1, .cols = 77, .is_centred = true, .has_bias = true};
static const norm_params norm_layer_plain = {.lengths = {4, 3},
                                             .per_token = 1,
                                             .cols = 33,
                                             .add = true,
                                             .is_centred = true,
                                             .has_no_weight = true};
static const norm_params norm_layer_heads = {
    .lengths = {9, 4}, .per_token = 6, .groups = 3, .cols = 13, .is_centred = true};

/* ---- rope ---- */

typedef struct rope_params {
    int32_t lengths[OP_SEGMENTS_MAX];
    rope_call call;
} rope_params;

enum { ROPE_X, ROPE_COS, ROPE_SIN, ROPE_Y, ROPE_DY, ROPE_DX };

static void build_rope(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const rope_params *p = params;
    int64_t width = p->call.heads * p->call.head_dim;
    op_run_begin(run, dev, seed, p->lengths, NULL, 10);
    run->params = params;
    op_array_add_tokens(run, "x", width, ROLE_INPUT, -1);
    op_array_add_tokens(run, "cos", p->call.n / 2, ROLE_INPUT, -1);
    op_array_add_tokens(run, "sin", p->call.n / 2, ROLE_INPUT, -1);
    op_array_add_tokens(run, "y", width, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "dy", width, ROLE_COTANGENT, ROPE_Y);
    op_array_add_tokens(run, "dx", width, ROLE_GRADIENT, ROPE_X);
}

static void rotate(op_run *run, int to, int from, bool inverse) {
    const rope_params *p = run->params;
    int64_t n = run->batch.tokens.n;
    run->dev->ops->copy(run->dev, op_at(run, to), op_at(run, from),
                        n * p->call.heads * p->call.head_dim);
    run->dev->ops->rope(run->dev, op_at(run, to), op_at(run, ROPE_COS), op_at(run, ROPE_SIN),
                        &p->call, n, inverse);
}

static void forward_rope(op_run *run) {
    rotate(run, ROPE_Y, ROPE_X, false);
}

static void backward_rope(op_run *run) {
    rotate(run, ROPE_DX, ROPE_DY, true);
}

static const rope_params rope_odd = {.lengths = {4, 7},
                                     .call = {.heads = 3, .head_dim = 22, .n = 22}};
static const rope_params rope_partial = {.lengths = {4, 7},
                                         .call = {.heads = 3, .head_dim = 22, .n = 6}};
static const rope_params rope_interleaved = {
    .lengths = {4, 7},
    .call = {.heads = 3, .head_dim = 23, .first = 5, .n = 18, .is_interleaved = true}};

/* ---- attention ---- */

typedef struct attention_params {
    int32_t lengths[OP_SEGMENTS_MAX];
    attention_call call;
    bool has_slopes, has_sinks;
    int32_t past_length;      /* 0: none */
    bool past_is_shared;      /* by every segment, as a trained prefix is; else one each */
    int32_t past_frozen_from; /* segments from here on have a frozen past */
} attention_params;

typedef struct attention_state {
    attention_call call;
    float slopes[16];
    kv_view past[OP_SEGMENTS_MAX][2]; /* [segment][layer]: layer 1 is used */
} attention_state;

enum { ATT_Q, ATT_K, ATT_V, ATT_O, ATT_LSE, ATT_DO, ATT_DQ, ATT_DK, ATT_DV, ATT_SCRATCH };

static void build_past(op_run *run, attention_state *state, const attention_params *p) {
    static const char *const names[OP_SEGMENTS_MAX][4] = {
        {"past k0", "past v0", "past dk0", "past dv0"},
        {"past k1", "past v1", "past dk1", "past dv1"},
        {"past k2", "past v2", "past dk2", "past dv2"}};
    for (int32_t s = 0; s < run->all.n_segments; s++) {
        run->all.segments[s].past = state->past[s];
        if (s > 0 && p->past_is_shared) {
            state->past[s][1] = state->past[0][1];
            continue;
        }
        int32_t length = p->past_length + s;
        int64_t rows = (int64_t)length * p->call.n_kv_heads, n = rows * p->call.head_dim;
        int64_t n_values = rows * attention_value_dim(&p->call);
        bool is_trained = s < p->past_frozen_from;
        int k = op_array_add(run, names[s][0], n, ROLE_INPUT, -1);
        int v = op_array_add(run, names[s][1], n_values, ROLE_INPUT, -1);
        int dk = is_trained ? op_array_add(run, names[s][2], n, ROLE_GRADIENT, k) : -1;
        int dv = is_trained ? op_array_add(run, names[s][3], n_values, ROLE_GRADIENT, v) : -1;
        state->past[s][1] = (kv_view){.k = op_at(run, k),
                                      .v = op_at(run, v),
                                      .dk = op_at(run, dk),
                                      .dv = op_at(run, dv),
                                      .length = length};
    }
    op_run_select_all(run);
}

static void build_attention(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const attention_params *p = params;
    int64_t q_width = p->call.n_heads * p->call.head_dim;
    int64_t k_width = p->call.n_kv_heads * p->call.head_dim;
    int64_t v_width = p->call.n_kv_heads * attention_value_dim(&p->call);
    int64_t o_width = p->call.n_heads * attention_value_dim(&p->call);
    op_run_begin(run, dev, seed, p->lengths, NULL, 10);
    run->params = params;
    op_array_add_tokens(run, "q", q_width, ROLE_INPUT, -1);
    op_array_add_tokens(run, "k", k_width, ROLE_INPUT, -1);
    op_array_add_tokens(run, "v", v_width, ROLE_INPUT, -1);
    op_array_add_tokens(run, "o", o_width, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "lse", p->call.n_heads, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "do", o_width, ROLE_COTANGENT, ATT_O);
    op_array_add_tokens(run, "dq", q_width, ROLE_GRADIENT, ATT_Q);
    op_array_add_tokens(run, "dk", k_width, ROLE_GRADIENT, ATT_K);
    op_array_add_tokens(run, "dv", v_width, ROLE_GRADIENT, ATT_V);
    op_array_add_tokens(run, "scratch", p->call.n_heads, ROLE_INPUT, -1);
    attention_state *state = calloc(1, sizeof *state);
    assert(state);
    run->state = state;
    state->call = p->call;
    for (int32_t h = 0; p->has_slopes && h < p->call.n_heads; h++) {
        state->slopes[h] = 0.3f / (float)(h + 1);
        state->call.slopes = state->slopes;
    }
    if (p->has_sinks) {
        int sinks = op_array_add(run, "sinks", p->call.n_heads, ROLE_INPUT, -1);
        state->call.sinks = op_at(run, sinks);
        state->call.d_sinks =
            op_at(run, op_array_add(run, "d_sinks", p->call.n_heads, ROLE_GRADIENT, sinks));
    }
    if (p->past_length)
        build_past(run, state, p);
}

static void forward_attention(op_run *run) {
    const attention_state *p = run->state;
    run->dev->ops->attention_fwd(run->dev, op_at(run, ATT_O), op_at(run, ATT_LSE),
                                 op_at(run, ATT_Q), op_at(run, ATT_K), op_at(run, ATT_V), &p->call,
                                 &run->batch, 1);
}

static void backward_attention(op_run *run) {
    const attention_state *p = run->state;
    run->dev->ops->attention_bwd(
        run->dev, op_at(run, ATT_DQ), op_at(run, ATT_DK), op_at(run, ATT_DV), op_at(run, ATT_DO),
        op_at(run, ATT_O), op_at(run, ATT_LSE), op_at(run, ATT_Q), op_at(run, ATT_K),
        op_at(run, ATT_V), &p->call, op_at(run, ATT_SCRATCH), &run->batch, 1);
}

static const attention_params attention_gqa = {
    .lengths = {9, 1, 70, 130},
    .call = {.n_heads = 6, .n_kv_heads = 2, .head_dim = 20, .scale = 0.22f}};
static const attention_params attention_window = {
    .lengths = {150, 64, 65},
    .call = {.n_heads = 2, .n_kv_heads = 2, .head_dim = 16, .scale = 0.25f, .window = 33}};
static const attention_params attention_past = {
    .lengths = {11, 66},
    .call = {.n_heads = 5, .n_kv_heads = 1, .head_dim = 8, .scale = 0.4f},
    .past_length = 69,
    .past_frozen_from = 1};
static const attention_params attention_prefix = {
    .lengths = {5, 2, 9},
    .call = {.n_heads = 4, .n_kv_heads = 2, .head_dim = 6, .scale = 0.5f, .window = 7},
    .past_length = 6,
    .past_is_shared = true,
    .past_frozen_from = 1};
static const attention_params attention_wide = {
    .lengths = {67}, .call = {.n_heads = 9, .n_kv_heads = 1, .head_dim = 256, .scale = 0.0625f}};

static const attention_params attention_capped = {
    .lengths = {70, 9},
    .call = {.n_heads = 4, .n_kv_heads = 2, .head_dim = 10, .scale = 0.5f, .soft_cap = 1.5f}};
static const attention_params attention_alibi = {
    .lengths = {11, 131},
    .call = {.n_heads = 3, .n_kv_heads = 3, .head_dim = 12, .scale = 0.3f, .slope_scale = 0.7f},
    .has_slopes = true,
    .past_length = 5,
    .past_frozen_from = 1};
static const attention_params attention_alibi_rounded = {.lengths = {11, 270},
                                                         .call = {.n_heads = 3,
                                                                  .n_kv_heads = 1,
                                                                  .head_dim = 4,
                                                                  .scale = 0.3f,
                                                                  .slope_scale = 0.7f,
                                                                  .rounds_slopes = true},
                                                         .has_slopes = true};
static const attention_params attention_sinks = {
    .lengths = {140, 3},
    .call = {.n_heads = 6, .n_kv_heads = 2, .head_dim = 8, .scale = 0.4f, .window = 21},
    .has_sinks = true};
static const attention_params attention_latent = {
    .lengths = {66, 7},
    .call = {.n_heads = 3, .n_kv_heads = 3, .head_dim = 20, .value_dim = 12, .scale = 0.3f},
    .past_length = 9,
    .past_frozen_from = 1};

/* ---- activation, cross-entropy ---- */

enum { GLU_GATE, GLU_UP, GLU_H, GLU_DH, GLU_D_GATE, GLU_D_UP };

static const int32_t glu_lengths[] = {3, 5, 0};
enum { GLU_WIDTH = 67 };

typedef struct gate_params {
    gate_call call;
    bool has_up;
} gate_params;

static void build_gated(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const gate_params *p = params;
    op_run_begin(run, dev, seed, glu_lengths, NULL, 10);
    run->params = params;
    op_array_add_tokens(run, "gate", GLU_WIDTH, ROLE_INPUT, -1);
    op_array_add_tokens(run, "up", GLU_WIDTH, ROLE_INPUT, -1);
    op_array_add_tokens(run, "h", GLU_WIDTH, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "dh", GLU_WIDTH, ROLE_COTANGENT, GLU_H);
    op_array_add_tokens(run, "d_gate", GLU_WIDTH, ROLE_GRADIENT, GLU_GATE);
    if (p->has_up)
        op_array_add_tokens(run, "d_up", GLU_WIDTH, ROLE_GRADIENT, GLU_UP);
}

static void forward_gated(op_run *run) {
    const gate_params *p = run->params;
    run->dev->ops->gated_fwd(run->dev, op_at(run, GLU_H), op_at(run, GLU_GATE),
                             p->has_up ? op_at(run, GLU_UP) : NULL, &p->call,
                             run->batch.tokens.n * GLU_WIDTH);
}

static void backward_gated(op_run *run) {
    const gate_params *p = run->params;
    run->dev->ops->gated_bwd(run->dev, op_at(run, GLU_D_GATE),
                             p->has_up ? op_at(run, GLU_D_UP) : NULL, op_at(run, GLU_DH),
                             op_at(run, GLU_GATE), p->has_up ? op_at(run, GLU_UP) : NULL, &p->call,
                             run->batch.tokens.n * GLU_WIDTH);
}

static const gate_params swiglu = {{.kind = ACTIVATION_SILU}, true};
static const gate_params geglu = {{.kind = ACTIVATION_GELU_TANH}, true};
static const gate_params silu = {{.kind = ACTIVATION_SILU}, false};
static const gate_params gelu = {{.kind = ACTIVATION_GELU}, false};
static const gate_params gelu_tanh = {{.kind = ACTIVATION_GELU_TANH}, false};
static const gate_params relu = {{.kind = ACTIVATION_RELU}, false};
static const gate_params swiglu_clamped = {
    {.kind = ACTIVATION_SILU, .alpha = 1.702f, .limit = 1.1f}, true};

typedef struct loss_params {
    int32_t lengths[OP_SEGMENTS_MAX];
    int32_t vocab;
    float cap;
} loss_params;

enum { LOSS_LOGITS, LOSS_LOSS, LOSS_WEIGHT, LOSS_D_LOGITS };

static void build_loss(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const loss_params *p = params;
    op_run_begin(run, dev, seed, p->lengths, NULL, p->vocab);
    run->params = params;
    op_array_add_tokens(run, "logits", p->vocab, ROLE_INPUT, -1);
    op_array_add_tokens(run, "loss", 1, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "weights", 1, ROLE_COTANGENT, LOSS_LOSS);
    op_array_add_tokens(run, "d_logits", p->vocab, ROLE_GRADIENT, LOSS_LOGITS);
    run->dev->ops->upload(run->dev, op_at(run, LOSS_WEIGHT), run->all.weights, DTYPE_F32,
                          run->batch.tokens.n);
}

static void loss_pass(op_run *run, bool gradient) {
    const loss_params *p = run->params;
    int64_t n = run->batch.tokens.n;
    device_array *work = op_at(run, LOSS_D_LOGITS);
    run->dev->ops->copy(run->dev, work, op_at(run, LOSS_LOGITS), n * p->vocab);
    if (p->cap > 0)
        run->dev->ops->soft_cap(run->dev, work, 1, (double)p->cap, n * p->vocab);
    run->dev->ops->cross_entropy(run->dev, op_at(run, LOSS_LOSS), work, run->batch.targets,
                                 run->batch.weights, n, p->vocab, (double)p->cap, gradient);
}

static void forward_loss(op_run *run) {
    loss_pass(run, false);
}

static void backward_loss(op_run *run) {
    loss_pass(run, true);
}

static const loss_params loss_odd = {.lengths = {4, 3}, .vocab = 1037};
static const loss_params loss_tiny = {.lengths = {2}, .vocab = 3};
static const loss_params loss_capped = {.lengths = {5}, .vocab = 45, .cap = 1.25f};

/* ---- ops without a backward ---- */

enum { ADAM_P, ADAM_G, ADAM_P_START, ADAM_M, ADAM_V };

static const int32_t adam_lengths[] = {37, 0};

static void build_adamw(op_run *run, backend *dev, uint64_t seed, const void *params) {
    (void)params;
    op_run_begin(run, dev, seed, adam_lengths, NULL, 10);
    op_array_add(run, "p", 1003, ROLE_OUTPUT, -1);
    op_array_add(run, "g", 1003, ROLE_INPUT, -1);
    op_array_add(run, "p before", 1003, ROLE_INPUT, -1);
    op_array_add(run, "m", 1003, ROLE_OUTPUT, -1);
    op_array_add(run, "v", 1003, ROLE_OUTPUT, -1);
}

static void forward_adamw(op_run *run) {
    const op_table *ops = run->dev->ops;
    ops->copy(run->dev, op_at(run, ADAM_P), op_at(run, ADAM_P_START), 1003);
    ops->fill(run->dev, op_at(run, ADAM_M), 0, 1003);
    ops->fill(run->dev, op_at(run, ADAM_V), 0, 1003);
    adamw_step step = {.learning_rate = 0.01,
                       .beta1 = 0.9,
                       .beta2 = 0.95,
                       .epsilon = 1e-8,
                       .weight_decay = 0.1,
                       .gradient_scale = 0.5};
    for (int i = 0; i < 2; i++) {
        step.bias_correction1 = i == 0 ? 0.1 : 0.19;
        step.bias_correction2 = i == 0 ? 0.05 : 0.0975;
        ops->adamw(run->dev, op_at(run, ADAM_P), op_at(run, ADAM_G), op_at(run, ADAM_M),
                   op_at(run, ADAM_V), 1003, &step);
    }
}

enum { PLAIN_X, PLAIN_Y, PLAIN_GATHERED, PLAIN_SCATTERED, PLAIN_COLS = 19 };

static void build_plain(op_run *run, backend *dev, uint64_t seed, const void *params) {
    (void)params;
    op_run_begin(run, dev, seed, adam_lengths, NULL, 10);
    op_array_add_tokens(run, "x", PLAIN_COLS, ROLE_INPUT, -1);
    op_array_add_tokens(run, "y", PLAIN_COLS, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "gathered", PLAIN_COLS, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "scattered", PLAIN_COLS, ROLE_OUTPUT, -1);
}

static void forward_plain(op_run *run) {
    const op_table *ops = run->dev->ops;
    static const int32_t index[5] = {30, 2, 36, 0, 7};
    int32_t n = run->batch.tokens.n * PLAIN_COLS;
    ops->fill(run->dev, op_at(run, PLAIN_Y), 0.375, n);
    ops->add(run->dev, op_at(run, PLAIN_Y), op_at(run, PLAIN_X), n);
    ops->scale(run->dev, op_at(run, PLAIN_Y), -1.5, n);
    ops->gather_rows(run->dev, op_at(run, PLAIN_GATHERED), op_at(run, PLAIN_X), index, 5,
                     PLAIN_COLS);
    ops->scatter_rows(run->dev, op_at(run, PLAIN_SCATTERED), op_at(run, PLAIN_X), index, 5,
                      PLAIN_COLS);
}

/* ---- the table ---- */

/* Tolerances count f32 epsilons of an array's largest element: see kernelcheck.c. */
static const op_case cases[] = {
    {"linear_plain", build_linear, forward_linear, backward_linear, &linear_plain, true, 16, false,
     false},
    {"linear_f16_add", build_linear, forward_linear, backward_linear, &linear_f16_add, true, 16,
     false, false},
    {"linear_f32", build_linear, forward_linear, backward_linear, &linear_f32, true, 16, false,
     false},
    {"linear_one_token", build_linear, forward_linear, backward_linear, &linear_one_token, true, 16,
     false, false},
    {"linear_few_tokens", build_linear, forward_linear, backward_linear, &linear_few_tokens, true,
     16, false, false},
    {"linear_master", build_linear, forward_linear, backward_linear, &linear_master, true, 16,
     false, false},
    {"linear_lora", build_linear, forward_linear, backward_linear, &linear_lora, true, 16, false,
     false},
    {"linear_jobs", build_linear, forward_linear, backward_linear, &linear_jobs, true, 16, false,
     false},
    {"linear_dropout_add", build_linear, forward_linear, backward_linear, &linear_dropout_add, true,
     16, false, false},
    {"linear_blocks", build_linear, forward_linear, backward_linear, &linear_blocks, true, 16, true,
     false},
    {"linear_transposed", build_linear, forward_linear, backward_linear, &linear_transposed, true,
     16, false, false},
    {"linear_transposed_master", build_linear, forward_linear, backward_linear,
     &linear_transposed_master, true, 16, false, false},

    {"linear_rounds", build_linear, forward_linear, backward_linear, &linear_rounds, true, 16, true,
     false},
    {"linear_ranks", build_linear, forward_linear, backward_linear, &linear_ranks, true, 16, true,
     false},
    {"group_qkv", build_group, forward_group, backward_group, &group_qkv, true, 16, false, false},
    {"group_jobs_add", build_group, forward_group, backward_group, &group_jobs_add, true, 16, false,
     false},
    {"group_blocks", build_group, forward_group, backward_group, &group_blocks, true, 16, true,
     false},
    {"embed_plain", build_embed, forward_embed, backward_embed, &embed_plain, true, 8, false,
     false},
    {"embed_terms", build_embed, forward_embed, backward_embed, &embed_terms, true, 8, false,
     false},
    {"norm_hidden", build_norm, forward_norm, backward_norm, &norm_hidden, true, 8, false, false},
    {"norm_heads_add", build_norm, forward_norm, backward_norm, &norm_heads_add, true, 8, false,
     false},
    {"norm_plus_one", build_norm, forward_norm, backward_norm, &norm_plus_one, true, 8, false,
     false},
    {"norm_layer", build_norm, forward_norm, backward_norm, &norm_layer, true, 8, false, false},
    {"norm_layer_plain", build_norm, forward_norm, backward_norm, &norm_layer_plain, true, 8, false,
     false},
    {"norm_layer_heads", build_norm, forward_norm, backward_norm, &norm_layer_heads, true, 8, false,
     false},
    {"rope_partial", build_rope, forward_rope, backward_rope, &rope_partial, true, 4, false, false},
    {"rope_interleaved", build_rope, forward_rope, backward_rope, &rope_interleaved, true, 4, false,
     false},
    {"rope_odd", build_rope, forward_rope, backward_rope, &rope_odd, true, 4, false, false},
    {"attention_gqa", build_attention, forward_attention, backward_attention, &attention_gqa, true,
     32, false, true},
    {"attention_window", build_attention, forward_attention, backward_attention, &attention_window,
     true, 32, false, true},
    {"attention_past", build_attention, forward_attention, backward_attention, &attention_past,
     true, 32, false, true},
    {"attention_prefix", build_attention, forward_attention, backward_attention, &attention_prefix,
     true, 32, false, true},
    {"attention_wide", build_attention, forward_attention, backward_attention, &attention_wide,
     true, 32, false, true},
    {"attention_capped", build_attention, forward_attention, backward_attention, &attention_capped,
     true, 32, false, true},
    {"attention_alibi", build_attention, forward_attention, backward_attention, &attention_alibi,
     true, 32, false, true},
    {"attention_alibi_rounded", build_attention, forward_attention, backward_attention,
     &attention_alibi_rounded, true, 32, false, true},
    {"attention_sinks", build_attention, forward_attention, backward_attention, &attention_sinks,
     true, 32, false, true},
    {"attention_latent", build_attention, forward_attention, backward_attention, &attention_latent,
     true, 32, false, true},
    {"swiglu", build_gated, forward_gated, backward_gated, &swiglu, true, 8, false, false},
    {"geglu", build_gated, forward_gated, backward_gated, &geglu, true, 8, false, false},
    {"silu", build_gated, forward_gated, backward_gated, &silu, true, 8, false, false},
    {"gelu", build_gated, forward_gated, backward_gated, &gelu, true, 8, false, false},
    {"gelu_tanh", build_gated, forward_gated, backward_gated, &gelu_tanh, true, 8, false, false},
    {"relu", build_gated, forward_gated, backward_gated, &relu, true, 8, false, false},
    {"swiglu_clamped", build_gated, forward_gated, backward_gated, &swiglu_clamped, true, 8, false,
     false},
    {"loss_odd", build_loss, forward_loss, backward_loss, &loss_odd, true, 8, false, false},
    {"loss_tiny", build_loss, forward_loss, backward_loss, &loss_tiny, true, 8, false, false},
    {"loss_capped", build_loss, forward_loss, backward_loss, &loss_capped, true, 8, false, false},
    {"adamw", build_adamw, forward_adamw, NULL, NULL, false, 8, false, false},
    {"plain", build_plain, forward_plain, NULL, NULL, false, 2, false, false},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

const op_case *op_case_at(int i) {
    static const op_case *(*const others[])(int) = {routing_case_at, transform_case_at};
    if (i < N_CASES)
        return &cases[i];
    i -= N_CASES;
    for (size_t table = 0; table < sizeof others / sizeof others[0]; table++) {
        int n = 0;
        while (n < i && others[table](n))
            n++;
        if (others[table](n))
            return others[table](n);
        i -= n;
    }
    return NULL;
}
