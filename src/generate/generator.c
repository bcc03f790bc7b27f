#include "generate/generator.h"

#include "base/clock.h"
#include "base/memory.h"
#include "generate/kv_cache.h"
#include "model/step_arena.h"

#include <stdlib.h>

struct generator {
    model_run run;
    step_arena arena;
    void *cache_memory;
    kv_cache cache;
    token_sampler sampler;
    int32_t task;
    float *logits; /* [vocab] */
};

static graft_status allocate(generator *g, graft_error *err) {
    const model_spec *spec = g->run.spec;
    const step_limits limits = {
        .max_tokens = PROMPT_CHUNK_TOKENS, .max_labelled = 1, .max_segments = 1};
    g->logits = mem_array((size_t)spec->vocab, sizeof *g->logits);
    if (!g->logits)
        return error_memory(err, (size_t)spec->vocab * sizeof *g->logits, "generation");
    return step_arena_create(&g->arena, &g->run, &limits, "generation", err);
}

graft_status generator_create(generator **out, const model_run *run, graft_error *err) {
    *out = NULL;
    generator *g = mem_array(1, sizeof *g);
    if (!g)
        return error_memory(err, sizeof *g, "generation");
    g->run = *run;
    graft_status status = allocate(g, err);
    if (status == GRAFT_OK)
        status = token_sampler_create(&g->sampler, run->spec->vocab, err);
    if (status != GRAFT_OK)
        generator_destroy(&g);
    *out = g;
    return status;
}

static void drop_cache(generator *g) {
    kv_cache_free(&g->cache);
    if (g->cache_memory)
        g->run.dev->ops->release(g->run.dev, g->cache_memory);
    g->cache_memory = NULL;
}

void generator_destroy(generator **out) {
    generator *g = *out;
    if (!g)
        return;
    drop_cache(g);
    token_sampler_free(&g->sampler);
    step_arena_free(&g->arena);
    free(g->logits);
    free(g);
    *out = NULL;
}

/* Positions that an adapter takes before the text's first token. */
static int32_t text_position(const generator *g) {
    return g->run.hooks->sequence.n_virtual + g->run.hooks->sequence.past_length;
}

/* The trained keys and values that stand before every text. */
static void begin_cache(generator *g) {
    const sequence_hook *sequence = &g->run.hooks->sequence;
    kv_cache_advance(&g->cache, -g->cache.length);
    if (!sequence->past)
        return;
    for (int32_t layer = 0; layer < g->run.spec->n_layers; layer++)
        kv_cache_append(&g->cache, g->run.dev, layer, sequence->past[layer].k,
                        sequence->past[layer].v, sequence->past_length);
    kv_cache_advance(&g->cache, sequence->past_length);
}

/* A cache with room for `tokens` of text. */
static graft_status prepare_cache(generator *g, int32_t tokens, graft_error *err) {
    tokens += text_position(g);
    if (g->cache.capacity >= tokens) {
        begin_cache(g);
        return GRAFT_OK;
    }
    drop_cache(g);
    backend *dev = g->run.dev;
    size_t bytes = kv_cache_bytes(g->run.spec, tokens, dev->element_bytes);
    g->cache_memory = dev->ops->alloc(dev, bytes);
    if (!g->cache_memory)
        return error_memory(err, bytes, "the KV cache");
    graft_status status =
        kv_cache_create(&g->cache, dev, g->run.spec, tokens, g->cache_memory, err);
    if (status == GRAFT_OK)
        begin_cache(g);
    return status;
}

/* Passes n tokens behind the cache (the first of a text behind their virtual tokens); with `last`,
 * leaves the logits after the last one in g->logits.
 */
static graft_status pass_tokens(generator *g, const int32_t *ids, int32_t n, bool last,
                                graft_error *err) {
    const batch_row row = {.ids = ids,
                           .n = n,
                           .position_first = g->cache.length,
                           .task = g->task,
                           .past = g->cache.length > 0 ? g->cache.views : NULL};
    step_buffers *step = &g->arena.step;
    batch_builder_begin(&g->arena.builder, false, 0);
    batch_builder_add(&g->arena.builder, &row);
    const batch *tokens = batch_builder_finish(&g->arena.builder);
    graft_status status = step_embed(&g->run, step, tokens, err);
    for (int32_t layer = 0; layer < g->run.spec->n_layers && status == GRAFT_OK; layer++) {
        layer_weights weights;
        status = layer_acquire(&weights, g->run.weights, layer, +1, err);
        if (status != GRAFT_OK)
            break;
        block_fwd(&g->run, layer, &weights, tokens, step, &step->saved[layer]);
        kv_cache_append(&g->cache, g->run.dev, layer, step->saved[layer].k, step->saved[layer].v,
                        tokens->tokens.n);
        layer_release(g->run.weights, layer);
    }
    const int32_t last_row = tokens->tokens.n - 1;
    if (status == GRAFT_OK && last)
        status = step_logits(g->logits, &g->run, step, tokens, &last_row, 1, err);
    if (status == GRAFT_OK)
        kv_cache_advance(&g->cache, tokens->tokens.n);
    return status;
}

static graft_status check_stop(const generate_request *request, graft_error *err) {
    return request->stop && *request->stop ? error_set(err, GRAFT_E_INTERRUPTED, "stopped")
                                           : GRAFT_OK;
}

static graft_status read_prompt(generator *g, const generate_request *request, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (int32_t at = 0; at < request->n_prompt && status == GRAFT_OK;) {
        int32_t rest = request->n_prompt - at;
        int32_t n = rest < PROMPT_CHUNK_TOKENS ? rest : PROMPT_CHUNK_TOKENS;
        status = check_stop(request, err);
        if (status == GRAFT_OK)
            status = pass_tokens(g, request->prompt + at, n, n == rest, err);
        at += n;
    }
    return status;
}

static bool is_eos(const generate_request *request, int32_t id) {
    for (size_t i = 0; i < request->n_eos; i++)
        if (request->eos[i] == id)
            return true;
    return false;
}

static graft_status decode(generate_result *out, generator *g, const generate_request *request,
                           int64_t limit, graft_error *err) {
    rng random = rng_create(request->seed, 1);
    out->reason = FINISH_LENGTH;
    while (out->n_tokens < limit) {
        int32_t id = token_sampler_choose(&g->sampler, g->logits, &request->sampling, &random);
        if (id < 0)
            return error_set(
                err, GRAFT_E_NUMERIC,
                "the logits after %lld new tokens are not finite: weights or adapter are "
                "damaged, or were trained with too high a learning rate",
                (long long)out->n_tokens);
        if (is_eos(request, id)) {
            out->reason = FINISH_STOP;
            return GRAFT_OK;
        }
        out->n_tokens++;
        token_sampler_see(&g->sampler, id);
        if (!request->on_token(request->context, id)) {
            out->reason = FINISH_STOP;
            return GRAFT_OK;
        }
        graft_status status = check_stop(request, err);
        if (status == GRAFT_OK && out->n_tokens < limit)
            status = pass_tokens(g, &id, 1, true, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

graft_status generator_run(generate_result *out, generator *g, const generate_request *request,
                           graft_error *err) {
    *out = (generate_result){0};
    const int32_t context = g->run.spec->max_positions - text_position(g);
    g->task = request->task;
    if (request->n_prompt < 1)
        return error_set(err, GRAFT_E_INPUT,
                         "the prompt is empty, and the tokenizer adds no BOS: nothing to continue");
    if (request->n_prompt >= context)
        return error_set(err, GRAFT_E_INPUT,
                         "the prompt has %d tokens, the model's context %d: shorten it",
                         (int)request->n_prompt, (int)context);
    int64_t limit = request->max_new_tokens;
    if (limit > context - request->n_prompt)
        limit = context - request->n_prompt;
    graft_status status = prepare_cache(g, request->n_prompt + (int32_t)limit, err);
    if (status != GRAFT_OK)
        return status;
    token_sampler_reset(&g->sampler);
    for (int32_t i = 0; i < request->n_prompt; i++)
        token_sampler_see(&g->sampler, request->prompt[i]);
    double began = clock_seconds();
    status = read_prompt(g, request, err);
    out->prompt_s = clock_seconds() - began;
    if (status == GRAFT_OK)
        status = decode(out, g, request, limit, err);
    out->decode_s = clock_seconds() - began - out->prompt_s;
    return status;
}
