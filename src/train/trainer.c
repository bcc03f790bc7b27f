#include "train/trainer.h"

#include "base/clock.h"
#include "base/peak_memory.h"
#include "train/run.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static void tell(const run *r, train_event event, const train_metrics *metrics) {
    const train_observer *observer = r->in->observer;
    if (observer && observer->on_metrics)
        observer->on_metrics(observer->context, event, metrics);
}

/* ---- Saving ---- */

static graft_status save(run *r, graft_error *err) {
    if (r->saved_step == r->progress.step)
        return GRAFT_OK;
    /* Weights replaced under a running process would make the checkpoint a lie. */
    graft_status status = safetensors_verify_unchanged(weight_source_files(r->in->weights), err);
    if (status != GRAFT_OK)
        return status;
    const checkpoint_source source = {
        .adapter = r->in->adapter,
        .dev = r->in->dev,
        .weights = r->in->weights,
        .base_name = r->config->base_name,
        .recipe = r->config->recipe,
        .staging = r->arenas.staging,
    };
    char *path = NULL;
    r->state.progress = r->progress;
    status = checkpoint_save(&path, r->config->output_dir, &r->state, &source, err);
    if (status != GRAFT_OK)
        return status;
    free(r->saved_path);
    r->saved_path = path;
    r->saved_step = r->progress.step;
    r->retry_save_at = 0;
    checkpoint_prune(r->config->output_dir, r->state.run_id, r->saved_step,
                     r->config->save_total_limit, run_messages(r));
    const train_observer *observer = r->in->observer;
    if (observer && observer->on_saved)
        observer->on_saved(observer->context, path);
    return GRAFT_OK;
}

/* A disk that is full for a while must not cost the run: the earlier checkpoints are whole, and it
 * tries again soon. */
static graft_status save_when_due(run *r, graft_error *err) {
    int64_t every = r->config->save_steps, step = r->progress.step;
    bool is_due = every > 0 && (step % every == 0 || step == r->count.total);
    if (!is_due && (r->retry_save_at == 0 || step < r->retry_save_at))
        return GRAFT_OK;
    graft_error reason = {0};
    graft_status status = save(r, &reason);
    if (status == GRAFT_OK || status == GRAFT_E_INPUT) {
        if (status != GRAFT_OK && err)
            *err = reason;
        return status;
    }
    r->retry_save_at = step + (every < 10 ? 1 : every / 10);
    message_emit(run_messages(r), MESSAGE_WARNING,
                 "no checkpoint at step %" PRId64 ": %s. Training goes on and tries again at step "
                 "%" PRId64 "; earlier checkpoints are whole",
                 step, reason.message, r->retry_save_at);
    return GRAFT_OK;
}

/* ---- Numbers that stop being finite ---- */

static graft_status stop_numeric(const run *r, graft_error *err) {
    return error_set(err, GRAFT_E_NUMERIC,
                     "step %" PRId64 ": %s is not finite. No adapter was published; last good "
                     "checkpoint: %s. Try a lower learning_rate, max_grad_norm 1, or look at the "
                     "rows of these steps",
                     r->progress.step, r->blame.text, r->saved_path ? r->saved_path : "none yet");
}

static graft_status watch_numbers(run *r, const train_metrics *metrics, graft_error *err) {
    if ((isfinite(metrics->loss) && isfinite(metrics->grad_norm)) ||
        metrics->supervised_tokens == 0)
        return GRAFT_OK;
    if (r->progress.skipped_in_a_row >= SKIPS_MAX)
        return stop_numeric(r, err);
    message_emit(run_messages(r), MESSAGE_WARNING,
                 "step %" PRId64 ": %s is not finite: the step was skipped (%" PRId64
                 " in a row; %d stop the run)",
                 r->progress.step, r->blame.text, r->progress.skipped_in_a_row, SKIPS_MAX);
    return GRAFT_OK;
}

/* ---- The loop ---- */

static graft_status evaluate(run *r, train_result *result, graft_error *err) {
    double loss = 0;
    graft_status status = run_evaluate(r, &loss, err);
    if (status != GRAFT_OK)
        return status;
    const train_metrics metrics = {
        .step = r->progress.step,
        .total_steps = r->count.total,
        .epoch = run_epochs(r),
        .is_evaluation = true,
        .eval_loss = loss,
        .eval_perplexity = exp(loss),
        .peak_memory_bytes = peak_memory_bytes(),
    };
    metrics_write(&r->log, &metrics);
    tell(r, TRAIN_EVENT_EVALUATION, &metrics);
    result->eval_loss = loss;
    return isfinite(loss) ? GRAFT_OK : stop_numeric(r, err);
}

static bool is_evaluated(const run *r) {
    const metrics_history *history = &r->log.history;
    return history->n_evaluations > 0 &&
           history->evaluations[history->n_evaluations - 1].step == r->progress.step;
}

/* In between (eval_steps) and at the end, once a step: a resumed run may have its last evaluation
 * already. */
static graft_status evaluate_when_due(run *r, train_result *result, graft_error *err) {
    int64_t every = r->config->eval_steps, step = r->progress.step;
    if (!r->in->eval_data || ((every <= 0 || step % every != 0) && step != r->count.total))
        return GRAFT_OK;
    if (!is_evaluated(r))
        return evaluate(r, result, err);
    result->eval_loss = r->log.history.evaluations[r->log.history.n_evaluations - 1].loss;
    return GRAFT_OK;
}

static void account(run *r, train_result *result, const train_metrics *metrics) {
    if (isfinite(metrics->loss)) {
        if (r->loss_count == 0)
            result->first_loss = metrics->loss;
        result->last_loss = metrics->loss;
        r->loss_sum += metrics->loss;
        r->loss_count++;
        result->mean_loss = r->loss_sum / (double)r->loss_count;
    }
    result->steps++;
    result->tokens += metrics->tokens;
    result->supervised_tokens += metrics->supervised_tokens;
    int64_t every = r->config->logging_steps > 0 ? r->config->logging_steps : 1;
    if (metrics->step % every == 0 || metrics->step == r->count.total) {
        metrics_write(&r->log, metrics);
        tell(r, TRAIN_EVENT_STEP, metrics);
    }
}

static graft_status advance(run *r, train_result *result, graft_error *err) {
    train_metrics metrics;
    if (run_is_stopped(r))
        return error_set(err, GRAFT_E_INTERRUPTED, "stopped");
    graft_status status = run_step(r, &metrics, err);
    if (status != GRAFT_OK)
        return status;
    account(r, result, &metrics);
    status = watch_numbers(r, &metrics, err);
    if (status == GRAFT_OK)
        status = evaluate_when_due(r, result, err);
    if (status == GRAFT_OK)
        status = save_when_due(r, err);
    return status;
}

/* The run was asked to stop: what was learnt is kept. */
static graft_status stop(run *r, graft_error *err) {
    graft_status status = save(r, err);
    if (status != GRAFT_OK)
        return status;
    return error_set(err, GRAFT_E_INTERRUPTED,
                     "stopped after step %" PRId64 " of %" PRId64 "; %s is saved: --resume goes on",
                     r->progress.step, r->count.total, r->saved_path);
}

/* A row that cannot be read shows late where rows are streamed: what was learnt is kept, so that
 * the run can go on once the row is mended. */
static bool is_late_refusal(const run *r, graft_status status) {
    return r->in->stream && r->progress.step > 0 &&
           (status == GRAFT_E_INPUT || status == GRAFT_E_UNSUPPORTED);
}

static graft_status steps_run(run *r, train_result *result, graft_error *err) {
    graft_status status = GRAFT_OK;
    if (r->progress.step == r->count.total)
        status = evaluate_when_due(r, result, err);
    while (status == GRAFT_OK && r->progress.step < r->count.total)
        status = advance(r, result, err);
    if (is_late_refusal(r, status) && save(r, NULL) == GRAFT_OK)
        message_emit(run_messages(r), MESSAGE_INFO, "%s is saved: --resume goes on", r->saved_path);
    return status == GRAFT_E_INTERRUPTED ? stop(r, err) : status;
}

static void summarise(const run *r, train_result *result) {
    result->wall_s = clock_seconds() - r->started_s;
    result->tokens_per_second = result->wall_s > 0 ? (double)result->tokens / result->wall_s : 0;
    result->peak_memory_bytes = peak_memory_bytes();
    result->skipped_steps = r->progress.skipped;
}

graft_status train_run(train_result *result, const train_inputs *inputs, graft_error *err) {
    run r;
    *result = (train_result){.first_loss = (double)NAN,
                             .last_loss = (double)NAN,
                             .mean_loss = (double)NAN,
                             .eval_loss = (double)NAN};
    graft_status status = run_open(&r, inputs, err);
    result->plan = r.plan;
    if (status == GRAFT_OK)
        status = steps_run(&r, result, err);
    summarise(&r, result);
    if (status == GRAFT_OK)
        status = run_publish(&r, result, err);
    run_close(&r);
    return status;
}
