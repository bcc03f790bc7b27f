/* Tokenizers, exactly as the file says (tokenizer.json's whole pipeline; vocab.json + merges.txt;
 * SentencePiece tokenizer.model; tiktoken ranks). Immutable once loaded: any number of threads may
 * encode at once. */
#ifndef GRAFT_TEXT_TOKENIZER_H
#define GRAFT_TEXT_TOKENIZER_H

#include "base/message.h"
#include "base/strbuf.h"

typedef struct tokenizer tokenizer;

/* A model directory (tokenizer.json, else vocab.json + merges.txt, else tokenizer.model, else
 * *.tiktoken) or one of these files. Reads tokenizer_config.json / special_tokens_map.json beside
 * it for the special tokens' names. */
graft_status tokenizer_load(tokenizer **, const char *path, const message_sink *, graft_error *);
void tokenizer_destroy(tokenizer **);

/* Result of encoding; reuse it over calls, free once. Offsets are half-open and count bytes of the
 * input text (callers that must show code points convert). special[i]: added by the post-processor
 * (BOS, EOS, ...). */
typedef struct encoding {
    int32_t *ids;
    uint32_t *begin, *end;
    uint8_t *special;
    size_t n, capacity;
} encoding;
void encoding_free(encoding *);

typedef struct encode_options {
    bool add_special_tokens;   /* run the post-processor's template */
    bool split_special_tokens; /* text such as "<|im_end|>" is plain text, not a control token */
} encode_options;

/* Encodes n bytes. Invalid UTF-8 is GRAFT_E_INPUT with the byte offset. */
graft_status tokenizer_encode(const tokenizer *, encoding *out, const char *text, size_t n,
                              encode_options, graft_error *);
/* The text of ids, through the decoder. */
graft_status tokenizer_decode(const tokenizer *, strbuf *out, const int32_t *ids, size_t n,
                              bool skip_special_tokens, graft_error *);

int32_t tokenizer_vocab_size(const tokenizer *); /* highest id + 1, added tokens included */
int32_t tokenizer_token_id(const tokenizer *, const char *token); /* -1 when there is none */
const char *tokenizer_token_text(const tokenizer *,
                                 int32_t id); /* as stored; NULL when there is none */
bool tokenizer_is_special(const tokenizer *, int32_t id);
/* -1 when the tokenizer has none; the names come from tokenizer_config.json /
 * special_tokens_map.json. */
int32_t tokenizer_bos(const tokenizer *);
int32_t tokenizer_eos(const tokenizer *);
int32_t tokenizer_pad(const tokenizer *);
/* Named special tokens ("bos_token" -> "<s>"), for templates; false past the end. */
bool tokenizer_special_token(const tokenizer *, size_t i, const char **name, const char **text);

/* Streaming decode: text comes out as soon as it is whole characters that later tokens cannot
 * change. */
typedef struct decode_stream decode_stream;
graft_status decode_stream_create(decode_stream **, const tokenizer *, bool skip_special_tokens,
                                  graft_error *);
/* Appends the new text to out (possibly none). */
graft_status decode_stream_add(decode_stream *, strbuf *out, int32_t id, graft_error *);
/* What is left at the end: an incomplete character comes out as the decoder would print it. */
graft_status decode_stream_finish(decode_stream *, strbuf *out, graft_error *);
void decode_stream_destroy(decode_stream **);

#endif
