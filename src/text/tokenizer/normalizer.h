/* Normalizers: what tokenizer.json's "normalizer" does to a text before it is split. Sequences are
 * flattened, and BertNormalizer is taken apart into its steps. */
#ifndef GRAFT_TEXT_TOKENIZER_NORMALIZER_H
#define GRAFT_TEXT_TOKENIZER_NORMALIZER_H

#include "text/tokenizer/text_pattern.h"

typedef enum normalizer_kind {
    NORMALIZER_NFC,
    NORMALIZER_NFD,
    NORMALIZER_NFKC,
    NORMALIZER_NFKD,
    NORMALIZER_LOWERCASE,
    NORMALIZER_STRIP,
    NORMALIZER_STRIP_ACCENTS,    /* drops marks */
    NORMALIZER_STRIP_NONSPACING, /* drops nonspacing marks (Bert) */
    NORMALIZER_REPLACE,
    NORMALIZER_PREPEND,
    NORMALIZER_NMT,
    NORMALIZER_BYTE_LEVEL,
    NORMALIZER_BERT_CLEAN,
    NORMALIZER_BERT_CHINESE, /* spaces around CJK ideographs */
    NORMALIZER_PRECOMPILED,  /* SentencePiece's table, applied as Hugging Face does */
    NORMALIZER_SENTENCEPIECE /* the same table and SentencePiece's own white space rules */
} normalizer_kind;

/* SentencePiece's compiled table: a double array (darts-clone) from sequences to places in `texts`.
 */
typedef struct charsmap {
    uint32_t *units;
    size_t n_units;
    char *texts; /* NUL-terminated one after the other */
    size_t texts_bytes;
} charsmap;

graft_status charsmap_read(charsmap *, const unsigned char *blob, size_t n, const char *place,
                           graft_error *);
void charsmap_free(charsmap *);
/* The replacement for a prefix of text (the longest one, or the shortest), and how many bytes it
 * takes the place of; NULL when no prefix is in the table. */
const char *charsmap_find(const charsmap *, const char *text, size_t n, bool longest,
                          size_t *taken);

typedef struct normalizer {
    normalizer_kind kind;
    text_pattern pattern; /* REPLACE */
    char *content;        /* REPLACE, PREPEND */
    size_t content_bytes;
    bool left, right; /* STRIP */
    charsmap map;     /* PRECOMPILED, SENTENCEPIECE (may be empty) */
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces; /* SENTENCEPIECE */
} normalizer;

typedef struct normalizer_list {
    normalizer *items;
    size_t n, capacity;
} normalizer_list;

/* `json` may be NULL or null: nothing is done then. */
graft_status normalizer_list_read(normalizer_list *, const json_t *json, const char *place,
                                  graft_error *);
/* Makes room for one more, zeroed; NULL when out of memory. */
normalizer *normalizer_list_add(normalizer_list *);
void normalizer_list_free(normalizer_list *);

/* Runs all of them over `in`, a slice of the input that begins at byte `start`. *out is `in` itself
 * when nothing changed, else it lies in w->steps until the next call. */
graft_status normalizer_list_apply(const normalizer_list *, workspace *w, const text_view *in,
                                   uint32_t start, text_view *out, graft_error *);

/* The steps that are more than a few lines. Each appends to out, or returns false and leaves the
 * text as it is. */
bool normalizer_form(normalizer_kind form, workspace *w, const text_view *in, uint32_t start,
                     aligned_text *out);
bool normalizer_precompiled(const normalizer *, workspace *w, const text_view *in, uint32_t start,
                            aligned_text *out);
void normalizer_sentencepiece(const normalizer *, const text_view *in, uint32_t start,
                              aligned_text *out);

#endif
