/* JSON cut into tokens, without checking what is inside them: what the reader of whole documents
 * and the reader of safetensors headers (which must not build a document) have in common. */
#ifndef GRAFT_FORMATS_JSON_SCAN_H
#define GRAFT_FORMATS_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum json_token_kind {
    JSON_TOKEN_END,
    JSON_TOKEN_PUNCTUATION, /* one of {}[]:, */
    JSON_TOKEN_STRING,      /* with its quotes */
    JSON_TOKEN_OPEN_STRING, /* a string whose closing quote is missing */
    JSON_TOKEN_NUMBER,      /* a run of digits, signs, points and exponents */
    JSON_TOKEN_WORD,        /* a run of letters: true, null, NaN, or anything */
    JSON_TOKEN_OTHER        /* any other byte */
} json_token_kind;

typedef struct json_token {
    json_token_kind kind;
    size_t begin, end; /* bytes of the text */
} json_token;

/* The first token at or after byte `from`; whitespace before it is passed over. */
json_token json_scan(const char *text, size_t n, size_t from);
bool json_token_is(const char *text, json_token, const char *expected);

/* The value of the four hex digits at `at` (which must lie before n), or -1. */
int32_t json_hex4(const char *text, size_t n, size_t at);

#endif
