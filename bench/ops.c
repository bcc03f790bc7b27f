/* Times of the ops beside the frozen products, as CSV: attention in multiply-adds that causality
 * leaves (backward counted as the five products it needs at least), the others by the bytes they
 * must read and write.
 *
 *     bench_ops [threads [features]]
 */
#include "backend/ops.h"
#include "base/rng.h"
#include "bench/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARRAYS = 12, ROOM = 8 };

typedef struct setup {
    backend *dev;
    int32_t tokens;
    int64_t width;
    attention_call attention;
    device_array *a[ARRAYS]; /* [tokens, width + ROOM] each, written */
    segment seg;
    batch batch;
    int32_t grid[64], job_begin[2];
    int32_t *targets;
    float *weights;
    uint64_t *counters;
} setup;

typedef struct op_bench {
    const char *name;
    int32_t tokens;
    int64_t width; /* of a token's row */
    void (*run)(setup *);
    double arrays; /* read or written once: 4 bytes an element */
    attention_call attention;
    double products; /* attention: per pair of query and key, in units of 2 head_dim */
} op_bench;

static void run_attention_fwd(setup *s) {
    s->dev->ops->attention_fwd(s->dev, s->a[3], s->a[4], s->a[0], s->a[1], s->a[2], &s->attention,
                               &s->batch, 0);
}

static void run_attention_bwd(setup *s) {
    s->dev->ops->attention_bwd(s->dev, s->a[6], s->a[7], s->a[8], s->a[5], s->a[3], s->a[4],
                               s->a[0], s->a[1], s->a[2], &s->attention, s->a[9], &s->batch, 0);
}

static void run_norm_fwd(setup *s) {
    const norm_call call = {.weight = s->a[3], .eps = 1e-5f};
    s->dev->ops->norm_fwd(s->dev, s->a[0], s->a[1], s->a[2], &call, s->tokens, s->width);
}

static void run_norm_bwd(setup *s) {
    const norm_call call = {.weight = s->a[3], .eps = 1e-5f};
    s->dev->ops->norm_bwd(s->dev, s->a[0], s->a[4], s->a[2], s->a[1], &call, 1, s->width, true,
                          &s->batch.tokens);
}

static const gate_call silu = {.kind = ACTIVATION_SILU};

static void run_swiglu_fwd(setup *s) {
    s->dev->ops->gated_fwd(s->dev, s->a[0], s->a[1], s->a[2], &silu, s->tokens * s->width);
}

static void run_swiglu_bwd(setup *s) {
    s->dev->ops->gated_bwd(s->dev, s->a[0], s->a[1], s->a[2], s->a[3], s->a[4], &silu,
                           s->tokens * s->width);
}

static void run_rope(setup *s) {
    const rope_call call = {.heads = (int32_t)(s->width / 64), .head_dim = 64, .n = 64};
    s->dev->ops->rope(s->dev, s->a[0], s->a[1], s->a[2], &call, s->tokens, false);
}

static void run_loss(setup *s) {
    s->dev->ops->cross_entropy(s->dev, s->a[1], s->a[0], s->targets, s->weights, s->tokens,
                               s->width, 0, true);
}

static void run_adamw(setup *s) {
    adamw_step step = {1e-4, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001, 1};
    s->dev->ops->adamw(s->dev, s->a[0], s->a[1], s->a[2], s->a[3], s->tokens * s->width, &step);
}

static void run_sum_squares(setup *s) {
    s->dev->ops->sum_squares(s->dev, s->a[0], s->tokens * s->width);
}

static void run_dropout(setup *s) { /* a rank-1 term, so that dropout is what takes the time */
    static const uint16_t zero[4096];
    low_rank_term term = {
        .a = s->a[2], .b = s->a[3], .scale = 1, .rank = 1, .job = -1, .dropout = 0.1f};
    linear_call call = {.weight = {.data = zero,
                                   .type = DTYPE_BF16,
                                   .rows = 1,
                                   .cols = s->width,
                                   .row_stride = s->width},
                        .terms = &term,
                        .n_terms = 1};
    s->dev->ops->linear_fwd(s->dev, s->a[0], s->a[1], s->a[4], &call, false, s->a[5],
                            &s->batch.tokens);
}

#define SMOLLM2                                                                                    \
    { .n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .scale = 0.125f }
#define QWEN                                                                                       \
    { .n_heads = 14, .n_kv_heads = 2, .head_dim = 64, .scale = 0.125f }
#define LLAMA_1B                                                                                   \
    { .n_heads = 32, .n_kv_heads = 8, .head_dim = 64, .scale = 0.125f }

static const op_bench benches[] = {
    {"attention_fwd smollm2", 512, 576, run_attention_fwd, 0, SMOLLM2, 2},
    {"attention_bwd smollm2", 512, 576, run_attention_bwd, 0, SMOLLM2, 5},
    {"attention_fwd smollm2", 2048, 576, run_attention_fwd, 0, SMOLLM2, 2},
    {"attention_bwd smollm2", 2048, 576, run_attention_bwd, 0, SMOLLM2, 5},
    {"attention_fwd qwen", 2048, 896, run_attention_fwd, 0, QWEN, 2},
    {"attention_bwd qwen", 2048, 896, run_attention_bwd, 0, QWEN, 5},
    {"attention_fwd llama_1b", 512, 2048, run_attention_fwd, 0, LLAMA_1B, 2},
    {"attention_bwd llama_1b", 512, 2048, run_attention_bwd, 0, LLAMA_1B, 5},
    {"rmsnorm_fwd", 2048, 576, run_norm_fwd, 2, {0}, 0},
    {"rmsnorm_bwd", 2048, 576, run_norm_bwd, 4, {0}, 0},
    {"swiglu_fwd", 2048, 1536, run_swiglu_fwd, 3, {0}, 0},
    {"swiglu_bwd", 2048, 1536, run_swiglu_bwd, 5, {0}, 0},
    {"rope", 2048, 576, run_rope, 2, {0}, 0},
    {"cross_entropy", 128, 49152, run_loss, 4, {0}, 0},
    {"adamw", 2048, 1024, run_adamw, 7, {0}, 0},
    {"sum_squares", 2048, 1024, run_sum_squares, 1, {0}, 0},
    {"dropout", 2048, 576, run_dropout, 2, {0}, 0},
};

static void *need(void *memory) {
    if (!memory) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static void make(setup *s, backend *dev, const op_bench *b) {
    *s = (setup){.dev = dev, .tokens = b->tokens, .width = b->width, .attention = b->attention};
    size_t n = (size_t)b->tokens * (size_t)(b->width + ROOM);
    float *values = need(malloc(n * sizeof *values));
    rng r = rng_create(1, 2);
    for (int i = 0; i < ARRAYS; i++) {
        for (size_t j = 0; j < n; j++)
            values[j] = (float)(rng_u32(&r) >> 8) * 0x1p-24f;
        s->a[i] = need(dev->ops->alloc(dev, n * sizeof *values));
        dev->ops->upload(dev, s->a[i], values, DTYPE_F32, (int64_t)n);
    }
    free(values);
    s->targets = need(calloc((size_t)b->tokens, sizeof *s->targets));
    s->weights = need(calloc((size_t)b->tokens, sizeof *s->weights));
    s->counters = need(calloc((size_t)b->tokens, sizeof *s->counters));
    int32_t n_grid = 0;
    for (int32_t t = 0; t < b->tokens; t += GRID_TOKENS)
        s->grid[n_grid++] = t;
    s->grid[n_grid] = s->job_begin[1] = b->tokens;
    s->seg = (segment){.token_end = b->tokens};
    s->batch =
        (batch){.tokens = {b->tokens, s->grid, n_grid, s->job_begin, 1, s->counters, 7, true},
                .segments = &s->seg,
                .n_segments = 1};
}

static void drop(setup *s) {
    for (int i = 0; i < ARRAYS; i++)
        s->dev->ops->release(s->dev, s->a[i]);
    free(s->targets);
    free(s->weights);
    free(s->counters);
}

static double seconds_of(setup *s, const op_bench *b) {
    double best = 1e9;
    b->run(s);
    for (int repeat = 0; repeat < 4; repeat++) {
        int n = 0;
        double start = bench_seconds(s->dev->n_threads), elapsed;
        do {
            b->run(s);
            n++;
            elapsed = bench_seconds(s->dev->n_threads) - start;
        } while (elapsed < 0.05);
        best = elapsed / n < best ? elapsed / n : best;
    }
    return best;
}

static void measure(backend *dev, const char *kernels, const op_bench *b) {
    setup s;
    make(&s, dev, b);
    double peak = bench_peak_gflops(kernels, dev->n_threads), seconds = seconds_of(&s, b);
    drop(&s);
    double pairs = 0.5 * (double)b->tokens * (double)(b->tokens + 1) * b->attention.n_heads;
    double gflops = b->products * 2 * b->attention.head_dim * pairs / seconds * 1e-9;
    double gbytes = b->arrays * 4 * (double)b->tokens * (double)b->width / seconds * 1e-9;
    printf("%s,%s,%d,%s,%d,%lld,%.3f,%.1f,%.1f,%.3f,%.2f\n", bench_machine(), kernels,
           dev->n_threads, b->name, b->tokens, (long long)b->width, seconds * 1e3, gflops, peak,
           gflops / peak, gbytes);
}

int main(int argc, char **argv) {
    cpu_features features = cpu_features_detect();
    graft_error err;
    if (argc > 2 && !cpu_features_mask(&features, argv[2], &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 2;
    }
    backend *dev;
    if (backend_create_cpu(&dev, argc > 1 ? atoi(argv[1]) : 0, &features, &err) != GRAFT_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    puts("machine,kernels,threads,op,tokens,width,ms,gflops,peak_gflops,of_peak,gb_per_s");
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++)
        measure(dev, backend_cpu_kernels(&features), &benches[i]);
    backend_destroy(&dev);
    return 0;
}
