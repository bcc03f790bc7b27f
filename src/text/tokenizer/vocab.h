/* Token texts and ids, both ways. */
#ifndef GRAFT_TEXT_TOKENIZER_VOCAB_H
#define GRAFT_TEXT_TOKENIZER_VOCAB_H

#include "base/status.h"

/* Ids may have gaps (added rows, reserved places), but a table of them must stay in proportion to
 * the file. */
enum {
    VOCAB_IDS_MAX = 1 << 24,
    VOCAB_GAPS_MAX = 1 << 20 /* ids without a token */
};

typedef struct vocab_token {
    uint32_t offset, length; /* into bytes; a NUL follows */
    bool present;
} vocab_token;

typedef struct vocab_slot {
    uint32_t hash;
    int32_t id; /* -1: free */
} vocab_slot;

typedef struct vocab {
    char *bytes;
    size_t n_bytes, bytes_capacity;
    vocab_token *tokens; /* [n_ids] */
    size_t n_ids;        /* highest id + 1 */
    size_t tokens_capacity;
    size_t n_tokens;
    vocab_slot *slots; /* [n_slots], a power of two */
    size_t n_slots;
} vocab;

void vocab_free(vocab *);

typedef enum vocab_result {
    VOCAB_ADDED,
    VOCAB_NO_MEMORY,
    VOCAB_ID_TAKEN,
    VOCAB_TEXT_TAKEN
} vocab_result;

/* id in [0, VOCAB_IDS_MAX). Text that is there already under another id is VOCAB_TEXT_TAKEN, and
 * the vocabulary stays as it was; so with an id that has a token. */
vocab_result vocab_add(vocab *, const char *text, size_t n, int32_t id);
int32_t vocab_find(const vocab *, const char *text, size_t n); /* -1 when there is none */
/* The text of an id (NUL-terminated; *n its bytes, which may hold NULs); NULL when there is none.
 */
const char *vocab_text(const vocab *, int32_t id, size_t *n);

/* A 64-bit hash of short byte strings. */
uint64_t bytes_hash(const void *bytes, size_t n);

#endif
