/* A backend whose ops can be watched and made to fail: the table is copied, and some of its
 * functions are replaced. */
#ifndef GRAFT_TESTS_TRAIN_SPY_H
#define GRAFT_TESTS_TRAIN_SPY_H

#include "backend/ops.h"

#include <signal.h>

typedef struct spy {
    size_t allocated[8]; /* bytes of every alloc since the spy was put in */
    int n_allocated;
    int failing_alloc; /* this one gives nothing, from 1; 0: none */
    /* Forward passes of a micro-batch: calls of attention_fwd for layer 0. The search for what is
     * not finite makes one more. */
    int64_t passes;
    int32_t poisoned_layer;   /* whose attention is made NaN; -1: none */
    bool poisons_backward;    /* in backward (dq) instead of forward (o) */
    uint64_t poisoned_passes; /* bit p: in pass p, from 1; bit 63: in that and all later ones */
    int64_t stop_at_pass;     /* raises *stop there; 0: never */
    volatile sig_atomic_t *stop;
} spy;

extern spy the_spy;

void spy_put_in(backend *); /* resets the_spy */

#endif
