/* What steps of a fine-tune compute: found by running the model's own code over shapes alone, on a
 * backend that only counts. So it holds for every family and method, and counts what is left out,
 * too: nothing below the lowest adapter, no head for tokens without a label. */
#ifndef GRAFT_PLAN_STEP_COST_H
#define GRAFT_PLAN_STEP_COST_H

#include "backend/meter/meter.h"
#include "train/memory_plan.h"

/* Operations; a multiply-add counts two. */
typedef struct flop_count {
    double frozen;    /* products with the base's weights */
    double trained;   /* what trains adds: terms, gradients of weights */
    double attention; /* scores, and sums over values */
} flop_count;

double flop_total(const flop_count *);

/* Sums over all the steps counted. */
typedef struct step_cost {
    int64_t steps, micro_batches, rows, tokens, supervised;
    flop_count forward, backward;
    flop_count recompute; /* what blocks did not keep */
    double head;          /* of forward and backward: the head's part */
    double moved_bytes;   /* of all other ops */
} step_cost;

typedef struct step_cost_request {
    const model_spec *spec;
    adapter *adapter; /* not laid out; stays so */
    const train_config *config;
    const dataset *data;
    const memory_plan *plan;
    data_shape shape;
} step_cost_request;

/* Counts the steps of one epoch, in file order; of more than COST_STEPS_MAX as many, spread over
 * the data. */
enum { COST_STEPS_MAX = 32 };
graft_status step_cost_count(step_cost *, const step_cost_request *, graft_error *);

#endif
