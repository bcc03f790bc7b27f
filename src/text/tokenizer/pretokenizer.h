/* Pre-tokenizers: what tokenizer.json's "pre_tokenizer" does: split the text into the pieces the
 * model sees one at a time, some rewriting it on the way. Sequences are flattened. */
#ifndef GRAFT_TEXT_TOKENIZER_PRETOKENIZER_H
#define GRAFT_TEXT_TOKENIZER_PRETOKENIZER_H

#include "text/tokenizer/text_pattern.h"

typedef enum pretokenizer_kind {
    PRETOKENIZER_BYTE_LEVEL,
    PRETOKENIZER_BERT,
    PRETOKENIZER_DELIMITER,
    PRETOKENIZER_METASPACE,
    PRETOKENIZER_WHITESPACE,
    PRETOKENIZER_WHITESPACE_SPLIT,
    PRETOKENIZER_SPLIT,
    PRETOKENIZER_PUNCTUATION,
    PRETOKENIZER_DIGITS,
    PRETOKENIZER_UNICODE_SCRIPTS,
    PRETOKENIZER_FIXED_LENGTH
} pretokenizer_kind;

/* What becomes of what a pattern matches. */
typedef enum split_behavior {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
} split_behavior;

typedef enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } prepend_scheme;

typedef struct pretokenizer {
    pretokenizer_kind kind;
    text_pattern pattern;             /* SPLIT */
    split_behavior behavior;          /* SPLIT, PUNCTUATION */
    bool invert;                      /* SPLIT */
    bool add_prefix_space, use_regex; /* BYTE_LEVEL */
    bool keep_bytes;    /* BYTE_LEVEL: the model reads bytes, so they need not become characters */
    uint32_t character; /* DELIMITER, METASPACE */
    prepend_scheme prepend; /* METASPACE */
    bool split;             /* METASPACE */
    bool individual_digits; /* DIGITS */
    size_t length;          /* FIXED_LENGTH, characters */
} pretokenizer;

typedef struct pretokenizer_list {
    pretokenizer *items;
    size_t n, capacity;
} pretokenizer_list;

/* `json` may be NULL or null. */
graft_status pretokenizer_list_read(pretokenizer_list *, const json_t *json, const char *place,
                                    graft_error *);
pretokenizer *pretokenizer_list_add(pretokenizer_list *); /* zeroed; NULL when out of memory */
void pretokenizer_list_free(pretokenizer_list *);

/* Splits w->pieces, and rewrites w->text where a pre-tokenizer does. */
graft_status pretokenizer_list_apply(const pretokenizer_list *, workspace *w, graft_error *);

/* Unicode scripts, Hiragana and Katakana counted as Han; 0 for a space and what has none. */
unsigned character_script(uint32_t character);
void scripts_initialize(void);

#endif
