/* Learning-rate schedules, with the values of transformers.get_scheduler (optimization.py), and how
 * many steps a run has, with the arithmetic of transformers.Trainer. */
#ifndef GRAFT_TRAIN_SCHEDULE_H
#define GRAFT_TRAIN_SCHEDULE_H

#include "train/trainer.h"

/* How a run's rows fall into optimizer steps. A step takes up to rows_per_step rows; the last step
 * of an epoch takes what is left (drop_last is false, and a last partial accumulation group still
 * makes a step). */
typedef struct step_count {
    int64_t rows;            /* of one epoch */
    int64_t rows_per_step;   /* batch size * accumulation */
    int64_t steps_per_epoch; /* rounded up, at least 1 */
    int64_t total;
} step_count;

/* max_steps > 0 wins; else num_train_epochs * steps_per_epoch, rounded up. */
step_count step_count_of(const train_config *, int64_t rows);

/* warmup_steps, or else warmup_ratio * total rounded up. */
int64_t schedule_warmup(const train_config *, int64_t total_steps);

/* What the learning rate is multiplied with in step `step`, counted from 0. */
double schedule_factor(schedule_kind, int64_t step, int64_t warmup, int64_t total_steps,
                       double learning_rate);

/* "cosine_with_restarts" and so on; HF's names. */
const char *schedule_name(schedule_kind);

#endif
