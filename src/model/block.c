/* One block. Forward:
 *
 *     h1 = norm(x); q, k, v = W h1; q, k = rope(q/k norm); x += W_o attention(q, k, v)
 *     h2 = norm(x); gate, up = W h2;                       x += W_down (silu(gate) * up)
 *
 * Backward goes the same way up, and leaves out what nobody below or beside needs. */
#include "model/linear_hooked.h"

#include <assert.h>
#include <math.h>

/* One pass over one block: what every line of it needs. */
typedef struct block_pass {
    backend *dev;
    const op_table *ops;
    const model_spec *spec;
    const layer_weights *weights;
    const layer_hooks *hooks;
    const batch *batch;
    const token_rows *tokens;
    const step_buffers *buffers;
    const block_scratch *scratch;
    const block_saved *saved;
    device_array *x, *dx,
        *o; /* of the buffers; at the end of the last block of its labelled rows */
    int32_t layer;
    int64_t n; /* tokens */
} block_pass;

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

/* Whether what follows attention runs over labelled rows alone. A form may look at any row. */
static bool ends_labelled(const block_pass *p) {
    if (!p->buffers->limits.labelled_only || p->layer != p->spec->n_layers - 1)
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

static int64_t heads_width(const block_pass *p) {
    return (int64_t)p->spec->n_heads * p->spec->head_dim;
}

static hooked_linear linear_of(const block_pass *p, linear_slot slot) {
    const linear_hook *hook = &p->hooks->linear[slot];
    return (hooked_linear){
        .dev = p->dev,
        .call = linear_hooked(p->dev, &p->weights->linear[slot], p->weights->bias[slot], hook),
        .hook = hook,
        .xa = p->saved->xa[slot],
        .scratch = p->scratch->linear,
        .kept = p->saved->kept[slot],
        .form_scratch = p->scratch->form,
    };
}

static form_pass branch_pass(const block_pass *p, branch_slot slot) {
    return (form_pass){.dev = p->dev,
                       .tokens = p->tokens,
                       .batch = p->batch,
                       .kept = p->saved->branch[slot],
                       .scratch = p->scratch->form};
}

static const device_array *norm_weight(const block_pass *p, norm_slot slot) {
    return norm_hooked(p->weights->norm[slot], &p->hooks->norm[slot]);
}

static attention_call attention_of(const block_pass *p) {
    return (attention_call){.n_heads = p->spec->n_heads,
                            .n_kv_heads = p->spec->n_kv_heads,
                            .head_dim = p->spec->head_dim,
                            .scale = (float)(1 / sqrt((double)p->spec->head_dim)),
                            .window = p->spec->layer_slides[p->layer] ? p->spec->window : 0};
}

/* ---- Forward ---- */

static void linear_forward(const block_pass *p, linear_slot slot, device_array *y,
                           const device_array *x, bool add) {
    hooked_linear linear = linear_of(p, slot);
    hooked_linear_fwd(&linear, y, x, add, p->tokens, p->batch);
}

/* Layers [first, first + n) of one input x. */
static void linears_forward(const block_pass *p, linear_slot first, int32_t n,
                            device_array *const *y, const device_array *x) {
    hooked_linear linears[LINEAR_BRANCHES_MAX];
    for (int32_t i = 0; i < n; i++)
        linears[i] = linear_of(p, first + (linear_slot)i);
    hooked_linears_fwd(linears, n, y, x, p->tokens, p->batch);
}

/* The last linear layer of a branch, added to the residual stream. normed is free by then. */
static void branch_forward(const block_pass *p, branch_slot slot, linear_slot last,
                           const device_array *input) {
    const branch_hook *hook = &p->hooks->branch[slot];
    if (!hook->form) {
        linear_forward(p, last, p->x, input, true);
        return;
    }
    form_pass pass = branch_pass(p, slot);
    linear_forward(p, last, p->scratch->normed, input, false);
    hook->form->fwd(hook->self, &pass, p->x, p->scratch->normed);
}

/* x [n, hidden] -> scratch normed [n, hidden] */
static void norm_hidden(const block_pass *p, norm_slot slot, const device_array *x) {
    p->ops->rmsnorm_fwd(p->dev, p->scratch->normed, p->saved->rstd[slot], x, norm_weight(p, slot),
                        p->spec->norm_eps, p->n, p->spec->hidden);
}

/* Without q_raw and k_raw the norms work in place. */
static void norm_heads(const block_pass *p, norm_slot slot, device_array *y,
                       const device_array *raw, int32_t heads) {
    p->ops->rmsnorm_fwd(p->dev, y, p->saved->rstd[slot], raw ? raw : y, norm_weight(p, slot),
                        p->spec->norm_eps, p->n * heads, p->spec->head_dim);
}

static void rotate(const block_pass *p, device_array *x, int32_t heads, bool inverse) {
    p->ops->rope(p->dev, x, p->buffers->rope_cos, p->buffers->rope_sin, p->n, heads,
                 p->spec->head_dim, inverse);
}

static void attention_forward(const block_pass *p) {
    const block_saved *s = p->saved;
    attention_call attention = attention_of(p);
    if (s->x_in)
        p->ops->copy(p->dev, s->x_in, p->x, p->n * p->spec->hidden);
    norm_hidden(p, NORM_ATTENTION, p->x);
    device_array *const qkv[] = {s->q_raw ? s->q_raw : s->q, s->k_raw ? s->k_raw : s->k, s->v};
    linears_forward(p, LINEAR_Q, 3, qkv, p->scratch->normed);
    if (p->spec->has_qk_norm) {
        norm_heads(p, NORM_Q, s->q, s->q_raw, p->spec->n_heads);
        norm_heads(p, NORM_K, s->k, s->k_raw, p->spec->n_kv_heads);
    }
    rotate(p, s->q, p->spec->n_heads, false);
    rotate(p, s->k, p->spec->n_kv_heads, false);
    p->ops->attention_fwd(p->dev, s->o, s->lse, s->q, s->k, s->v, &attention, p->batch, p->layer);
}

static void output_forward(const block_pass *p) {
    branch_forward(p, BRANCH_ATTENTION, LINEAR_O, p->o);
    if (p->saved->x_mid)
        p->ops->copy(p->dev, p->saved->x_mid, p->x, p->n * p->spec->hidden);
}

static void gate_up_forward(const block_pass *p, const device_array *x) {
    norm_hidden(p, NORM_MLP, x);
    device_array *const gate_up[] = {p->saved->gate, p->saved->up};
    linears_forward(p, LINEAR_GATE, 2, gate_up, p->scratch->normed);
}

static void down_forward(const block_pass *p) {
    /* Where no backward follows the gate may be overwritten. */
    device_array *h = p->scratch->h ? p->scratch->h : p->saved->gate;
    p->ops->swiglu_fwd(p->dev, h, p->saved->gate, p->saved->up, p->n * p->spec->intermediate);
    branch_forward(p, BRANCH_MLP, LINEAR_DOWN, h);
}

void block_fwd(const model_run *run, int32_t layer, const layer_weights *weights, const batch *b,
               step_buffers *buffers, const block_saved *saved) {
    block_pass pass = pass_of(run, layer, weights, b, buffers, saved), end = end_of(&pass);
    attention_forward(&pass);
    take_rows(&end, end.x, pass.x, pass.spec->hidden);
    take_rows(&end, end.o, pass.o, heads_width(&pass));
    output_forward(&end);
    gate_up_forward(&end, end.x);
    down_forward(&end);
    put_rows(&end, pass.x, end.x, pass.spec->hidden);
}

/* What the block did not keep. Its output is not needed again, so no down projection. */
static void recompute(const block_pass *p, const block_pass *end) {
    if (p->saved->keep == KEEP_INPUT) {
        p->ops->copy(p->dev, p->x, p->saved->x_in, p->n * p->spec->hidden);
        attention_forward(p);
        take_rows(end, end->x, p->x, p->spec->hidden);
        take_rows(end, end->o, p->o, heads_width(p));
        output_forward(end);
    }
    gate_up_forward(end, p->saved->x_mid);
}

/* ---- Backward ---- */

/* Which gradients somebody needs, from the block's input (last to be computed) up to its output. */
typedef struct needs {
    bool d_attention_normed; /* of h1 */
    bool d_qkv;
    bool d_mid;        /* of x between attention and MLP */
    bool d_mlp_normed; /* of h2 */
    bool d_gate_up;
} needs;

static bool trains(const block_pass *p, linear_slot slot) {
    hooked_linear linear = linear_of(p, slot);
    return hooked_linear_trains(&linear);
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
    const freed_parameter *norm = p->hooks->norm;
    needs need = {.d_attention_normed = needs_dx || norm[NORM_ATTENTION].gradient};
    need.d_qkv = need.d_attention_normed || norm[NORM_Q].gradient || norm[NORM_K].gradient ||
                 trains(p, LINEAR_Q) || trains(p, LINEAR_K) || trains(p, LINEAR_V) ||
                 has_trained_past(p);
    need.d_mid = need.d_qkv || trains(p, LINEAR_O) || p->hooks->branch[BRANCH_ATTENTION].form;
    need.d_mlp_normed = need.d_mid || norm[NORM_MLP].gradient;
    need.d_gate_up = need.d_mlp_normed || trains(p, LINEAR_GATE) || trains(p, LINEAR_UP);
    return need;
}

/* x is made by the caller only where needs_input says so. */
static void linear_backward(const block_pass *p, linear_slot slot, device_array *dx,
                            const device_array *dy, const device_array *x, bool add) {
    hooked_linear linear = linear_of(p, slot);
    hooked_linear_bwd(&linear, dx, dy, x, add, p->tokens, p->batch);
}

/* Layers [first, first + n) of one input x; dx becomes the sum. */
static void linears_backward(const block_pass *p, linear_slot first, int32_t n, device_array *dx,
                             device_array *const *dy, const device_array *x) {
    hooked_linear linears[LINEAR_BRANCHES_MAX];
    for (int32_t i = 0; i < n; i++)
        linears[i] = linear_of(p, first + (linear_slot)i);
    hooked_linears_bwd(linears, n, dx, dy, x, p->tokens, p->batch);
}

static bool needs_input(const block_pass *p, linear_slot slot) {
    hooked_linear linear = linear_of(p, slot);
    return hooked_linear_needs_input(&linear, p->tokens);
}

/* Gradient at the output of a branch's last linear layer; dx becomes the residual's. */
static const device_array *branch_backward(const block_pass *p, branch_slot slot,
                                           const device_array *residual) {
    const branch_hook *hook = &p->hooks->branch[slot];
    if (!hook->form)
        return p->dx;
    form_pass pass = branch_pass(p, slot);
    hook->form->bwd(hook->self, &pass, p->dx, p->scratch->d_normed, residual);
    return p->scratch->d_normed;
}

/* The norm's input is the residual stream: its gradient is added to what dx holds already. */
static void norm_hidden_backward(const block_pass *p, norm_slot slot, const device_array *x) {
    p->ops->rmsnorm_bwd(p->dev, p->dx, p->hooks->norm[slot].gradient, p->scratch->d_normed, x,
                        p->saved->rstd[slot], norm_weight(p, slot), 1, p->spec->hidden, true,
                        p->tokens);
}

static void norm_heads_backward(const block_pass *p, norm_slot slot, device_array *dy,
                                const device_array *raw, int32_t heads) {
    p->ops->rmsnorm_bwd(p->dev, dy, p->hooks->norm[slot].gradient, dy, raw, p->saved->rstd[slot],
                        norm_weight(p, slot), heads, p->spec->head_dim, false, p->tokens);
}

static void mlp_backward(const block_pass *p, const needs *need) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    int64_t n = p->n * p->spec->intermediate;
    device_array *dh = need->d_gate_up ? scratch->dh : NULL, *d_gate = scratch->h, *d_up = dh;
    const device_array *dy = branch_backward(p, BRANCH_MLP, s->x_mid);
    if (needs_input(p, LINEAR_DOWN))
        p->ops->swiglu_fwd(p->dev, scratch->h, s->gate, s->up, n);
    linear_backward(p, LINEAR_DOWN, dh, dy, scratch->h, false);
    if (!need->d_gate_up)
        return;
    p->ops->swiglu_bwd(p->dev, d_gate, d_up, dh, s->gate, s->up, n);
    if (needs_input(p, LINEAR_GATE) || needs_input(p, LINEAR_UP))
        norm_hidden(p, NORM_MLP, s->x_mid);
    device_array *d_normed = need->d_mlp_normed ? scratch->d_normed : NULL;
    device_array *const d_gate_up[] = {d_gate, d_up};
    linears_backward(p, LINEAR_GATE, 2, d_normed, d_gate_up, scratch->normed);
    if (need->d_mlp_normed)
        norm_hidden_backward(p, NORM_MLP, s->x_mid);
}

static void qkv_backward(const block_pass *p, const needs *need) {
    const block_scratch *scratch = p->scratch;
    device_array *d_normed = need->d_attention_normed ? scratch->d_normed : NULL;
    if (needs_input(p, LINEAR_Q) || needs_input(p, LINEAR_K) || needs_input(p, LINEAR_V))
        norm_hidden(p, NORM_ATTENTION, p->saved->x_in);
    device_array *const d_qkv[] = {scratch->dq, scratch->dk, scratch->dv};
    linears_backward(p, LINEAR_Q, 3, d_normed, d_qkv, scratch->normed);
    if (need->d_attention_normed)
        norm_hidden_backward(p, NORM_ATTENTION, p->saved->x_in);
}

/* d_o of all rows; dq serves as the labelled rows'. */
static void output_backward(const block_pass *p, const block_pass *end, const needs *need) {
    const block_scratch *scratch = p->scratch;
    device_array *d_o = end->o == p->o ? scratch->d_o : scratch->dq;
    const device_array *dy = branch_backward(end, BRANCH_ATTENTION, p->saved->x_in);
    if (needs_input(end, LINEAR_O))
        take_rows(end, end->o, p->o, heads_width(p));
    linear_backward(end, LINEAR_O, need->d_qkv ? d_o : NULL, dy, end->o, false);
    if (!need->d_qkv || d_o == scratch->d_o)
        return;
    p->ops->fill(p->dev, scratch->d_o, 0, p->n * heads_width(p));
    put_rows(end, scratch->d_o, d_o, heads_width(p));
}

static void attention_backward(const block_pass *p, const needs *need) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    attention_call attention = attention_of(p);
    p->ops->attention_bwd(p->dev, scratch->dq, scratch->dk, scratch->dv, scratch->d_o, s->o, s->lse,
                          s->q, s->k, s->v, &attention, scratch->attention, p->batch, p->layer);
    rotate(p, scratch->dq, p->spec->n_heads, true);
    rotate(p, scratch->dk, p->spec->n_kv_heads, true);
    if (p->spec->has_qk_norm) {
        norm_heads_backward(p, NORM_Q, scratch->dq, s->q_raw, p->spec->n_heads);
        norm_heads_backward(p, NORM_K, scratch->dk, s->k_raw, p->spec->n_kv_heads);
    }
    qkv_backward(p, need);
}

void block_bwd(const model_run *run, int32_t layer, const layer_weights *weights, const batch *b,
               step_buffers *buffers, const block_saved *saved, bool needs_dx) {
    block_pass pass = pass_of(run, layer, weights, b, buffers, saved), end = end_of(&pass);
    needs need = needs_of(&pass, needs_dx);
    assert(saved->x_in && "this block kept nothing: it lies below the lowest trained one");
    if (!need.d_gate_up && !trains(&pass, LINEAR_DOWN) && !pass.hooks->branch[BRANCH_MLP].form)
        return;
    if (saved->keep != KEEP_ALL)
        recompute(&pass, &end);
    take_rows(&end, end.dx, pass.dx, pass.spec->hidden);
    mlp_backward(&end, &need);
    if (!need.d_mid)
        return;
    output_backward(&pass, &end, &need);
    put_rows(&end, pass.dx, end.dx, pass.spec->hidden);
    if (need.d_qkv)
        attention_backward(&pass, &need);
}
