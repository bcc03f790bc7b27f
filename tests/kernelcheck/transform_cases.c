/* The transforms that adapter methods are made of: the rest of op_cases.c. */
#include "tests/kernelcheck/op_run.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

static const int32_t lengths[] = {37, 0};

enum { HALVES_X, HALVES_Y, HALVES_DY, HALVES_DX, HALVES_COLS = 42, HALVES_GROUP = 14 };

static void build_halves(op_run *run, backend *dev, uint64_t seed, const void *params) {
    (void)params;
    op_run_begin(run, dev, seed, lengths, NULL, 10);
    op_array_add_tokens(run, "x", HALVES_COLS, ROLE_INPUT, -1);
    op_array_add_tokens(run, "y", HALVES_COLS, ROLE_OUTPUT, -1);
    op_array_add_tokens(run, "dy", HALVES_COLS, ROLE_COTANGENT, HALVES_Y);
    op_array_add_tokens(run, "dx", HALVES_COLS, ROLE_GRADIENT, HALVES_X);
}

static void forward_halves(op_run *run) {
    run->dev->ops->rotate_halves(run->dev, op_at(run, HALVES_Y), op_at(run, HALVES_X),
                                 run->batch.tokens.n, HALVES_COLS, HALVES_GROUP, false);
}

static void backward_halves(op_run *run) {
    run->dev->ops->rotate_halves(run->dev, op_at(run, HALVES_DX), op_at(run, HALVES_DY),
                                 run->batch.tokens.n, HALVES_COLS, HALVES_GROUP, true);
}

typedef struct spectrum_params {
    int64_t rows, cols, n;
} spectrum_params;

enum { SPECTRUM_C, SPECTRUM_W, SPECTRUM_DW, SPECTRUM_DC, SPECTRUM_WAVES, SPECTRUM_SCRATCH };

/* Every radix the transform knows, odd numbers of columns, several blocks of columns. */
static const spectrum_params spectrum_mixed = {240, 35, 9}, spectrum_prime = {37, 48, 40},
                             spectrum_one = {1, 1, 1}, spectrum_tall = {8192, 37, 5};

static void build_spectrum(op_run *run, backend *dev, uint64_t seed, const void *params) {
    const spectrum_params *p = params;
    op_run_begin(run, dev, seed, lengths, NULL, 10);
    spectrum_call *call = calloc(1, sizeof *call);
    int32_t *place = calloc((size_t)p->n, sizeof *place);
    double *waves = calloc((size_t)(2 * (p->rows + p->cols)), sizeof *waves);
    assert(call && place && waves);
    op_array_add(run, "c", p->n, ROLE_INPUT, -1);
    op_array_add(run, "w", p->rows * p->cols, ROLE_OUTPUT, -1);
    op_array_add(run, "dw", p->rows * p->cols, ROLE_COTANGENT, SPECTRUM_W);
    op_array_add(run, "dc", p->n, ROLE_GRADIENT, SPECTRUM_C);
    op_array_add(run, "waves", 2 * (p->rows + p->cols), ROLE_OUTPUT, -1);
    op_array_add(run, "scratch", spectrum_scratch_elements(p->rows, p->cols, p->n), ROLE_INPUT, -1);
    for (int64_t k = 0; k < p->n; k++) /* the first is the mean, some rows mirror themselves */
        place[k] = (int32_t)(k * 7919 % (p->rows * p->cols));
    for (int64_t j = 0; j < p->rows; j++) {
        waves[j] = cos(2 * M_PI * (double)j / (double)p->rows);
        waves[p->rows + j] = sin(2 * M_PI * (double)j / (double)p->rows);
    }
    for (int64_t j = 0; j < p->cols; j++) {
        waves[2 * p->rows + j] = cos(2 * M_PI * (double)j / (double)p->cols);
        waves[2 * p->rows + p->cols + j] = sin(2 * M_PI * (double)j / (double)p->cols);
    }
    *call = (spectrum_call){.rows = p->rows,
                            .cols = p->cols,
                            .c = op_at(run, SPECTRUM_C),
                            .place = place,
                            .n = p->n,
                            .waves = op_at(run, SPECTRUM_WAVES),
                            .scale = 0.75,
                            .scratch = op_at(run, SPECTRUM_SCRATCH)};
    run->owned[run->n_owned++] = place;
    run->owned[run->n_owned++] = waves;
    run->state = call;
}

/* The waves are written anew: outputs are cleared between runs. */
static const spectrum_call *spectrum_of(op_run *run) {
    op_set(run, SPECTRUM_WAVES, run->owned[run->n_owned - 1]);
    return run->state;
}

static void forward_spectrum(op_run *run) {
    const spectrum_call *call = spectrum_of(run);
    run->dev->ops->fill(run->dev, op_at(run, SPECTRUM_W), 0, call->rows * call->cols);
    run->dev->ops->spectrum_fwd(run->dev, op_at(run, SPECTRUM_W), call);
}

static void backward_spectrum(op_run *run) {
    run->dev->ops->spectrum_bwd(run->dev, op_at(run, SPECTRUM_DC), op_at(run, SPECTRUM_DW),
                                spectrum_of(run));
}

static const op_case cases[] = {
    {"rotate_halves", build_halves, forward_halves, backward_halves, NULL, true, 1, false, false},
    {"spectrum_mixed", build_spectrum, forward_spectrum, backward_spectrum, &spectrum_mixed, false,
     32, false, false},
    {"spectrum_prime", build_spectrum, forward_spectrum, backward_spectrum, &spectrum_prime, false,
     32, false, false},
    {"spectrum_one", build_spectrum, forward_spectrum, backward_spectrum, &spectrum_one, false, 8,
     false, false},
    {"spectrum_tall", build_spectrum, forward_spectrum, backward_spectrum, &spectrum_tall, false,
     64, true, false},
};

const op_case *transform_case_at(int i) {
    return i < (int)(sizeof cases / sizeof cases[0]) ? &cases[i] : NULL;
}
