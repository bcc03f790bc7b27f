/* UTF-8 as the Unicode standard defines it: no overlong forms, no surrogates, nothing past
 * U+10FFFF. */
#ifndef GRAFT_FORMATS_UTF8_H
#define GRAFT_FORMATS_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes at the start of text that are whole valid characters: n when all is valid. */
size_t utf8_valid_length(const char *text, size_t n);
/* Writes the character's bytes (1 to 4) and returns how many. A surrogate gives U+FFFD. */
size_t utf8_encode(char out[4], uint32_t character);

#endif
