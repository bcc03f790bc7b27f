/* The AVX-512 VNNI and AMX instructions that the kernels of narrow products use, in plain C, so
 * that those files can be compiled a second time and tested on any machine. Written from Intel's
 * description of each instruction; only what is used is here. */
#ifndef GRAFT_TESTS_EMULATION_IMMINTRIN_H
#define GRAFT_TESTS_EMULATION_IMMINTRIN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ---- AVX-512 ---- */

typedef struct __m512i {
    int32_t lane[16];
} __m512i;

typedef struct __m512 {
    float lane[16];
} __m512;

static inline __m512i _mm512_loadu_si512(const void *from) {
    __m512i x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline __m512 _mm512_loadu_ps(const void *from) {
    __m512 x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline void _mm512_storeu_ps(void *to, __m512 x) {
    memcpy(to, &x, sizeof x);
}

static inline __m512i _mm512_set1_epi32(int32_t value) {
    __m512i x;
    for (int i = 0; i < 16; i++)
        x.lane[i] = value;
    return x;
}

static inline __m512 _mm512_set1_ps(float value) {
    __m512 x;
    for (int i = 0; i < 16; i++)
        x.lane[i] = value;
    return x;
}

static inline __m512 _mm512_mul_ps(__m512 a, __m512 b) {
    for (int i = 0; i < 16; i++)
        a.lane[i] *= b.lane[i];
    return a;
}

static inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
    for (int i = 0; i < 16; i++)
        a.lane[i] = fmaf(a.lane[i], b.lane[i], c.lane[i]);
    return a;
}

static inline __m512 _mm512_cvtepi32_ps(__m512i a) {
    __m512 x;
    for (int i = 0; i < 16; i++)
        x.lane[i] = (float)a.lane[i];
    return x;
}

/* Four products of unsigned bytes of a by signed bytes of b, added without saturation. */
static inline __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
    uint8_t of_a[64];
    int8_t of_b[64];
    memcpy(of_a, &a, sizeof of_a);
    memcpy(of_b, &b, sizeof of_b);
    for (int i = 0; i < 64; i++)
        sum.lane[i / 4] += of_a[i] * of_b[i];
    return sum;
}

/* ---- AMX: eight registers of 16 rows of 64 bytes ---- */

typedef struct emulated_tiles {
    uint8_t row_count[8], row_bytes[8];
    unsigned char data[8][16][64];
    int is_configured;
} emulated_tiles;

static emulated_tiles tiles;

/* As the instruction reads it: palette, start row, 14 reserved bytes, 16 widths of two bytes, 16
 * heights. */
static inline void _tile_loadconfig(const void *config_) {
    const unsigned char *config = config_;
    memset(&tiles, 0, sizeof tiles);
    for (int i = 0; i < 8; i++) {
        uint16_t bytes;
        memcpy(&bytes, config + 16 + 2 * i, sizeof bytes);
        tiles.row_bytes[i] = (uint8_t)bytes;
        tiles.row_count[i] = config[48 + i];
    }
    tiles.is_configured = config[0] == 1;
}

static inline void _tile_release(void) {
    memset(&tiles, 0, sizeof tiles);
}

/* An unconfigured use faults on the machine: here it leaves rubbish, which the tests see. */
static inline int emulated_rows(int tile) {
    return tiles.is_configured ? tiles.row_count[tile] : 0;
}

static inline void _tile_zero(int tile) {
    memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
}

static inline void _tile_loadd(int tile, const void *from, size_t stride) {
    _tile_zero(tile);
    for (int r = 0; r < emulated_rows(tile); r++)
        memcpy(tiles.data[tile][r], (const char *)from + (size_t)r * stride, tiles.row_bytes[tile]);
}

static inline void _tile_stored(int tile, void *to, size_t stride) {
    for (int r = 0; r < emulated_rows(tile); r++)
        memcpy((char *)to + (size_t)r * stride, tiles.data[tile][r], tiles.row_bytes[tile]);
}

/* c[m][n] += sum over k of four products of a[m][4k ..] by b[k][4n ..] */
static inline void _tile_dpbssd(int c, int a, int b) {
    for (int m = 0; m < emulated_rows(c); m++)
        for (int n = 0; n < tiles.row_bytes[c] / 4; n++) {
            int32_t sum;
            memcpy(&sum, tiles.data[c][m] + 4 * n, sizeof sum);
            for (int k = 0; k < tiles.row_bytes[a] / 4; k++)
                for (int i = 0; i < 4; i++)
                    sum +=
                        (int8_t)tiles.data[a][m][4 * k + i] * (int8_t)tiles.data[b][k][4 * n + i];
            memcpy(tiles.data[c][m] + 4 * n, &sum, sizeof sum);
        }
}

static inline float emulated_bf16(const unsigned char *at) {
    uint32_t bits = (uint32_t)at[0] << 16 | (uint32_t)at[1] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* c[m][n] += the sum over k of even products, plus that of odd ones. */
static inline void _tile_dpbf16ps(int c, int a, int b) {
    for (int m = 0; m < emulated_rows(c); m++)
        for (int n = 0; n < tiles.row_bytes[c] / 4; n++) {
            float sum[2] = {0, 0}, old;
            for (int k = 0; k < tiles.row_bytes[a] / 4; k++)
                for (int i = 0; i < 2; i++)
                    sum[i] += emulated_bf16(tiles.data[a][m] + 4 * k + 2 * i) *
                              emulated_bf16(tiles.data[b][k] + 4 * n + 2 * i);
            memcpy(&old, tiles.data[c][m] + 4 * n, sizeof old);
            old += sum[0] + sum[1];
            memcpy(tiles.data[c][m] + 4 * n, &old, sizeof old);
        }
}

#endif
