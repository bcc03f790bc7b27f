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

/* What an evaluation works in, borrowed: laid out for the longest row and what else shall share a
 * pass with it (model/step_arena.h). */
typedef struct loss_pass {
    const model_run *run;
    step_buffers *step;
    batch_builder *builder;
    bool gradients; /* adds d sum(weight * loss) to the hooks' arrays; the buffers must be a
                       training's */
    double
        *row_sums; /* filled by row_id, each with the sum of the row's losses; NULL: nobody asks */
} loss_pass;

typedef struct loss_total {
    double sum; /* of the unweighted losses: each row's in token order, then over the rows as they
                   came */
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

/* GRAFT_E_NUMERIC, with row (its row_id) and token (from 0), when a loss is not finite; the builder
 * then still holds the batch. */
graft_status loss_evaluate(loss_total *, const loss_pass *, row_source, const loss_observer *,
                           graft_error *);

#endif
