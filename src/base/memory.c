#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

bool size_add(size_t *out, size_t a, size_t b) {
    return !__builtin_add_overflow(a, b, out);
}

bool size_mul(size_t *out, size_t a, size_t b) {
    return !__builtin_mul_overflow(a, b, out);
}

void *mem_array(size_t count, size_t element_bytes) {
    return calloc(count ? count : 1, element_bytes ? element_bytes : 1);
}

bool mem_reserve(void *array, size_t *capacity, size_t needed, size_t element_bytes) {
    if (needed <= *capacity)
        return true;
    size_t doubled = *capacity < 8 ? 8 : *capacity;
    while (doubled < needed)
        if (!size_mul(&doubled, doubled, 2))
            return false;
    size_t bytes;
    if (!size_mul(&bytes, doubled, element_bytes))
        return false;
    void *old;
    memcpy(&old, array, sizeof old);
    void *grown = realloc(old, bytes);
    if (!grown)
        return false;
    memcpy(array, &grown, sizeof grown);
    *capacity = doubled;
    return true;
}

char *mem_text(const char *text, size_t n) {
    char *copy = malloc(n + 1);
    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, text, n);
    copy[n] = '\0';
    return copy;
}
