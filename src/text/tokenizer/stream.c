/* Decoding, at once and as a stream: both feed the same decoder steps. */
#include "base/memory.h"
#include "text/tokenizer/parts.h"

#include <stdlib.h>

struct decode_stream {
    const tokenizer *tokenizer;
    bool skip_special_tokens;
    decoding steps;
};

/* A normalized added token is decoded from its normalized form, which the decoder can turn back.
 * Ids without a token add nothing. */
static graft_status add_id(decoding *steps, const tokenizer *t, strbuf *out, int32_t id,
                           bool skip_special_tokens, graft_error *err) {
    const added_token *added = added_token_of(&t->added, id);
    if (added && added->special && skip_special_tokens)
        return GRAFT_OK;
    if (added)
        return decoding_add(steps, out, added->pattern, added->pattern_bytes, err);
    size_t n;
    const char *text = vocab_text(&t->model.tokens, id, &n);
    return text ? decoding_add(steps, out, text, n, err) : GRAFT_OK;
}

graft_status tokenizer_decode(const tokenizer *t, strbuf *out, const int32_t *ids, size_t n,
                              bool skip_special_tokens, graft_error *err) {
    decoding steps;
    graft_status status = decoding_create(&steps, &t->decoders, err);
    for (size_t i = 0; i < n && status == GRAFT_OK; i++)
        status = add_id(&steps, t, out, ids[i], skip_special_tokens, err);
    if (status == GRAFT_OK)
        status = decoding_finish(&steps, out, err);
    decoding_free(&steps);
    return status;
}

graft_status decode_stream_create(decode_stream **out, const tokenizer *t, bool skip_special_tokens,
                                  graft_error *err) {
    decode_stream *s = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "a stream of text");
    s->tokenizer = t;
    s->skip_special_tokens = skip_special_tokens;
    graft_status status = decoding_create(&s->steps, &t->decoders, err);
    if (status != GRAFT_OK)
        decode_stream_destroy(&s);
    *out = s;
    return status;
}

graft_status decode_stream_add(decode_stream *s, strbuf *out, int32_t id, graft_error *err) {
    return add_id(&s->steps, s->tokenizer, out, id, s->skip_special_tokens, err);
}

graft_status decode_stream_finish(decode_stream *s, strbuf *out, graft_error *err) {
    return decoding_finish(&s->steps, out, err);
}

void decode_stream_destroy(decode_stream **address) {
    decode_stream *s = *address;
    if (!s)
        return;
    decoding_free(&s->steps);
    free(s);
    *address = NULL;
}
