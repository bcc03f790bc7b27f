/* A model opened for a test, on one backend, with what it trains. Every function fails the running test on an error. */
#ifndef GRAFT_TESTS_MODEL_CASE_H
#define GRAFT_TESTS_MODEL_CASE_H

#include "tests/support/support.h"

#include "model/batch_builder.h"
#include "model/transformer.h"

/* A trained array under the name its tensor has on disk. */
typedef struct test_parameter {
    char name[160];
    device_array *value, *gradient;
    int64_t n;
    /* B of stacked experts lies [experts, out, rank]; in its file [out, rank, experts]. 0: as in the file. */
    int32_t n_experts, rank;
} test_parameter;

/* Where element i of the file lies in the parameter. */
static inline int64_t test_parameter_place(const test_parameter *p, int64_t i) {
    if (!p->n_experts)
        return i;
    int64_t expert = i % p->n_experts, row = i / p->n_experts;
    return expert * (p->n / p->n_experts) + row;
}

enum { CASE_PARAMETERS_MAX = 1024, CASE_TERMS_MAX = 512 };

typedef struct model_case {
    backend *dev;
    model_spec spec;
    weight_source *weights;
    model_module *modules;
    size_t n_modules;
    model_hooks hooks;
    test_parameter parameters[CASE_PARAMETERS_MAX];
    size_t n_parameters;
    low_rank_term terms[CASE_TERMS_MAX];
    size_t n_terms;
    step_buffers buffers;
    block_saved *saved;
    void *device_memory, *host_memory;
    batch_builder builder;
    const batch *batch;
} model_case;

/* The backends that every test runs on: 0 reference, 1 cpu. */
enum { BACKENDS = 2 };
backend *test_backend(int which);
backend *test_cpu_backend(int32_t n_threads);

/* Writes a model with random weights (norms near 1, the rest small) into test_folder()/NAME; returns its path (valid like
 * test_data's). */
const char *model_case_write(const char *name, const char *config, uint64_t seed);

/* The model of a folder; its config may be another file of the folder ("config_v4.json"). Takes dev over. */
void model_case_open(model_case *, backend *dev, const char *folder, const char *config);
void model_case_close(model_case *);
/* What the calls of model/transformer.h want. */
model_run model_case_run(const model_case *);

/* A trained array of n elements, with values as stored, or zeroed for NULL. */
test_parameter *model_case_parameter(model_case *, const char *name, const tensor_view *values, int64_t n);
test_parameter *model_case_find(model_case *, const char *name);
/* Frees every parameter of the base, as full fine-tuning does: a tied head shares the embedding's arrays. */
void model_case_train_all(model_case *);
/* Adds LoRA terms on every module that the adapter's folder has tensors for. */
void model_case_train_lora(model_case *, const char *adapter_folder);
/* Adds one term on a linear, the embedding or the head, its parameters named MODULE.lora_A and MODULE.lora_B (and
 * MODULE.lora_bias), with small random values. */
void model_case_add_term(model_case *, const char *module, low_rank_term shape, bool has_bias, uint64_t seed);

/* Finishes the hooks and lays the step out. */
void model_case_layout(model_case *, const step_limits *);
/* Puts rows into the batch; ends with model_case_batch_end. */
void model_case_batch_begin(model_case *, bool training, uint64_t dropout_key);
void model_case_add_row(model_case *, const batch_row *);
/* Forward and loss: the sum of weight * loss over the labelled rows. With training and backward true also gradients, which
 * are zeroed first. */
double model_case_step(model_case *, bool backward);

/* Values or gradients, in double. Caller frees. */
double *model_case_download(const model_case *, const device_array *, int64_t n);
void model_case_zero_gradients(model_case *);

#endif
