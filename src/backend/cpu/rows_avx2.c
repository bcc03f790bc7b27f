/* Row kernels for AVX2. */
#include "backend/cpu/rows_body.h"

const row_kernels *row_kernels_avx2(void) {
    return &row_kernels_here;
}
