/* The fused multiply-add rate of one thread, from registers alone: what products are compared with.
 */
#ifndef GRAFT_BENCH_PEAK_H
#define GRAFT_BENCH_PEAK_H

#include <stdint.h>

/* Runs about `rounds` times 16 vector multiply-adds; returns the floating-point operations done.
 * *sink keeps them. */
typedef double peak_loop(float *sink, int64_t rounds);
peak_loop peak_portable, peak_avx2, peak_avx512;

/* Elapsed time; of one thread, its processor time, which busy neighbours do not lengthen. */
double bench_seconds(int n_threads);
/* "AMD EPYC ..., 2 threads, gcc 12.2 -O3": names a row's machine and build, without commas. */
const char *bench_machine(void);
/* The rate with n threads of the kernels of this name. */
double bench_peak_gflops(const char *kernels, int n_threads);

#endif
