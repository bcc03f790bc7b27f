#include "plan/step_cost.h"

#include "base/memory.h"
#include "train/optimizer.h"
#include "train/schedule.h"

#include <stdlib.h>

/* A run without values: its memory has addresses only, its batches are real. */
typedef struct dry_run {
    const step_cost_request *request;
    backend *dev;
    weight_source *weights;
    model_hooks hooks;
    run_arenas arenas;
    void *trainer_memory, *step_memory, *host_memory;
    uint64_t *rows; /* [rows of a step] */
} dry_run;

double flop_total(const flop_count *f) {
    return f->frozen + f->trained + f->attention;
}

/* ---- Opening ---- */

static graft_status bind(dry_run *d, graft_error *err) {
    model_hooks_free(&d->hooks);
    graft_status status = model_hooks_create(&d->hooks, d->request->spec, err);
    if (status == GRAFT_OK) {
        adapter_bind(d->request->adapter, &d->hooks);
        model_hooks_finish(&d->hooks, d->request->spec);
    }
    return status;
}

static graft_status lay_out(dry_run *d, graft_error *err) {
    const step_cost_request *r = d->request;
    const plan_request request = {.spec = r->spec,
                                  .adapter = r->adapter,
                                  .hooks = &d->hooks,
                                  .config = r->config,
                                  .data = r->shape,
                                  .element_bytes = d->dev->element_bytes};
    arena_shape shape = memory_plan_shape(r->plan, &request);
    layout trainer = layout_counting(), step = layout_counting(), host = layout_counting();
    d->arenas.saved = mem_array((size_t)r->spec->n_layers, sizeof *d->arenas.saved);
    d->rows = mem_array((size_t)shape.step_rows, sizeof *d->rows);
    if (!d->arenas.saved || !d->rows)
        return error_memory(err, (size_t)shape.step_rows * sizeof *d->rows, "a plan");
    graft_status status = run_arenas_layout(&d->arenas, &trainer, &step, &host, &shape, err);
    if (status != GRAFT_OK)
        return status;
    d->trainer_memory = d->dev->ops->alloc(d->dev, trainer.high_water);
    d->step_memory = d->dev->ops->alloc(d->dev, step.high_water);
    d->host_memory = aligned_alloc(LAYOUT_ALIGNMENT, host.high_water);
    if (!d->trainer_memory || !d->step_memory || !d->host_memory)
        return error_memory(err, trainer.high_water + step.high_water + host.high_water, "a plan");
    trainer = layout_over(d->trainer_memory, trainer.high_water);
    step = layout_over(d->step_memory, step.high_water);
    host = layout_over(d->host_memory, host.high_water);
    return run_arenas_layout(&d->arenas, &trainer, &step, &host, &shape, err);
}

static graft_status dry_run_open(dry_run *d, graft_error *err) {
    graft_status status = backend_create_meter(&d->dev, NULL, err);
    if (status == GRAFT_OK)
        status = weight_source_open_shapes(&d->weights, d->dev, d->request->spec, err);
    if (status == GRAFT_OK)
        status = bind(d, err); /* shapes, for the layout */
    if (status == GRAFT_OK)
        status = lay_out(d, err);
    return status == GRAFT_OK ? bind(d, err) : status;
}

static void dry_run_close(dry_run *d) {
    layout shapes = layout_counting();
    adapter_layout(d->request->adapter, &shapes, sizeof(float), true);
    model_hooks_free(&d->hooks);
    weight_source_close(&d->weights);
    if (d->trainer_memory)
        d->dev->ops->release(d->dev, d->trainer_memory);
    if (d->step_memory)
        d->dev->ops->release(d->dev, d->step_memory);
    free(d->host_memory);
    free(d->arenas.saved);
    free(d->rows);
    backend_destroy(&d->dev);
}

/* ---- Counting ---- */

static bool is_backward(meter_op op) {
    return op == METER_LINEAR_BWD || op == METER_EMBED_BWD || op == METER_ATTENTION_BWD;
}

/* Adds what was counted since the last call. Methods' own products have no direction: they count
 * to the pass they are made in. */
static double take_counts(step_cost *cost, backend *dev, flop_count *forward,
                          flop_count *backward) {
    const meter_tally *tallies = meter_tallies(dev);
    double all = 0;
    for (int i = 0; i < N_METER_OPS; i++) {
        const op_cost *c = &tallies[i].cost;
        flop_count *to = is_backward((meter_op)i) ? backward : forward;
        if (i == METER_MATMUL && forward == &cost->recompute)
            to = backward;
        if (meter_op_is_attention((meter_op)i))
            to->attention += c->flops;
        else
            to->frozen += c->flops - c->trained_flops;
        to->trained += c->trained_flops;
        all += c->flops;
        if (c->flops == 0)
            cost->moved_bytes += c->bytes;
    }
    meter_reset(dev);
    return all;
}

static graft_status count_micro_batch(step_cost *cost, dry_run *d, const model_run *run,
                                      const batch *b, graft_error *err) {
    step_buffers *buffers = &d->arenas.step;
    int32_t n_labelled = 0;
    graft_status status = step_forward(run, buffers, b, err);
    take_counts(cost, d->dev, &cost->forward, &cost->backward);
    if (status == GRAFT_OK)
        status = step_loss(&n_labelled, run, buffers, b, err);
    cost->head += take_counts(cost, d->dev, &cost->forward, &cost->backward);
    if (status == GRAFT_OK)
        status = step_backward(run, buffers, b, err);
    take_counts(cost, d->dev, &cost->recompute, &cost->backward);
    cost->micro_batches++;
    cost->tokens += b->tokens.n;
    return status;
}

static graft_status count_step(step_cost *cost, dry_run *d, int64_t n, graft_error *err) {
    const dataset *data = d->request->data;
    const model_run run = {d->dev, d->request->spec, d->weights, &d->hooks};
    adapter *a = d->request->adapter;
    const uint64_t *rows = row_packer_fit(&d->arenas.packer, data, d->rows, n,
                                          d->arenas.limits.row_virtual, d->arenas.bin_tokens);
    const batch_settings settings = {.step_supervised = 1, .training = true};
    graft_status status = GRAFT_OK;
    adapter_zero_gradients(a, d->dev);
    for (int64_t at = 0; at < n && status == GRAFT_OK;) {
        int64_t taken = micro_batch_rows(data, rows + at, n - at, &d->arenas.limits);
        const batch *b = batch_build(&d->arenas.batch, data, rows + at, taken, &settings);
        status = count_micro_batch(cost, d, &run, b, err);
        at += taken;
    }
    adapter_chain(a, d->dev);
    optimizer_gradient_norm(a, d->dev);
    if (status == GRAFT_OK)
        status = optimizer_update(a, d->dev, d->request->config, 1, 1, 1, err);
    take_counts(cost, d->dev, &cost->recompute, &cost->backward);
    if (status == GRAFT_OK)
        status = adapter_prepare(a, d->dev, d->weights, err);
    take_counts(cost, d->dev, &cost->forward, &cost->backward);
    cost->steps++;
    cost->rows += n;
    cost->supervised += dataset_supervised(data, rows, n);
    return status;
}

graft_status step_cost_count(step_cost *cost, const step_cost_request *request, graft_error *err) {
    dry_run d = {.request = request};
    int64_t n_rows = dataset_rows(request->data);
    step_count count = step_count_of(request->config, n_rows);
    int64_t n = count.rows_per_step < n_rows ? count.rows_per_step : n_rows;
    int64_t counted =
        count.steps_per_epoch < COST_STEPS_MAX ? count.steps_per_epoch : COST_STEPS_MAX;
    *cost = (step_cost){0};
    graft_status status = dry_run_open(&d, err);
    for (int64_t i = 0; i < counted && status == GRAFT_OK; i++) {
        int64_t first = i * count.steps_per_epoch / counted * n, taken = 0;
        for (; taken < n && first + taken < n_rows; taken++)
            d.rows[taken] = (uint64_t)(first + taken);
        status = count_step(cost, &d, taken, err);
    }
    dry_run_close(&d);
    return status;
}
