/* What the AMX kernels share: eight tile registers of 16 rows of 64 bytes. Tiles of C are 32 x 32:
 * 0 to 3 are sums (upper left, upper right, lower left, lower right), 4 and 5 the halves of A's
 * rows, 6 and 7 those of B's columns. */
#ifndef GRAFT_BACKEND_CPU_GEMM_AMX_H
#define GRAFT_BACKEND_CPU_GEMM_AMX_H

#include "backend/cpu/gemm_narrow_pack.h"

#include <immintrin.h>

enum { AMX_HALF = 16, AMX_TILE = 32, AMX_BYTES = 64, AMX_REGISTERS = 8 };

typedef struct amx_config { /* as ldtilecfg reads it */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_config;
_Static_assert(sizeof(amx_config) == 64, "ldtilecfg reads 64 bytes");

static inline void amx_enter(void) {
    amx_config config = {.palette = 1};
    for (int i = 0; i < AMX_REGISTERS; i++) {
        config.row_bytes[i] = AMX_BYTES;
        config.rows[i] = AMX_HALF;
    }
    _tile_loadconfig(&config);
}

/* Back to the initial state, which costs nothing to save at a change of threads. */
static inline void amx_leave(void) {
    _tile_release();
}

#endif
