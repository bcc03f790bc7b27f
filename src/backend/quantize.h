/* The one rule by which products in int8 round their operands.
 *
 * An operand's row is cut along the sum into blocks of 64 elements (the last may be shorter). A
 * block has one scale, so that an outlier spoils no more than its block:
 *
 *     largest = max |x|,  scale = largest / 127,  q = round(x * (127 / largest)), ties to even
 *
 * all in f32, so that every backend and instruction set gets the same integers. A block whose
 * largest is below 2^-119 is zero (127 / largest would overflow). A block with a NaN or an infinity
 * has the scale NaN, and its integers mean nothing. */
#ifndef GRAFT_BACKEND_QUANTIZE_H
#define GRAFT_BACKEND_QUANTIZE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { QUANTIZE_BLOCK = 64 };

/* The bits of |x|: as integers they are ordered like the values, NaN above infinity. */
static inline int32_t quantize_magnitude(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7FFFFFFF;
}

/* The scale of a block whose largest magnitude has these bits, and what its elements are multiplied
 * by. */
static inline float quantize_scale(float *inverse, int32_t largest_bits) {
    enum { INFINITY_BITS = 0x7F800000 };
    float largest;
    memcpy(&largest, &largest_bits, sizeof largest);
    *inverse = largest_bits >= INFINITY_BITS || largest < 0x1p-119f ? 0 : 127 / largest;
    if (largest_bits >= INFINITY_BITS)
        return NAN;
    return *inverse > 0 ? largest / 127 : 0;
}

/* Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the sum. */
static inline int8_t quantize_value(float x, float inverse) {
    const float shift = 0x1.8p23f;
    float shifted = x * inverse + shift;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (int8_t)(bits - 0x4B400000);
}

#endif
