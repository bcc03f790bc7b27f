#include "train/schedule.h"

#include <math.h>

/* Defaults of transformers that no option changes. */
static const double COSINE_CYCLES = 0.5;
static const double RESTART_CYCLES = 1.0;
static const double POLYNOMIAL_END = 1e-7;           /* learning rate at the end; the power is 1 */
static const int64_t INVERSE_SQRT_TIMESCALE = 10000; /* without warm-up */

step_count step_count_of(const train_config *config, int64_t rows) {
    step_count count = {.rows = rows};
    count.rows_per_step =
        (int64_t)config->per_device_train_batch_size * config->gradient_accumulation_steps;
    count.steps_per_epoch =
        rows / count.rows_per_step + (rows % count.rows_per_step > 0 || rows == 0);
    count.total = config->max_steps > 0
                      ? config->max_steps
                      : (int64_t)ceil(config->num_train_epochs * (double)count.steps_per_epoch);
    return count;
}

int64_t schedule_warmup(const train_config *config, int64_t total_steps) {
    if (config->warmup_steps > 0)
        return config->warmup_steps;
    return (int64_t)ceil((double)total_steps * config->warmup_ratio);
}

static double at_least_1(int64_t steps) {
    return steps > 1 ? (double)steps : 1.0;
}

static double cosine(double cycles) {
    return fmax(0.0, 0.5 * (1.0 + cos(3.14159265358979323846 * cycles)));
}

static double inverse_sqrt(int64_t step, int64_t warmup) {
    int64_t timescale = warmup > 0 ? warmup : INVERSE_SQRT_TIMESCALE;
    return 1.0 / sqrt((double)(step + timescale - warmup) / (double)timescale);
}

static double polynomial(int64_t step, int64_t warmup, int64_t total, double learning_rate) {
    double end = POLYNOMIAL_END / learning_rate;
    if (step > total)
        return end;
    double left = 1.0 - (double)(step - warmup) / (double)(total - warmup);
    return ((learning_rate - POLYNOMIAL_END) * left + POLYNOMIAL_END) / learning_rate;
}

double schedule_factor(schedule_kind kind, int64_t step, int64_t warmup, int64_t total_steps,
                       double learning_rate) {
    if (kind == SCHEDULE_CONSTANT)
        return 1.0;
    if (step < warmup)
        return (double)step / at_least_1(warmup);
    double progress = (double)(step - warmup) / at_least_1(total_steps - warmup);
    switch (kind) {
    case SCHEDULE_LINEAR:
        return fmax(0.0, (double)(total_steps - step) / at_least_1(total_steps - warmup));
    case SCHEDULE_COSINE:
        return cosine(COSINE_CYCLES * 2.0 * progress);
    case SCHEDULE_COSINE_WITH_RESTARTS:
        return progress >= 1.0 ? 0.0 : cosine(fmod(RESTART_CYCLES * progress, 1.0));
    case SCHEDULE_POLYNOMIAL:
        return polynomial(step, warmup, total_steps, learning_rate);
    case SCHEDULE_INVERSE_SQRT:
        return inverse_sqrt(step, warmup);
    default:
        return 1.0; /* constant once warm */
    }
}

const char *schedule_name(schedule_kind kind) {
    static const char *const names[] = {
        [SCHEDULE_CONSTANT] = "constant",
        [SCHEDULE_CONSTANT_WITH_WARMUP] = "constant_with_warmup",
        [SCHEDULE_LINEAR] = "linear",
        [SCHEDULE_COSINE] = "cosine",
        [SCHEDULE_COSINE_WITH_RESTARTS] = "cosine_with_restarts",
        [SCHEDULE_POLYNOMIAL] = "polynomial",
        [SCHEDULE_INVERSE_SQRT] = "inverse_sqrt",
    };
    return names[kind];
}
