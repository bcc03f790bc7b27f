/* Row kernels for AVX-512. */
#include "backend/cpu/rows_body.h"

const row_kernels *row_kernels_avx512(void) {
    return &row_kernels_here;
}
