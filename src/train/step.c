#include "train/run.h"

#include "base/clock.h"
#include "base/peak_memory.h"
#include "train/optimizer.h"

#include <math.h>

/* Streams of the run's seed: see base/rng.h. The sampler's are the epochs, from 0. */
enum { DROPOUT_STREAM_BIT = 31 };

/* A fresh key for every step, from seed and step alone: a resumed run draws the same. */
static uint64_t dropout_key(uint64_t seed, int64_t step) {
    const uint32_t counter[4] = {(uint32_t)step, (uint32_t)((uint64_t)step >> 32), 0,
                                 1u << DROPOUT_STREAM_BIT};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t words[4];
    philox4x32(words, counter, key);
    return (uint64_t)words[0] << 32 | words[1];
}

typedef struct step_sums {
    double loss; /* sum of weight * cross-entropy: the mean over the step */
    int64_t tokens;
} step_sums;

/* Forward and, when the loss is finite, backward of one micro-batch. */
static graft_status micro_batch_run(run *r, step_sums *sums, const batch *b, graft_error *err) {
    int32_t n_labelled = 0;
    step_buffers *buffers = &r->arenas.step;
    graft_status status = step_forward(&r->model, buffers, b, err);
    if (status == GRAFT_OK)
        status = step_loss(&n_labelled, &r->model, buffers, b, err);
    if (status != GRAFT_OK)
        return status;
    for (int32_t i = 0; i < n_labelled; i++)
        sums->loss +=
            (double)b->weights[buffers->labelled.index[i]] * (double)buffers->loss_host[i];
    sums->tokens += b->tokens.n;
    if (!isfinite(sums->loss))
        return blame_forward(&r->blame, &r->model, buffers, b, err);
    return step_backward(&r->model, buffers, b, err);
}

/* All micro-batches of the step's rows; stops early when the loss is not finite. */
static graft_status rows_run(run *r, step_sums *sums, const stream_rows *step, int64_t supervised,
                             graft_error *err) {
    int64_t n = step->n;
    const uint64_t *rows = row_packer_fit(&r->arenas.packer, step->data, step->rows, n,
                                          r->arenas.limits.row_virtual, r->arenas.bin_tokens);
    const batch_settings settings = {
        .step_supervised = supervised,
        .dropout_key = dropout_key(r->config->seed, r->progress.step),
        .training = true,
    };
    for (int64_t at = 0; at < n && isfinite(sums->loss);) {
        if (run_is_stopped(r))
            return error_set(err, GRAFT_E_INTERRUPTED, "stopped");
        int64_t taken = micro_batch_rows(step->data, rows + at, n - at, &r->arenas.limits);
        const batch *b = batch_build(&r->arenas.batch, step->data, rows + at, taken, &settings);
        graft_status status = micro_batch_run(r, sums, b, err);
        if (status != GRAFT_OK)
            return status;
        at += taken;
    }
    return GRAFT_OK;
}

/* Clips and updates, or leaves everything as it was when the gradient is not finite. */
static graft_status update(run *r, train_metrics *metrics, double factor, graft_error *err) {
    adapter *a = r->in->adapter;
    backend *dev = r->model.dev;
    metrics->grad_norm = (double)NAN;
    if (metrics->supervised_tokens == 0) /* nothing to learn: no momentum, no decay either */
        return GRAFT_OK;
    if (isfinite(metrics->loss))
        metrics->loss += adapter_chain(a, dev);
    metrics->grad_norm = isfinite(metrics->loss) ? optimizer_gradient_norm(a, dev) : (double)NAN;
    if (!isfinite(metrics->grad_norm)) {
        if (isfinite(metrics->loss))
            blame_gradients(&r->blame, a, dev);
        r->progress.skipped++;
        r->progress.skipped_in_a_row++;
        return GRAFT_OK;
    }
    r->progress.skipped_in_a_row = 0;
    r->progress.updates++;
    double scale = optimizer_clip_scale(metrics->grad_norm, r->config->max_grad_norm);
    const adapter_progress progress = {r->progress.step, r->count.total, scale};
    graft_status status =
        optimizer_update(a, dev, r->config, factor, scale, r->progress.updates, err);
    if (status == GRAFT_OK)
        status = adapter_updated(a, dev, progress, err);
    return status == GRAFT_OK ? adapter_prepare(a, dev, r->in->weights, err) : status;
}

static void measure(run *r, train_metrics *metrics, double started_s) {
    metrics->step_time_s = clock_seconds() - started_s;
    metrics->tokens_per_second =
        metrics->step_time_s > 0 ? (double)metrics->tokens / metrics->step_time_s : 0;
    r->step_s = r->step_s > 0 ? 0.9 * r->step_s + 0.1 * metrics->step_time_s : metrics->step_time_s;
    metrics->eta_s = r->step_s * (double)(r->count.total - r->progress.step);
    metrics->peak_memory_bytes = peak_memory_bytes();
}

/* The rows of the next step, out of memory or as they are read. */
static graft_status take_rows(run *r, stream_rows *out, graft_error *err) {
    if (r->in->stream) {
        graft_status status = data_stream_next(r->in->stream, out, r->count.rows_per_step, err);
        return status == GRAFT_OK ? dataset_check_tasks(out->data, r->hooks.n_tasks, err) : status;
    }
    out->data = r->in->data;
    out->n = sampler_next(r->order, &out->rows, r->count.rows_per_step);
    return GRAFT_OK;
}

double run_epochs(const run *r) {
    return r->in->stream ? data_stream_epochs(r->in->stream)
                         : (double)r->progress.step / (double)r->count.steps_per_epoch;
}

graft_status run_step(run *r, train_metrics *metrics, graft_error *err) {
    double started_s = clock_seconds();
    step_sums sums = {0};
    stream_rows rows;
    data_cursor before = r->progress.cursor;
    graft_status status = take_rows(r, &rows, err);
    if (status != GRAFT_OK)
        return status;
    int64_t supervised =
        dataset_supervised(rows.data, rows.rows, rows.n) + rows.n * r->hooks.sequence.n_labelled;
    double factor = schedule_factor(r->config->schedule, r->progress.step, r->warmup,
                                    r->count.total, r->config->learning_rate);
    adapter_zero_gradients(r->in->adapter, r->model.dev);
    status = rows_run(r, &sums, &rows, supervised, err);
    if (status != GRAFT_OK) {
        /* The step did not happen; a stream has gone past it, and ends here. */
        if (r->order)
            sampler_seek(r->order, before, NULL);
        return status;
    }
    *metrics = (train_metrics){
        .loss = supervised > 0 ? sums.loss : (double)NAN,
        .learning_rate = r->config->learning_rate * factor,
        .tokens = sums.tokens,
        .supervised_tokens = supervised,
    };
    status = update(r, metrics, factor, err);
    if (status != GRAFT_OK)
        return status;
    r->progress.step++;
    r->progress.tokens += metrics->tokens;
    r->progress.supervised_tokens += supervised;
    r->progress.cursor = r->order ? sampler_cursor(r->order) : data_stream_cursor(r->in->stream);
    if (r->in->stream)
        r->state.data_hash = data_stream_hash(r->in->stream);
    metrics->step = r->progress.step;
    metrics->total_steps = r->count.total;
    metrics->epoch = run_epochs(r);
    measure(r, metrics, started_s);
    return GRAFT_OK;
}
