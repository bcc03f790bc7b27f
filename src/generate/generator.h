/* Generation: a prompt is read in chunks into a KV cache, then tokens follow one by one. */
#ifndef GRAFT_GENERATE_GENERATOR_H
#define GRAFT_GENERATE_GENERATOR_H

#include "generate/sampling.h"
#include "model/transformer.h"

#include <signal.h>

enum { PROMPT_CHUNK_TOKENS = 256 };

typedef struct generator generator;

/* Borrows the run (model, weights, hooks) until it is destroyed. */
graft_status generator_create(generator **, const model_run *, graft_error *);
void generator_destroy(generator **);

typedef struct generate_request {
    const int32_t *prompt; /* [n_prompt], at least one token */
    int32_t n_prompt;
    int64_t max_new_tokens;
    int32_t task; /* of the text, for adapters that know several */
    sampling_options sampling;
    uint64_t seed;
    const int32_t *eos; /* [n_eos]: tokens that end the answer and are not part of it */
    size_t n_eos;
    /* Called with each token; false ends the answer. */
    bool (*on_token)(void *context, int32_t id);
    void *context;
    const volatile sig_atomic_t *stop; /* non-zero: GRAFT_E_INTERRUPTED; may be NULL */
} generate_request;

typedef enum finish_reason { FINISH_STOP, FINISH_LENGTH } finish_reason;

typedef struct generate_result {
    int64_t n_tokens;
    finish_reason reason;
    double prompt_s, decode_s;
} generate_result;

/* GRAFT_E_INPUT when the prompt does not fit the model's context; generation ends with
 * FINISH_LENGTH where the context does. */
graft_status generator_run(generate_result *, generator *, const generate_request *, graft_error *);

#endif
