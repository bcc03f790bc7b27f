#include "api/probes.h"

#include "base/layout.h"
#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A probe's arrays: device memory, carved as it is asked for. */
typedef struct bench_memory {
    backend *dev;
    void *memory;
    layout layout;
    rng random;
} bench_memory;

enum { PROBE_BYTES = 16 << 20 };

static bool memory_open(bench_memory *m, backend *dev, size_t bytes) {
    *m = (bench_memory){
        .dev = dev, .memory = dev->ops->alloc(dev, bytes), .random = rng_create(1, 0)};
    if (m->memory)
        m->layout = layout_over(m->memory, bytes);
    return m->memory != NULL;
}

static void memory_close(bench_memory *m) {
    m->dev->ops->release(m->dev, m->memory);
}

static device_array *array_zero(bench_memory *m, int64_t n) {
    device_array *array =
        layout_take(&m->layout, COMPONENT_WORKSPACE, (size_t)n, m->dev->element_bytes);
    m->dev->ops->fill(m->dev, array, 0, n);
    return array;
}

static device_array *array_random(bench_memory *m, int64_t n) {
    device_array *array =
        layout_take(&m->layout, COMPONENT_WORKSPACE, (size_t)n, m->dev->element_bytes);
    float *values = mem_array((size_t)n, sizeof *values);
    for (int64_t i = 0; values && i < n; i++)
        values[i] = (float)rng_normal(&m->random);
    if (values)
        m->dev->ops->upload(m->dev, array, values, DTYPE_F32, n);
    free(values);
    return array;
}

/* ---- One row of tokens ---- */

enum { TOKENS = 37, IN = 70, OUT = 45, RANK = 5, HEADS = 4, KV_HEADS = 2, HEAD = 16, VOCAB = 99 };

static const int32_t one_grid[] = {0, TOKENS}, one_job[] = {0, TOKENS};
static const token_rows row_tokens = {
    .n = TOKENS, .grid = one_grid, .n_grid = 1, .job_begin = one_job, .n_jobs = 1};

static bool probe_linear(backend *dev, float *results) {
    bench_memory m;
    if (!memory_open(&m, dev, PROBE_BYTES))
        return false;
    static uint16_t weight[OUT * IN];
    for (int i = 0; i < OUT * IN; i++)
        weight[i] = f32_to_bf16((float)rng_normal(&m.random));
    low_rank_term term = {.a = array_random(&m, RANK * IN),
                          .b = array_random(&m, OUT * RANK),
                          .scale = 0.5f,
                          .rank = RANK,
                          .job = -1};
    term.da = array_zero(&m, RANK * IN);
    term.db = array_zero(&m, OUT * RANK);
    linear_call call = {.weight = {weight, DTYPE_BF16, OUT, IN, IN}, .terms = &term, .n_terms = 1};
    device_array *x = array_random(&m, TOKENS * IN), *dy = array_random(&m, TOKENS * OUT);
    device_array *y = array_zero(&m, TOKENS * OUT), *dx = array_zero(&m, TOKENS * IN);
    device_array *xa = array_zero(&m, TOKENS * RANK);
    device_array *scratch = array_zero(&m, linear_scratch_elements(&call, TOKENS));
    dev->ops->linear_fwd(dev, y, xa, x, &call, false, scratch, &row_tokens);
    dev->ops->linear_bwd(dev, dx, dy, x, xa, &call, false, scratch, &row_tokens);
    dev->ops->download(dev, results, y, TOKENS * OUT);
    dev->ops->download(dev, results + TOKENS * OUT, dx, TOKENS * IN);
    dev->ops->download(dev, results + TOKENS * (OUT + IN), term.da, RANK * IN);
    dev->ops->download(dev, results + TOKENS * (OUT + IN) + RANK * IN, term.db, OUT * RANK);
    memory_close(&m);
    return true;
}

static bool probe_attention(backend *dev, float *results) {
    bench_memory m;
    if (!memory_open(&m, dev, PROBE_BYTES))
        return false;
    const segment row = {.token_end = TOKENS};
    const batch tokens = {.tokens = row_tokens, .segments = &row, .n_segments = 1};
    const attention_call call = {
        .n_heads = HEADS, .n_kv_heads = KV_HEADS, .head_dim = HEAD, .scale = 0.25f, .window = 20};
    const int64_t nq = TOKENS * HEADS * HEAD, nk = TOKENS * KV_HEADS * HEAD;
    device_array *q = array_random(&m, nq), *k = array_random(&m, nk), *v = array_random(&m, nk);
    device_array *o = array_zero(&m, nq), *lse = array_zero(&m, TOKENS * HEADS),
                 *d_o = array_random(&m, nq);
    device_array *dq = array_zero(&m, nq), *dk = array_zero(&m, nk), *dv = array_zero(&m, nk);
    device_array *scratch = array_zero(&m, TOKENS * HEADS);
    dev->ops->attention_fwd(dev, o, lse, q, k, v, &call, &tokens, 0);
    dev->ops->attention_bwd(dev, dq, dk, dv, d_o, o, lse, q, k, v, &call, scratch, &tokens, 0);
    dev->ops->download(dev, results, o, nq);
    dev->ops->download(dev, results + nq, dq, nq);
    dev->ops->download(dev, results + 2 * nq, dk, nk);
    dev->ops->download(dev, results + 2 * nq + nk, dv, nk);
    memory_close(&m);
    return true;
}

static bool probe_norm(backend *dev, float *results) {
    bench_memory m;
    if (!memory_open(&m, dev, PROBE_BYTES))
        return false;
    device_array *x = array_random(&m, TOKENS * IN), *w = array_random(&m, IN),
                 *dy = array_random(&m, TOKENS * IN);
    device_array *y = array_zero(&m, TOKENS * IN), *rstd = array_zero(&m, TOKENS),
                 *dw = array_zero(&m, IN);
    const norm_call call = {.weight = w, .d_weight = dw, .eps = 1e-5f};
    dev->ops->norm_fwd(dev, y, rstd, x, &call, TOKENS, IN);
    dev->ops->download(dev, results, y, TOKENS * IN);
    dev->ops->norm_bwd(dev, y, dy, x, rstd, &call, 1, IN, false, &row_tokens);
    dev->ops->download(dev, results + TOKENS * IN, y, TOKENS * IN);
    dev->ops->download(dev, results + 2 * TOKENS * IN, dw, IN);
    memory_close(&m);
    return true;
}

static bool probe_swiglu(backend *dev, float *results) {
    bench_memory m;
    if (!memory_open(&m, dev, PROBE_BYTES))
        return false;
    const int64_t n = TOKENS * IN;
    device_array *gate = array_random(&m, n), *up = array_random(&m, n), *h = array_zero(&m, n);
    const gate_call silu = {.kind = ACTIVATION_SILU};
    dev->ops->gated_fwd(dev, h, gate, up, &silu, n);
    dev->ops->download(dev, results, h, n);
    dev->ops->gated_bwd(dev, gate, up, h, gate, up, &silu, n);
    dev->ops->download(dev, results + n, gate, n);
    dev->ops->download(dev, results + 2 * n, up, n);
    memory_close(&m);
    return true;
}

static bool probe_loss(backend *dev, float *results) {
    bench_memory m;
    if (!memory_open(&m, dev, PROBE_BYTES))
        return false;
    int32_t targets[TOKENS];
    float weights[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        targets[i] = (int32_t)rng_below(&m.random, VOCAB);
        weights[i] = 0.5f;
    }
    device_array *logits = array_random(&m, TOKENS * VOCAB), *loss = array_zero(&m, TOKENS);
    dev->ops->cross_entropy(dev, loss, logits, targets, weights, TOKENS, VOCAB, 0, true);
    dev->ops->download(dev, results, loss, TOKENS);
    dev->ops->download(dev, results + TOKENS, logits, TOKENS * VOCAB);
    memory_close(&m);
    return true;
}

static bool probe_optimizer(backend *dev, float *results) {
    bench_memory m;
    if (!memory_open(&m, dev, PROBE_BYTES))
        return false;
    const int64_t n = 1001;
    const adamw_step step = {1e-2, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001, 1.0};
    device_array *p = array_random(&m, n), *g = array_random(&m, n), *first = array_zero(&m, n);
    device_array *second = array_zero(&m, n);
    dev->ops->adamw(dev, p, g, first, second, n, &step);
    dev->ops->download(dev, results, p, n);
    memory_close(&m);
    return true;
}

static const probe probes[] = {
    {"linear", TOKENS *(OUT + IN) + RANK *(IN + OUT), 2e-6, probe_linear},
    {"attention", TOKENS * 2 * (HEADS + KV_HEADS) * HEAD, 5e-6, probe_attention},
    {"rmsnorm", 2 * TOKENS *IN + IN, 2e-6, probe_norm},
    {"swiglu", 3 * TOKENS *IN, 2e-6, probe_swiglu},
    {"cross_entropy", TOKENS + TOKENS *VOCAB, 2e-6, probe_loss},
    {"adamw", 1001, 2e-6, probe_optimizer},
};

const probe *probe_at(size_t i) {
    return i < sizeof probes / sizeof *probes ? &probes[i] : NULL;
}

double probe_difference(const float *a, const float *b, int64_t n) {
    double difference = 0, largest = 1e-30;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i]))
            return INFINITY;
        difference = fmax(difference, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)b[i]));
    }
    return difference / largest;
}
