/* NumPy's default generator (np.random.default_rng(seed): SeedSequence and PCG64), draw for draw,
 * for the one thing that a PEFT method draws with it: shuffled indices. */
#ifndef GRAFT_BASE_NUMPY_RANDOM_H
#define GRAFT_BASE_NUMPY_RANDOM_H

#include "base/status.h"

typedef struct numpy_random {
    uint64_t state_high, state_low; /* 128 bits */
    uint64_t step_high, step_low;
    uint32_t kept; /* the upper half of the last 64-bit word, when only 32 bits were wanted */
    bool has_kept;
} numpy_random;

void numpy_random_seed(numpy_random *, uint64_t seed);
uint64_t numpy_random_u64(numpy_random *);
uint32_t numpy_random_u32(numpy_random *);
/* Generator.shuffle(values) */
void numpy_random_shuffle(numpy_random *, int64_t *values, int64_t n);
/* Generator.choice(n, size=count, replace=False); count <= n. */
graft_status numpy_random_choice(numpy_random *, int64_t *out, int64_t count, int64_t n,
                                 graft_error *);

#endif
