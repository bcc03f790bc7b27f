#include "base/numpy_random.h"

#include "base/memory.h"

#include <stdlib.h>

/* ---- SeedSequence (numpy/random/bit_generator.pyx) ---- */

enum { POOL_WORDS = 4 };

static uint32_t hash_word(uint32_t value, uint32_t *constant, uint32_t multiplier) {
    value ^= *constant;
    *constant *= multiplier;
    value *= *constant;
    return value ^ value >> 16;
}

static uint32_t mix_words(uint32_t x, uint32_t y) {
    uint32_t mixed = 0xCA01F9DDU * x - 0x4973F715U * y;
    return mixed ^ mixed >> 16;
}

static void seed_words(uint64_t words[POOL_WORDS], uint64_t seed) {
    const uint32_t entropy[POOL_WORDS] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t pool[POOL_WORDS], constant = 0x43B0D7E5U;
    for (int i = 0; i < POOL_WORDS; i++)
        pool[i] = hash_word(entropy[i], &constant, 0x931E8875U);
    for (int from = 0; from < POOL_WORDS; from++)
        for (int to = 0; to < POOL_WORDS; to++)
            if (from != to)
                pool[to] = mix_words(pool[to], hash_word(pool[from], &constant, 0x931E8875U));
    constant = 0x8B51F9DDU;
    for (int i = 0; i < POOL_WORDS; i++) {
        uint32_t low = hash_word(pool[2 * i % POOL_WORDS], &constant, 0x58F38DEDU);
        uint32_t high = hash_word(pool[(2 * i + 1) % POOL_WORDS], &constant, 0x58F38DEDU);
        words[i] = (uint64_t)high << 32 | low;
    }
}

/* ---- PCG64 (XSL RR 128/64) ---- */

/* state = state * multiplier + step, modulo 2^128 */
static void advance(numpy_random *r) {
    const uint64_t high = 0x2360ED051FC65DA4U, low = 0x4385DF649FCCF645U;
    uint64_t a0 = r->state_low & 0xFFFFFFFFU, a1 = r->state_low >> 32, b0 = low & 0xFFFFFFFFU,
             b1 = low >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & 0xFFFFFFFFU);
    uint64_t upper = a1 * b1 + (middle >> 32) + (other >> 32);
    uint64_t new_low = r->state_low * low,
             new_high = upper + r->state_high * low + r->state_low * high;
    r->state_low = new_low + r->step_low;
    r->state_high = new_high + r->step_high + (r->state_low < new_low);
}

void numpy_random_seed(numpy_random *r, uint64_t seed) {
    uint64_t words[POOL_WORDS];
    seed_words(words, seed);
    *r = (numpy_random){.step_high = words[2] << 1 | words[3] >> 63, .step_low = words[3] << 1 | 1};
    advance(r);
    r->state_low += words[1];
    r->state_high += words[0] + (r->state_low < words[1]);
    advance(r);
}

uint64_t numpy_random_u64(numpy_random *r) {
    advance(r);
    uint64_t mixed = r->state_high ^ r->state_low;
    unsigned turn = (unsigned)(r->state_high >> 58);
    return mixed >> turn | mixed << (-turn & 63);
}

uint32_t numpy_random_u32(numpy_random *r) {
    if (r->has_kept) {
        r->has_kept = false;
        return r->kept;
    }
    uint64_t word = numpy_random_u64(r);
    r->has_kept = true;
    r->kept = (uint32_t)(word >> 32);
    return (uint32_t)word;
}

/* Uniform in [0, last], last below 2^32 - 1, by Lemire's method. */
static uint32_t below_or_at(numpy_random *r, uint32_t last) {
    if (last == 0)
        return 0;
    uint32_t bound = last + 1;
    uint64_t product = (uint64_t)numpy_random_u32(r) * bound;
    if ((uint32_t)product < bound) {
        uint32_t least = (UINT32_MAX - last) % bound;
        while ((uint32_t)product < least)
            product = (uint64_t)numpy_random_u32(r) * bound;
    }
    return (uint32_t)(product >> 32);
}

/* ---- Orders and choices ---- */

static void exchange(int64_t *a, int64_t *b) {
    int64_t kept = *a;
    *a = *b;
    *b = kept;
}

/* Places n - 1 down to `first` get a value from before. */
static void shuffle_from(numpy_random *r, int64_t *values, int64_t n, int64_t first) {
    for (int64_t i = n - 1; i >= first; i--)
        exchange(&values[below_or_at(r, (uint32_t)i)], &values[i]);
}

/* Uniform in [0, last]: the low bits of words, until they are no more. */
static uint32_t masked(numpy_random *r, uint32_t last) {
    uint32_t mask = last, value;
    for (unsigned shift = 1; shift < 32; shift *= 2)
        mask |= mask >> shift;
    do
        value = numpy_random_u32(r) & mask;
    while (value > last);
    return value;
}

/* NumPy draws otherwise here than inside choice(). */
void numpy_random_shuffle(numpy_random *r, int64_t *values, int64_t n) {
    for (int64_t i = n - 1; i >= 1; i--)
        exchange(&values[masked(r, (uint32_t)i)], &values[i]);
}

/* The end of a shuffled run of all numbers. */
static graft_status choose_by_tail(numpy_random *r, int64_t *out, int64_t count, int64_t n,
                                   graft_error *err) {
    int64_t *all = mem_array((size_t)n, sizeof *all);
    if (!all)
        return error_memory(err, (size_t)n * sizeof *all, "a choice of indices");
    for (int64_t i = 0; i < n; i++)
        all[i] = i;
    shuffle_from(r, all, n, n - count > 1 ? n - count : 1);
    for (int64_t i = 0; i < count; i++)
        out[i] = all[n - count + i];
    free(all);
    return GRAFT_OK;
}

/* Floyd's: for each j of the last `count` numbers, one from [0, j], or j itself where that one is
 * taken; then shuffled. */
static graft_status choose_by_floyd(numpy_random *r, int64_t *out, int64_t count, int64_t n,
                                    graft_error *err) {
    unsigned char *taken = mem_array((size_t)n, 1);
    if (!taken)
        return error_memory(err, (size_t)n, "a choice of indices");
    for (int64_t j = n - count; j < n; j++) {
        int64_t value = below_or_at(r, (uint32_t)j);
        if (taken[value])
            value = j;
        taken[value] = 1;
        out[j - n + count] = value;
    }
    shuffle_from(r, out, count, 1);
    free(taken);
    return GRAFT_OK;
}

graft_status numpy_random_choice(numpy_random *r, int64_t *out, int64_t count, int64_t n,
                                 graft_error *err) {
    return n > 10000 && count > n / 50 ? choose_by_tail(r, out, count, n, err)
                                       : choose_by_floyd(r, out, count, n, err);
}
