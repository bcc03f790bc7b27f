#include "bench/peak.h"

#include "base/cpu_features.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef float vector4 __attribute__((vector_size(16)));

double peak_portable(float *sink, int64_t rounds) {
    vector4 sums[8] = {{0}};
    for (int i = 0; i < 8; i++)
        sums[i] += (float)i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < 8; i++)
            sums[i] = sums[i] * 0.999f + 1e-3f;
    for (int i = 1; i < 8; i++)
        sums[0] += sums[i];
    *sink = sums[0][0];
    return (double)rounds * 8 * 4 * 2;
}

double bench_seconds(int n_threads) {
    struct timespec now;
    clock_gettime(n_threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

const char *bench_machine(void) {
    static char text[160];
    cpu_features features = cpu_features_detect();
    snprintf(text, sizeof text, "%s; %d threads; %s", features.model, features.threads,
#if defined(__clang__)
             "clang " __clang_version__
#else
             "gcc " __VERSION__
#endif
    );
    for (char *c = text; *c; c++)
        if (*c == ',')
            *c = ';';
    return text;
}

double bench_peak_gflops(const char *kernels, int n_threads) {
    peak_loop *loop = peak_portable;
#if defined(__x86_64__)
    if (!strcmp(kernels, "avx2"))
        loop = peak_avx2;
    if (!strcmp(kernels, "avx512"))
        loop = peak_avx512;
#endif
    double best = 0;
    for (int repeat = 0; repeat < 5; repeat++) {
        double flops = 0, start = bench_seconds(n_threads);
#pragma omp parallel num_threads(n_threads) reduction(+ : flops)
        {
            float sink;
            flops += loop(&sink, 4000000);
            *(volatile float *)&sink;
        }
        double rate = flops / (bench_seconds(n_threads) - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}
