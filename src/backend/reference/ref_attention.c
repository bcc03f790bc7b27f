#include "backend/reference/reference.h"

#include <assert.h>
#include <math.h>

/* One query's view of a segment: its keys are the past, then the segment's own tokens up to itself.
 * Key j has place j; the query, the segment's token i, has place past length + i. */
typedef struct row_view {
    const attention_call *call;
    const segment *seg;
    const kv_view *past; /* NULL: none */
    int32_t token;       /* in the batch */
    int32_t head, kv_head;
    int32_t key_first, key_end; /* the visible places */
} row_view;

static row_view row_of(const attention_call *call, const segment *seg, int32_t layer, int32_t token,
                       int32_t head) {
    const kv_view *past = seg->past ? &seg->past[layer] : NULL;
    int32_t place = (past ? past->length : 0) + token - seg->token_begin;
    int32_t first = call->window > 0 && place - call->window + 1 > 0 ? place - call->window + 1 : 0;
    return (row_view){.call = call,
                      .seg = seg,
                      .past = past,
                      .token = token,
                      .head = head,
                      .kv_head = head / (call->n_heads / call->n_kv_heads),
                      .key_first = first,
                      .key_end = place + 1};
}

/* Row of key place j in the past's arrays, or else in the batch's: a head's keys are so many
 * head_dim, its values value_dim from the start. */
static int64_t key_index(const row_view *row, int32_t j, bool *is_past) {
    int32_t past_length = row->past ? row->past->length : 0;
    *is_past = j < past_length;
    int64_t at = *is_past ? j : row->seg->token_begin + (j - past_length);
    return at * row->call->n_kv_heads + row->kv_head;
}

static const double *key_of(const row_view *row, const device_array *k, int32_t j) {
    bool is_past;
    int64_t at = key_index(row, j, &is_past);
    return ref_array_const(is_past ? row->past->k : k) + at * row->call->head_dim;
}

static const double *value_of(const row_view *row, const device_array *v, int32_t j) {
    bool is_past;
    int64_t at = key_index(row, j, &is_past);
    return ref_array_const(is_past ? row->past->v : v) + at * attention_value_dim(row->call);
}

static double dot(const double *a, const double *b, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* ALiBi */
static double bias_of(const row_view *row, int32_t j) {
    const attention_call *call = row->call;
    if (!call->slopes)
        return 0;
    float slope = call->slopes[row->head];
    double bias = (double)slope * (j - (row->key_end - 1));
    if (call->rounds_slopes)
        bias = (double)bf16_to_f32(f32_to_bf16(slope * (float)j));
    return (double)call->slope_scale * bias;
}

/* The scores are computed again wherever they are needed: nothing of size keys is kept. slope: of
 * the score, by scale q k. */
static double score(const row_view *row, const double *q, const device_array *k, int32_t j,
                    double *slope) {
    const attention_call *call = row->call;
    double s = (double)call->scale * dot(q, key_of(row, k, j), call->head_dim);
    double cap = (double)call->soft_cap;
    *slope = 1;
    if (cap > 0) {
        double share = tanh(s / cap);
        s = cap * share;
        *slope = 1 - share * share;
    }
    return s + bias_of(row, j);
}

static double sink_of(const row_view *row) {
    return row->call->sinks ? ref_array_const(row->call->sinks)[row->head] : -INFINITY;
}

static void row_fwd(const row_view *row, double *o, double *lse, const double *q,
                    const device_array *k, const device_array *v) {
    double largest = sink_of(row), total, slope;
    int32_t value_dim = attention_value_dim(row->call);
    for (int32_t j = row->key_first; j < row->key_end; j++)
        largest = fmax(largest, score(row, q, k, j, &slope));
    total = row->call->sinks ? exp(sink_of(row) - largest) : 0;
    for (int32_t j = row->key_first; j < row->key_end; j++)
        total += exp(score(row, q, k, j, &slope) - largest);
    *lse = largest + log(total);
    for (int32_t d = 0; d < value_dim; d++)
        o[d] = 0;
    for (int32_t j = row->key_first; j < row->key_end; j++) {
        double probability = exp(score(row, q, k, j, &slope) - *lse);
        for (int32_t d = 0; d < value_dim; d++)
            o[d] += probability * value_of(row, v, j)[d];
    }
}

void ref_attention_fwd(backend *dev, device_array *o, device_array *lse, const device_array *q,
                       const device_array *k, const device_array *v, const attention_call *call,
                       const batch *b, int32_t layer) {
    (void)dev;
    for (int32_t s = 0; s < b->n_segments; s++)
        for (int32_t t = b->segments[s].token_begin; t < b->segments[s].token_end; t++)
            for (int32_t h = 0; h < call->n_heads; h++) {
                row_view row = row_of(call, &b->segments[s], layer, t, h);
                int64_t at = (int64_t)t * call->n_heads + h;
                row_fwd(&row, ref_array(o) + at * attention_value_dim(call), ref_array(lse) + at,
                        ref_array_const(q) + at * call->head_dim, k, v);
            }
}

typedef struct row_arrays { /* one query's elements */
    double *dq;
    const double *q, *d_o, *o;
    double lse;
} row_arrays;

/* p = softmax(scores), o = p v: with d_p = d_o v and D = d_o o, d_score = p (d_p - D). A sink has
 * the value 0. */
static void row_bwd(const row_view *row, const row_arrays *at, device_array *dk, device_array *dv,
                    const device_array *k, const device_array *v) {
    int32_t head_dim = row->call->head_dim, value_dim = attention_value_dim(row->call);
    double delta = dot(at->d_o, at->o, value_dim), slope;
    for (int32_t d = 0; d < head_dim; d++)
        at->dq[d] = 0;
    if (row->call->d_sinks)
        ref_array(row->call->d_sinks)[row->head] -= exp(sink_of(row) - at->lse) * delta;
    for (int32_t j = row->key_first; j < row->key_end; j++) {
        bool is_past;
        int64_t index = key_index(row, j, &is_past);
        device_array *dk_array = is_past ? row->past->dk : dk;
        device_array *dv_array = is_past ? row->past->dv : dv;
        const double *key = key_of(row, k, j), *value = value_of(row, v, j);
        double probability = exp(score(row, at->q, k, j, &slope) - at->lse);
        double d_score = probability * (dot(at->d_o, value, value_dim) - delta) * slope;
        for (int32_t d = 0; d < head_dim; d++) {
            at->dq[d] += d_score * (double)row->call->scale * key[d];
            if (dk_array)
                ref_array(dk_array)[index * head_dim + d] +=
                    d_score * (double)row->call->scale * at->q[d];
        }
        for (int32_t d = 0; dv_array && d < value_dim; d++)
            ref_array(dv_array)[index * value_dim + d] += probability * at->d_o[d];
    }
}

void ref_attention_bwd(backend *dev, device_array *dq, device_array *dk, device_array *dv,
                       const device_array *d_o, const device_array *o, const device_array *lse,
                       const device_array *q, const device_array *k, const device_array *v,
                       const attention_call *call, device_array *scratch, const batch *b,
                       int32_t layer) {
    (void)scratch;
    int64_t kv_rows = (int64_t)b->tokens.n * call->n_kv_heads,
            value_dim = attention_value_dim(call);
    ref_fill(dev, dk, 0, kv_rows * call->head_dim);
    ref_fill(dev, dv, 0, kv_rows * value_dim);
    for (int32_t s = 0; s < b->n_segments; s++)
        for (int32_t t = b->segments[s].token_begin; t < b->segments[s].token_end; t++)
            for (int32_t h = 0; h < call->n_heads; h++) {
                row_view row = row_of(call, &b->segments[s], layer, t, h);
                int64_t at = (int64_t)t * call->n_heads + h, offset = at * call->head_dim;
                row_arrays arrays = {.dq = ref_array(dq) + offset,
                                     .q = ref_array_const(q) + offset,
                                     .d_o = ref_array_const(d_o) + at * value_dim,
                                     .o = ref_array_const(o) + at * value_dim,
                                     .lse = ref_array_const(lse)[at]};
                row_bwd(&row, &arrays, dk, dv, k, v);
            }
}
