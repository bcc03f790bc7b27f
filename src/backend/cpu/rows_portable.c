/* Row kernels for any processor. */
#include "backend/cpu/rows_body.h"

const row_kernels *row_kernels_portable(void) {
    return &row_kernels_here;
}
