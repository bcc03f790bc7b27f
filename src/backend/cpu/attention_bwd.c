/* Backward, in one of two ways with the same bits. Either a task owns a segment and a key head, and
 * makes each block of scores once: five products a block. Or, where that gives too few tasks for
 * the threads, one task owns the dq of a block of queries and another the dk and dv of a block of
 * keys, and both make the scores: seven products. Either way each sum has one order (dq: by blocks
 * of keys; dk, dv: by blocks of queries, then heads), and no two tasks write one place. */
#include "backend/cpu/attention.h"

#include <math.h>
#include <string.h>

/* ---- d_o . o ---- */

typedef struct delta_context {
    const attention_run *run;
    pieces rows; /* [n * n_heads] */
} delta_context;

static void delta_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const delta_context *c = context;
    int64_t width = c->run->value_dim;
    for (int64_t r = piece_begin(&c->rows, i); r < piece_end(&c->rows, i); r++)
        c->run->delta[r] =
            c->run->cpu->rows->dot(c->run->d_o + r * width, c->run->o + r * width, width);
}

/* The sinks' gradients: -p D, over the grid's blocks in order; p is the sink's share of the
 * softmax. */
static void add_sink_gradients(const attention_run *run) {
    const token_rows *tokens = &run->batch->tokens;
    const float *sinks = cpu_array_const(run->call->sinks);
    int32_t heads = run->call->n_heads;
    for (int32_t h = 0; h < heads; h++)
        for (int32_t g = 0; g < tokens->n_grid; g++) {
            float sum = 0;
            for (int64_t t = tokens->grid[g]; t < tokens->grid[g + 1]; t++)
                sum += expf(sinks[h] - run->lse[t * heads + h]) * run->delta[t * heads + h];
            cpu_array(run->call->d_sinks)[h] -= sum;
        }
}

/* ---- one block ---- */

static int64_t row_of(const attention_run *run, const query_block *q, int32_t h, int32_t r) {
    return (int64_t)(q->token + r) * run->call->n_heads + q->head + h;
}

/* Scores in s, d_o v in ds -> probabilities and gradients of scores (before scaling); what is
 * hidden becomes zero. */
static void score_gradients(const attention_run *run, attention_scratch *m, const query_block *q,
                            int32_t h, const key_block *keys) {
    const row_kernels *rows = run->cpu->rows;
    float scale = run->call->scale, cap = run->call->soft_cap, capped[ATTENTION_BLOCK];
    bool adjusts = adjusts_scores(run->call);
    for (int32_t r = 0; r < q->count; r++) {
        float *s = m->s + r * ATTENTION_BLOCK, *ds = m->ds + r * ATTENTION_BLOCK;
        int64_t row = row_of(run, q, h, r);
        int32_t begin, end;
        visible_keys(&begin, &end, run->call, q->place + r, keys);
        rows->fill(s, 0, begin);
        rows->fill(ds, 0, begin);
        rows->fill(s + end, 0, keys->count - end);
        rows->fill(ds + end, 0, keys->count - end);
        if (adjusts)
            adjust_scores(run, s, begin, end, q->head + h, q->place + r, keys);
        if (cap > 0)
            memcpy(capped, s + begin, (size_t)(end - begin) * sizeof *s);
        rows->exp_row(s + begin, s + begin, run->lse[row], end - begin);
        rows->softmax_bwd(ds + begin, s + begin, run->delta[row], scale, end - begin);
        if (cap > 0)
            rows->soft_cap_slope(ds + begin, capped, cap, end - begin);
    }
}

/* Rows of q, or of o and d_o, of one head. */
static gemm_operand head_rows(const float *x, int64_t stride, int32_t width, const query_block *q,
                              int32_t h, bool is_k_major) {
    return (gemm_operand){.data = x + q->token * stride + (q->head + h) * (int64_t)width,
                          .type = DTYPE_F32,
                          .stride = stride,
                          .is_k_major = is_k_major};
}

static gemm_operand query_rows(const attention_run *run, const query_block *q, int32_t h,
                               bool is_k_major) {
    return head_rows(run->q, run->q_stride, run->call->head_dim, q, h, is_k_major);
}

static gemm_operand d_o_rows(const attention_run *run, const query_block *q, int32_t h,
                             bool is_k_major) {
    return head_rows(run->d_o, run->o_stride, run->value_dim, q, h, is_k_major);
}

static void pack_heads(const attention_run *run, attention_scratch *m, const query_block *q) {
    for (int32_t h = 0; h < q->n_heads; h++) {
        gemm_operand rows = query_rows(run, q, h, false);
        gemm_pack_a(run->cpu->gemm, m->q[h], &rows, 0, q->count, 0, run->call->head_dim);
        rows = d_o_rows(run, q, h, false);
        gemm_pack_a(run->cpu->gemm, m->d_o[h], &rows, 0, q->count, 0, run->value_dim);
    }
}

static void pack_keys(const attention_run *run, attention_scratch *m, const key_block *keys) {
    gemm_operand rows = {.data = keys->k, .type = DTYPE_F32, .stride = run->k_stride};
    gemm_pack_b(run->cpu->gemm, m->k, &rows, 0, keys->count, 0, run->call->head_dim);
    rows = (gemm_operand){.data = keys->v, .type = DTYPE_F32, .stride = run->v_stride};
    gemm_pack_b(run->cpu->gemm, m->v, &rows, 0, keys->count, 0, run->value_dim);
}

static void block_gradients(const attention_run *run, attention_scratch *m, const query_block *q,
                            int32_t h, const key_block *keys) {
    product_block(run, m->s, m->q[h], m->k, run->call->head_dim, q->count, keys->count,
                  run->call->scale);
    product_block(run, m->ds, m->d_o[h], m->v, run->value_dim, q->count, keys->count, 1);
    score_gradients(run, m, q, h, keys);
}

/* c [rows, cols] (+)= a b: a is s or ds [query, key] (turned when is_k_major), b packed over its
 * rows. */
static void add_block(const attention_run *run, attention_scratch *m, float *c, int64_t c_stride,
                      int32_t cols, const float *a, bool is_k_major, const float *b, int32_t rows,
                      int32_t k, bool add) {
    gemm_operand operand = {a, DTYPE_F32, ATTENTION_BLOCK, is_k_major};
    gemm_pack_a(run->cpu->gemm, m->panels, &operand, 0, rows, 0, k);
    gemm_block block = {.c = c,
                        .c_stride = c_stride,
                        .a = m->panels,
                        .b = b,
                        .rows = rows,
                        .cols = cols,
                        .k = k,
                        .scale = 1,
                        .add = add};
    gemm_block_run(run->cpu->gemm, &block);
}

/* ---- dq ---- */

static void zero_dq(const attention_run *run, int32_t begin, int32_t end, int32_t head,
                    int32_t n_heads) {
    int64_t head_dim = run->call->head_dim;
    for (int32_t t = begin; t < end; t++)
        run->cpu->rows->fill(run->dq + t * run->q_stride + head * head_dim, 0, n_heads * head_dim);
}

static void pack_keys_for_dq(const attention_run *run, attention_scratch *m,
                             const key_block *keys) {
    gemm_operand k = {keys->k, DTYPE_F32, run->k_stride, true};
    gemm_pack_b(run->cpu->gemm, m->k_by_keys, &k, 0, run->call->head_dim, 0, keys->count);
}

/* dq += ds k, for one head */
static void add_dq(const attention_run *run, attention_scratch *m, const query_block *q, int32_t h,
                   const key_block *keys) {
    float *dq = run->dq + q->token * run->q_stride + (q->head + h) * (int64_t)run->call->head_dim;
    add_block(run, m, dq, run->q_stride, run->call->head_dim, m->ds, false, m->k_by_keys, q->count,
              keys->count, true);
}

static void dq_task(void *context, int64_t i, int32_t thread) {
    const attention_run *run = context;
    attention_scratch *m = cpu_scratch(run->cpu, thread);
    int32_t width = run->call->n_kv_heads * run->chunks;
    int64_t b = attention_blocks(run->batch) - 1 - i / width; /* the longest first */
    int32_t column = (int32_t)(i % width);
    query_block q = query_block_at(run, b, column / run->chunks, column % run->chunks);
    zero_dq(run, q.token, q.token + q.count, q.head, q.n_heads);
    pack_heads(run, m, &q);
    int32_t n = key_blocks(q.past, q.seg);
    for (int32_t j = 0; j < n; j++) {
        key_block keys = key_block_at(run, q.seg, q.past, q.kv_head, j);
        if (!sees_block(run->call, q.place, q.count, &keys))
            continue;
        pack_keys(run, m, &keys);
        pack_keys_for_dq(run, m, &keys);
        for (int32_t h = 0; h < q.n_heads; h++) {
            block_gradients(run, m, &q, h, &keys);
            add_dq(run, m, &q, h, &keys);
        }
    }
}

/* ---- dk, dv ---- */

/* Where the gradients of a key block go. */
typedef struct key_gradients {
    float *dk, *dv; /* NULL: frozen */
    bool add;
    bool makes_dq; /* the queries' gradients too */
} key_gradients;

/* What one block of queries, for one chunk of heads, adds to a block of keys (packed). */
static void add_queries(const attention_run *run, attention_scratch *m, const query_block *q,
                        const key_block *keys, key_gradients *to) {
    pack_heads(run, m, q);
    for (int32_t h = 0; h < q->n_heads; h++) {
        block_gradients(run, m, q, h, keys);
        if (to->dv) {
            gemm_operand d_o = d_o_rows(run, q, h, true);
            gemm_pack_b(run->cpu->gemm, m->by_keys, &d_o, 0, run->value_dim, 0, q->count);
            add_block(run, m, to->dv, run->v_stride, run->value_dim, m->s, true, m->by_keys,
                      keys->count, q->count, to->add);
        }
        if (to->dk) {
            gemm_operand rows = query_rows(run, q, h, true);
            gemm_pack_b(run->cpu->gemm, m->by_keys, &rows, 0, run->call->head_dim, 0, q->count);
            add_block(run, m, to->dk, run->k_stride, run->call->head_dim, m->ds, true, m->by_keys,
                      keys->count, q->count, to->add);
        }
        if (to->makes_dq)
            add_dq(run, m, q, h, keys);
        to->add = true;
    }
}

/* A segment, and which of all blocks is its first. */
typedef struct placed_segment {
    const segment *seg;
    const kv_view *past;
    int64_t first_block;
} placed_segment;

static placed_segment segment_at(const attention_run *run, int32_t s) {
    placed_segment placed = {.seg = &run->batch->segments[s]};
    placed.past = placed.seg->past ? &placed.seg->past[run->layer] : NULL;
    for (const segment *before = run->batch->segments; before < placed.seg; before++)
        placed.first_block += block_count(before->token_end - before->token_begin);
    return placed;
}

/* Everything a segment's queries add to its key block j. */
static void add_segment(const attention_run *run, attention_scratch *m,
                        const placed_segment *placed, int32_t kv_head, int32_t j,
                        key_gradients to) {
    key_block keys = key_block_at(run, placed->seg, placed->past, kv_head, j);
    int32_t blocks = block_count(placed->seg->token_end - placed->seg->token_begin);
    pack_keys(run, m, &keys);
    if (to.makes_dq)
        pack_keys_for_dq(run, m, &keys);
    for (int32_t b = 0; b < blocks; b++)
        for (int32_t chunk = 0; chunk < run->chunks; chunk++) {
            query_block q = query_block_at(run, placed->first_block + b, kv_head, chunk);
            if (sees_block(run->call, q.place, q.count, &keys))
                add_queries(run, m, &q, &keys, &to);
        }
}

/* The gradients of the segment's own key block `own` (counted from its first token). */
static key_gradients own_gradients(const attention_run *run, const segment *seg, int32_t own,
                                   int32_t kv_head) {
    int64_t row = seg->token_begin + (int64_t)own * ATTENTION_BLOCK;
    return (key_gradients){.dk = run->dk + row * run->k_stride +
                                 (int64_t)kv_head * run->call->head_dim,
                           .dv = run->dv + row * run->v_stride + (int64_t)kv_head * run->value_dim};
}

static void own_keys_task(void *context, int64_t i, int32_t thread) {
    const attention_run *run = context;
    int32_t kv_head = (int32_t)(i % run->call->n_kv_heads);
    int64_t b = i / run->call->n_kv_heads; /* a segment's first keys are seen most: first */
    query_block same = query_block_at(run, b, kv_head, 0);
    placed_segment placed = segment_at(run, (int32_t)(same.seg - run->batch->segments));
    int32_t own = (int32_t)(b - placed.first_block);
    int32_t past_blocks = placed.past ? block_count(placed.past->length) : 0;
    add_segment(run, cpu_scratch(run->cpu, thread), &placed, kv_head, past_blocks + own,
                own_gradients(run, placed.seg, own, kv_head));
}

/* All of one segment and key head, but for what its past receives. */
static void segment_task(void *context, int64_t i, int32_t thread) {
    const attention_run *run = context;
    attention_scratch *m = cpu_scratch(run->cpu, thread);
    int32_t kv_head = (int32_t)(i % run->call->n_kv_heads);
    placed_segment placed = segment_at(run, (int32_t)(i / run->call->n_kv_heads));
    int32_t past_blocks = placed.past ? block_count(placed.past->length) : 0;
    int32_t n = key_blocks(placed.past, placed.seg);
    zero_dq(run, placed.seg->token_begin, placed.seg->token_end, kv_head * run->group, run->group);
    for (int32_t j = 0; j < n; j++) {
        key_gradients to = {0};
        if (j >= past_blocks)
            to = own_gradients(run, placed.seg, j - past_blocks, kv_head);
        to.makes_dq = true;
        add_segment(run, m, &placed, kv_head, j, to);
    }
}

/* Segments may share a past (a trained prefix), so one task adds all of them, in order. */
static void past_keys_task(void *context, int64_t i, int32_t thread) {
    const attention_run *run = context;
    int32_t kv_head = (int32_t)(i % run->call->n_kv_heads);
    int32_t j = (int32_t)(i / run->call->n_kv_heads);
    for (int32_t s = 0; s < run->batch->n_segments; s++) {
        placed_segment placed = segment_at(run, s);
        const kv_view *past = placed.past;
        if (!past || !(past->dk || past->dv) || j * ATTENTION_BLOCK >= past->length)
            continue;
        int64_t row = (int64_t)j * ATTENTION_BLOCK;
        int64_t k_offset = row * run->k_stride + (int64_t)kv_head * run->call->head_dim;
        int64_t v_offset = row * run->v_stride + (int64_t)kv_head * run->value_dim;
        key_gradients to = {.dk = past->dk ? cpu_array(past->dk) + k_offset : NULL,
                            .dv = past->dv ? cpu_array(past->dv) + v_offset : NULL,
                            .add = true};
        add_segment(run, cpu_scratch(run->cpu, thread), &placed, kv_head, j, to);
    }
}

static int64_t trained_past_blocks(const attention_run *run) {
    int32_t longest = 0;
    for (int32_t s = 0; s < run->batch->n_segments; s++) {
        const segment *seg = &run->batch->segments[s];
        const kv_view *past = seg->past ? &seg->past[run->layer] : NULL;
        if (past && (past->dk || past->dv) && past->length > longest)
            longest = past->length;
    }
    return block_count(longest);
}

/* Whether tasks of whole segments end sooner: their longest thread does five products a block,
 * against seven shared evenly. Blocks are counted as without a window. */
static bool is_one_pass(const attention_run *run) {
    int64_t total = 0, longest = 0, tasks = run->batch->n_segments,
            threads = run->cpu->base.n_threads;
    for (int32_t s = 0; s < run->batch->n_segments; s++) {
        placed_segment placed = segment_at(run, s);
        int64_t own = block_count(placed.seg->token_end - placed.seg->token_begin);
        int64_t blocks =
            own * (own + 1) / 2 + own * (placed.past ? block_count(placed.past->length) : 0);
        total += blocks;
        longest = blocks > longest ? blocks : longest;
    }
    tasks *= run->call->n_kv_heads;
    total *= run->call->n_kv_heads;
    if (tasks == 0)
        return true;
    int64_t even = total * ((tasks + threads - 1) / threads) / tasks;
    return 5 * (even > longest ? even : longest) <= 7 * total / threads;
}

void cpu_attention_bwd(backend *dev, device_array *dq, device_array *dk, device_array *dv,
                       const device_array *d_o, const device_array *o, const device_array *lse,
                       const device_array *q, const device_array *k, const device_array *v,
                       const attention_call *call, device_array *scratch, const batch *b,
                       int32_t layer) {
    attention_run run = attention_run_of(dev, call, b, layer);
    run.dq = cpu_array(dq);
    run.dk = cpu_array(dk);
    run.dv = cpu_array(dv);
    run.delta = cpu_array(scratch);
    run.d_o = cpu_array_const(d_o);
    run.o = cpu_array_const(o);
    run.lse = cpu_array_const(lse);
    run.q = cpu_array_const(q);
    run.k = cpu_array_const(k);
    run.v = cpu_array_const(v);
    delta_context delta = {
        .run = &run, .rows = pieces_of_rows((int64_t)b->tokens.n * call->n_heads, run.value_dim)};
    cpu_run_tasks(run.cpu, delta.rows.count, delta_task, &delta);
    if (call->d_sinks)
        add_sink_gradients(&run);
    if (is_one_pass(&run)) {
        cpu_run_tasks(run.cpu, (int64_t)b->n_segments * call->n_kv_heads, segment_task, &run);
    } else {
        int64_t blocks = attention_blocks(b);
        cpu_run_tasks(run.cpu, blocks * call->n_kv_heads * run.chunks, dq_task, &run);
        cpu_run_tasks(run.cpu, blocks * call->n_kv_heads, own_keys_task, &run);
    }
    cpu_run_tasks(run.cpu, trained_past_blocks(&run) * call->n_kv_heads, past_keys_task, &run);
}
