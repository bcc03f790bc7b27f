#include "backend/cpu/threads.h"

#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { SPINS = 2000 }; /* some 20 microseconds */

typedef struct worker {
    thread_team *team;
    pthread_t id;
    int32_t thread;
} worker;

struct thread_team {
    pthread_mutex_t mutex;
    pthread_cond_t wake; /* workers sleep here: a round has opened, or the team ends */
    pthread_cond_t done; /* the caller sleeps here: the last worker has left its round */
    worker *workers;
    int32_t n_workers; /* started; the caller is one more thread */

    /* Under the mutex; atomic, so that waiting may look before it sleeps. */
    atomic_uint_fast64_t round; /* counts calls of run */
    atomic_bool is_open;        /* workers may join the round */
    atomic_int n_inside;        /* workers that joined and have not left */
    atomic_bool is_ending;

    /* Of the round; written before it opens. */
    thread_task *task;
    void *context;
    int64_t n_tasks;
    atomic_int_fast64_t next;
};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void take_tasks(thread_team *team, int32_t thread) {
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed);
        if (i >= team->n_tasks)
            return;
        team->task(team->context, i, thread);
    }
}

static void *work(void *argument) {
    worker *self = argument;
    thread_team *team = self->team;
    uint64_t seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&team->round) == seen; i++)
            pause_briefly();
        pthread_mutex_lock(&team->mutex);
        while (!team->is_ending && !(team->is_open && team->round != seen))
            pthread_cond_wait(&team->wake, &team->mutex);
        if (team->is_ending) {
            pthread_mutex_unlock(&team->mutex);
            return NULL;
        }
        seen = team->round;
        team->n_inside++;
        pthread_mutex_unlock(&team->mutex);
        take_tasks(team, self->thread);
        pthread_mutex_lock(&team->mutex);
        team->n_inside--;
        if (team->n_inside == 0)
            pthread_cond_signal(&team->done);
        pthread_mutex_unlock(&team->mutex);
    }
}

void thread_team_run(thread_team *team, int64_t n_tasks, thread_task *task, void *context) {
    if (n_tasks <= 1 || team->n_workers == 0) {
        for (int64_t i = 0; i < n_tasks; i++)
            task(context, i, 0);
        return;
    }
    pthread_mutex_lock(&team->mutex);
    team->task = task;
    team->context = context;
    team->n_tasks = n_tasks;
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    team->is_open = true;
    team->round++;
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->mutex);
    take_tasks(team, 0);
    /* Nothing is left to hand out: who has not joined by now need not. */
    pthread_mutex_lock(&team->mutex);
    team->is_open = false;
    pthread_mutex_unlock(&team->mutex);
    for (int i = 0; i < SPINS && atomic_load(&team->n_inside) > 0; i++)
        pause_briefly();
    pthread_mutex_lock(&team->mutex);
    while (team->n_inside > 0)
        pthread_cond_wait(&team->done, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}

static graft_status start_workers(thread_team *team, int32_t n_threads, graft_error *err) {
    for (int32_t i = 1; i < n_threads; i++) {
        worker *w = &team->workers[i - 1];
        *w = (worker){.team = team, .thread = i};
        int code = pthread_create(&w->id, NULL, work, w);
        if (code != 0)
            return error_set(err, GRAFT_E_IO, "thread %d of %d cannot be started: %s", (int)i + 1,
                             (int)n_threads, strerror(code));
        team->n_workers++;
    }
    return GRAFT_OK;
}

graft_status thread_team_create(thread_team **out, int32_t n_threads, graft_error *err) {
    *out = NULL;
    thread_team *team = mem_array(1, sizeof *team);
    if (!team)
        return error_memory(err, sizeof *team, "the team of threads");
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->wake, NULL);
    pthread_cond_init(&team->done, NULL);
    team->workers = mem_array((size_t)n_threads, sizeof *team->workers);
    graft_status status =
        team->workers
            ? start_workers(team, n_threads, err)
            : error_memory(err, (size_t)n_threads * sizeof *team->workers, "the team of threads");
    if (status != GRAFT_OK)
        thread_team_destroy(&team);
    *out = team;
    return status;
}

void thread_team_destroy(thread_team **team_) {
    thread_team *team = team_ ? *team_ : NULL;
    if (!team)
        return;
    pthread_mutex_lock(&team->mutex);
    team->is_ending = true;
    team->round++; /* ends a worker's spinning */
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->mutex);
    for (int32_t i = 0; i < team->n_workers; i++)
        pthread_join(team->workers[i].id, NULL);
    pthread_cond_destroy(&team->done);
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->mutex);
    free(team->workers);
    free(team);
    *team_ = NULL;
}

int32_t thread_count_default(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
