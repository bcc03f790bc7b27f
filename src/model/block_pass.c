#include "model/block_pass.h"

#include <assert.h>

hooked_linear block_linear(const block_pass *p, linear_slot slot) {
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

form_pass block_branch_pass(const block_pass *p, branch_slot slot) {
    return (form_pass){.dev = p->dev,
                       .tokens = p->tokens,
                       .batch = p->batch,
                       .kept = p->saved->branch[slot],
                       .scratch = p->scratch->form};
}

norm_call block_norm(const block_pass *p, norm_slot slot) {
    const freed_parameter *weight = &p->hooks->norm[slot], *bias = &p->hooks->norm_bias[slot];
    return norm_hooked(p->spec, p->weights->norm[slot], weight, p->weights->norm_bias[slot], bias);
}

attention_call block_attention(const block_pass *p) {
    const model_spec *spec = p->spec;
    const freed_parameter *sinks = &p->hooks->sinks;
    return (attention_call){.n_heads = spec->n_heads,
                            .n_kv_heads = spec->n_kv_heads,
                            .head_dim = spec->head_dim,
                            .value_dim = spec->value_dim,
                            .scale = (float)spec->attention_scale,
                            .window = spec->layer_slides[p->layer] ? spec->window : 0,
                            .soft_cap = (float)spec->attention_cap,
                            .slopes = spec->alibi_slopes,
                            .slope_scale = (float)spec->alibi_scale,
                            .rounds_slopes = spec->alibi_is_bf16,
                            .sinks = sinks->is_freed ? sinks->value : p->weights->sinks,
                            .d_sinks = sinks->gradient};
}

head_rows block_head_rows(const block_pass *p, int32_t heads) {
    if (p->spec->qk_norm == QK_NORM_WHOLE)
        return (head_rows){.per_token = 1, .cols = (int64_t)heads * p->spec->head_dim};
    return (head_rows){.per_token = heads, .cols = p->spec->head_dim};
}

/* ---- Norms of q and k ---- */

static int32_t heads_of(const block_pass *p, norm_slot slot) {
    return slot == NORM_Q ? p->spec->n_heads : p->spec->n_kv_heads;
}

static bool is_any_freed(const freed_parameter *heads, int32_t n) {
    for (int32_t h = 0; h < n; h++)
        if (heads[h].is_freed)
            return true;
    return false;
}

/* Copies what each head's gradient is into scratch, or back. */
static void move_split_gradients(const block_pass *p, norm_slot slot, bool is_back) {
    const freed_parameter *heads = p->hooks->split_norm[slot - NORM_Q];
    int64_t cols = p->spec->head_dim;
    for (int32_t h = 0; h < heads_of(p, slot); h++) {
        device_array *here = array_at(p->dev, p->scratch->d_split_norm, h * cols);
        if (heads[h].gradient)
            p->ops->copy(p->dev, is_back ? heads[h].gradient : here,
                         is_back ? here : heads[h].gradient, cols);
    }
}

norm_call block_qk_norm(const block_pass *p, norm_slot slot) {
    norm_call call = block_norm(p, slot);
    int32_t heads = heads_of(p, slot);
    int64_t cols = p->spec->head_dim;
    call.bias = NULL;
    if (p->spec->qk_norm == QK_NORM_HEADS || p->spec->qk_norm == QK_NORM_SPLIT)
        call.groups = heads;
    const freed_parameter *freed = p->hooks->split_norm[slot - NORM_Q];
    if (!freed || !is_any_freed(freed, heads))
        return call;
    for (int32_t h = 0; h < heads; h++)
        p->ops->copy(p->dev, array_at(p->dev, p->scratch->split_norm, h * cols),
                     freed[h].is_freed ? freed[h].value
                                       : array_at_const(p->dev, call.weight, h * cols),
                     cols);
    call.weight = p->scratch->split_norm;
    call.d_weight = p->scratch->d_split_norm;
    if (call.d_weight)
        move_split_gradients(p, slot, false);
    return call;
}

void block_qk_norm_end(const block_pass *p, norm_slot slot) {
    if (p->hooks->split_norm[slot - NORM_Q] && p->scratch->d_split_norm)
        move_split_gradients(p, slot, true);
}

/* ---- Rotation ---- */

void block_rotate(const block_pass *p, device_array *x, int32_t heads, bool inverse) {
    uint8_t which = p->spec->layer_rope[p->layer];
    if (which == LAYER_ROPE_NONE)
        return;
    const rope_spec *rope = which == LAYER_ROPE_MAIN ? &p->spec->rope : &p->spec->rope_sliding;
    rope_call call = {.heads = heads,
                      .head_dim = p->spec->head_dim,
                      .first = p->spec->head_plain,
                      .n = rope->dim,
                      .is_interleaved = p->spec->rope_is_interleaved};
    p->ops->rope(p->dev, x, p->buffers->rope_cos[which], p->buffers->rope_sin[which], &call, p->n,
                 inverse);
}

/* ---- Fused linear layers ---- */

void block_split(const block_pass *p, const fused_parts *parts, device_array *fused,
                 bool is_merge) {
    block_places in_fused = {.row = parts->groups * parts->group_cols, .step = parts->group_cols};
    for (int32_t i = 0; i < parts->n_parts; i++) {
        const fused_part *part = &parts->part[i];
        block_places in_part = {.row = parts->groups * part->cols, .step = part->cols};
        device_array *there = array_at(p->dev, fused, part->first);
        p->ops->copy_blocks(p->dev, is_merge ? there : part->array, is_merge ? in_fused : in_part,
                            is_merge ? part->array : there, is_merge ? in_part : in_fused, p->n,
                            parts->groups, part->cols, false);
    }
}

fused_parts block_qkv_parts(const block_pass *p, device_array *q, device_array *k,
                            device_array *v) {
    int64_t groups = p->spec->qkv_groups;
    int64_t q_cols = p->spec->n_heads / groups * p->spec->head_dim;
    int64_t kv_cols = p->spec->n_kv_heads / groups * p->spec->head_dim;
    return (fused_parts){
        .part = {{q, q_cols, 0}, {k, kv_cols, q_cols}, {v, kv_cols, q_cols + kv_cols}},
        .n_parts = 3,
        .groups = groups,
        .group_cols = q_cols + 2 * kv_cols};
}

fused_parts block_gate_up_parts(const block_pass *p, device_array *gate, device_array *up) {
    int64_t cols = p->spec->intermediate;
    return (fused_parts){.part = {{gate, cols, 0}, {up, cols, cols}},
                         .n_parts = 2,
                         .groups = 1,
                         .group_cols = 2 * cols};
}

/* ---- What the branches take ---- */

void block_norm_hidden(const block_pass *p, norm_slot slot, device_array *y,
                       const device_array *x) {
    norm_call call = block_norm(p, slot);
    p->ops->norm_fwd(p->dev, y, p->saved->rstd[slot], x, &call, p->n, p->spec->hidden);
}

const device_array *block_attention_input(const block_pass *p, const device_array *stream) {
    if (!p->spec->has_norm[NORM_ATTENTION])
        return stream;
    block_norm_hidden(p, NORM_ATTENTION, p->scratch->normed, stream);
    return p->scratch->normed;
}

const device_array *block_mlp_input(const block_pass *p, const device_array *stream) {
    norm_slot slot = block_shares_norm(p->spec)    ? NORM_ATTENTION
                     : p->spec->has_norm[NORM_MLP] ? NORM_MLP
                                                   : NORM_ATTENTION_SUM;
    if (!p->spec->has_norm[slot])
        return stream;
    block_norm_hidden(p, slot, p->scratch->normed, stream);
    return p->scratch->normed;
}

gate_call block_gate(const block_pass *p) {
    return (gate_call){.kind = p->spec->activation};
}
