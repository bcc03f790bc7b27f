/* A team of threads that runs tasks, made for a machine it does not have to itself.
 *
 * OpenMP's barrier waits for every thread of the team, also for one that the system has not let
 * start; and it spins while it waits, which keeps the processor from the very thread it waits for.
 * Here tasks are handed out one at a time, the caller works too, and it waits only for threads that
 * took a task. Waiting spins for a few microseconds, because the next op usually follows at once,
 * and then sleeps. */
#ifndef GRAFT_BACKEND_CPU_THREADS_H
#define GRAFT_BACKEND_CPU_THREADS_H

#include "base/status.h"

typedef struct thread_team thread_team;

/* task(context, i, thread): thread is in [0, n_threads), and no two tasks run under the same at a
 * time. */
typedef void thread_task(void *context, int64_t i, int32_t thread);

graft_status thread_team_create(thread_team **, int32_t n_threads, graft_error *);
void thread_team_destroy(thread_team **);
/* Runs every i in [0, n_tasks); returns when all are done. One caller at a time. */
void thread_team_run(thread_team *, int64_t n_tasks, thread_task *, void *context);

/* Processors this process may use. */
int32_t thread_count_default(void);

#endif
