/* Words seen before and their tokens: text repeats its words, and merging is the dear part. One
 * cache line an entry, no allocation but the table; a new word takes the place of the old one in
 * its slot. */
#ifndef GRAFT_TEXT_TOKENIZER_WORD_CACHE_H
#define GRAFT_TEXT_TOKENIZER_WORD_CACHE_H

#include "base/status.h"

enum { CACHED_WORD_BYTES = 24, CACHED_WORD_TOKENS = 6 };

typedef struct cached_word {
    uint32_t hash;
    uint8_t n_bytes; /* 0: free */
    uint8_t n_tokens;
    uint8_t unused[2];
    uint8_t lengths[8]; /* bytes of each token */
    int32_t ids[CACHED_WORD_TOKENS];
    char bytes[CACHED_WORD_BYTES];
} cached_word;

typedef struct word_cache {
    cached_word *entries; /* NULL: not used yet */
} word_cache;

/* The word's entry, or NULL. *hash is for word_cache_add. */
const cached_word *word_cache_find(const word_cache *, const char *word, size_t n, uint32_t *hash);
/* n in [1, CACHED_WORD_BYTES], n_tokens <= CACHED_WORD_TOKENS. Does nothing when out of memory. */
cached_word *word_cache_add(word_cache *, uint32_t hash, const char *word, size_t n);
void word_cache_free(word_cache *);

#endif
