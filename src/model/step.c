#include "model/labelled_rows.h"
#include "model/linear_hooked.h"

#include <assert.h>

/* Virtual tokens of a segment: their rows of the table and of a hidden state. */
static device_array *virtual_table(const model_run *run, const device_array *table,
                                   const segment *s) {
    const sequence_hook *sequence = &run->hooks->sequence;
    assert(s->task >= 0 && s->task < sequence->n_tasks);
    return array_at(run->dev, (device_array *)table,
                    (int64_t)s->task * sequence->n_virtual * run->spec->hidden);
}

static void virtual_forward(const model_run *run, step_buffers *buffers, const batch *b) {
    const int64_t hidden = run->spec->hidden;
    for (int32_t i = 0; i < b->n_segments; i++) {
        const segment *s = &b->segments[i];
        if (s->n_virtual)
            run->dev->ops->copy(run->dev, array_at(run->dev, buffers->x, s->token_begin * hidden),
                                virtual_table(run, run->hooks->sequence.virtual_rows, s),
                                s->n_virtual * hidden);
    }
}

/* In the segments' order, so that sums do not depend on packing. What is left of dx is the
 * embedding's. */
static void virtual_backward(const model_run *run, step_buffers *buffers, const batch *b) {
    const int64_t hidden = run->spec->hidden;
    device_array *gradient = run->hooks->sequence.d_virtual_rows;
    for (int32_t i = 0; i < b->n_segments; i++) {
        const segment *s = &b->segments[i];
        if (!s->n_virtual)
            continue;
        device_array *dx = array_at(run->dev, buffers->dx, s->token_begin * hidden);
        if (gradient)
            run->dev->ops->add(run->dev, virtual_table(run, gradient, s), dx,
                               s->n_virtual * hidden);
        run->dev->ops->fill(run->dev, dx, 0, s->n_virtual * hidden);
    }
}

static form_pass embedding_pass(const model_run *run, step_buffers *buffers, const batch *b) {
    return (form_pass){
        .dev = run->dev, .tokens = &b->tokens, .batch = b, .scratch = buffers->scratch.form};
}

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
    const embedding_hook *rows = &run->hooks->embedding_rows;
    if (rows->form) {
        form_pass pass = embedding_pass(run, buffers, b);
        rows->form->fwd(rows->self, &pass, buffers->x, &call.weight);
    }
    virtual_forward(run, buffers, b);
    return labelled_rows_find(buffers, b, err);
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
    if (buffers->labelled.tokens.n == 0) /* dx is 0, and so is every gradient */
        return GRAFT_OK;
    int32_t lowest = hooks->embedding_trains ? 0 : hooks->lowest_trained_layer;
    for (int32_t layer = run->spec->n_layers - 1; layer >= lowest; layer--) {
        status = layer_acquire(&weights, run->weights, layer, -1, err);
        if (status != GRAFT_OK)
            return status;
        block_bwd(run, layer, &weights, b, buffers, &buffers->saved[layer],
                  hooks->embedding_trains || layer > lowest);
        layer_release(run->weights, layer);
    }
    hooked_linear embedding = {
        .dev = dev,
        .call = linear_hooked(dev, &outer->embedding, NULL, &hooks->embedding),
        .hook = &hooks->embedding,
    };
    linear_call call = embedding.call;
    if (hooks->embedding_trains)
        virtual_backward(run, buffers, b);
    if (hooks->embedding_rows.form) {
        form_pass pass = embedding_pass(run, buffers, b);
        hooks->embedding_rows.form->bwd(hooks->embedding_rows.self, &pass, buffers->dx,
                                        &call.weight);
    }
    if (hooked_linear_trains(&embedding))
        dev->ops->embed_bwd(dev, call.d_weight, buffers->dx, &call.weight, call.terms, call.n_terms,
                            b->ids, &b->tokens);
    return GRAFT_OK;
}
