#include "tensor/dtype.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    uint8_t bytes;
} facts[N_DTYPES] = {
    [DTYPE_F32] = {"F32", 4},         [DTYPE_BF16] = {"BF16", 2}, [DTYPE_F16] = {"F16", 2},
    [DTYPE_F64] = {"F64", 8},         [DTYPE_I64] = {"I64", 8},   [DTYPE_I32] = {"I32", 4},
    [DTYPE_I16] = {"I16", 2},         [DTYPE_I8] = {"I8", 1},     [DTYPE_U8] = {"U8", 1},
    [DTYPE_U16] = {"U16", 2},         [DTYPE_U32] = {"U32", 4},   [DTYPE_U64] = {"U64", 8},
    [DTYPE_BOOL] = {"BOOL", 1},       [DTYPE_F8_E4M3] = {"F8_E4M3", 1},
    [DTYPE_F8_E5M2] = {"F8_E5M2", 1},
};

size_t dtype_bytes(dtype type) {
    return facts[type].bytes;
}

const char *dtype_name(dtype type) {
    return facts[type].name;
}

bool dtype_from_name(dtype *out, const char *name) {
    for (int i = 0; i < N_DTYPES; i++)
        if (!strcmp(facts[i].name, name)) {
            *out = (dtype)i;
            return true;
        }
    return false;
}

bool dtype_is_weight(dtype type) {
    return type == DTYPE_F32 || type == DTYPE_BF16 || type == DTYPE_F16;
}

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float bf16_to_f32(uint16_t stored) {
    return float_of_bits((uint32_t)stored << 16);
}

uint16_t f32_to_bf16(float value) {
    uint32_t bits = bits_of_float(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40u); /* NaN: keep it one after its low bits are gone */
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

float f16_to_f32(uint16_t stored) {
    uint32_t sign = (uint32_t)(stored & 0x8000u) << 16;
    uint32_t exponent = stored >> 10 & 31u, mantissa = stored & 1023u;
    if (exponent == 31)
        return float_of_bits(sign | 0x7F800000u | mantissa << 13);
    if (exponent == 0) { /* subnormal: mantissa * 2^-24 */
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float value) {
    uint32_t bits = bits_of_float(value);
    uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7FFFFFFFu;
    if (rest > 0x7F800000u)
        return (uint16_t)(sign | 0x7E00u);
    if (rest >= 0x47800000u) /* 65536 and above */
        return (uint16_t)(sign | 0x7C00u);
    if (rest < 0x38800000u) { /* below 2^-14: add a constant whose unit is the subnormal step */
        float magic = 0.5f + float_of_bits(rest);
        return (uint16_t)(sign | (bits_of_float(magic) - bits_of_float(0.5f)));
    }
    uint32_t rounded = rest + 0xFFFu + (rest >> 13 & 1u);
    return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

void dtype_load_f32(float *out, const void *stored, dtype type, size_t n) {
    const uint16_t *half = stored;
    switch (type) {
    case DTYPE_F32:
        memcpy(out, stored, n * sizeof *out);
        return;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = bf16_to_f32(half[i]);
        return;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = f16_to_f32(half[i]);
        return;
    case DTYPE_F64:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)((const double *)stored)[i];
        return;
    default:
        assert(false && "not a floating type");
    }
}

void dtype_store_f32(void *stored, const float *values, dtype type, size_t n) {
    uint16_t *half = stored;
    switch (type) {
    case DTYPE_F32:
        memcpy(stored, values, n * sizeof *values);
        return;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++)
            half[i] = f32_to_bf16(values[i]);
        return;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++)
            half[i] = f32_to_f16(values[i]);
        return;
    case DTYPE_F64:
        for (size_t i = 0; i < n; i++)
            ((double *)stored)[i] = values[i];
        return;
    default:
        assert(false && "not a floating type");
    }
}
