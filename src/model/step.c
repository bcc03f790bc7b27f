#include "model/labelled_rows.h"
#include "model/linear_hooked.h"

#include <assert.h>

/* Virtual tokens of a segment: their rows of the table and of a hidden state. */
static device_array *virtual_table(const model_run *run, const device_array *table,
                                   const segment *s) {
    const sequence_hook *sequence = &run->hooks->sequence;
    int32_t task = sequence->n_tasks > 1 ? s->task : 0;
    assert(task >= 0 && task < sequence->n_tasks);
    return array_at(run->dev, (device_array *)table,
                    (int64_t)task * sequence->n_virtual * run->spec->embedding_dim);
}

static void virtual_forward(const model_run *run, device_array *rows, const batch *b) {
    const int64_t hidden = run->spec->embedding_dim;
    for (int32_t i = 0; i < b->n_segments; i++) {
        const segment *s = &b->segments[i];
        if (s->n_virtual)
            run->dev->ops->copy(run->dev, array_at(run->dev, rows, s->token_begin * hidden),
                                virtual_table(run, run->hooks->sequence.virtual_rows, s),
                                s->n_virtual * hidden);
    }
}

/* In the segments' order, so that sums do not depend on packing. What is left of d_rows is
 * the embedding's. */
static void virtual_backward(const model_run *run, device_array *d_rows, const batch *b) {
    const int64_t hidden = run->spec->embedding_dim;
    device_array *gradient = run->hooks->sequence.d_virtual_rows;
    for (int32_t i = 0; i < b->n_segments; i++) {
        const segment *s = &b->segments[i];
        if (!s->n_virtual)
            continue;
        device_array *dx = array_at(run->dev, d_rows, s->token_begin * hidden);
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

/* Rotary tables of the layers that use them. */
static void fill_ropes(const model_run *run, step_buffers *buffers, const batch *b) {
    backend *dev = run->dev;
    const rope_spec *ropes[2] = {&run->spec->rope, &run->spec->rope_sliding};
    for (int32_t i = 0; i < 2; i++) {
        int64_t n = (int64_t)b->tokens.n * ropes[i]->dim / 2;
        if (n == 0)
            continue;
        float *cos_host = buffers->rope_host, *sin_host = buffers->rope_host + n;
        rope_fill(cos_host, sin_host, ropes[i], b);
        dev->ops->upload(dev, buffers->rope_cos[i], cos_host, DTYPE_F32, n);
        dev->ops->upload(dev, buffers->rope_sin[i], sin_host, DTYPE_F32, n);
    }
}

static graft_status check_ids(const model_spec *spec, const batch *b, graft_error *err) {
    for (int64_t t = 0; t < b->tokens.n; t++)
        if (b->ids[t] < 0 || b->ids[t] >= spec->vocab)
            return error_set(
                err, GRAFT_E_INPUT,
                "token id %d is outside the model's embedding of %d rows: tokenizer and "
                "model do not belong together",
                b->ids[t], spec->vocab);
    return GRAFT_OK;
}

static graft_status fill_positions(const model_spec *spec, step_buffers *buffers, const batch *b,
                                   graft_error *err) {
    int32_t n_rows = spec->n_positions - spec->position_offset;
    for (const segment *s = b->segments; s < b->segments + b->n_segments; s++)
        for (int32_t t = s->token_begin; t < s->token_end; t++) {
            int32_t position = s->position_first + t - s->token_begin;
            if (position >= n_rows)
                return error_set(err, GRAFT_E_INPUT,
                                 "a row reaches position %d, and the model has learned %d: shorten "
                                 "rows to its context",
                                 position, n_rows);
            buffers->input.positions[t] = position + spec->position_offset;
        }
    return GRAFT_OK;
}

static hooked_linear project_in(const model_run *run, const step_buffers *buffers) {
    const linear_hook *hook = &run->hooks->outer_linear[OUTER_PROJECT_IN];
    const weight_ref *weight = &weight_source_outer(run->weights)->linear[OUTER_PROJECT_IN];
    return (hooked_linear){
        .dev = run->dev,
        .call = linear_hooked(run->dev, weight, NULL, hook),
        .hook = hook,
        .xa = buffers->input.xa,
        .scratch = buffers->scratch.linear,
        .kept = buffers->input.kept,
        .form_scratch = buffers->scratch.form,
    };
}

static weight_ref positions_table(const model_run *run) {
    weight_ref table = weight_source_outer(run->weights)->positions;
    const freed_parameter *freed = &run->hooks->positions;
    if (freed->is_freed) {
        table.data = freed->value;
        table.type = run->dev->element;
    }
    return table;
}

static norm_call embedding_norm(const model_run *run) {
    const outer_weights *outer = weight_source_outer(run->weights);
    const model_hooks *hooks = run->hooks;
    return norm_hooked(
        run->spec, outer->norm[OUTER_NORM_EMBEDDING], &hooks->outer_norm[OUTER_NORM_EMBEDDING],
        outer->norm_bias[OUTER_NORM_EMBEDDING], &hooks->outer_norm_bias[OUTER_NORM_EMBEDDING]);
}

/* From embedded rows to what block 0 takes. */
static void input_forward(const model_run *run, step_buffers *buffers, const batch *b) {
    backend *dev = run->dev;
    const model_spec *spec = run->spec;
    const input_buffers *input = &buffers->input;
    int64_t n = b->tokens.n;
    if (spec->input_scale != 1)
        dev->ops->scale(dev, buffers->x, spec->input_scale, n * spec->hidden);
    if (input->embedded) {
        hooked_linear linear = project_in(run, buffers);
        hooked_linear_fwd(&linear, buffers->x, input->embedded, false, &b->tokens, b);
    }
    if (spec->n_positions) {
        weight_ref table = positions_table(run);
        dev->ops->embed_fwd(dev, buffers->scratch.normed, &table, NULL, 0, input->positions,
                            &b->tokens);
        dev->ops->add(dev, buffers->x, buffers->scratch.normed, n * spec->hidden);
    }
    if (spec->has_embedding_norm) {
        norm_call norm = embedding_norm(run);
        if (input->unnormed)
            dev->ops->copy(dev, input->unnormed, buffers->x, n * spec->hidden);
        dev->ops->norm_fwd(dev, buffers->x, input->rstd, buffers->x, &norm, n, spec->hidden);
    }
}

/* dx becomes the gradient of the embedded rows; where it is */
static device_array *input_backward(const model_run *run, step_buffers *buffers, const batch *b) {
    backend *dev = run->dev;
    const model_spec *spec = run->spec;
    const input_buffers *input = &buffers->input;
    device_array *dx = buffers->dx;
    if (spec->has_embedding_norm) {
        norm_call norm = embedding_norm(run);
        dev->ops->norm_bwd(dev, dx, dx, input->unnormed, input->rstd, &norm, 1, spec->hidden, false,
                           &b->tokens);
    }
    if (run->hooks->positions.gradient) {
        weight_ref table = positions_table(run);
        dev->ops->embed_bwd(dev, run->hooks->positions.gradient, dx, &table, NULL, 0,
                            input->positions, -1, &b->tokens);
    }
    if (input->embedded) {
        hooked_linear linear = project_in(run, buffers);
        hooked_linear_bwd(&linear, input->d_embedded, dx, input->embedded, false, &b->tokens, b);
        return input->d_embedded;
    }
    if (spec->input_scale != 1)
        dev->ops->scale(dev, dx, spec->input_scale, (int64_t)b->tokens.n * spec->hidden);
    return dx;
}

graft_status step_embed(const model_run *run, step_buffers *buffers, const batch *b,
                        graft_error *err) {
    backend *dev = run->dev;
    const model_spec *spec = run->spec;
    const outer_weights *outer = weight_source_outer(run->weights);
    assert(b->tokens.n <= buffers->limits.max_tokens &&
           b->n_segments <= buffers->limits.max_segments);
    graft_status status = check_ids(spec, b, err);
    if (status == GRAFT_OK && spec->n_positions)
        status = fill_positions(spec, buffers, b, err);
    if (status != GRAFT_OK)
        return status;
    fill_ropes(run, buffers, b);
    device_array *rows = buffers->input.embedded ? buffers->input.embedded : buffers->x;
    linear_call call = linear_hooked(dev, &outer->embedding, NULL, &run->hooks->embedding);
    dev->ops->embed_fwd(dev, rows, &call.weight, call.terms, call.n_terms, b->ids, &b->tokens);
    const embedding_hook *hook = &run->hooks->embedding_rows;
    if (hook->form) {
        form_pass pass = embedding_pass(run, buffers, b);
        hook->form->fwd(hook->self, &pass, rows, &call.weight);
    }
    if (spec->embedding_scale != 1)
        dev->ops->scale(dev, rows, spec->embedding_scale,
                        b->tokens.n * (int64_t)spec->embedding_dim);
    virtual_forward(run, rows, b);
    input_forward(run, buffers, b);
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
    if (!hooks->embedding_trains)
        return GRAFT_OK;
    device_array *d_rows = input_backward(run, buffers, b);
    virtual_backward(run, d_rows, b);
    if (run->spec->embedding_scale != 1)
        dev->ops->scale(dev, d_rows, run->spec->embedding_scale,
                        b->tokens.n * (int64_t)run->spec->embedding_dim);
    if (hooks->embedding_rows.form) {
        form_pass pass = embedding_pass(run, buffers, b);
        hooks->embedding_rows.form->bwd(hooks->embedding_rows.self, &pass, d_rows, &call.weight);
    }
    if (hooked_linear_trains(&embedding))
        dev->ops->embed_bwd(dev, call.d_weight, d_rows, &call.weight, call.terms, call.n_terms,
                            b->ids, run->spec->padding_id, &b->tokens);
    return GRAFT_OK;
}
