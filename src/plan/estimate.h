/* How long a fine-tune will take on this machine: what a step computes, over rates measured now at
 * the model's own shapes. */
#ifndef GRAFT_PLAN_ESTIMATE_H
#define GRAFT_PLAN_ESTIMATE_H

#include "plan/step_cost.h"

typedef struct time_estimate {
    /* Measured; operations and bytes a second. */
    double product_fwd, product_bwd, thin, attention_fwd, attention_bwd, copy;
    double step_s;
    double tokens_per_second;
} time_estimate;

/* Takes about half a second of measuring. `a`: the adapter whose cost this is. */
graft_status time_estimate_measure(time_estimate *, backend *, const model_spec *, const adapter *a,
                                   const step_cost *, graft_error *);

#endif
