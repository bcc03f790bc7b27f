#include "backend/cpu/attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* ---- what forward and backward share ---- */

attention_run attention_run_of(backend *dev, const attention_call *call, const batch *b,
                               int32_t layer) {
    int32_t value_dim = attention_value_dim(call);
    assert(call->head_dim <= HEAD_DIM_MAX && value_dim <= HEAD_DIM_MAX && call->scale > 0 &&
           call->n_heads % call->n_kv_heads == 0);
    int32_t group = call->n_heads / call->n_kv_heads;
    return (attention_run){.cpu = cpu_of(dev),
                           .call = call,
                           .batch = b,
                           .layer = layer,
                           .group = group,
                           .chunks = (group + ATTENTION_HEADS - 1) / ATTENTION_HEADS,
                           .value_dim = value_dim,
                           .q_stride = (int64_t)call->n_heads * call->head_dim,
                           .k_stride = (int64_t)call->n_kv_heads * call->head_dim,
                           .v_stride = (int64_t)call->n_kv_heads * value_dim,
                           .o_stride = (int64_t)call->n_heads * value_dim};
}

int64_t attention_blocks(const batch *b) {
    int64_t n = 0;
    for (int32_t s = 0; s < b->n_segments; s++)
        n += block_count(b->segments[s].token_end - b->segments[s].token_begin);
    return n;
}

query_block query_block_at(const attention_run *run, int64_t b, int32_t kv_head, int32_t chunk) {
    const segment *seg = run->batch->segments;
    int32_t blocks = block_count(seg->token_end - seg->token_begin);
    while (b >= blocks) {
        b -= blocks;
        seg++;
        blocks = block_count(seg->token_end - seg->token_begin);
    }
    const kv_view *past = seg->past ? &seg->past[run->layer] : NULL;
    int32_t first = (int32_t)b * ATTENTION_BLOCK, token = seg->token_begin + first;
    int32_t left = seg->token_end - token, heads_left = run->group - chunk * ATTENTION_HEADS;
    return (query_block){.seg = seg,
                         .past = past,
                         .token = token,
                         .count = left < ATTENTION_BLOCK ? left : ATTENTION_BLOCK,
                         .place = (past ? past->length : 0) + first,
                         .kv_head = kv_head,
                         .head = kv_head * run->group + chunk * ATTENTION_HEADS,
                         .n_heads = heads_left < ATTENTION_HEADS ? heads_left : ATTENTION_HEADS};
}

int32_t key_blocks(const kv_view *past, const segment *seg) {
    return (past ? block_count(past->length) : 0) + block_count(seg->token_end - seg->token_begin);
}

key_block key_block_at(const attention_run *run, const segment *seg, const kv_view *past,
                       int32_t kv_head, int32_t i) {
    int32_t past_length = past ? past->length : 0, past_blocks = block_count(past_length);
    bool is_past = i < past_blocks;
    int32_t first = (is_past ? i : i - past_blocks) * ATTENTION_BLOCK;
    int32_t left = (is_past ? past_length : seg->token_end - seg->token_begin) - first;
    int64_t row = is_past ? first : seg->token_begin + first;
    int64_t k_offset = row * run->k_stride + (int64_t)kv_head * run->call->head_dim;
    int64_t v_offset = row * run->v_stride + (int64_t)kv_head * run->value_dim;
    return (key_block){.k = (is_past ? cpu_array_const(past->k) : run->k) + k_offset,
                       .v = (is_past ? cpu_array_const(past->v) : run->v) + v_offset,
                       .place = is_past ? first : past_length + first,
                       .count = left < ATTENTION_BLOCK ? left : ATTENTION_BLOCK};
}

bool sees_block(const attention_call *call, int32_t first, int32_t n, const key_block *keys) {
    bool reaches_window = call->window <= 0 || first - call->window < keys->place + keys->count - 1;
    return keys->place < first + n && reaches_window;
}

void visible_keys(int32_t *begin, int32_t *end, const attention_call *call, int32_t place,
                  const key_block *keys) {
    int32_t first = call->window > 0 ? place - call->window + 1 - keys->place : 0;
    int32_t last = place + 1 - keys->place;
    *end = last < 0 ? 0 : last < keys->count ? last : keys->count;
    *begin = first < 0 ? 0 : first < *end ? first : *end;
}

void product_block(const attention_run *run, float *s, const float *a, const float *b, int32_t k,
                   int32_t queries, int32_t keys, float scale) {
    const gemm_kernels *kernels = run->cpu->gemm;
    gemm_block block = {.c = s,
                        .c_stride = ATTENTION_BLOCK,
                        .a = a,
                        .b = b,
                        .rows = queries,
                        .cols = (int32_t)round_up(keys, kernels->tile_cols), /* padding is zero */
                        .k = k,
                        .scale = scale};
    gemm_block_run(kernels, &block);
}

void adjust_scores(const attention_run *run, float *s, int32_t begin, int32_t end, int32_t head,
                   int32_t place, const key_block *keys) {
    const attention_call *call = run->call;
    if (call->soft_cap > 0)
        run->cpu->rows->soft_cap(s + begin, 1, call->soft_cap, end - begin);
    for (int32_t j = begin; call->slopes && j < end; j++) {
        int32_t key = keys->place + j;
        float bias = call->slopes[head] * (float)(call->rounds_slopes ? key : key - place);
        if (call->rounds_slopes)
            bias = bf16_to_f32(f32_to_bf16(bias));
        s[j] += call->slope_scale * bias;
    }
}

/* ---- forward ---- */

/* Scores become probabilities relative to the largest score so far; change[r] is what earlier sums
 * are worth now. */
static void softmax_block(const attention_run *run, attention_scratch *m, const query_block *q,
                          int32_t h, const key_block *keys, float *o, bool is_first) {
    const row_kernels *rows = run->cpu->rows;
    float *largest = m->largest[h], *total = m->total[h];
    bool adjusts = adjusts_scores(run->call);
    int32_t begin, end;
    for (int32_t r = 0; r < q->count; r++) {
        visible_keys(&begin, &end, run->call, q->place + r, keys);
        if (adjusts)
            adjust_scores(run, m->s + r * ATTENTION_BLOCK, begin, end, q->head + h, q->place + r,
                          keys);
        float before = largest[r];
        float now = rows->max(m->s + r * ATTENTION_BLOCK + begin, end - begin);
        largest[r] = now > before ? now : before;
        m->change[r] = largest[r] > before ? before - largest[r] : 0;
    }
    rows->exp_row(m->change, m->change, 0, q->count);
    for (int32_t r = 0; r < q->count; r++) {
        float *s = m->s + r * ATTENTION_BLOCK;
        visible_keys(&begin, &end, run->call, q->place + r, keys);
        rows->fill(s, 0, begin);
        rows->fill(s + end, 0, keys->count - end);
        float sum = rows->exp_row(s + begin, s + begin, largest[r], end - begin);
        total[r] = total[r] * m->change[r] + sum;
        if (!is_first && m->change[r] != 1)
            rows->scale(o + r * run->o_stride, m->change[r], run->value_dim);
    }
}

/* o [count, value_dim] (+)= probabilities v */
static void add_values(const attention_run *run, attention_scratch *m, const query_block *q,
                       const key_block *keys, float *o, bool add) {
    const gemm_kernels *kernels = run->cpu->gemm;
    gemm_operand p = {.data = m->s, .type = DTYPE_F32, .stride = ATTENTION_BLOCK};
    gemm_pack_a(kernels, m->panels, &p, 0, q->count, 0, keys->count);
    gemm_block block = {.c = o,
                        .c_stride = run->o_stride,
                        .a = m->panels,
                        .b = m->by_keys,
                        .rows = q->count,
                        .cols = run->value_dim,
                        .k = keys->count,
                        .scale = 1,
                        .add = add};
    gemm_block_run(kernels, &block);
}

static void finish_rows(const attention_run *run, const attention_scratch *m, const query_block *q,
                        int32_t h, float *o) {
    for (int32_t r = 0; r < q->count; r++) {
        run->cpu->rows->scale(o + r * run->o_stride, 1 / m->total[h][r], run->value_dim);
        run->lse_out[(int64_t)(q->token + r) * run->call->n_heads + q->head + h] =
            m->largest[h][r] + logf(m->total[h][r]);
    }
}

static void pack_queries(const attention_run *run, float panels[][BLOCK_ROWS * HEAD_DIM_MAX],
                         const float *q, const query_block *block) {
    for (int32_t h = 0; h < block->n_heads; h++) {
        gemm_operand rows = {.data = q + (block->head + h) * (int64_t)run->call->head_dim,
                             .type = DTYPE_F32,
                             .stride = run->q_stride};
        gemm_pack_a(run->cpu->gemm, panels[h], &rows, block->token, block->count, 0,
                    run->call->head_dim);
    }
}

static void forward_task(void *context, int64_t i, int32_t thread) {
    const attention_run *run = context;
    attention_scratch *m = cpu_scratch(run->cpu, thread);
    int32_t width = run->call->n_kv_heads * run->chunks, head_dim = run->call->head_dim;
    const float *sinks = cpu_array_const(run->call->sinks);
    int64_t b = attention_blocks(run->batch) - 1 - i / width; /* the longest first */
    int32_t column = (int32_t)(i % width);
    query_block q = query_block_at(run, b, column / run->chunks, column % run->chunks);
    pack_queries(run, m->q, run->q, &q);
    for (int32_t h = 0; h < q.n_heads; h++)
        for (int32_t r = 0; r < q.count; r++) { /* a sink is the first score */
            float sink = sinks ? sinks[q.head + h] : -INFINITY;
            m->largest[h][r] = sink;
            m->total[h][r] = sinks ? expf(sink - sink) : 0; /* 1, or NaN */
        }
    float *o = run->o_out + q.token * run->o_stride + q.head * (int64_t)run->value_dim;
    bool is_first = true;
    int32_t n = key_blocks(q.past, q.seg);
    for (int32_t j = 0; j < n; j++) {
        key_block keys = key_block_at(run, q.seg, q.past, q.kv_head, j);
        if (!sees_block(run->call, q.place, q.count, &keys))
            continue;
        gemm_operand k = {.data = keys.k, .type = DTYPE_F32, .stride = run->k_stride};
        gemm_operand v = {keys.v, DTYPE_F32, run->v_stride, true};
        gemm_pack_b(run->cpu->gemm, m->k, &k, 0, keys.count, 0, head_dim);
        gemm_pack_b(run->cpu->gemm, m->by_keys, &v, 0, run->value_dim, 0, keys.count);
        for (int32_t h = 0; h < q.n_heads; h++) {
            float *o_head = o + h * run->value_dim;
            product_block(run, m->s, m->q[h], m->k, head_dim, q.count, keys.count,
                          run->call->scale);
            softmax_block(run, m, &q, h, &keys, o_head, is_first);
            add_values(run, m, &q, &keys, o_head, !is_first);
        }
        is_first = false;
    }
    for (int32_t h = 0; h < q.n_heads; h++)
        finish_rows(run, m, &q, h, o + h * run->value_dim);
}

void cpu_attention_fwd(backend *dev, device_array *o, device_array *lse, const device_array *q,
                       const device_array *k, const device_array *v, const attention_call *call,
                       const batch *b, int32_t layer) {
    attention_run run = attention_run_of(dev, call, b, layer);
    run.o_out = cpu_array(o);
    run.lse_out = cpu_array(lse);
    run.q = cpu_array_const(q);
    run.k = cpu_array_const(k);
    run.v = cpu_array_const(v);
    cpu_run_tasks(run.cpu, attention_blocks(b) * call->n_kv_heads * run.chunks, forward_task, &run);
}
