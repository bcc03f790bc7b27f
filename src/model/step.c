#include "model/linear_hooked.h"

#include <assert.h>

graft_status step_embed(const model_run *run, step_buffers *buffers, const batch *b,
                        graft_error *err) {
    backend *dev = run->dev;
    const model_spec *spec = run->spec;
    const outer_weights *outer = weight_source_outer(run->weights);
    int64_t n = b->tokens.n, half = spec->head_dim / 2;
    float *cos_host = buffers->rope_host, *sin_host = buffers->rope_host + n * half;
    assert(n <= buffers->limits.max_tokens && b->n_segments <= buffers->limits.max_segments);
    for (int64_t t = 0; t < n; t++)
        if (b->ids[t] < 0 || b->ids[t] >= spec->vocab)
            return error_set(
                err, GRAFT_E_INPUT,
                "token id %d is outside the model's embedding of %d rows: tokenizer and "
                "model do not belong together",
                b->ids[t], spec->vocab);
    rope_fill(cos_host, sin_host, &spec->rope, spec->head_dim, b);
    dev->ops->upload(dev, buffers->rope_cos, cos_host, DTYPE_F32, n * half);
    dev->ops->upload(dev, buffers->rope_sin, sin_host, DTYPE_F32, n * half);
    linear_call call = linear_hooked(dev, &outer->embedding, NULL, &run->hooks->embedding);
    dev->ops->embed_fwd(dev, buffers->x, &call.weight, call.terms, call.n_terms, b->ids,
                        &b->tokens);
    return GRAFT_OK;
}

graft_status step_forward(const model_run *run, step_buffers *buffers, const batch *b,
                          graft_error *err) {
    layer_weights weights;
    graft_status status = step_embed(run, buffers, b, err);
    for (int32_t layer = 0; status == GRAFT_OK && layer < run->spec->n_layers; layer++) {
        status = layer_acquire(&weights, run->weights, layer, +1, err);
        if (status != GRAFT_OK)
            break;
        block_fwd(run, layer, &weights, b, buffers, &buffers->saved[layer]);
        layer_release(run->weights, layer);
    }
    return status;
}

graft_status step_backward(const model_run *run, step_buffers *buffers, const batch *b,
                           graft_error *err) {
    backend *dev = run->dev;
    const model_hooks *hooks = run->hooks;
    const outer_weights *outer = weight_source_outer(run->weights);
    layer_weights weights;
    graft_status status = GRAFT_OK;
    int32_t lowest = hooks->embedding_trains ? 0 : hooks->lowest_trained_layer;
    for (int32_t layer = run->spec->n_layers - 1; layer >= lowest; layer--) {
        status = layer_acquire(&weights, run->weights, layer, -1, err);
        if (status != GRAFT_OK)
            return status;
        block_bwd(run, layer, &weights, b, buffers, &buffers->saved[layer],
                  hooks->embedding_trains || layer > lowest);
        layer_release(run->weights, layer);
    }
    linear_call call = linear_hooked(dev, &outer->embedding, NULL, &hooks->embedding);
    if (linear_is_trained(&call))
        dev->ops->embed_bwd(dev, call.d_weight, buffers->dx, &call.weight, call.terms, call.n_terms,
                            b->ids, &b->tokens);
    return GRAFT_OK;
}
