/* The CPU generator of PyTorch 2.15, draw for draw: mt19937 and the distributions on it. PEFT
 * methods draw constants from a seed and save the seed alone, so these must come out in the same
 * bits.
 *
 * The last bit of uniform and normal draws follows PyTorch's AVX2 build (fused multiply-adds, the
 * log and sincos of Cephes in normal draws of 16 and more), which nearly every x86-64 installation
 * runs. Integers and permutations are the same everywhere. Random choices of our own are rng.h's.
 */
#ifndef GRAFT_BASE_TORCH_RANDOM_H
#define GRAFT_BASE_TORCH_RANDOM_H

#include "base/status.h"

enum { TORCH_RANDOM_WORDS = 624 };

typedef struct torch_random {
    uint32_t state[TORCH_RANDOM_WORDS];
    int32_t next;         /* word of the state that is drawn next */
    bool has_kept_normal; /* normal draws of fewer than 16 elements come in pairs */
    double kept_normal;
} torch_random;

/* Of a torch.Generator() that was given none. */
#define TORCH_RANDOM_SEED_DEFAULT ((uint64_t)67280421310721)

/* torch.manual_seed(seed), torch.Generator().manual_seed(seed) */
void torch_random_seed(torch_random *, uint64_t seed);
uint32_t torch_random_u32(torch_random *);
uint64_t torch_random_u64(torch_random *);

/* torch.randint(low, high, [n]); low < high */
void torch_random_integers(torch_random *, int64_t *out, int64_t n, int64_t low, int64_t high);
/* torch.randperm(n)[:count], count <= n: `out` [count]. Where only the head is wanted of n below
 * 2^32 / 20, memory and time go with count, and the generator is left count draws on (torch: n -
 * 1).
 */
graft_status torch_random_permutation(torch_random *, int64_t *out, int64_t count, int64_t n,
                                      graft_error *);

/* Contiguous float32 tensors of n elements. */
void torch_random_uniform(torch_random *, float *out, int64_t n, double from, double to);
void torch_random_normal(torch_random *, float *out, int64_t n, double mean, double deviation);
/* nn.init.kaiming_uniform_(tensor, a): fan_in is the product of all sizes but the first. */
void torch_random_kaiming_uniform(torch_random *, float *out, int64_t n, int64_t fan_in, double a);

#endif
