/* A run on stories260K with everything it needs, for tests: opened with defaults that a test
 * changes before it runs. */
#ifndef GRAFT_TESTS_TRAIN_BENCH_H
#define GRAFT_TESTS_TRAIN_BENCH_H

#include "tests/support/support.h"

#include "train/trainer.h"

enum { BENCH_STEPS_MAX = 256, BENCH_PATH_BYTES = 512, BENCH_MESSAGES_BYTES = 1 << 14 };

typedef enum bench_backend { BENCH_CPU, BENCH_REFERENCE } bench_backend;

typedef struct train_bench {
    backend *dev;
    model_spec spec;
    weight_source *weights;
    adapter *adapter;
    dataset *data, *eval_data;
    char output[BENCH_PATH_BYTES];
    train_config config;
    train_inputs inputs;
    train_observer observer;
    train_result result;
    volatile sig_atomic_t stop;
    int64_t stop_at; /* raises `stop` when this step is logged; 0: never */
    /* What the observer saw. */
    double losses[BENCH_STEPS_MAX], norms[BENCH_STEPS_MAX], rates[BENCH_STEPS_MAX];
    int64_t n_steps, n_evaluations, n_saved;
    double eval_loss;
    char messages[BENCH_MESSAGES_BYTES];
} train_bench;

/* The model, an adapter from `config` (NULL: LoRA r 4 on q and v), no data, output folder
 * test_folder()/name. Skips the test without GRAFT_TEST_DATA. */
void bench_open(train_bench *, bench_backend, int32_t n_threads, const adapter_config *,
                const char *name);
void bench_close(train_bench *);
/* Rows of pseudo-random tokens with lengths in [3, longest], the same for the same seed; every
 * third label is -100. */
void bench_add_rows(dataset *, int64_t n, int32_t longest, uint32_t seed);
/* Creates data with such rows. */
void bench_data(train_bench *, int64_t n, int32_t longest);
graft_status bench_run(train_bench *);

/* Fails unless both files hold the same bytes. */
void assert_same_file(const char *folder_a, const char *folder_b, const char *name);
const char *bench_path(const train_bench *, const char *name); /* in the output folder */

#endif
