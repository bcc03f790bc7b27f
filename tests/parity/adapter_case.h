/* An adapter with random values on a tiny random model, for tests that every method passes. */
#ifndef GRAFT_TESTS_ADAPTER_CASE_H
#define GRAFT_TESTS_ADAPTER_CASE_H

#include "tests/parity/model_case.h"

#include "adapter/adapter.h"

/* What a line of the table in adapter_kinds.c passes. */
typedef enum adapter_check {
    CHECK_GRADIENTS = 1, /* against differences of the loss */
    CHECK_MERGE = 2      /* the merged model computes what base and adapter compute */
} adapter_check;

/* What such a test is about. The model is a Llama: hidden 12, intermediate 14, 2
 * layers, 3 query heads on 1 key head, biases everywhere, vocabulary 19, a tied head. */
typedef struct adapter_kind {
    const char *name;
    const char *config;   /* adapter_config.json */
    const char *detached; /* part of the keys of tensors whose other effects backward leaves out on
                             purpose, so that differences have to hold them: what is derived stays
                             when they change. NULL: none */
} adapter_kind;

/* Runs a check over the table's lines that pass it; the test's state is the const adapter_kind *.
 * The exit status of a main. */
int adapter_kinds_run(const char *group, adapter_check, CMUnitTestFunction);

enum { ADAPTER_CASE_ROWS = 3 };

typedef struct adapter_case {
    model_case model;
    char folder[4096]; /* of the model */
    adapter *adapter;
    void *memory;
} adapter_case;

/* First values, and random ones added to what trains; bound and prepared, with a batch of three
 * rows. */
void adapter_case_open(adapter_case *, backend *, const adapter_kind *, bool training);
/* The same without the random values. */
void adapter_case_open_new(adapter_case *, backend *, const adapter_kind *, bool training);
void adapter_case_close(adapter_case *);
void adapter_case_lay_out(adapter_case *);
void adapter_case_prepare(adapter_case *);
/* Every token's logits, [tokens, vocab]; caller frees. */
float *adapter_case_logits(model_case *);
/* The batch, for hooks that were laid out (model_case_layout). */
void adapter_case_fill(model_case *, bool training);
extern const step_limits adapter_case_limits;

#endif
