/* A tokenizer's special tokens by name, as chat templates expect them as variables. */
#ifndef GRAFT_TEXT_SPECIAL_TOKENS_H
#define GRAFT_TEXT_SPECIAL_TOKENS_H

#include "formats/json.h"
#include "text/tokenizer/tokenizer.h"

/* {"bos_token": "<s>", ...}; the caller json_decref()s. The tokenizer may be NULL: {}. */
graft_status special_tokens_json(json_t **, const tokenizer *, graft_error *);

#endif
