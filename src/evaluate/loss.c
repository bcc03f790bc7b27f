#include "evaluate/loss.h"

#include <math.h>

/* Adds the pass's losses row by row; one that is not finite is named, as a mean over it would say
 * nothing. */
static graft_status add_losses(loss_total *total, const loss_pass *p, const batch *rows,
                               int32_t n_labelled, graft_error *err) {
    int32_t i = 0;
    for (int32_t s = 0; s < rows->n_segments; s++) {
        const segment *row = &rows->segments[s];
        double sum = 0;
        for (; i < n_labelled && p->step->labelled.index[i] < row->token_end; i++) {
            if (!isfinite(p->step->loss_host[i]))
                return error_set(
                    err, GRAFT_E_NUMERIC,
                    "row %lld: the loss at token %d is not finite: weights or adapter are "
                    "damaged, or were trained with too high a learning rate",
                    (long long)row->row_id,
                    p->step->labelled.index[i] - row->token_begin - row->n_virtual);
            sum += (double)p->step->loss_host[i];
        }
        if (p->row_sums)
            p->row_sums[row->row_id] = sum;
        total->sum += sum;
    }
    total->supervised += n_labelled;
    return GRAFT_OK;
}

static graft_status pass(loss_total *total, const loss_pass *p, const loss_observer *observer,
                         graft_error *err) {
    const batch *rows = batch_builder_finish(p->builder);
    int32_t n_labelled = 0;
    graft_status status = step_forward(p->run, p->step, rows, err);
    if (status == GRAFT_OK && observer && observer->on_pass)
        status = observer->on_pass(observer->context, p->run, p->step, rows, err);
    if (status == GRAFT_OK)
        status = step_loss(&n_labelled, p->run, p->step, rows, err);
    if (status == GRAFT_OK && p->gradients)
        status = step_backward(p->run, p->step, rows, err);
    if (status == GRAFT_OK)
        status = add_losses(total, p, rows, n_labelled, err);
    total->tokens += rows->tokens.n;
    total->rows += rows->n_segments;
    return status;
}

graft_status loss_evaluate(loss_total *total, const loss_pass *p, row_source source,
                           const loss_observer *observer, graft_error *err) {
    *total = (loss_total){0};
    batch_row row;
    bool has_row = source.next(source.context, &row); /* waits to be added */
    while (has_row) {
        if (observer && observer->stop && *observer->stop)
            return error_set(err, GRAFT_E_INTERRUPTED, "stopped");
        batch_builder_begin(p->builder, false, 0);
        p->builder->labels_virtual = p->gradients;
        bool added = false;
        while (has_row && batch_builder_add(p->builder, &row)) {
            added = true;
            has_row = source.next(source.context, &row);
        }
        if (!added)
            return error_set(err, GRAFT_E_INTERNAL,
                             "a row of %d tokens does not fit the evaluation's %d", (int)row.n,
                             (int)p->builder->max_tokens);
        graft_status status = pass(total, p, observer, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}
