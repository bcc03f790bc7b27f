#include "backend/cpu/kernels.h"

#include <pthread.h>

/* Rising order: choose takes the last one that the features allow. */
enum {
    PORTABLE,
#if defined(__x86_64__)
    AVX2,
    AVX512,
#endif
    N_KERNELS
};

static cpu_kernels tables[N_KERNELS];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void fill_tables(void) {
    tables[PORTABLE] = (cpu_kernels){"portable", gemm_kernels_portable(), row_kernels_portable()};
#if defined(__x86_64__)
    tables[AVX2] = (cpu_kernels){"avx2", gemm_kernels_avx2(), row_kernels_avx2()};
    tables[AVX512] = (cpu_kernels){"avx512", gemm_kernels_avx512(), row_kernels_avx512()};
#endif
}

static bool is_allowed(size_t i, const cpu_features *features) {
    (void)features;
#if defined(__x86_64__)
    if (i == AVX2)
        return features->avx2 && features->f16c;
    if (i == AVX512)
        return features->avx512 && features->avx2 && features->f16c;
#endif
    return i == PORTABLE;
}

const cpu_kernels *cpu_kernels_at(size_t i) {
    pthread_once(&tables_once, fill_tables);
    return i < N_KERNELS ? &tables[i] : NULL;
}

const cpu_kernels *cpu_kernels_choose(const cpu_features *features) {
    size_t best = N_KERNELS - 1;
    while (!is_allowed(best, features))
        best--;
    return cpu_kernels_at(best);
}

const char *backend_cpu_kernels(const cpu_features *features) {
    return cpu_kernels_choose(features)->name;
}
