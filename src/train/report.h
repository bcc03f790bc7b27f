/* report.html: one self-contained page about a run. */
#ifndef GRAFT_TRAIN_REPORT_H
#define GRAFT_TRAIN_REPORT_H

#include "train/metrics.h"

typedef struct report_source {
    const train_result *result;
    const train_config *config;
    const metrics_history *history;
    const char *method; /* "lora" */
    int64_t total_steps;
} report_source;

/* The style sheet of Graft's pages, light and dark. */
extern const char report_style[];

graft_status report_write(strbuf *html, const report_source *, graft_error *);

/* The smoothed curve that LLaMA-Factory plots: an exponential moving average whose weight grows
 * with the number of points, 1.8 * (sigmoid(0.05 n) - 0.5). Values that are not finite are carried
 * over. */
void smooth_curve(double *smoothed, const double *values, size_t n);

#endif
