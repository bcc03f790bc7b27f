/* A base model and an adapter on it, for tests of the adapter layer. */
#ifndef GRAFT_TESTS_ADAPTER_SUPPORT_H
#define GRAFT_TESTS_ADAPTER_SUPPORT_H

#include "adapter/adapter.h"
#include "tests/support/support.h"

typedef struct bench {
    backend *dev; /* the reference backend */
    model_spec spec;
    weight_source *weights;
    adapter *adapter;
    void *memory;
    char messages[4096]; /* what was said, a line each */
    message_sink sink;
} bench;

/* Opens the base in a folder of the shared data; skips the test without it. */
void bench_open(bench *, const char *model);
/* A base of config.json text alone: no weights. */
void bench_open_spec(bench *, const json_t *config);
void bench_close(bench *);
/* Creates the adapter that a config describes; bench_layout gives it memory. */
graft_status bench_create(bench *, const adapter_config *);
graft_status bench_create_from(bench *, const char *config_path);
void bench_layout(bench *, bool training);

/* The whole file, for comparisons; caller frees. */
char *read_file(const char *path, size_t *n);
/* Two safetensors files hold the same keys, types, shapes and bytes. */
void assert_files_equal(const char *got, const char *expected);
/* The path of `name` in the fresh folder test_folder(); valid for a few calls. */
const char *scratch(const char *name);

#endif
