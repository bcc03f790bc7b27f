/* What a tokenizer file calls a pattern: a literal string, or a regular expression as Oniguruma
 * reads it. */
#ifndef GRAFT_TEXT_TOKENIZER_TEXT_PATTERN_H
#define GRAFT_TEXT_TOKENIZER_TEXT_PATTERN_H

#include "formats/json.h"
#include "text/tokenizer/fast_split.h"
#include "text/tokenizer/workspace.h"

enum { PATTERN_BYTES_MAX = 1 << 16 };

typedef struct re_pattern_buffer text_regex;

typedef struct text_pattern {
    char *literal; /* NULL: regex */
    size_t literal_bytes;
    text_regex *regex;
    fast_splitter fast; /* a hand-written equal of the regex; NULL: none */
} text_pattern;

/* `place` names the pattern in messages: "tokenizer.json: pre_tokenizer.pattern". */
graft_status text_pattern_regex(text_pattern *, const char *regex, size_t n, const char *place,
                                graft_error *);
graft_status text_pattern_literal(text_pattern *, const char *text, size_t n, graft_error *);
/* {"String": "..."} or {"Regex": "..."}. */
graft_status text_pattern_read(text_pattern *, const json_t *, const char *place, graft_error *);
void text_pattern_free(text_pattern *);

/* Fills w->spans with the matches in text and what lies between, in order; nothing for an empty
 * text. */
graft_status text_pattern_spans(const text_pattern *, workspace *w, const char *text, size_t n,
                                graft_error *);

#endif
