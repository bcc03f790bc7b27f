/* Loss over rows: the mean cross-entropy of supervised tokens, and on request its gradients and the
 * logits. */
#ifndef GRAFT_EVALUATE_LOSS_H
#define GRAFT_EVALUATE_LOSS_H

#include "model/batch_builder.h"
#include "model/transformer.h"

#include <signal.h>

/* Gives rows one after the other; false at the end. What a row points to must live until the next
 * call. */
typedef struct row_source {
    bool (*next)(void *context, batch_row *out);
    void *context;
} row_source;

typedef struct loss_limits {
    int32_t max_tokens, max_rows; /* of one pass; max_tokens at least the longest row */
    bool gradients;               /* adds d sum(weight * loss) to the hooks' arrays */
} loss_limits;

typedef struct loss_evaluator loss_evaluator;

/* Borrows the run until it is destroyed. */
graft_status loss_evaluator_create(loss_evaluator **, const model_run *, loss_limits,
                                   graft_error *);
void loss_evaluator_destroy(loss_evaluator **);

typedef struct loss_total {
    double sum; /* of the unweighted losses, in row and token order */
    int64_t rows, tokens, supervised;
} loss_total;

/* Called after each pass, before the next: the batch's rows and what step_logits needs. NULL:
 * nobody asks. */
typedef struct loss_observer {
    graft_status (*on_pass)(void *context, const model_run *, step_buffers *, const batch *,
                            graft_error *);
    void *context;
    const volatile sig_atomic_t *stop; /* non-zero: GRAFT_E_INTERRUPTED; may be NULL */
} loss_observer;

/* GRAFT_E_NUMERIC, with row and token (both from 0), when a loss is not finite. */
graft_status loss_evaluate(loss_total *, loss_evaluator *, row_source, const loss_observer *,
                           graft_error *);

#endif
