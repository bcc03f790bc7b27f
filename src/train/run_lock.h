/* One writer to an output folder: an advisory lock that ends with the process. */
#ifndef GRAFT_TRAIN_RUN_LOCK_H
#define GRAFT_TRAIN_RUN_LOCK_H

#include "base/status.h"

typedef struct run_lock {
    int fd; /* -1: not held */
} run_lock;

/* Takes FOLDER/.lock. GRAFT_E_INPUT, with the holder's process id, when another process has it. */
graft_status run_lock_take(run_lock *, const char *folder, graft_error *);
void run_lock_release(run_lock *);

#endif
