#include "train/run.h"

#include <math.h>

static double micro_batch_loss(run *r, const batch *b, graft_status *status, graft_error *err) {
    int32_t n_labelled = 0;
    double sum = 0;
    /* The same memory, read as an inference would: no gradient is made. */
    step_buffers buffers = r->arenas.step;
    buffers.limits.training = false;
    *status = step_forward(&r->model, &buffers, b, err);
    if (*status == GRAFT_OK)
        *status = step_loss(&n_labelled, &r->model, &buffers, b, err);
    for (int32_t i = 0; i < n_labelled; i++)
        sum += (double)buffers.loss_host[i];
    if (*status == GRAFT_OK && !isfinite(sum))
        *status = blame_forward(&r->blame, &r->model, &buffers, b, err);
    return sum;
}

graft_status run_evaluate(run *r, double *loss, graft_error *err) {
    const dataset *data = r->in->eval_data;
    const batch_settings settings = {.step_supervised = 1};
    dataset_counts counts = dataset_count(data);
    double sum = 0;
    const uint64_t *rows;
    graft_status status = sampler_seek(r->eval_order, (data_cursor){0, 0}, err);
    int64_t n = status == GRAFT_OK ? sampler_next(r->eval_order, &rows, counts.rows) : 0;
    for (int64_t at = 0; at < n && status == GRAFT_OK && isfinite(sum);) {
        if (run_is_stopped(r))
            return error_set(err, GRAFT_E_INTERRUPTED, "stopped");
        int64_t taken = micro_batch_rows(data, rows + at, n - at, &r->arenas.limits);
        const batch *b = batch_build(&r->arenas.batch, data, rows + at, taken, &settings);
        sum += micro_batch_loss(r, b, &status, err);
        at += taken;
    }
    *loss = sum / (double)counts.supervised;
    return status;
}
