#include "generate/sampling.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

graft_status token_sampler_create(token_sampler *s, int32_t vocab, graft_error *err) {
    *s = (token_sampler){.vocab = vocab};
    s->candidates = mem_array((size_t)vocab, sizeof *s->candidates);
    s->seen = mem_array((size_t)vocab, sizeof *s->seen);
    if (s->candidates && s->seen)
        return GRAFT_OK;
    token_sampler_free(s);
    return error_memory(err, (size_t)vocab * sizeof *s->candidates, "sampling");
}

void token_sampler_free(token_sampler *s) {
    free(s->candidates);
    free(s->seen);
    *s = (token_sampler){0};
}

void token_sampler_reset(token_sampler *s) {
    memset(s->seen, 0, (size_t)s->vocab);
}

void token_sampler_see(token_sampler *s, int32_t id) {
    if (id >= 0 && id < s->vocab)
        s->seen[id] = 1;
}

static void penalise_seen(const token_sampler *s, float *logits, double penalty) {
    for (int32_t i = 0; i < s->vocab; i++)
        if (s->seen[i])
            logits[i] =
                (float)(logits[i] < 0 ? (double)logits[i] * penalty : (double)logits[i] / penalty);
}

/* -1 when there is a NaN, or nothing finite. */
static int32_t likeliest(const float *logits, int32_t vocab) {
    int32_t best = 0;
    for (int32_t i = 0; i < vocab; i++) {
        if (isnan(logits[i]))
            return -1;
        if (logits[i] > logits[best])
            best = i;
    }
    return isfinite(logits[best]) ? best : -1;
}

/* Likeliest first, the lower id among equals. */
static int by_logit(const void *left, const void *right) {
    const sampler_candidate *a = left, *b = right;
    if (a->logit != b->logit)
        return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Softmax over the first n candidates. */
static void normalise(sampler_candidate *c, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += c[i].probability = exp((double)c[i].logit - (double)c[0].logit);
    for (int32_t i = 0; i < n; i++)
        c[i].probability /= sum;
}

static int32_t keep_top_k(const sampler_candidate *c, int32_t n, int64_t k) {
    if (k <= 0 || k >= n)
        return n;
    int32_t kept = (int32_t)k;
    while (kept < n && c[kept].logit == c[k - 1].logit)
        kept++;
    return kept;
}

static int32_t keep_top_p(const sampler_candidate *c, int32_t n, double top_p) {
    double before = 0; /* mass of the likelier ones */
    int32_t kept = 0;
    do
        before += c[kept++].probability;
    while (kept < n && before < top_p);
    return kept;
}

static int32_t keep_min_p(const sampler_candidate *c, int32_t n, double min_p) {
    int32_t kept = 1;
    while (kept < n && c[kept].probability >= min_p * c[0].probability)
        kept++;
    return kept;
}

int32_t token_sampler_choose(token_sampler *s, float *logits, const sampling_options *options,
                             rng *random) {
    if (options->repetition_penalty != 1)
        penalise_seen(s, logits, options->repetition_penalty);
    int32_t best = likeliest(logits, s->vocab);
    if (options->temperature <= 0 || best < 0)
        return best;
    for (int32_t i = 0; i < s->vocab; i++)
        s->candidates[i] =
            (sampler_candidate){(float)((double)logits[i] / options->temperature), i, 0};
    qsort(s->candidates, (size_t)s->vocab, sizeof *s->candidates, by_logit);
    int32_t n = keep_top_k(s->candidates, s->vocab, options->top_k);
    normalise(s->candidates, n);
    if (options->top_p < 1) {
        n = keep_top_p(s->candidates, n, options->top_p);
        normalise(s->candidates, n);
    }
    if (options->min_p > 0) {
        n = keep_min_p(s->candidates, n, options->min_p);
        normalise(s->candidates, n);
    }
    double drawn = rng_uniform(random), mass = 0;
    for (int32_t i = 0; i < n; i++) {
        mass += s->candidates[i].probability;
        if (drawn < mass)
            return s->candidates[i].id;
    }
    return s->candidates[n - 1].id; /* rounding left the mass short of 1 */
}
