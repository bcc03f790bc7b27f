#include "bench/peak.h"

#include <immintrin.h>

double peak_avx2(float *sink, int64_t rounds) {
    __m256 sums[12], factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps(1e-3f);
    for (int i = 0; i < 12; i++)
        sums[i] = _mm256_set1_ps((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < 12; i++)
            sums[i] = _mm256_fmadd_ps(sums[i], factor, term);
    __m256 total = sums[0];
    for (int i = 1; i < 12; i++)
        total = _mm256_add_ps(total, sums[i]);
    float values[8];
    _mm256_storeu_ps(values, total);
    *sink = values[0];
    return (double)rounds * 12 * 8 * 2;
}
