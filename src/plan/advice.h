/* What makes a fine-tune fit that does not: the smallest changes, each tried by laying it out. */
#ifndef GRAFT_PLAN_ADVICE_H
#define GRAFT_PLAN_ADVICE_H

#include "train/trainer.h"

typedef struct advice {
    char change[128]; /* "--max-length 512" */
    size_t total;     /* bytes it then takes */
} advice;

typedef struct advice_request {
    const model_spec *spec;
    const adapter_config *adapter; /* as it was asked for */
    const train_config *config;
    data_shape data;
    int32_t n_threads;
    size_t mapped_bytes, limit_bytes;
} advice_request;

enum { ADVICE_MAX = 5 };

/* Single changes that suffice, mildest first; when none does, one that combines them; none: n is
 * 0. */
graft_status advice_find(advice out[ADVICE_MAX], int *n, const advice_request *, graft_error *);

#endif
