/* Characters: walking over UTF-8 that is known to be valid, and the classes that tokenizers ask
 * for. The classes are Oniguruma's, so that hand-written splitters agree with the patterns they
 * stand for. */
#ifndef GRAFT_TEXT_TOKENIZER_CHARS_H
#define GRAFT_TEXT_TOKENIZER_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CHAR_LETTER = 1,       /* \p{L} */
    CHAR_NUMBER = 2,       /* \p{N} */
    CHAR_SPACE = 4,        /* \s: White_Space */
    CHAR_MARK = 8,         /* \p{M} */
    CHAR_NONSPACING = 16,  /* \p{Mn} */
    CHAR_PUNCTUATION = 32, /* \p{P} and ASCII symbols such as '$' */
    CHAR_WORD = 64,    /* \w of UTS 18: alphabetic, marks, decimal digits, connectors, joiners */
    CHAR_CONTROL = 128 /* Cc, Cf, Co */
};

enum { N_CHARACTERS = 0x110000, CHAR_REPLACEMENT = 0xFFFD };

/* Fills the table below and readies Oniguruma, once a process; any thread may call it again. */
void chars_initialize(void);
extern uint8_t char_classes[N_CHARACTERS];

static inline bool char_is_continuation(char byte) {
    return ((unsigned char)byte & 0xC0) == 0x80;
}

static inline size_t char_length(char lead) {
    unsigned char c = (unsigned char)lead;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* The character at p and its bytes; p points at the first byte of a valid one. */
static inline uint32_t char_decode(const char *p, size_t *length) {
    const unsigned char *u = (const unsigned char *)p;
    if (u[0] < 0x80) {
        *length = 1;
        return u[0];
    }
    if (u[0] < 0xE0) {
        *length = 2;
        return (uint32_t)(u[0] & 0x1F) << 6 | (u[1] & 0x3F);
    }
    if (u[0] < 0xF0) {
        *length = 3;
        return (uint32_t)(u[0] & 0x0F) << 12 | (uint32_t)(u[1] & 0x3F) << 6 | (u[2] & 0x3F);
    }
    *length = 4;
    return (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3F) << 12 |
           (uint32_t)(u[2] & 0x3F) << 6 | (u[3] & 0x3F);
}

/* The character that ends before p. */
static inline uint32_t char_decode_before(const char *p, size_t *length) {
    size_t back = 1;
    while (char_is_continuation(*(p - back)))
        back++;
    return char_decode(p - back, length);
}

static inline bool char_is(uint32_t character, unsigned classes) {
    return (char_classes[character] & classes) != 0;
}

/* Bytes of the longest prefix, shorter than a whole one, that could still become a valid character;
 * 0 when text does not end in one. */
size_t char_unfinished_suffix(const char *text, size_t n);

/* Unicode's lower case, 1 or 2 characters (only U+0130 gives 2). */
size_t char_lower(uint32_t out[2], uint32_t character);

#endif
