#include "evaluate/loss.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

struct loss_evaluator {
    model_run run;
    loss_limits limits;
    step_buffers step;
    block_saved *saved; /* [n_layers] */
    batch_builder builder;
    void *device_memory, *host_memory;
};

static graft_status describe(loss_evaluator *e, layout *device, layout *host, graft_error *err) {
    /* Any row that fits the caller's limit fits with its virtual tokens. */
    const sequence_hook *sequence = &e->run.hooks->sequence;
    int32_t max_tokens = e->limits.max_tokens + sequence->n_virtual;
    const step_limits limits = {.max_tokens = max_tokens,
                                .max_labelled = e->limits.max_tokens,
                                .max_segments = e->limits.max_rows,
                                .training = e->limits.gradients};
    batch_builder_layout(&e->builder, host, max_tokens, e->limits.max_rows, 1, sequence);
    return step_layout(&e->step, e->saved, device, host, e->run.spec, e->run.hooks, &limits,
                       e->run.dev->element_bytes, err);
}

static graft_status allocate(loss_evaluator *e, graft_error *err) {
    e->saved = mem_array((size_t)e->run.spec->n_layers, sizeof *e->saved);
    if (!e->saved)
        return error_memory(err, (size_t)e->run.spec->n_layers * sizeof *e->saved, "evaluation");
    layout device = layout_counting(), host = layout_counting();
    graft_status status = describe(e, &device, &host, err);
    if (status != GRAFT_OK)
        return status;
    e->device_memory = e->run.dev->ops->alloc(e->run.dev, device.high_water);
    e->host_memory =
        aligned_alloc(LAYOUT_ALIGNMENT, host.high_water ? host.high_water : LAYOUT_ALIGNMENT);
    if (!e->device_memory || !e->host_memory)
        return error_memory(err, device.high_water + host.high_water, "evaluation");
    device = layout_over(e->device_memory, device.high_water);
    host = layout_over(e->host_memory, host.high_water);
    return describe(e, &device, &host, err);
}

graft_status loss_evaluator_create(loss_evaluator **out, const model_run *run, loss_limits limits,
                                   graft_error *err) {
    *out = NULL;
    loss_evaluator *e = mem_array(1, sizeof *e);
    if (!e)
        return error_memory(err, sizeof *e, "evaluation");
    e->run = *run;
    e->limits = limits;
    graft_status status = allocate(e, err);
    if (status != GRAFT_OK)
        loss_evaluator_destroy(&e);
    *out = e;
    return status;
}

void loss_evaluator_destroy(loss_evaluator **out) {
    loss_evaluator *e = *out;
    if (!e)
        return;
    if (e->device_memory)
        e->run.dev->ops->release(e->run.dev, e->device_memory);
    free(e->host_memory);
    free(e->saved);
    free(e);
    *out = NULL;
}

/* Adds the pass's losses; one that is not finite is named, as a mean over it would say nothing. */
static graft_status add_losses(loss_total *total, const loss_evaluator *e, const batch *rows,
                               int32_t n_labelled, graft_error *err) {
    for (int32_t i = 0, s = 0; i < n_labelled; i++) {
        int32_t token = e->step.labelled[i];
        while (token >= rows->segments[s].token_end)
            s++;
        if (!isfinite(e->step.loss_host[i]))
            return error_set(err, GRAFT_E_NUMERIC,
                             "row %lld: the loss at token %d is not finite: weights or adapter are "
                             "damaged, or were trained with too high a learning rate",
                             (long long)total->rows + s,
                             token - rows->segments[s].token_begin - rows->segments[s].n_virtual);
        total->sum += (double)e->step.loss_host[i];
    }
    total->supervised += n_labelled;
    return GRAFT_OK;
}

static graft_status pass(loss_total *total, loss_evaluator *e, const loss_observer *observer,
                         graft_error *err) {
    const batch *rows = batch_builder_finish(&e->builder);
    int32_t n_labelled = 0;
    graft_status status = step_forward(&e->run, &e->step, rows, err);
    if (status == GRAFT_OK && observer && observer->on_pass)
        status = observer->on_pass(observer->context, &e->run, &e->step, rows, err);
    if (status == GRAFT_OK)
        status = step_loss(&n_labelled, &e->run, &e->step, rows, err);
    if (status == GRAFT_OK && e->limits.gradients)
        status = step_backward(&e->run, &e->step, rows, err);
    if (status == GRAFT_OK)
        status = add_losses(total, e, rows, n_labelled, err);
    total->tokens += rows->tokens.n;
    total->rows += rows->n_segments;
    return status;
}

graft_status loss_evaluate(loss_total *total, loss_evaluator *e, row_source source,
                           const loss_observer *observer, graft_error *err) {
    *total = (loss_total){0};
    batch_row row;
    bool has_row = source.next(source.context, &row); /* waits to be added */
    while (has_row) {
        if (observer && observer->stop && *observer->stop)
            return error_set(err, GRAFT_E_INTERRUPTED, "stopped");
        batch_builder_begin(&e->builder, false, 0);
        e->builder.labels_virtual = e->limits.gradients;
        bool added = false;
        while (has_row && batch_builder_add(&e->builder, &row)) {
            added = true;
            has_row = source.next(source.context, &row);
        }
        if (!added)
            return error_set(err, GRAFT_E_INTERNAL,
                             "a row of %d tokens does not fit the evaluation's %d", (int)row.n,
                             (int)e->limits.max_tokens);
        graft_status status = pass(total, e, observer, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}
