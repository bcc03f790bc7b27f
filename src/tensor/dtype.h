/* Element types as files store them. */
#ifndef GRAFT_TENSOR_DTYPE_H
#define GRAFT_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dtype {
    DTYPE_F32,
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_I16,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_U16,
    DTYPE_U32,
    DTYPE_U64,
    DTYPE_BOOL,
    DTYPE_F8_E4M3,
    DTYPE_F8_E5M2,
    N_DTYPES
} dtype;

size_t dtype_bytes(dtype);
const char *dtype_name(dtype);                      /* safetensors' name: "F32", "BF16", ... */
bool dtype_from_name(dtype *out, const char *name); /* safetensors' name */
bool dtype_is_weight(dtype); /* f32, bf16 or f16: what a model may be stored in */

float bf16_to_f32(uint16_t);
uint16_t f32_to_bf16(float); /* nearest, ties to even; NaN stays NaN */
float f16_to_f32(uint16_t);
uint16_t f32_to_f16(float); /* nearest, ties to even; overflow becomes infinity */

/* n stored elements as f32, and f32 as stored. Weight dtypes and F64 only; asserts otherwise. */
void dtype_load_f32(float *out, const void *stored, dtype, size_t n);
void dtype_store_f32(void *stored, const float *values, dtype, size_t n);

#endif
