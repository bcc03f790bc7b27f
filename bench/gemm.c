/* Rates of the frozen products and their thin companions, as CSV, beside the multiply-add peak
 * measured in the same run.
 *
 *     bench_gemm [threads [features [compute]]]
 *
 * features as in cpu_features_mask, e.g. "none" or "avx2,f16c"; compute f32, bf16 or int8.
 */
#include "backend/ops.h"
#include "base/rng.h"
#include "bench/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shape {
    int32_t tokens;
    int64_t in, out;
    int32_t rank; /* of a LoRA term; 0: none */
} shape;

/* SmolLM2-135M (hidden 576, MLP 1536, vocabulary 49152), Qwen2.5-0.5B (896, 4864). */
static const shape shapes[] = {{512, 576, 1536, 0},  {512, 1536, 576, 0},   {512, 576, 576, 0},
                               {2048, 896, 4864, 0}, {512, 576, 49152, 0},  {512, 576, 1536, 16},
                               {512, 1536, 576, 16}, {2048, 896, 4864, 16}, {1, 576, 1536, 0},
                               {1, 1536, 576, 0},    {1, 576, 49152, 0},    {4, 576, 49152, 0}};

typedef struct operands {
    backend *dev;
    shape s;
    linear_call call;
    low_rank_term term;
    uint16_t *weight;
    device_array *x, *y, *xa, *scratch, *memory[8];
    int n_memory;
    token_rows tokens;
    int32_t grid[64], job_begin[2];
} operands;

/* Written, not only reserved: an untouched page is the shared zero page, which is always in cache.
 */
static device_array *array_of(operands *o, int64_t n) {
    device_array *array = o->dev->ops->alloc(o->dev, (size_t)n * sizeof(float));
    float *values = malloc((size_t)n * sizeof *values);
    if (!array || !values)
        exit(1);
    rng r = rng_create(1, (uint64_t)n);
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)(rng_u32(&r) >> 8) * 0x1p-24f - 0.5f;
    o->dev->ops->upload(o->dev, array, values, DTYPE_F32, n);
    free(values);
    o->memory[o->n_memory++] = array;
    return array;
}

static void make(operands *o, backend *dev, shape s) {
    *o = (operands){.dev = dev, .s = s};
    size_t weights = (size_t)(s.in * s.out);
    o->weight = malloc(weights * sizeof *o->weight);
    if (!o->weight)
        exit(1);
    for (size_t i = 0; i < weights; i++)
        o->weight[i] = f32_to_bf16((float)(i * 2654435761u % 1024) / 1024 - 0.5f);
    o->x = array_of(o, s.tokens * s.in);
    o->y = array_of(o, s.tokens * s.out);
    o->call.weight = (weight_ref){
        .data = o->weight, .type = DTYPE_BF16, .rows = s.out, .cols = s.in, .row_stride = s.in};
    if (s.rank) {
        o->term = (low_rank_term){.a = array_of(o, s.rank * s.in),
                                  .b = array_of(o, s.rank * s.out),
                                  .da = array_of(o, s.rank * s.in),
                                  .db = array_of(o, s.rank * s.out),
                                  .scale = 2,
                                  .rank = s.rank,
                                  .job = -1};
        o->call.terms = &o->term;
        o->call.n_terms = 1;
        o->xa = array_of(o, s.tokens * s.rank);
        o->scratch = array_of(o, linear_scratch_elements(&o->call, s.tokens));
    }
    int32_t n_grid = 0;
    for (int32_t t = 0; t < s.tokens; t += GRID_TOKENS)
        o->grid[n_grid++] = t;
    o->grid[n_grid] = s.tokens;
    o->job_begin[1] = s.tokens;
    o->tokens = (token_rows){
        .n = s.tokens, .grid = o->grid, .n_grid = n_grid, .job_begin = o->job_begin, .n_jobs = 1};
}

static void drop(operands *o) {
    for (int i = 0; i < o->n_memory; i++)
        o->dev->ops->release(o->dev, o->memory[i]);
    free(o->weight);
}

static void run_once(operands *o, bool is_backward) {
    const op_table *ops = o->dev->ops;
    if (is_backward)
        ops->linear_bwd(o->dev, o->x, o->y, o->x, o->xa, &o->call, false, o->scratch, &o->tokens);
    else
        ops->linear_fwd(o->dev, o->y, o->xa, o->x, &o->call, false, o->scratch, &o->tokens);
}

/* The best of several timings of at least 0.1 s each. */
static double seconds_of(operands *o, bool is_backward) {
    double best = 1e9;
    run_once(o, is_backward);
    for (int repeat = 0; repeat < 4; repeat++) {
        int n = 0;
        double start = bench_seconds(o->dev->n_threads), elapsed;
        do {
            run_once(o, is_backward);
            n++;
            elapsed = bench_seconds(o->dev->n_threads) - start;
        } while (elapsed < 0.1);
        best = elapsed / n < best ? elapsed / n : best;
    }
    return best;
}

static void measure(backend *dev, const char *kernels, shape s, bool is_backward, double peak) {
    operands o;
    make(&o, dev, s);
    double seconds = seconds_of(&o, is_backward);
    drop(&o);
    double products = (double)s.tokens * (double)s.in * (double)s.out;
    double thin = (double)s.tokens * s.rank * (double)(s.in + s.out) * (is_backward ? 2 : 1);
    double gflops = 2 * (products + thin) / seconds * 1e-9;
    double read = (double)s.in * (double)s.out * 2 / seconds * 1e-9;
    printf("%s,%s,%d,%d,%lld,%lld,%d,bf16,%s,%s,%.3f,%.1f,%.1f,%.3f,%.1f\n", bench_machine(),
           kernels, dev->n_threads, s.tokens, (long long)s.in, (long long)s.out, s.rank,
           compute_type_name(dev->compute), is_backward ? "backward" : "forward", seconds * 1e3,
           gflops, peak, gflops / peak, read);
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
    compute_type type = COMPUTE_F32;
    while (argc > 3 && type < N_COMPUTE_TYPES && strcmp(argv[3], compute_type_name(type)) != 0)
        type++;
    if (type == N_COMPUTE_TYPES ||
        backend_set_compute(dev, type, &features, true, &err) != GRAFT_OK) {
        fprintf(stderr, "compute: expected f32, bf16 or int8\n");
        return 2;
    }
    const char *kernels = backend_cpu_kernels(&features);
    puts("machine,kernels,threads,tokens,in,out,rank,weights,compute,direction,ms,gflops,peak_"
         "gflops,of_peak,weight_gb_per_s");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int direction = 0; direction < 2; direction++) {
            if (direction && shapes[i].tokens < 8)
                continue; /* generation has no backward */
            double peak = bench_peak_gflops(kernels, dev->n_threads);
            measure(dev, kernels, shapes[i], direction, peak);
        }
    backend_destroy(&dev);
    return 0;
}
