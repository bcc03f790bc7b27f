/* Allocation with overflow-safe sizes. Release with free(). */
#ifndef GRAFT_BASE_MEMORY_H
#define GRAFT_BASE_MEMORY_H

#include "base/status.h"

/* *out = a + b or a * b; false when it does not fit. */
bool size_add(size_t *out, size_t a, size_t b);
bool size_mul(size_t *out, size_t a, size_t b);

/* Zeroed array of count elements; NULL when out of memory or when the size overflows. count 0 gives
 * a valid pointer to nothing. */
void *mem_array(size_t count, size_t element_bytes);

/* Grows *array (capacity *capacity, in elements) so that `needed` elements fit, at least doubling.
 * False when out of memory; the array is unchanged then. */
bool mem_reserve(void *array, size_t *capacity, size_t needed, size_t element_bytes);

/* A copy of n bytes of text with a NUL after it; NULL when out of memory. */
char *mem_text(const char *text, size_t n);

#endif
