/* Small computations that every backend can run, for comparing one with another on the user's own
 * machine. */
#ifndef GRAFT_API_PROBES_H
#define GRAFT_API_PROBES_H

#include "backend/ops.h"

typedef struct probe {
    const char *name;
    int64_t n_results;
    double tolerance; /* of the largest difference, relative to the largest result */
    /* Runs on fixed pseudo-random inputs; results [n_results]. False when out of memory. */
    bool (*run)(backend *, float *results);
} probe;

const probe *probe_at(size_t i); /* NULL past the end */

/* Largest |a - b| over the largest |b|; infinity when a result is not finite. */
double probe_difference(const float *a, const float *b, int64_t n);

#endif
