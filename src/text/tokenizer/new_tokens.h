/* New tokens for a tokenizer: read from a list, put into tokenizer.json as Transformers' add_tokens
 * puts them, so that both give the same ids. */
#ifndef GRAFT_TEXT_TOKENIZER_NEW_TOKENS_H
#define GRAFT_TEXT_TOKENIZER_NEW_TOKENS_H

#include "base/status.h"

typedef struct new_token {
    char *content;
    bool is_special; /* a control token: left out of decoded text, never part of user text */
    int32_t id;      /* after tokenizer_grow */
} new_token;

typedef struct new_tokens {
    new_token *items;
    size_t n, capacity;
} new_tokens;

/* One token a line, as it is; or {"content": "<|call|>", "special": true} as JSON. Blank lines are
 * passed over. Refuses, with the line: a token given twice, one that is longer than
 * ADDED_TOKEN_BYTES_MAX, invalid UTF-8, a list without tokens. */
graft_status new_tokens_read(new_tokens *, const char *path, graft_error *);
void new_tokens_free(new_tokens *);

/* Writes into folder `to` (made if need be) what Transformers and Graft load as the tokenizer of
 * folder `from` with these tokens added: tokenizer.json, tokenizer_config.json and what stands
 * beside them. A token that is there already keeps its id; others get the ids after the highest,
 * in the order of the list. *vocab_size is then the highest id + 1: rows that the model's embedding
 * must have. GRAFT_E_UNSUPPORTED for a tokenizer without tokenizer.json. */
graft_status tokenizer_grow(const char *to, const char *from, new_tokens *, int32_t *vocab_size,
                            graft_error *);

#endif
