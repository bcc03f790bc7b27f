/* The parts of a run share this; trainer.c drives them. */
#ifndef GRAFT_TRAIN_RUN_H
#define GRAFT_TRAIN_RUN_H

#include "train/checkpoint.h"
#include "train/memory_plan.h"
#include "train/metrics.h"
#include "train/run_lock.h"
#include "train/schedule.h"

enum {
    SKIPS_MAX = 3, /* steps without an update, in a row, that end a run */
    BLAME_BYTES = 256
};

/* Where a run's numbers stopped being finite. */
typedef struct numeric_blame {
    char text[BLAME_BYTES]; /* "the output of model.layers.3"; "" while all is well */
} numeric_blame;

typedef struct run {
    const train_inputs *in;
    const train_config *config;
    model_run model;
    model_hooks hooks;

    /* Memory: see memory_plan.h. trainer and step are the device's, host is ours. */
    memory_plan plan;
    run_arenas arenas;
    void *trainer_memory, *step_memory, *host_memory;

    step_count count;
    int64_t warmup;
    sampler *order; /* NULL where rows are streamed */
    run_progress progress;
    checkpoint_state state; /* all but progress is fixed for the run */
    int64_t saved_step;     /* of the newest checkpoint; -1: none */
    char *saved_path;
    int64_t retry_save_at; /* step of the next try after a save that failed; 0: none failed */
    numeric_blame blame;

    run_lock lock;
    metrics_log log;
    double started_s; /* clock_seconds */
    double step_s;    /* smoothed time of a step */
    double loss_sum;  /* of this process's finite steps */
    int64_t loss_count;
} run;

bool run_is_stopped(const run *);
const message_sink *run_messages(const run *);        /* NULL: nobody listens */
int32_t run_longest_row(const run *);                 /* of the training data, tokens */
const char *run_data_path(const run *, int32_t file); /* NULL past the end */

/* run_setup.c: everything up to the first step. Nothing is written before all inputs are accepted.
 */
graft_status run_open(run *, const train_inputs *, graft_error *);
void run_close(run *);

/* step.c: one optimizer step. GRAFT_E_INTERRUPTED: the stop flag rose, and nothing changed. A step
 * that is not finite is no error: metrics->loss or grad_norm says so, run.blame names the place,
 * and parameters stay as they were. */
graft_status run_step(run *, train_metrics *metrics, graft_error *);

/* Epochs done, with a fraction. */
double run_epochs(const run *);

/* evaluation.c: mean loss over the supervised tokens of eval_data, in the step's buffers. */
graft_status run_evaluate(run *, double *loss, graft_error *);

/* blame.c: the first part whose output is not finite, by one more forward pass; and after a
 * backward, the gradient. */
graft_status blame_forward(numeric_blame *, const model_run *, step_buffers *, const batch *,
                           graft_error *);
void blame_gradients(numeric_blame *, const adapter *, backend *);

/* outputs.c: adapter (or model), model card, recipe, report. */
graft_status run_publish(run *, const train_result *, graft_error *);

#endif
