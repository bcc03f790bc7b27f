/* Random numbers. Two kinds: a sequential stream (sampling, shuffling, initial values) whose whole
 * state is four words and can be saved; and a counter-based function (dropout) whose value depends
 * only on its coordinates, never on order or thread. Both are Philox 4x32-10 (Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", 2011). */
#ifndef GRAFT_BASE_RNG_H
#define GRAFT_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* Four random words from a 128-bit counter and a 64-bit key. */
void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

typedef struct rng {
    uint64_t seed, stream; /* different streams of one seed are independent */
    uint64_t position;     /* words drawn so far */
} rng;

rng rng_create(uint64_t seed, uint64_t stream);
uint32_t rng_u32(rng *);
uint64_t rng_below(rng *, uint64_t bound); /* unbiased, in [0, bound); bound > 0 */
double rng_uniform(rng *);                 /* [0, 1), 53 bits */
double rng_normal(rng *);                  /* mean 0, deviation 1 (Box-Muller; draws four words) */
void rng_shuffle(rng *, uint64_t *values, size_t n); /* Fisher-Yates */

#endif
