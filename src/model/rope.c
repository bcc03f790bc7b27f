/* Rotary tables, with Transformers' formulas (modeling_rope_utils.py) and its roundings:
 * frequencies and angles are f32 there, and an angle's rounding grows with the position. */
#include "model/transformer.h"

#include <math.h>

static const double two_pi = 6.283185307179586;

/* 1 / theta^(2i / head_dim) */
static float plain_frequency(float theta, int32_t i, int32_t head_dim) {
    float exponent = (float)(2 * i) / (float)head_dim;
    return 1.0f / (float)pow((double)theta, (double)exponent);
}

static float dynamic_theta(const rope_spec *rope, int32_t head_dim, int32_t length) {
    if (length <= rope->original_max_positions)
        return (float)rope->theta;
    float ratio = (float)rope->factor * (float)length / (float)rope->original_max_positions -
                  (float)(rope->factor - 1);
    return (float)rope->theta * powf(ratio, (float)((double)head_dim / (head_dim - 2)));
}

/* The dimension whose wavelength makes so many rotations over the original length. */
static double yarn_correction(const rope_spec *rope, int32_t head_dim, double rotations) {
    return head_dim * log(rope->original_max_positions / (rotations * two_pi)) /
           (2 * log(rope->theta));
}

static float yarn_frequency(const rope_spec *rope, int32_t i, int32_t head_dim) {
    double low = yarn_correction(rope, head_dim, rope->beta_fast);
    double high = yarn_correction(rope, head_dim, rope->beta_slow);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, head_dim - 1);
    if (low == high)
        high += 0.001; /* as the reference keeps from dividing by zero */
    float ramp = ((float)i - (float)low) / (float)(high - low);
    float keep = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);
    float power =
        (float)pow((double)(float)rope->theta, (double)((float)(2 * i) / (float)head_dim));
    return 1.0f / ((float)rope->factor * power) * (1.0f - keep) + 1.0f / power * keep;
}

static float llama3_frequency(const rope_spec *rope, int32_t i, int32_t head_dim) {
    float frequency = plain_frequency((float)rope->theta, i, head_dim);
    float wavelength = (float)two_pi / frequency;
    double low_wavelength = rope->original_max_positions / rope->low_freq_factor;
    double high_wavelength = rope->original_max_positions / rope->high_freq_factor;
    float scaled = frequency / (float)rope->factor;
    if (wavelength < (float)high_wavelength)
        return frequency;
    if (wavelength > (float)low_wavelength)
        return scaled;
    float smooth =
        ((float)rope->original_max_positions / wavelength - (float)rope->low_freq_factor) /
        (float)(rope->high_freq_factor - rope->low_freq_factor);
    return (1.0f - smooth) * frequency / (float)rope->factor + smooth * frequency;
}

/* `length`: positions of the row; dynamic and longrope look at it. */
static float rope_frequency(const rope_spec *rope, int32_t i, int32_t length) {
    const float *factors;
    float exponent;
    switch (rope->kind) {
    case ROPE_DEFAULT:
        break;
    case ROPE_LINEAR:
        return plain_frequency((float)rope->theta, i, rope->dim) / (float)rope->factor;
    case ROPE_DYNAMIC:
        return plain_frequency(dynamic_theta(rope, rope->dim, length), i, rope->dim);
    case ROPE_YARN:
        return yarn_frequency(rope, i, rope->dim);
    case ROPE_LLAMA3:
        return llama3_frequency(rope, i, rope->dim);
    case ROPE_LONGROPE:
        factors = length > rope->original_max_positions ? rope->long_factors : rope->short_factors;
        exponent = (float)(2 * i) / (float)rope->dim;
        return 1.0f / (factors[i] * (float)pow((double)(float)rope->theta, (double)exponent));
    }
    return plain_frequency((float)rope->theta, i, rope->dim);
}

void rope_fill(float *cos_out, float *sin_out, const rope_spec *rope, const batch *b) {
    int32_t half = rope->dim / 2;
    bool is_scaled = rope->kind == ROPE_YARN || rope->kind == ROPE_LONGROPE;
    float factor = is_scaled ? (float)rope->attention_factor : 1.0f;
    for (const segment *s = b->segments; s < b->segments + b->n_segments; s++) {
        int32_t n = s->token_end - s->token_begin;
        for (int32_t i = 0; i < half; i++) {
            float frequency = rope_frequency(rope, i, s->position_first + n);
            for (int32_t t = 0; t < n; t++) {
                float angle = (float)(s->position_first + t) * frequency;
                int64_t at = (int64_t)(s->token_begin + t) * half + i;
                cos_out[at] = (float)cos((double)angle) * factor;
                sin_out[at] = (float)sin((double)angle) * factor;
            }
        }
    }
}
