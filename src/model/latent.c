#include "model/latent.h"

/* DeepSeek's norms of latents have this epsilon, whatever the config says. */
static const float LATENT_EPS = 1e-6f;

static norm_call latent_norm(const block_pass *p, norm_slot slot) {
    norm_call call = block_norm(p, slot);
    call.eps = LATENT_EPS;
    return call;
}

static void linear_forward(const block_pass *p, linear_slot slot, device_array *y,
                           const device_array *x) {
    hooked_linear linear = block_linear(p, slot);
    hooked_linear_fwd(&linear, y, x, false, p->tokens, p->batch);
}

static void linear_backward(const block_pass *p, linear_slot slot, device_array *dx,
                            const device_array *dy, const device_array *x, bool add) {
    hooked_linear linear = block_linear(p, slot);
    hooked_linear_bwd(&linear, dx, dy, x, add, p->tokens, p->batch);
}

/* The normed latent, in scratch.latent. */
static const device_array *normed(const block_pass *p, norm_slot slot, const device_array *raw,
                                  int64_t cols) {
    norm_call call = latent_norm(p, slot);
    p->ops->norm_fwd(p->dev, p->scratch->latent, p->saved->rstd[slot], raw, &call, p->n, cols);
    return p->scratch->latent;
}

/* Where the parts of k and v lie: k's heads are plain then rotated; the rows of KV_A the latent,
 * then the rotated part; those of KV_B a head's plain part of k, then its values. */
typedef struct latent_places {
    int64_t heads, plain, rotated, value, latent;
    block_places k, v, one_rotated, kv_b; /* one_rotated: the same for every head */
} latent_places;

static latent_places places_of(const block_pass *p) {
    const model_spec *spec = p->spec;
    latent_places at = {.heads = spec->n_heads,
                        .plain = spec->head_plain,
                        .rotated = spec->head_dim - spec->head_plain,
                        .value = spec->value_dim,
                        .latent = spec->kv_latent};
    at.k = (block_places){.row = at.heads * spec->head_dim, .step = spec->head_dim};
    at.v = (block_places){.row = at.heads * at.value, .step = at.value};
    at.one_rotated = (block_places){.row = at.latent + at.rotated, .step = 0};
    at.kv_b = (block_places){.row = at.heads * (at.plain + at.value), .step = at.plain + at.value};
    return at;
}

static void copy_latent(const block_pass *p, const latent_places *at, device_array *latent,
                        bool is_back) {
    block_places in_rows = {.row = at->latent + at->rotated}, alone = {.row = at->latent};
    device_array *fused = p->scratch->fused;
    p->ops->copy_blocks(p->dev, is_back ? fused : latent, is_back ? in_rows : alone,
                        is_back ? latent : fused, is_back ? alone : in_rows, p->n, 1, at->latent,
                        false);
}

void latent_forward(const block_pass *p, const device_array *input) {
    const block_saved *s = p->saved;
    const latent_places at = places_of(p);
    device_array *fused = p->scratch->fused;
    linear_forward(p, LINEAR_KV_A, fused, input);
    copy_latent(p, &at, s->kv_latent, false);
    p->ops->copy_blocks(p->dev, array_at(p->dev, s->k, at.plain), at.k,
                        array_at(p->dev, fused, at.latent), at.one_rotated, p->n, at.heads,
                        at.rotated, false);
    if (p->spec->has_linear[LINEAR_Q_A]) {
        linear_forward(p, LINEAR_Q_A, s->q_latent, input);
        linear_forward(p, LINEAR_Q_B, s->q, normed(p, NORM_Q_A, s->q_latent, p->spec->q_latent));
    } else
        linear_forward(p, LINEAR_Q, s->q, input);
    linear_forward(p, LINEAR_KV_B, fused, normed(p, NORM_KV_A, s->kv_latent, at.latent));
    p->ops->copy_blocks(p->dev, s->k, at.k, fused, at.kv_b, p->n, at.heads, at.plain, false);
    p->ops->copy_blocks(p->dev, s->v, at.v, array_at(p->dev, fused, at.plain), at.kv_b, p->n,
                        at.heads, at.value, false);
}

static bool slot_trains(const block_pass *p, linear_slot slot) {
    hooked_linear linear = block_linear(p, slot);
    return p->spec->has_linear[slot] && hooked_linear_trains(&linear);
}

static bool slot_needs_input(const block_pass *p, linear_slot slot) {
    hooked_linear linear = block_linear(p, slot);
    return p->spec->has_linear[slot] && hooked_linear_needs_input(&linear, p->tokens);
}

bool latent_trains(const block_pass *p) {
    return slot_trains(p, LINEAR_Q_A) || slot_trains(p, LINEAR_Q_B) ||
           slot_trains(p, LINEAR_KV_A) || slot_trains(p, LINEAR_KV_B) ||
           p->hooks->norm[NORM_Q_A].gradient || p->hooks->norm[NORM_KV_A].gradient;
}

bool latent_needs_input(const block_pass *p) {
    return slot_needs_input(p, LINEAR_Q_A) || slot_needs_input(p, LINEAR_KV_A) ||
           slot_needs_input(p, LINEAR_Q);
}

static void norm_backward(const block_pass *p, norm_slot slot, const device_array *raw,
                          int64_t cols) {
    norm_call call = latent_norm(p, slot);
    p->ops->norm_bwd(p->dev, p->scratch->d_latent, p->scratch->d_latent, raw, p->saved->rstd[slot],
                     &call, 1, cols, false, p->tokens);
}

void latent_backward(const block_pass *p, device_array *d_input, bool add,
                     const device_array *input) {
    const block_saved *s = p->saved;
    const block_scratch *scratch = p->scratch;
    const latent_places at = places_of(p);
    device_array *fused = scratch->fused, *d_rotated = array_at(p->dev, fused, at.latent);
    if (p->spec->has_linear[LINEAR_Q_A]) {
        int64_t width = p->spec->q_latent;
        linear_backward(p, LINEAR_Q_B, scratch->d_latent, scratch->dq,
                        normed(p, NORM_Q_A, s->q_latent, width), false);
        norm_backward(p, NORM_Q_A, s->q_latent, width);
        linear_backward(p, LINEAR_Q_A, d_input, scratch->d_latent, input, add);
    } else
        linear_backward(p, LINEAR_Q, d_input, scratch->dq, input, add);
    p->ops->copy_blocks(p->dev, fused, at.kv_b, scratch->dk, at.k, p->n, at.heads, at.plain, false);
    p->ops->copy_blocks(p->dev, array_at(p->dev, fused, at.plain), at.kv_b, scratch->dv, at.v, p->n,
                        at.heads, at.value, false);
    linear_backward(p, LINEAR_KV_B, scratch->d_latent, fused,
                    normed(p, NORM_KV_A, s->kv_latent, at.latent), false);
    norm_backward(p, NORM_KV_A, s->kv_latent, at.latent);
    p->ops->fill(p->dev, fused, 0, p->n * (at.latent + at.rotated));
    copy_latent(p, &at, scratch->d_latent, true);
    p->ops->copy_blocks(p->dev, d_rotated, at.one_rotated, array_at(p->dev, scratch->dk, at.plain),
                        at.k, p->n, at.heads, at.rotated, true);
    linear_backward(p, LINEAR_KV_A, d_input, fused, input, true);
}
