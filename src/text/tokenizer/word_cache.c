#include "text/tokenizer/word_cache.h"

#include "base/memory.h"
#include "text/tokenizer/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { N_ENTRIES = 1 << 15 };

_Static_assert(sizeof(cached_word) == 64, "an entry is a cache line");

const cached_word *word_cache_find(const word_cache *cache, const char *word, size_t n,
                                   uint32_t *hash) {
    *hash = (uint32_t)bytes_hash(word, n);
    if (!cache->entries)
        return NULL;
    const cached_word *entry = &cache->entries[*hash % N_ENTRIES];
    return entry->n_bytes == n && entry->hash == *hash && memcmp(entry->bytes, word, n) == 0 ? entry
                                                                                             : NULL;
}

cached_word *word_cache_add(word_cache *cache, uint32_t hash, const char *word, size_t n) {
    if (!cache->entries)
        cache->entries = mem_array(N_ENTRIES, sizeof *cache->entries);
    if (!cache->entries)
        return NULL;
    cached_word *entry = &cache->entries[hash % N_ENTRIES];
    entry->hash = hash;
    entry->n_bytes = (uint8_t)n;
    entry->n_tokens = 0;
    memcpy(entry->bytes, word, n);
    return entry;
}

void word_cache_free(word_cache *cache) {
    free(cache->entries);
    cache->entries = NULL;
}
