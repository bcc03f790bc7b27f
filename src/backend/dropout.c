#include "backend/ops.h"

#include "base/rng.h"

void dropout_words(uint32_t words[4], uint64_t key, uint32_t stream, uint64_t token_counter,
                   uint32_t block) {
    const uint32_t counter[4] = {block, stream, (uint32_t)token_counter,
                                 (uint32_t)(token_counter >> 32)};
    const uint32_t philox_key[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
    philox4x32(words, counter, philox_key);
}

uint32_t dropout_threshold(float p) {
    double scaled = (double)p * 0x1p32;
    return scaled >= 0x1p32 ? UINT32_MAX : (uint32_t)scaled;
}
