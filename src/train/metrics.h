/* metrics.jsonl: one JSON object a line, one line a logged step or evaluation; and the same numbers
 * in memory for the report. A log that cannot be written never stops a run: one warning, then no
 * more lines. */
#ifndef GRAFT_TRAIN_METRICS_H
#define GRAFT_TRAIN_METRICS_H

#include "train/trainer.h"

typedef struct metrics_point {
    int64_t step;
    float loss, grad_norm, learning_rate;
} metrics_point;

typedef struct evaluation_point {
    int64_t step;
    double loss;
} evaluation_point;

/* All memory is taken when the log is opened. More points than fit are thinned by keeping every
 * second, over and over. */
typedef struct metrics_history {
    metrics_point *steps;
    size_t n_steps, steps_capacity;
    int64_t stride, seen; /* every stride-th logged step is kept */
    evaluation_point *evaluations;
    size_t n_evaluations, evaluations_capacity;
} metrics_history;

typedef struct metrics_log {
    int fd; /* -1: lines are dropped */
    const message_sink *messages;
    metrics_history history;
} metrics_log;

/* Starts FOLDER/metrics.jsonl anew (after_step -1), or keeps the lines of steps up to after_step,
 * as a resumed run does. Fails only for want of memory. */
graft_status metrics_open(metrics_log *, const char *folder, int64_t after_step, int64_t n_logged,
                          int64_t n_evaluations, const message_sink *, graft_error *);
void metrics_write(metrics_log *, const train_metrics *);
void metrics_close(metrics_log *);

/* The line of one event, with its newline; returns its length. */
enum { METRICS_LINE_BYTES = 768 };
size_t metrics_line(char line[METRICS_LINE_BYTES], const train_metrics *);

#endif
