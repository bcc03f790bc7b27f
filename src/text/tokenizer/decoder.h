/* Decoders: from tokens back to text. Sequences are flattened. Decoding is written once, as a chain
 * of steps that tokens flow through: decoding all at once and streaming are the same code, so they
 * agree. */
#ifndef GRAFT_TEXT_TOKENIZER_DECODER_H
#define GRAFT_TEXT_TOKENIZER_DECODER_H

#include "text/tokenizer/pretokenizer.h"

typedef enum decoder_kind {
    DECODER_JOIN, /* no decoder in the file: tokens with spaces between */
    DECODER_BYTE_LEVEL,
    DECODER_BPE,
    DECODER_WORDPIECE,
    DECODER_METASPACE,
    DECODER_CTC,
    DECODER_REPLACE,
    DECODER_FUSE,
    DECODER_STRIP,
    DECODER_BYTE_FALLBACK
} decoder_kind;

typedef struct decoder {
    decoder_kind kind;
    text_pattern pattern; /* REPLACE */
    char *content;   /* REPLACE; the suffix of BPE, the prefix of WORDPIECE, the pad token of CTC */
    char *delimiter; /* CTC: the word delimiter */
    bool cleanup;    /* WORDPIECE, CTC */
    uint32_t character; /* METASPACE, STRIP */
    bool drops_first;   /* METASPACE: the first token's spaces were put there by the tokenizer */
    size_t start, stop; /* STRIP */
} decoder;

typedef struct decoder_list {
    decoder *items;
    size_t n, capacity;
} decoder_list;

/* `json` may be NULL or null. */
graft_status decoder_list_read(decoder_list *, const json_t *json, const char *place,
                               graft_error *);
decoder *decoder_list_add(decoder_list *); /* zeroed; NULL when out of memory */
void decoder_list_free(decoder_list *);

/* What a step keeps between calls. */
typedef struct decoder_state {
    strbuf token;   /* the token so far, where a step needs it whole */
    strbuf pending; /* BYTE_LEVEL: an unfinished character; BYTE_FALLBACK: a run of bytes; BPE, CTC:
                       the token before */
    size_t index;   /* tokens begun */
    size_t count;   /* STRIP: leading characters cut; then trailing ones held back */
    bool flag; /* FUSE, BYTE_LEVEL: the one token is open; BYTE_FALLBACK: this token is no byte;
                  STRIP: past the beginning; BPE, CTC: pending holds a token */
} decoder_state;

typedef struct decoding {
    const decoder_list *steps;
    decoder_state *states; /* [steps->n] */
    workspace *w;          /* for patterns; NULL until one is needed */
    strbuf *out;
    graft_error *err;
    graft_status status; /* the first failure; everything after it is dropped */
    bool failed;         /* some text ran out of memory */
} decoding;

/* Zeroes *d first: decoding_free may be called whatever came of it. */
graft_status decoding_create(decoding *, const decoder_list *, graft_error *);
void decoding_free(decoding *);
/* One token in, or the end of all tokens; text that is certain is appended to out. */
graft_status decoding_add(decoding *, strbuf *out, const char *token, size_t n, graft_error *);
graft_status decoding_finish(decoding *, strbuf *out, graft_error *);

/* Appends text with what is no valid UTF-8 replaced by U+FFFD (one for each maximal invalid part).
 */
void add_lossy(strbuf *out, const char *text, size_t n);

#endif
