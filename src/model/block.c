/* One block. Forward, in the common shape:
 *
 *     h1 = norm(x); q, k, v = W h1; q, k = rope(q/k norm); x += W_o attention(q, k, v)
 *     h2 = norm(x); gate, up = W h2;                       x += W_down (act(gate) * up)
 *
 * The spec says what a family leaves out, fuses, or adds: norms on what a branch adds, norms on the
 * stream behind it, both branches side by side on one stream. */
#include "model/block_pass.h"
#include "model/experts.h"
#include "model/latent.h"

#include <assert.h>

static block_pass pass_of(const model_run *run, int32_t layer, const layer_weights *weights,
                          const batch *b, const step_buffers *buffers, const block_saved *saved) {
    assert(b->tokens.n <= buffers->limits.max_tokens);
    return (block_pass){.dev = run->dev,
                        .ops = run->dev->ops,
                        .spec = run->spec,
                        .weights = weights,
                        .hooks = &run->hooks->layers[layer],
                        .batch = b,
                        .tokens = &b->tokens,
                        .buffers = buffers,
                        .scratch = &buffers->scratch,
                        .saved = saved,
                        .x = buffers->x,
                        .dx = buffers->dx,
                        .o = saved->o,
                        .layer = layer,
                        .n = b->tokens.n};
}

/* Whether what follows attention runs over labelled rows alone. A form may look at any row, and an
 * MLP beside attention reads what attention reads. */
static bool ends_labelled(const block_pass *p) {
    if (!p->buffers->limits.labelled_only || p->layer != p->spec->n_layers - 1 ||
        p->spec->is_parallel || p->spec->value_dim > p->spec->head_dim)
        return false;
    for (int slot = LINEAR_O; slot < N_LINEAR_SLOTS; slot++)
        if (p->hooks->linear[slot].form)
            return false;
    return !p->hooks->branch[BRANCH_ATTENTION].form && !p->hooks->branch[BRANCH_MLP].form;
}

/* The pass over what follows attention. */
static block_pass end_of(const block_pass *p) {
    const labelled_rows *labelled = &p->buffers->labelled;
    block_pass end = *p;
    if (!ends_labelled(p))
        return end;
    end.tokens = &labelled->tokens;
    end.n = labelled->tokens.n;
    end.x = labelled->x;
    end.dx = labelled->dx;
    end.o = labelled->o;
    return end;
}

/* Labelled rows of a whole array, and back into it. */
static void take_rows(const block_pass *end, device_array *y, const device_array *whole,
                      int64_t cols) {
    if (y != whole)
        end->ops->gather_rows(end->dev, y, whole, end->buffers->labelled.index, end->n, cols);
}

static void put_rows(const block_pass *end, device_array *whole, const device_array *x,
                     int64_t cols) {
    if (x != whole)
        end->ops->scatter_rows(end->dev, whole, x, end->buffers->labelled.index, end->n, cols);
}

static int64_t values_width(const block_pass *p) {
    return (int64_t)p->spec->n_heads * p->spec->value_dim;
}

/* ---- Forward ---- */

static void linear_forward(const block_pass *p, linear_slot slot, device_array *y,
                           const device_array *x, bool add) {
    hooked_linear linear = block_linear(p, slot);
    hooked_linear_fwd(&linear, y, x, add, p->tokens, p->batch);
}

/* Layers [first, first + n) of one input x. */
static void linears_forward(const block_pass *p, linear_slot first, int32_t n,
                            device_array *const *y, const device_array *x) {
    hooked_linear linears[LINEAR_BRANCHES_MAX];
    for (int32_t i = 0; i < n; i++)
        linears[i] = block_linear(p, first + (linear_slot)i);
    hooked_linears_fwd(linears, n, y, x, p->tokens, p->batch);
}

static bool is_sparse(const block_pass *p) {
    return model_layer_is_sparse(p->spec, p->layer);
}

/* The last linear layer of a branch; of a layer with experts, theirs. */
static void last_forward(const block_pass *p, linear_slot last, device_array *y,
                         const device_array *input, bool add) {
    if (last == LINEAR_DOWN && is_sparse(p))
        experts_down(p, y, add);
    else
        linear_forward(p, last, y, input, add);
}

/* The last linear layer of a branch, its norm and scale, added to the residual stream. normed is
 * free by then; `kept` [n, hidden] holds the norm's input where backward needs it. */
static void branch_forward(const block_pass *p, branch_slot slot, linear_slot last, norm_slot norm,
                           device_array *kept, const device_array *input) {
    const branch_hook *hook = &p->hooks->branch[slot];
    device_array *x = p->x, *y = p->scratch->normed;
    int64_t n = p->n * p->spec->hidden;
    bool is_normed = p->spec->has_norm[norm], is_scaled = p->spec->residual_scale != 1;
    if (!hook->form && !is_normed && !is_scaled) {
        last_forward(p, last, x, input, true);
        return;
    }
    last_forward(p, last, kept ? kept : y, input, false);
    if (is_normed)
        block_norm_hidden(p, norm, y, kept ? kept : y);
    if (is_scaled)
        p->ops->scale(p->dev, y, p->spec->residual_scale, n);
    if (hook->form) {
        form_pass pass = block_branch_pass(p, slot);
        hook->form->fwd(hook->self, &pass, x, y);
    } else
        p->ops->add(p->dev, x, y, n);
}

/* Without q_raw and k_raw the norms work in place. */
static void norm_heads(const block_pass *p, norm_slot slot, device_array *y,
                       const device_array *raw, int32_t heads) {
    norm_call call = block_qk_norm(p, slot);
    head_rows rows = block_head_rows(p, heads);
    p->ops->norm_fwd(p->dev, y, p->saved->rstd[slot], raw ? raw : y, &call, p->n * rows.per_token,
                     rows.cols);
}

static void qkv_forward(const block_pass *p, const device_array *input) {
    const block_saved *s = p->saved;
    device_array *q = s->q_raw ? s->q_raw : s->q, *k = s->k_raw ? s->k_raw : s->k;
    if (p->spec->has_linear[LINEAR_KV_A]) {
        latent_forward(p, input);
        return;
    }
    if (p->spec->has_linear[LINEAR_QKV]) {
        fused_parts parts = block_qkv_parts(p, q, k, s->v);
        linear_forward(p, LINEAR_QKV, p->scratch->fused, input, false);
        block_split(p, &parts, p->scratch->fused, false);
        return;
    }
    device_array *const qkv[] = {q, k, s->v};
    linears_forward(p, LINEAR_Q, 3, qkv, input);
}

/* Clips and norms q and k; their raw values become what is rotated. */
static void qk_forward(const block_pass *p) {
    const model_spec *spec = p->spec;
    const block_saved *s = p->saved;
    int64_t n_q = p->n * spec->n_heads * spec->head_dim;
    int64_t n_kv = p->n * spec->n_kv_heads * spec->head_dim;
    if (spec->qkv_clip > 0) {
        p->ops->clamp(p->dev, s->q_raw ? s->q_raw : s->q, spec->qkv_clip, n_q);
        p->ops->clamp(p->dev, s->k_raw ? s->k_raw : s->k, spec->qkv_clip, n_kv);
        p->ops->clamp(p->dev, s->v, spec->qkv_clip, n_kv);
    }
    if (spec->has_norm[NORM_Q]) {
        norm_heads(p, NORM_Q, s->q, s->q_raw, spec->n_heads);
        norm_heads(p, NORM_K, s->k, s->k_raw, spec->n_kv_heads);
    } else if (s->q_raw) {
        p->ops->copy(p->dev, s->q, s->q_raw, n_q);
        p->ops->copy(p->dev, s->k, s->k_raw, n_kv);
    }
}

/* o from the stream, which stays as it is. */
static void attention_forward(const block_pass *p) {
    const block_saved *s = p->saved;
    device_array *x = p->x;
    attention_call attention = block_attention(p);
    if (s->x_in)
        p->ops->copy(p->dev, s->x_in, x, p->n * p->spec->hidden);
    qkv_forward(p, block_attention_input(p, x));
    qk_forward(p);
    block_rotate(p, s->q, p->spec->n_heads, false);
    block_rotate(p, s->k, p->spec->n_kv_heads, false);
    p->ops->attention_fwd(p->dev, s->o, s->lse, s->q, s->k, s->v, &attention, p->batch, p->layer);
}

static void output_forward(const block_pass *p) {
    const block_saved *s = p->saved;
    branch_forward(p, BRANCH_ATTENTION, LINEAR_O, NORM_ATTENTION_OUT, s->attention_out, p->o);
    if (s->x_mid)
        p->ops->copy(p->dev, s->x_mid, p->x, p->n * p->spec->hidden);
}

static void gate_up_forward(const block_pass *p, const device_array *input) {
    const block_saved *s = p->saved;
    if (is_sparse(p)) {
        experts_front(p, input);
        return;
    }
    if (p->spec->has_linear[LINEAR_GATE_UP]) {
        fused_parts parts = block_gate_up_parts(p, s->gate, s->up);
        linear_forward(p, LINEAR_GATE_UP, p->scratch->fused, input, false);
        block_split(p, &parts, p->scratch->fused, false);
        return;
    }
    if (p->spec->has_linear[LINEAR_GATE]) {
        device_array *const gate_up[] = {s->gate, s->up};
        linears_forward(p, LINEAR_GATE, 2, gate_up, input);
    } else
        linear_forward(p, LINEAR_UP, s->up, input, false);
}

/* act(gate) * up, or act(up) */
static void gated(const block_pass *p, device_array *h) {
    const block_saved *s = p->saved;
    gate_call call = block_gate(p);
    p->ops->gated_fwd(p->dev, h, s->gate ? s->gate : s->up, s->gate ? s->up : NULL, &call,
                      p->n * p->spec->intermediate);
}

static void down_forward(const block_pass *p) {
    const block_saved *s = p->saved;
    /* Where no backward follows what it is made of may be overwritten. */
    device_array *h = p->scratch->h ? p->scratch->h : s->up;
    if (!is_sparse(p))
        gated(p, h);
    branch_forward(p, BRANCH_MLP, LINEAR_DOWN, NORM_MLP_OUT, s->mlp_out, h);
    if (s->x_out)
        p->ops->copy(p->dev, s->x_out, p->x, p->n * p->spec->hidden);
    if (p->spec->has_norm[NORM_MLP_SUM])
        block_norm_hidden(p, NORM_MLP_SUM, p->x, p->x);
}

/* Attention's part behind its core, and the MLP's before its last product. Side by side, the MLP
 * reads the stream before attention is added. */
static void middle_forward(const block_pass *pass, const block_pass *end) {
    if (pass->spec->is_parallel) {
        gate_up_forward(pass, block_shares_norm(pass->spec) ? pass->scratch->normed
                                                            : block_mlp_input(pass, pass->x));
        output_forward(pass);
        return;
    }
    take_rows(end, end->x, pass->x, pass->spec->hidden);
    take_rows(end, end->o, pass->o, values_width(pass));
    output_forward(end);
    const device_array *input = block_mlp_input(end, end->x);
    if (pass->spec->has_norm[NORM_ATTENTION_SUM]) /* the stream itself is normed */
        pass->ops->copy(pass->dev, end->x, input, end->n * pass->spec->hidden);
    gate_up_forward(end, input);
}

void block_fwd(const model_run *run, int32_t layer, const layer_weights *weights, const batch *b,
               step_buffers *buffers, const block_saved *saved) {
    block_pass pass = pass_of(run, layer, weights, b, buffers, saved), end = end_of(&pass);
    attention_forward(&pass);
    middle_forward(&pass, &end);
    down_forward(&end);
    put_rows(&end, pass.x, end.x, pass.spec->hidden);
}

/* What the MLP read, before its norm. */
static const device_array *mlp_stream(const block_pass *p) {
    return p->spec->is_parallel ? p->saved->x_in : p->saved->x_mid;
}

/* What the block did not keep. Its output is not needed again, so no down projection. */
static void recompute(const block_pass *p, const block_pass *end) {
    if (p->saved->keep == KEEP_INPUT) {
        p->ops->copy(p->dev, p->x, p->saved->x_in, p->n * p->spec->hidden);
        attention_forward(p);
        middle_forward(p, end);
    } else
        gate_up_forward(end, block_mlp_input(end, mlp_stream(end)));
}

/* ---- Backward: it goes the same way up, and leaves out what nobody below or beside needs. ---- */

/* Which gradients somebody needs, from the block's input (last to be computed) up to its output. */
typedef struct needs {
    bool d_attention_input; /* of h1 */
    bool d_qkv;
    bool d_mid;       /* of x between attention and MLP; side by side: of what attention adds */
    bool d_mlp_input; /* of h2 */
    bool d_gate_up;
    bool d_out; /* of what the MLP adds */
} needs;

static bool trains(const block_pass *p, linear_slot slot) {
    hooked_linear linear = block_linear(p, slot);
    return model_layer_has(p->spec, p->layer, slot) && hooked_linear_trains(&linear);
}

static bool norm_trains(const block_pass *p, norm_slot slot) {
    return p->hooks->norm[slot].gradient || p->hooks->norm_bias[slot].gradient;
}

static bool qk_norm_trains(const block_pass *p) {
    const freed_parameter *heads = p->hooks->split_norm[0]; /* NORM_K's follow NORM_Q's */
    for (int32_t h = 0; heads && h < p->spec->n_heads + p->spec->n_kv_heads; h++)
        if (heads[h].gradient)
            return true;
    return norm_trains(p, NORM_Q) || norm_trains(p, NORM_K);
}

static bool has_trained_past(const block_pass *p) {
    for (int32_t i = 0; i < p->batch->n_segments; i++) {
        const kv_view *past = p->batch->segments[i].past;
        if (past && (past[p->layer].dk || past[p->layer].dv))
            return true;
    }
    return false;
}

static needs needs_of(const block_pass *p, bool needs_dx) {
    needs need = {.d_attention_input = needs_dx || norm_trains(p, NORM_ATTENTION)};
    need.d_qkv = need.d_attention_input || qk_norm_trains(p) || trains(p, LINEAR_Q) ||
                 trains(p, LINEAR_K) || trains(p, LINEAR_V) || trains(p, LINEAR_QKV) ||
                 latent_trains(p) || p->hooks->sinks.gradient || has_trained_past(p);
    need.d_mid = need.d_qkv || trains(p, LINEAR_O) || p->hooks->branch[BRANCH_ATTENTION].form ||
                 norm_trains(p, NORM_ATTENTION_OUT);
    need.d_mlp_input = norm_trains(p, NORM_MLP) || norm_trains(p, NORM_ATTENTION_SUM) ||
                       (p->spec->is_parallel ? need.d_attention_input : need.d_mid);
    need.d_gate_up = need.d_mlp_input || trains(p, LINEAR_GATE) || trains(p, LINEAR_UP) ||
                     trains(p, LINEAR_GATE_UP) || (is_sparse(p) && experts_train(p));
    need.d_out = need.d_gate_up || need.d_mid || trains(p, LINEAR_DOWN) ||
                 p->hooks->branch[BRANCH_MLP].form || norm_trains(p, NORM_MLP_OUT) ||
                 norm_trains(p, NORM_MLP_SUM);
    return need;
}

/* x is made by the caller only where needs_input says so. */
static void linear_backward(const block_pass *p, linear_slot slot, device_array *dx,
                            const device_array *dy, const device_array *x, bool add) {
    hooked_linear linear = block_linear(p, slot);
    hooked_linear_bwd(&linear, dx, dy, x, add, p->tokens, p->batch);
}

/* Layers [first, first + n) of one input x; dx (+)= the sum. */
static void linears_backward(const block_pass *p, linear_slot first, int32_t n, device_array *dx,
                             device_array *const *dy, const device_array *x, bool add) {
    hooked_linear linears[LINEAR_BRANCHES_MAX];
    for (int32_t i = 0; i < n; i++)
        linears[i] = block_linear(p, first + (linear_slot)i);
    hooked_linears_bwd(linears, n, dx, dy, x, add, p->tokens, p->batch);
}

static bool needs_input(const block_pass *p, linear_slot slot) {
    hooked_linear linear = block_linear(p, slot);
    return model_layer_has(p->spec, p->layer, slot) &&
           hooked_linear_needs_input(&linear, p->tokens);
}

static void norm_backward(const block_pass *p, norm_slot slot, device_array *dx,
                          const device_array *dy, const device_array *x, bool add) {
    norm_call call = block_norm(p, slot);
    p->ops->norm_bwd(p->dev, dx, dy, x, p->saved->rstd[slot], &call, 1, p->spec->hidden, add,
                     p->tokens);
}

/* Gradient at the output of a branch's last linear layer; dx becomes the residual's. */
static const device_array *branch_backward(const block_pass *p, branch_slot slot, norm_slot norm,
                                           const device_array *kept, const device_array *residual) {
    const branch_hook *hook = &p->hooks->branch[slot];
    const device_array *dy = p->dx;
    device_array *d_out = p->scratch->d_normed;
    if (hook->form) {
        form_pass pass = block_branch_pass(p, slot);
        hook->form->bwd(hook->self, &pass, p->dx, d_out, residual);
        dy = d_out;
    }
    if (p->spec->residual_scale != 1) {
        if (dy != d_out)
            p->ops->copy(p->dev, d_out, dy, p->n * p->spec->hidden);
        p->ops->scale(p->dev, d_out, p->spec->residual_scale, p->n * p->spec->hidden);
        dy = d_out;
    }
    if (p->spec->has_norm[norm]) {
        norm_backward(p, norm, d_out, dy, kept, false);
        dy = d_out;
    }
    return dy;
}

/* Where the gradient of a branch's input goes: added to the stream's own where no norm stands
 * between. */
typedef struct input_gradient {
    device_array *array; /* NULL: nobody needs it */
    bool add;
} input_gradient;

static input_gradient mlp_input_gradient(const block_pass *p, const needs *need) {
    if (!need->d_mlp_input)
        return (input_gradient){0};
    if (p->spec->is_parallel) /* dx is attention's, too */
        return (input_gradient){p->scratch->d_mlp_normed, false};
    if (!p->spec->has_norm[NORM_MLP])
        return (input_gradient){p->dx, true};
    return (input_gradient){p->scratch->d_normed, false};
}

/* A norm that both branches share has the MLP's part already. */
static input_gradient attention_input_gradient(const block_pass *p, const needs *need) {
    if (!need->d_attention_input)
        return (input_gradient){0};
    if (!p->spec->has_norm[NORM_ATTENTION])
        return (input_gradient){p->dx, true};
    if (block_shares_norm(p->spec))
        return (input_gradient){p->scratch->d_mlp_normed, true};
    return (input_gradient){p->scratch->d_normed, false};
}

static void gate_up_backward(const block_pass *p, device_array *d_gate, device_array *d_up,
                             const device_array *input, input_gradient to) {
    if (p->spec->has_linear[LINEAR_GATE_UP]) {
        fused_parts parts = block_gate_up_parts(p, d_gate, d_up);
        block_split(p, &parts, p->scratch->fused, true);
        linear_backward(p, LINEAR_GATE_UP, to.array, p->scratch->fused, input, to.add);
        return;
    }
    if (p->spec->has_linear[LINEAR_GATE]) {
        device_array *const dy[] = {d_gate, d_up};
        linears_backward(p, LINEAR_GATE, 2, to.array, dy, input, to.add);
    } else
        linear_backward(p, LINEAR_UP, to.array, d_up, input, to.add);
}

/* Up to the gradient of the MLP's input. `stream` is what the MLP read, before its norm. */
static void mlp_backward(const block_pass *p, const needs *need, const device_array *stream) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    device_array *dh = need->d_gate_up ? scratch->dh : NULL;
    device_array *d_gate = s->gate ? scratch->h : NULL, *d_up = scratch->dh;
    gate_call gate = block_gate(p);
    if (p->spec->has_norm[NORM_MLP_SUM])
        norm_backward(p, NORM_MLP_SUM, p->dx, p->dx, s->x_out, false);
    const device_array *residual = s->x_mid;
    if (p->hooks->branch[BRANCH_MLP].form && p->spec->has_norm[NORM_ATTENTION_SUM])
        residual = block_mlp_input(p, s->x_mid);
    const device_array *dy = branch_backward(p, BRANCH_MLP, NORM_MLP_OUT, s->mlp_out, residual);
    if (is_sparse(p)) {
        input_gradient to = mlp_input_gradient(p, need);
        if (need->d_gate_up)
            experts_backward(p, to.array, to.add, dy,
                             experts_need_input(p) ? block_mlp_input(p, stream) : scratch->normed);
        return;
    }
    if (needs_input(p, LINEAR_DOWN))
        gated(p, scratch->h);
    linear_backward(p, LINEAR_DOWN, dh, dy, scratch->h, false);
    if (!need->d_gate_up)
        return;
    p->ops->gated_bwd(p->dev, d_gate ? d_gate : d_up, d_gate ? d_up : NULL, dh,
                      s->gate ? s->gate : s->up, s->gate ? s->up : NULL, &gate,
                      p->n * p->spec->intermediate);
    const device_array *input = scratch->normed;
    if (needs_input(p, LINEAR_GATE) || needs_input(p, LINEAR_UP) || needs_input(p, LINEAR_GATE_UP))
        input = block_mlp_input(p, stream);
    gate_up_backward(p, d_gate, d_up, input, mlp_input_gradient(p, need));
}

static void norm_heads_backward(const block_pass *p, norm_slot slot, device_array *dy,
                                const device_array *raw, int32_t heads) {
    norm_call call = block_qk_norm(p, slot);
    head_rows rows = block_head_rows(p, heads);
    p->ops->norm_bwd(p->dev, dy, dy, raw, p->saved->rstd[slot], &call, rows.per_token, rows.cols,
                     false, p->tokens);
    block_qk_norm_end(p, slot);
}

static void qk_backward(const block_pass *p) {
    const model_spec *spec = p->spec;
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    block_rotate(p, scratch->dq, spec->n_heads, true);
    block_rotate(p, scratch->dk, spec->n_kv_heads, true);
    if (spec->has_norm[NORM_Q]) {
        norm_heads_backward(p, NORM_Q, scratch->dq, s->q_raw, spec->n_heads);
        norm_heads_backward(p, NORM_K, scratch->dk, s->k_raw, spec->n_kv_heads);
    }
    if (spec->qkv_clip > 0) {
        int64_t n_kv = p->n * spec->n_kv_heads * spec->head_dim;
        p->ops->clamp_bwd(p->dev, scratch->dq, s->q_raw, spec->qkv_clip,
                          p->n * spec->n_heads * spec->head_dim);
        p->ops->clamp_bwd(p->dev, scratch->dk, s->k_raw, spec->qkv_clip, n_kv);
        p->ops->clamp_bwd(p->dev, scratch->dv, s->v, spec->qkv_clip, n_kv);
    }
}

static void qkv_backward(const block_pass *p, const device_array *input, input_gradient to) {
    const block_scratch *scratch = p->scratch;
    if (p->spec->has_linear[LINEAR_KV_A]) {
        latent_backward(p, to.array, to.add, input);
        return;
    }
    if (p->spec->has_linear[LINEAR_QKV]) {
        fused_parts parts = block_qkv_parts(p, scratch->dq, scratch->dk, scratch->dv);
        block_split(p, &parts, scratch->fused, true);
        linear_backward(p, LINEAR_QKV, to.array, scratch->fused, input, to.add);
        return;
    }
    device_array *const dy[] = {scratch->dq, scratch->dk, scratch->dv};
    linears_backward(p, LINEAR_Q, 3, to.array, dy, input, to.add);
}

/* d_o of all rows; dq serves as the labelled rows'. */
static void output_backward(const block_pass *p, const block_pass *end, const needs *need) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    device_array *d_o = end->o == p->o ? scratch->d_o : scratch->dq;
    const device_array *dy =
        branch_backward(end, BRANCH_ATTENTION, NORM_ATTENTION_OUT, s->attention_out, s->x_in);
    if (needs_input(end, LINEAR_O))
        take_rows(end, end->o, p->o, values_width(p));
    linear_backward(end, LINEAR_O, need->d_qkv ? d_o : NULL, dy, end->o, false);
    if (!need->d_qkv || d_o == scratch->d_o)
        return;
    p->ops->fill(p->dev, scratch->d_o, 0, p->n * values_width(p));
    put_rows(end, scratch->d_o, d_o, values_width(p));
}

static void attention_backward(const block_pass *p, const needs *need) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    attention_call attention = block_attention(p);
    p->ops->attention_bwd(p->dev, scratch->dq, scratch->dk, scratch->dv, scratch->d_o, s->o, s->lse,
                          s->q, s->k, s->v, &attention, scratch->attention, p->batch, p->layer);
    qk_backward(p);
    input_gradient to = attention_input_gradient(p, need);
    const device_array *input = scratch->normed;
    if (needs_input(p, LINEAR_Q) || needs_input(p, LINEAR_K) || needs_input(p, LINEAR_V) ||
        needs_input(p, LINEAR_QKV) || latent_needs_input(p))
        input = block_attention_input(p, s->x_in);
    qkv_backward(p, input, to);
    if (to.array && p->spec->has_norm[NORM_ATTENTION])
        norm_backward(p, NORM_ATTENTION, p->dx, to.array, s->x_in, true);
}

/* From the MLP's input to the stream between the branches. */
static void mlp_norm_backward(const block_pass *p) {
    const device_array *x_mid = p->saved->x_mid;
    if (p->spec->has_norm[NORM_MLP])
        norm_backward(p, NORM_MLP, p->dx, p->scratch->d_normed, x_mid, true);
    if (p->spec->has_norm[NORM_ATTENTION_SUM])
        norm_backward(p, NORM_ATTENTION_SUM, p->dx, p->dx, x_mid, false);
}

void block_bwd(const model_run *run, int32_t layer, const layer_weights *weights, const batch *b,
               step_buffers *buffers, const block_saved *saved, bool needs_dx) {
    block_pass pass = pass_of(run, layer, weights, b, buffers, saved), end = end_of(&pass);
    const model_spec *spec = run->spec;
    needs need = needs_of(&pass, needs_dx);
    assert(saved->x_in && "this block kept nothing: it lies below the lowest trained one");
    if (!need.d_out)
        return;
    if (saved->keep != KEEP_ALL)
        recompute(&pass, &end);
    take_rows(&end, end.dx, pass.dx, spec->hidden);
    mlp_backward(&end, &need, mlp_stream(&end));
    if (!spec->is_parallel && need.d_mlp_input)
        mlp_norm_backward(&end);
    if (need.d_mid) {
        output_backward(&pass, &end, &need);
        put_rows(&end, pass.dx, end.dx, spec->hidden);
    }
    if (need.d_qkv)
        attention_backward(&pass, &need);
    if (spec->is_parallel && spec->has_norm[NORM_MLP] && need.d_mlp_input)
        norm_backward(&pass, NORM_MLP, pass.dx, buffers->scratch.d_mlp_normed, saved->x_in, true);
}
