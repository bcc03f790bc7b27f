#include "base/torch_random.h"

#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- mt19937 (Matsumoto and Nishimura, 1998) ---- */

enum { SHIFT_WORDS = 397 };

void torch_random_seed(torch_random *r, uint64_t seed) {
    r->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < TORCH_RANDOM_WORDS; i++)
        r->state[i] = 1812433253u * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
    r->next = TORCH_RANDOM_WORDS;
    r->has_kept_normal = false;
}

static void next_state(torch_random *r) {
    uint32_t *s = r->state;
    for (int i = 0; i < TORCH_RANDOM_WORDS; i++) {
        uint32_t mixed = (s[i] & 0x80000000u) | (s[(i + 1) % TORCH_RANDOM_WORDS] & 0x7fffffffu);
        s[i] =
            s[(i + SHIFT_WORDS) % TORCH_RANDOM_WORDS] ^ mixed >> 1 ^ (mixed & 1 ? 0x9908b0dfu : 0);
    }
    r->next = 0;
}

uint32_t torch_random_u32(torch_random *r) {
    if (r->next == TORCH_RANDOM_WORDS)
        next_state(r);
    uint32_t word = r->state[r->next++];
    word ^= word >> 11;
    word ^= word << 7 & 0x9d2c5680u;
    word ^= word << 15 & 0xefc60000u;
    return word ^ word >> 18;
}

uint64_t torch_random_u64(torch_random *r) {
    uint64_t high = torch_random_u32(r);
    return high << 32 | torch_random_u32(r);
}

/* ---- Integers ---- */

void torch_random_integers(torch_random *r, int64_t *out, int64_t n, int64_t low, int64_t high) {
    assert(low < high);
    uint64_t range = (uint64_t)high - (uint64_t)low;
    bool is_wide = range >= (uint64_t)1 << 28;
    for (int64_t i = 0; i < n; i++) {
        uint64_t word = is_wide ? torch_random_u64(r) : torch_random_u32(r);
        out[i] = (int64_t)(word % range + (uint64_t)low);
    }
}

/* A shuffle of 0..n-1 that keeps only the places which hold something else than their own number:
 * an open hash table. */
typedef struct sparse_shuffle {
    int64_t *place, *value; /* [room]; place -1: free */
    size_t room;            /* a power of two */
} sparse_shuffle;

/* The slot of a place: its own, or a free one. */
static size_t slot_of(const sparse_shuffle *s, int64_t place) {
    size_t slot = (size_t)((uint64_t)place * 0x9E3779B97F4A7C15u >> 20) & (s->room - 1);
    while (s->place[slot] != -1 && s->place[slot] != place)
        slot = (slot + 1) & (s->room - 1);
    return slot;
}

static int64_t value_at(const sparse_shuffle *s, int64_t place) {
    size_t slot = slot_of(s, place);
    return s->place[slot] == place ? s->value[slot] : place;
}

static void set_value(sparse_shuffle *s, int64_t place, int64_t value) {
    size_t slot = slot_of(s, place);
    s->place[slot] = place;
    s->value[slot] = value;
}

/* Fisher-Yates from the front: entry i is final after draw i. */
static graft_status permutation_head(torch_random *r, int64_t *out, int64_t count, int64_t n,
                                     graft_error *err) {
    sparse_shuffle s = {.room = 16};
    while (s.room < 4 * (size_t)count) /* two places a draw at most: half full */
        s.room *= 2;
    graft_status status = GRAFT_OK;
    s.place = mem_array(s.room, sizeof *s.place);
    s.value = mem_array(s.room, sizeof *s.value);
    if (!s.place || !s.value) {
        status = error_memory(err, 2 * s.room * sizeof *s.place, "a random permutation");
        goto cleanup;
    }
    memset(s.place, 0xff, s.room * sizeof *s.place);
    for (int64_t i = 0; i < count; i++) {
        int64_t chosen = i < n - 1 ? i + (int64_t)(torch_random_u32(r) % (uint64_t)(n - i)) : i;
        out[i] = value_at(&s, chosen);
        set_value(&s, chosen, value_at(&s, i));
    }
cleanup:
    free(s.place);
    free(s.value);
    return status;
}

/* The inside-out variant, whose head is known only at its end. */
static graft_status permutation_wide(torch_random *r, int64_t *out, int64_t count, int64_t n,
                                     graft_error *err) {
    int64_t *all = mem_array((size_t)n, sizeof *all);
    if (!all)
        return error_memory(err, (size_t)n * sizeof *all, "a random permutation");
    for (int64_t i = 0; i < n; i++) {
        int64_t j = (int64_t)(torch_random_u64(r) % (uint64_t)(i + 1));
        all[i] = all[j];
        all[j] = i;
    }
    memcpy(out, all, (size_t)count * sizeof *out);
    free(all);
    return GRAFT_OK;
}

graft_status torch_random_permutation(torch_random *r, int64_t *out, int64_t count, int64_t n,
                                      graft_error *err) {
    assert(0 <= count && count <= n);
    return n < UINT32_MAX / 20 ? permutation_head(r, out, count, n, err)
                               : permutation_wide(r, out, count, n, err);
}

/* ---- Reals ---- */

static float uniform(torch_random *r) {
    return (float)(torch_random_u32(r) & 0xffffffu) * 0x1p-24f;
}

void torch_random_uniform(torch_random *r, float *out, int64_t n, double from, double to) {
    float low = (float)from, high = (float)to;
    for (int64_t i = 0; i < n; i++) {
        float value = fmaf(uniform(r), high - low, low);
        out[i] = value == high ? low : value; /* rounded up to the open end */
    }
}

void torch_random_kaiming_uniform(torch_random *r, float *out, int64_t n, int64_t fan_in,
                                  double a) {
    double deviation = sqrt(2.0 / (1.0 + a * a)) / sqrt((double)fan_in);
    double bound = sqrt(3.0) * deviation;
    torch_random_uniform(r, out, n, -bound, bound);
}

/* Cephes' single-precision logarithm (Moshier), for normal numbers in (0, 1]. */
static float log_cephes(float x) {
    int exponent;
    float m = frexpf(x, &exponent); /* [0.5, 1) */
    float e = (float)exponent;
    if (m < 0.707106781186547524f) {
        e -= 1;
        m = m - 1.0f + m;
    } else {
        m = m - 1.0f;
    }
    static const float p[] = {7.0376836292E-2f,  -1.1514610310E-1f, 1.1676998740E-1f,
                              -1.2420140846E-1f, 1.4249322787E-1f,  -1.6668057665E-1f,
                              2.0000714765E-1f,  -2.4999993993E-1f, 3.3333331174E-1f};
    float z = m * m, y = p[0];
    for (size_t i = 1; i < sizeof p / sizeof *p; i++)
        y = fmaf(y, m, p[i]);
    y = fmaf(y * m, z, e * -2.12194440e-4f);
    y = fmaf(-0.5f, z, y);
    return fmaf(e, 0.693359375f, m + y);
}

/* Its sine and cosine, for angles in [0, 2 pi]. */
static void sincos_cephes(float angle, float *sine, float *cosine) {
    int32_t octant = ((int32_t)(angle * 1.27323954473516f) + 1) & ~1;
    float y = (float)octant;
    float x = fmaf(y, -0.78515625f, angle);
    x = fmaf(y, -2.4187564849853515625e-4f, x);
    x = fmaf(y, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(fmaf(2.443315711809948E-005f, z, -1.388731625493765E-003f), z,
                   4.166664568298827E-002f);
    c = fmaf(c * z, z, -0.5f * z) + 1.0f;
    float s = fmaf(fmaf(-1.9515295891E-4f, z, 8.3321608736E-3f), z, -1.6666654611E-1f);
    s = fmaf(s * z, x, x);
    bool is_swapped = octant & 2;
    *sine = is_swapped ? c : s;
    *cosine = is_swapped ? s : c;
    if (octant & 4)
        *sine = -*sine;
    if (!((octant - 2) & 4))
        *cosine = -*cosine;
}

/* 16 uniform numbers become normal ones, in pairs 8 apart (Box and Muller). */
static void normal_16(float *x, float mean, float deviation) {
    for (int i = 0; i < 8; i++) {
        float radius = sqrtf(-2.0f * log_cephes(1.0f - x[i])), sine, cosine;
        sincos_cephes((float)(2.0f * 3.14159265358979323846) * x[i + 8], &sine, &cosine);
        x[i] = fmaf(radius * cosine, deviation, mean);
        x[i + 8] = fmaf(radius * sine, deviation, mean);
    }
}

static double uniform_double(torch_random *r) {
    return (double)(torch_random_u64(r) & (((uint64_t)1 << 53) - 1)) * 0x1p-53;
}

static double normal_double(torch_random *r) {
    if (r->has_kept_normal) {
        r->has_kept_normal = false;
        return r->kept_normal;
    }
    double u1 = uniform_double(r), u2 = uniform_double(r);
    double radius = sqrt(-2.0 * log1p(-u2)), theta = 2.0 * 3.14159265358979323846 * u1;
    r->kept_normal = radius * sin(theta);
    r->has_kept_normal = true;
    return radius * cos(theta);
}

void torch_random_normal(torch_random *r, float *out, int64_t n, double mean, double deviation) {
    if (n < 16) {
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)fma(normal_double(r), deviation, mean);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = uniform(r);
    for (int64_t i = 0; i + 16 <= n; i += 16)
        normal_16(out + i, (float)mean, (float)deviation);
    if (n % 16 == 0)
        return;
    float *last = out + n - 16; /* all 16 are drawn again */
    for (int i = 0; i < 16; i++)
        last[i] = uniform(r);
    normal_16(last, (float)mean, (float)deviation);
}
