/* The row kernels, written once: each file of an instruction set includes this under its own flags,
 * and its vectors have that set's width. Multiply-adds are not contracted (-ffp-contract=off):
 * rounding is as written. */
#ifndef GRAFT_BACKEND_CPU_ROWS_BODY_H
#define GRAFT_BACKEND_CPU_ROWS_BODY_H

#include "backend/cpu/kernels.h"

#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* Vectors passed between inlined functions: no call has them in its ABI. */
#pragma GCC diagnostic ignored "-Wpsabi"

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif
enum { LANES = VECTOR_BYTES / 4, SUM_ELEMENTS = 2048 /* longest f32 sum over a vocabulary */ };

typedef float lanes __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t lanes_int __attribute__((vector_size(VECTOR_BYTES)));
typedef double wide __attribute__((vector_size(VECTOR_BYTES)));
typedef float wide_source __attribute__((vector_size(VECTOR_BYTES / 2)));

#define INLINE static inline __attribute__((always_inline))

INLINE lanes lanes_of(float value) {
    return value - (lanes){0};
}

INLINE lanes lanes_load(const float *x) {
    lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

INLINE void lanes_store(float *y, lanes v) {
    memcpy(y, &v, sizeof v);
}

/* The last n < LANES elements of a row, and `beyond` after them. */
INLINE lanes lanes_load_part(const float *x, int64_t n, float beyond) {
    float part[LANES];
    for (int64_t i = 0; i < LANES; i++)
        part[i] = i < n ? x[i] : beyond;
    return lanes_load(part);
}

INLINE void lanes_store_part(float *y, lanes v, int64_t n) {
    float part[LANES];
    lanes_store(part, v);
    for (int64_t i = 0; i < n; i++)
        y[i] = part[i];
}

/* Elements i .. of a row of n: a whole vector, or what is left of the row. */
INLINE lanes row_get(const float *x, int64_t i, int64_t n) {
    return n - i >= LANES ? lanes_load(x + i) : lanes_load_part(x + i, n - i, 0);
}

INLINE void row_put(float *y, lanes v, int64_t i, int64_t n) {
    if (n - i >= LANES)
        lanes_store(y + i, v);
    else
        lanes_store_part(y + i, v, n - i);
}

/* mask ? a : b, by lane; masks are all ones or zero. */
INLINE lanes lanes_select(lanes_int mask, lanes a, lanes b) {
    return (lanes)((mask & (lanes_int)a) | (~mask & (lanes_int)b));
}

INLINE float lanes_sum(lanes v) {
    float x[LANES];
    lanes_store(x, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            x[i] += x[i + width];
    return x[0];
}

/* The larger; a NaN in b is skipped. */
INLINE lanes lanes_max(lanes a, lanes b) {
    return lanes_select(b > a, b, a);
}

/* 2^k for k in [-126, 127], by its bits. */
INLINE lanes lanes_power_of_two(lanes_int k) {
    return (lanes)((k + 127) << 23);
}

/* Splits x = k ln 2 + r, |r| <= ln 2 / 2, and gives e^r by Cephes' polynomial (Moshier). */
INLINE lanes lanes_exp_split(lanes_int *k, lanes x) {
    const lanes rounder = lanes_of(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    lanes shifted = x * 1.44269504088896341f + rounder;
    *k = (lanes_int)shifted - (lanes_int)rounder;
    lanes whole = shifted - rounder;
    lanes r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r) + r + 1.0f;
}

/* e^x within 2e-7 of itself. 2^k is multiplied in two steps, so that results reach infinity and the
 * subnormals as they should; NaN stays NaN. */
INLINE lanes lanes_exp(lanes x) {
    const lanes highest = lanes_of(89.0f), lowest = lanes_of(-104.0f);
    x = lanes_select(x > highest, highest, x);
    x = lanes_select(x < lowest, lowest, x);
    lanes_int k;
    lanes p = lanes_exp_split(&k, x);
    lanes_int half = k >> 1;
    return p * lanes_power_of_two(half) * lanes_power_of_two(k - half);
}

/* The same for x <= 88, where it is used most, at two thirds of the work: below e^-87 (1e-38) it
 * gives zero. */
INLINE lanes lanes_exp_probability(lanes x) {
    lanes_int k;
    lanes p = lanes_exp_split(&k, x);
    lanes value = p * lanes_power_of_two(k);
    return (lanes)(~(x < -87.0f) & (lanes_int)value); /* NaN compares false: it stays */
}

INLINE lanes lanes_sigmoid(lanes x) {
    return 1.0f / (1.0f + lanes_exp(-x));
}

INLINE void lanes_root(lanes *v) {
    float x[LANES];
    lanes_store(x, *v);
    for (int i = 0; i < LANES; i++)
        x[i] = sqrtf(x[i]);
    *v = lanes_load(x);
}

/* ---- plain rows ---- */

static void row_load(float *y, const void *stored, dtype type, int64_t n) {
    dtype_load_f32(y, stored, type, (size_t)n);
}

static void row_fill(float *y, float value, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] = value;
}

static void row_add(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        row_put(y, row_get(y, i, n) + row_get(x, i, n), i, n);
}

static void row_scale(float *y, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        row_put(y, row_get(y, i, n) * factor, i, n);
}

static void row_add_scaled(float *y, const float *x, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        row_put(y, row_get(y, i, n) + row_get(x, i, n) * factor, i, n);
}

static float row_dot(const float *a, const float *b, int64_t n) {
    lanes sum = {0};
    for (int64_t i = 0; i < n; i += LANES)
        sum += row_get(a, i, n) * row_get(b, i, n);
    return lanes_sum(sum);
}

static float row_max(const float *x, int64_t n) {
    lanes largest = lanes_of(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        largest = lanes_max(largest, lanes_load(x + i));
    if (i < n)
        largest = lanes_max(largest, lanes_load_part(x + i, n - i, -INFINITY));
    float best = -INFINITY;
    for (int l = 0; l < LANES; l++)
        best = largest[l] > best ? largest[l] : best;
    return best;
}

/* ---- norms, rotation, activation ---- */

static float row_mean(const float *x, int64_t n) {
    lanes sum = {0};
    for (int64_t i = 0; i < n; i += LANES)
        sum += row_get(x, i, n);
    return lanes_sum(sum) / (float)n;
}

INLINE lanes norm_weight_get(const norm_row *row, int64_t i, int64_t n) {
    return (row->weight ? row_get(row->weight, i, n) : lanes_of(1.0f)) + row->offset;
}

/* Elements past the row count as 0, not as -mean. */
static float centred_squares(const float *x, float mean, int64_t n) {
    lanes sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes d = lanes_load(x + i) - mean;
        sum += d * d;
    }
    if (i < n) {
        lanes d = lanes_load_part(x + i, n - i, mean) - mean;
        sum += d * d;
    }
    return lanes_sum(sum);
}

static float row_norm_fwd(float *y, const float *x, const norm_row *row, int64_t n) {
    float mean = row->is_centred ? row_mean(x, n) : 0.0f;
    float squares = row->is_centred ? centred_squares(x, mean, n) : row_dot(x, x, n);
    float rstd = 1.0f / sqrtf(squares / (float)n + row->eps);
    for (int64_t i = 0; i < n; i += LANES) {
        lanes value = (row_get(x, i, n) - mean) * rstd * norm_weight_get(row, i, n);
        row_put(y, row->bias ? value + row_get(row->bias, i, n) : value, i, n);
    }
    return rstd;
}

/* With xhat = (x - mean) rstd, g = w dy: dx = rstd (g - mean(g) - xhat mean(g xhat)); mean(g) is
 * left out where x is not centred. */
static void row_norm_bwd(float *dx, const float *dy, const float *x, const norm_row *row,
                         float rstd, int64_t n, bool add) {
    float mean = row->is_centred ? row_mean(x, n) : 0.0f;
    lanes sum = {0}, sum_g = {0};
    for (int64_t i = 0; i < n; i += LANES) { /* dy past the row is 0 */
        lanes g = norm_weight_get(row, i, n) * row_get(dy, i, n);
        sum += g * ((row_get(x, i, n) - mean) * rstd);
        sum_g += g;
    }
    float projection = lanes_sum(sum) / (float)n;
    float mean_g = row->is_centred ? lanes_sum(sum_g) / (float)n : 0.0f;
    for (int64_t i = 0; i < n; i += LANES) {
        lanes xhat = (row_get(x, i, n) - mean) * rstd;
        lanes g = norm_weight_get(row, i, n) * row_get(dy, i, n);
        lanes value = rstd * (g - mean_g - xhat * projection);
        row_put(dx, add ? row_get(dx, i, n) + value : value, i, n);
    }
}

static void row_norm_weight_bwd(float *dw, const float *dy, const float *x, float mean, float rstd,
                                int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        row_put(dw, row_get(dw, i, n) + row_get(dy, i, n) * ((row_get(x, i, n) - mean) * rstd), i,
                n);
}

static void row_rope(float *x, const float *cosines, const float *sines, int64_t half,
                     bool inverse) {
    float sign = inverse ? -1.0f : 1.0f;
    for (int64_t i = 0; i < half; i += LANES) {
        lanes c = row_get(cosines, i, half), s = row_get(sines, i, half) * sign;
        lanes first = row_get(x, i, half), second = row_get(x + half, i, half);
        row_put(x, first * c - second * s, i, half);
        row_put(x + half, second * c + first * s, i, half);
    }
}

static void row_rope_interleaved(float *x, const float *cosines, const float *sines, int64_t half,
                                 bool inverse) {
    float sign = inverse ? -1.0f : 1.0f;
    for (int64_t i = 0; i < half; i++) {
        float first = x[2 * i], second = x[2 * i + 1], s = sines[i] * sign;
        x[2 * i] = first * cosines[i] - second * s;
        x[2 * i + 1] = second * cosines[i] + first * s;
    }
}

enum { GATE_CLAMPED = N_ACTIVATIONS }; /* gate_call.limit > 0 */

/* Phi(x), the normal distribution's share below x; libm's erfcf, lane by lane. */
INLINE lanes lanes_normal_share(lanes v) {
    float x[LANES];
    lanes_store(x, v);
    for (int i = 0; i < LANES; i++)
        x[i] = 0.5f * erfcf(x[i] * -0.707106781f);
    return lanes_load(x);
}

/* 2 u of GELU's approximation, x 0.5 (1 + tanh u) = x sigmoid(2 u). */
INLINE lanes lanes_gelu_argument(lanes x) {
    return 1.59576912f * (x + 0.044715f * x * x * x);
}

/* x above the limit becomes the limit; NaN stays. */
INLINE lanes lanes_at_most(lanes x, float limit) {
    return lanes_select(x > limit, lanes_of(limit), x);
}

INLINE lanes lanes_activation(lanes x, const int kind, const gate_call *call) {
    switch (kind) {
    case ACTIVATION_GELU:
        return x * lanes_normal_share(x);
    case ACTIVATION_GELU_TANH:
        return x * lanes_sigmoid(lanes_gelu_argument(x));
    case ACTIVATION_RELU:
        return lanes_select(x < 0.0f, lanes_of(0), x);
    case GATE_CLAMPED:
        x = lanes_at_most(x, call->limit);
        return x * lanes_sigmoid(x * call->alpha);
    default:
        return x * lanes_sigmoid(x);
    }
}

INLINE lanes lanes_activation_slope(lanes x, const int kind, const gate_call *call) {
    lanes s;
    switch (kind) {
    case ACTIVATION_GELU:
        return lanes_normal_share(x) + x * lanes_exp(x * x * -0.5f) * 0.398942280f;
    case ACTIVATION_GELU_TANH:
        s = lanes_sigmoid(lanes_gelu_argument(x));
        return s + x * s * (1.0f - s) * (1.59576912f * (1.0f + 0.134145f * x * x));
    case ACTIVATION_RELU:
        return lanes_select(x > 0.0f, lanes_of(1), x * 0.0f); /* NaN stays */
    case GATE_CLAMPED:
        s = lanes_sigmoid(x * call->alpha);
        return lanes_select(x > call->limit, lanes_of(0),
                            s * (1.0f + call->alpha * x * (1.0f - s)));
    default:
        s = lanes_sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    }
}

/* What multiplies the activation. */
INLINE lanes lanes_factor(lanes up, const int kind, const gate_call *call) {
    if (kind != GATE_CLAMPED)
        return up;
    up = lanes_at_most(up, call->limit);
    return lanes_select(up < -call->limit, lanes_of(-call->limit), up) + 1.0f;
}

/* `kind` is a constant wherever this is inlined. */
INLINE void gated_fwd_of(float *h, const float *gate, const float *up, const int kind,
                         const gate_call *call, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        lanes value = lanes_activation(row_get(gate, i, n), kind, call);
        row_put(h, up ? value * lanes_factor(row_get(up, i, n), kind, call) : value, i, n);
    }
}

INLINE void gated_bwd_of(float *d_gate, float *d_up, const float *dh, const float *gate,
                         const float *up, const int kind, const gate_call *call, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        lanes g = row_get(gate, i, n), d = row_get(dh, i, n);
        lanes slope = lanes_activation_slope(g, kind, call);
        if (!up) {
            row_put(d_gate, d * slope, i, n);
            continue;
        }
        lanes u = row_get(up, i, n), du = d * lanes_activation(g, kind, call);
        if (kind == GATE_CLAMPED)
            du = lanes_select((u > call->limit) | (u < -call->limit), lanes_of(0), du);
        row_put(d_gate, d * lanes_factor(u, kind, call) * slope, i, n);
        row_put(d_up, du, i, n);
    }
}

static void row_gated_fwd(float *h, const float *gate, const float *up, const gate_call *call,
                          int64_t n) {
    switch (call->limit > 0 ? (int)GATE_CLAMPED : (int)call->kind) {
    case ACTIVATION_GELU:
        gated_fwd_of(h, gate, up, ACTIVATION_GELU, call, n);
        return;
    case ACTIVATION_GELU_TANH:
        gated_fwd_of(h, gate, up, ACTIVATION_GELU_TANH, call, n);
        return;
    case ACTIVATION_RELU:
        gated_fwd_of(h, gate, up, ACTIVATION_RELU, call, n);
        return;
    case GATE_CLAMPED:
        gated_fwd_of(h, gate, up, GATE_CLAMPED, call, n);
        return;
    default:
        gated_fwd_of(h, gate, up, ACTIVATION_SILU, call, n);
    }
}

static void row_gated_bwd(float *d_gate, float *d_up, const float *dh, const float *gate,
                          const float *up, const gate_call *call, int64_t n) {
    switch (call->limit > 0 ? (int)GATE_CLAMPED : (int)call->kind) {
    case ACTIVATION_GELU:
        gated_bwd_of(d_gate, d_up, dh, gate, up, ACTIVATION_GELU, call, n);
        return;
    case ACTIVATION_GELU_TANH:
        gated_bwd_of(d_gate, d_up, dh, gate, up, ACTIVATION_GELU_TANH, call, n);
        return;
    case ACTIVATION_RELU:
        gated_bwd_of(d_gate, d_up, dh, gate, up, ACTIVATION_RELU, call, n);
        return;
    case GATE_CLAMPED:
        gated_bwd_of(d_gate, d_up, dh, gate, up, GATE_CLAMPED, call, n);
        return;
    default:
        gated_bwd_of(d_gate, d_up, dh, gate, up, ACTIVATION_SILU, call, n);
    }
}

/* tanh x: a polynomial near 0 (Cephes, Moshier), else by e^(-2 |x|). */
INLINE lanes lanes_tanh(lanes x) {
    lanes z = x * x, size = lanes_select(x < 0.0f, -x, x);
    lanes p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    lanes e = lanes_exp(size * -2.0f);
    lanes far = (1.0f - e) / (1.0f + e);
    return lanes_select(size < 0.625f, x + x * z * p, lanes_select(x < 0.0f, -far, far));
}

static void row_soft_cap(float *y, float scale, float cap, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        row_put(y, lanes_tanh(row_get(y, i, n) * scale / cap) * cap, i, n);
}

static void row_soft_cap_slope(float *y, const float *x, float cap, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        lanes share = row_get(x, i, n) / cap;
        row_put(y, row_get(y, i, n) * (1.0f - share * share), i, n);
    }
}

/* ---- softmax ---- */

static float row_exp(float *p, const float *x, float shift, int64_t n) {
    lanes sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes e = lanes_exp_probability(lanes_load(x + i) - shift);
        lanes_store(p + i, e);
        sum += e;
    }
    if (i < n) {
        lanes e = lanes_exp_probability(lanes_load_part(x + i, n - i, -INFINITY) - shift);
        lanes_store_part(p + i, e, n - i);
        sum += e;
    }
    return lanes_sum(sum);
}

static void row_softmax_bwd(float *dp, const float *p, float delta, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        row_put(dp, row_get(p, i, n) * (row_get(dp, i, n) - delta) * scale, i, n);
}

/* Only the sum of exp(x - shift). */
static float exp_sum(const float *x, float shift, int64_t n) {
    lanes sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum += lanes_exp_probability(lanes_load(x + i) - shift);
    if (i < n)
        sum += lanes_exp_probability(lanes_load_part(x + i, n - i, -INFINITY) - shift);
    return lanes_sum(sum);
}

static float row_cross_entropy(float *logits, int32_t target, float weight, float cap, int64_t n,
                               bool gradient) {
    float largest = row_max(logits, n), logit = logits[target];
    double total = 0;
    for (int64_t i = 0; i < n; i += SUM_ELEMENTS) {
        int64_t count = n - i < SUM_ELEMENTS ? n - i : SUM_ELEMENTS;
        float *part = logits + i;
        total += (double)exp_sum(part, largest, count);
    }
    double log_total = log(total);
    float loss = (float)((double)largest - (double)logit + log_total);
    if (!gradient)
        return loss;
    float factor = (float)((double)weight / total);
    for (int64_t i = 0; i < n; i += LANES) {
        lanes x = row_get(logits, i, n), value = lanes_exp_probability(x - largest) * factor;
        if (cap > 0) {
            lanes share = x / cap;
            value = value * (1.0f - share * share);
        }
        row_put(logits, value, i, n);
    }
    float share = cap > 0 ? logit / cap : 0;
    logits[target] -= weight * (1.0f - share * share);
    return loss;
}

/* ---- dropout ---- */

enum { WORD_LANES = VECTOR_BYTES / 8, WORD_VECTORS = 2, COUNTERS = WORD_LANES * WORD_VECTORS };
enum { DROPOUT_ELEMENTS = 4 * COUNTERS };

/* 32-bit words, each in the low half of a 64-bit lane; the high halves hold anything. */
typedef uint64_t words __attribute__((vector_size(VECTOR_BYTES)));

/* Products of the low halves, in 64 bits. Only the processor's own instruction does this in one
 * step. */
INLINE words words_product(words a, words b) {
#if defined(__AVX512F__)
    return (words)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
    return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

/* Random words 0 .. DROPOUT_ELEMENTS - 1 from block `first` on: four for each counter of Philox
 * 4x32-10 (see base/rng.h); the counters run side by side. */
INLINE void dropout_draw(uint32_t random[DROPOUT_ELEMENTS], const dropout_row *row,
                         uint32_t first) {
    static const uint64_t count[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    words c[4][WORD_VECTORS], counting;
    memcpy(&counting, count, sizeof counting);
    for (int v = 0; v < WORD_VECTORS; v++) {
        c[0][v] = counting + (first + (uint32_t)(v * WORD_LANES));
        c[1][v] = (words){0} + row->stream;
        c[2][v] = (words){0} + (uint32_t)row->token_counter;
        c[3][v] = (words){0} + (row->token_counter >> 32);
    }
    const words m0 = (words){0} + 0xD2511F53u, m1 = (words){0} + 0xCD9E8D57u;
    uint32_t k0 = (uint32_t)row->key, k1 = (uint32_t)(row->key >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (int v = 0; v < WORD_VECTORS; v++) {
            words p0 = words_product(c[0][v], m0), p1 = words_product(c[2][v], m1);
            c[0][v] = (p1 >> 32) ^ c[1][v] ^ k0;
            c[1][v] = p1;
            c[2][v] = (p0 >> 32) ^ c[3][v] ^ k1;
            c[3][v] = p0;
        }
    uint64_t pairs[2][COUNTERS];
    for (int v = 0; v < WORD_VECTORS; v++)
        for (int half = 0; half < 2; half++) {
            words pair = (c[2 * half][v] & 0xFFFFFFFFu) | c[2 * half + 1][v] << 32;
            memcpy(&pairs[half][v * WORD_LANES], &pair, sizeof pair);
        }
    for (int l = 0; l < COUNTERS; l++)
        for (int half = 0; half < 2; half++) {
            random[4 * l + 2 * half] = (uint32_t)pairs[half][l];
            random[4 * l + 2 * half + 1] = (uint32_t)(pairs[half][l] >> 32);
        }
}

static void row_dropout(float *y, const float *x, const dropout_row *row, int64_t n, bool add) {
    const uint32_t threshold = row->threshold;
    const float factor = row->factor;
    for (int64_t i = 0; i < n; i += DROPOUT_ELEMENTS) {
        uint32_t random[DROPOUT_ELEMENTS];
        float factors[DROPOUT_ELEMENTS];
        dropout_draw(random, row, (uint32_t)(i / 4));
        for (int j = 0; j < DROPOUT_ELEMENTS; j++)
            factors[j] = random[j] >= threshold ? factor : 0;
        for (int64_t j = 0; j < DROPOUT_ELEMENTS && i + j < n; j += LANES) {
            /* A factor of zero, not a zero: NaN must not vanish. */
            lanes kept = row_get(x, i + j, n) * lanes_load(factors + j);
            row_put(y, add ? row_get(y, i + j, n) + kept : kept, i + j, n);
        }
    }
}

/* ---- optimizer ---- */

static double row_sum_squares(const float *x, int64_t n) {
    enum { WIDE = LANES / 2 };
    wide sum = {0};
    int64_t i = 0;
    for (; i + WIDE <= n; i += WIDE) {
        wide_source part;
        memcpy(&part, x + i, sizeof part);
        wide value = __builtin_convertvector(part, wide);
        sum += value * value;
    }
    double total = 0;
    for (int l = 0; l < WIDE; l++)
        total += sum[l];
    for (; i < n; i++)
        total += (double)x[i] * (double)x[i];
    return total;
}

static void row_adamw(float *p, const float *g, float *m, float *v, int64_t n,
                      const adamw_step *step) {
    const float gradient_scale = (float)step->gradient_scale;
    const float decay = (float)(1 - step->learning_rate * step->weight_decay);
    const float rest1 = (float)(1 - step->beta1);
    const float beta2 = (float)step->beta2, rest2 = (float)(1 - step->beta2);
    const float root_correction2 = (float)sqrt(step->bias_correction2);
    const float step_size = (float)(step->learning_rate / step->bias_correction1);
    const float epsilon = (float)step->epsilon;
    for (int64_t i = 0; i < n; i += LANES) {
        lanes gradient = row_get(g, i, n) * gradient_scale;
        lanes first = row_get(m, i, n), second = row_get(v, i, n) * beta2;
        first = first + (gradient - first) * rest1;
        second = second + gradient * gradient * rest2;
        lanes root = second;
        lanes_root(&root);
        lanes denominator = root / root_correction2 + epsilon;
        row_put(m, first, i, n);
        row_put(v, second, i, n);
        row_put(p, row_get(p, i, n) * decay - first / denominator * step_size, i, n);
    }
}

static const row_kernels row_kernels_here = {.load = row_load,
                                             .fill = row_fill,
                                             .add = row_add,
                                             .scale = row_scale,
                                             .add_scaled = row_add_scaled,
                                             .dot = row_dot,
                                             .max = row_max,
                                             .norm_fwd = row_norm_fwd,
                                             .norm_bwd = row_norm_bwd,
                                             .mean = row_mean,
                                             .norm_weight_bwd = row_norm_weight_bwd,
                                             .rope = row_rope,
                                             .rope_interleaved = row_rope_interleaved,
                                             .gated_fwd = row_gated_fwd,
                                             .gated_bwd = row_gated_bwd,
                                             .soft_cap = row_soft_cap,
                                             .soft_cap_slope = row_soft_cap_slope,
                                             .exp_row = row_exp,
                                             .softmax_bwd = row_softmax_bwd,
                                             .cross_entropy = row_cross_entropy,
                                             .dropout = row_dropout,
                                             .sum_squares = row_sum_squares,
                                             .adamw = row_adamw};

#endif
