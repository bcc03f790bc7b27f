/* Choosing the next token from logits, in the order of Transformers' logits processors: repetition
 * penalty, temperature, top-k, top-p, min-p. */
#ifndef GRAFT_GENERATE_SAMPLING_H
#define GRAFT_GENERATE_SAMPLING_H

#include "base/rng.h"
#include "base/status.h"

typedef struct sampling_options {
    double temperature;        /* 0: the likeliest token, the lowest id among equals */
    int64_t top_k;             /* 0: off. Tokens as likely as the k-th stay */
    double top_p;              /* 1: off */
    double min_p;              /* 0: off */
    double repetition_penalty; /* 1: off */
} sampling_options;

typedef struct sampler_candidate {
    float logit;
    int32_t id;
    double probability;
} sampler_candidate;

typedef struct token_sampler {
    int32_t vocab;
    sampler_candidate *candidates; /* [vocab] */
    uint8_t *seen;                 /* [vocab]: tokens of the context so far */
} token_sampler;

graft_status token_sampler_create(token_sampler *, int32_t vocab, graft_error *);
void token_sampler_free(token_sampler *);
void token_sampler_reset(token_sampler *);
/* Tells it of a token of the prompt or of the answer: these are penalised. */
void token_sampler_see(token_sampler *, int32_t id);
/* logits [vocab] are changed. -1 when the likeliest is not a finite number: the model's numbers are
 * broken. */
int32_t token_sampler_choose(token_sampler *, float *logits, const sampling_options *, rng *);

#endif
