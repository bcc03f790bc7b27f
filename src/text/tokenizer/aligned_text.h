/* Text on its way through the pipeline: each byte knows which bytes of the input it came from.
 *
 * While nothing has changed the text it is the input itself, and no alignment is stored: byte i
 * then came from the whole character around it. All bytes of one character share one alignment. */
#ifndef GRAFT_TEXT_TOKENIZER_ALIGNED_TEXT_H
#define GRAFT_TEXT_TOKENIZER_ALIGNED_TEXT_H

#include "base/status.h"

/* Half-open, in bytes of the input. */
typedef struct source_range {
    uint32_t begin, end;
} source_range;

/* Borrowed. `source` is NULL for text that is the input from byte `origin` on. */
typedef struct text_view {
    const char *bytes;
    size_t n;
    const source_range *source; /* [n] */
    uint32_t origin;
} text_view;

source_range text_view_source(const text_view *, size_t i); /* i < n */
text_view text_view_slice(const text_view *, size_t begin, size_t end);

/* Owned and growing. Out of memory and a text past `limit` are sticky: check once, with
 * aligned_text_status. */
typedef struct aligned_text {
    char *bytes;
    source_range *source;
    size_t n, bytes_capacity, source_capacity;
    size_t limit; /* bytes */
    bool failed, too_long;
} aligned_text;

void aligned_text_free(aligned_text *);
void aligned_text_clear(aligned_text *);
text_view aligned_text_view(const aligned_text *);
void aligned_text_add(aligned_text *, const char *bytes, size_t n, source_range);
void aligned_text_add_character(aligned_text *, uint32_t character, source_range);
void aligned_text_add_view(aligned_text *, const text_view *);
graft_status aligned_text_status(const aligned_text *, graft_error *);

/* A new text told as changes to an old one, as Hugging Face's normalizers do it (this decides the
 * offsets): change 0 replaces the next old character, -k does so and removes k more after it, 1
 * inserts one that shares the source of the old byte before it. */
typedef struct char_change {
    uint32_t character;
    int32_t change;
} char_change;

typedef struct change_list {
    char_change *items;
    size_t n, capacity;
    bool failed;
} change_list;

void change_add(change_list *, uint32_t character, int32_t change);

/* Appends to out what the changes make of old. n_removed characters are dropped at the beginning;
 * an insertion before everything else stands at byte `start` of the input. */
void aligned_text_transform(aligned_text *out, const text_view *old, const change_list *,
                            size_t n_removed, uint32_t start);

#endif
