/* Tokens that are found in the text before anything else is done to it (special tokens,
 * user-defined ones). Those marked "normalized" are looked for, in their own normalized form, in
 * the normalized text. */
#ifndef GRAFT_TEXT_TOKENIZER_ADDED_TOKENS_H
#define GRAFT_TEXT_TOKENIZER_ADDED_TOKENS_H

#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/vocab.h"

enum {
    ADDED_TOKENS_MAX = 1 << 21,
    ADDED_TOKEN_BYTES_MAX = 4096 /* bounds the work at each byte of a text */
};

typedef struct added_token {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    char *content; /* as the file has it */
    size_t content_bytes;
    char *pattern; /* what is looked for: content, or its normalized form (then owned); never empty
                      in a finder */
    size_t pattern_bytes;
} added_token;

/* Patterns in byte order, so that the longest one at a place is found by narrowing a range. */
typedef struct token_finder {
    uint32_t *order; /* [n] places in added_tokens.items */
    size_t n;
    uint32_t first[257]; /* order[first[b] .. first[b+1]) begin with byte b */
    bool has_one_byte;   /* all begin with the same one, usually '<' */
    unsigned char one_byte;
} token_finder;

typedef struct added_tokens {
    added_token *items;
    size_t n, capacity;
    int32_t *by_id; /* [n_by_id] place + 1 in items; 0: no added token */
    size_t n_by_id, by_id_capacity;
    token_finder raw, normalized;
} added_tokens;

void added_tokens_free(added_tokens *);
const added_token *added_token_of(const added_tokens *, int32_t id); /* NULL when there is none */

/* Adds or changes (by id). The content is copied. */
graft_status added_tokens_add(added_tokens *, const added_token *, graft_error *);
/* Once all are there: normalizes patterns and builds the finders. */
graft_status added_tokens_prepare(added_tokens *, const normalizer_list *, graft_error *);

/* w->pieces of the whole w->text, the raw patterns cut out. */
graft_status added_tokens_split(const added_tokens *, workspace *w, bool split_special,
                                graft_error *);
/* Normalizes each piece and cuts the normalized patterns out of it. */
graft_status added_tokens_normalize(const added_tokens *, const normalizer_list *, workspace *w,
                                    bool split_special, graft_error *);

#endif
