/* A trained "model" of two tensors on the reference backend, for tests of what is saved: it has no
 * threads, and its method is no PEFT directory, so that a checkpoint is the state alone. */
#ifndef GRAFT_TESTS_TRAIN_TINY_H
#define GRAFT_TESTS_TRAIN_TINY_H

#include "tests/support/support.h"

#include "train/checkpoint.h"

enum { TINY_TENSORS = 2, TINY_PARTS = 4, TINY_ELEMENTS = 32 };

typedef struct tiny_run {
    backend *dev;
    adapter adapter;
    adapter_tensor tensors[TINY_TENSORS];
    void *memory; /* TINY_TENSORS * TINY_PARTS arrays of TINY_ELEMENTS: value, gradient, moments */
    void *staging;
} tiny_run;

extern const char TINY_RUN_A[], TINY_RUN_B[]; /* run ids */

void tiny_open(tiny_run *);
void tiny_close(tiny_run *);
/* Values that no f32 holds. */
void tiny_fill(tiny_run *, double first);
/* Saves OUTPUT/checkpoint-<step>. */
graft_status tiny_save(tiny_run *, const char *output, const char *run_id, int64_t step,
                       graft_error *);

#endif
