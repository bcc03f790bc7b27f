/* Any tokenizer file is read or refused; what is read encodes any text or says why not, with
 * offsets in the text, and decodes it at once and as a stream to the same. The input is the file, a
 * byte 0xFF and the text; a file that begins with
 * '{' is a tokenizer.json, one with a line feed a tokenizer.model, any other a .tiktoken. */
#include "tests/fuzz/fuzz.h"

#include "tests/support/support.h"
#include "text/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static const char *write_file(const uint8_t *data, size_t n) {
    if (n > 0 && data[0] == '{')
        return test_file("tokenizer.json", data, n);
    return test_file(n > 0 && data[0] == '\n' ? "tokenizer.model" : "cl100k_base.tiktoken", data,
                     n);
}

static void check_decoding(const tokenizer *t, const encoding *e, bool skip) {
    strbuf whole = {0}, streamed = {0};
    decode_stream *stream = NULL;
    graft_error err;
    if (tokenizer_decode(t, &whole, e->ids, e->n, skip, &err) == GRAFT_OK) {
        if (decode_stream_create(&stream, t, skip, &err) != GRAFT_OK)
            abort();
        for (size_t i = 0; i < e->n; i++)
            if (decode_stream_add(stream, &streamed, e->ids[i], &err) != GRAFT_OK)
                abort();
        if (decode_stream_finish(stream, &streamed, &err) != GRAFT_OK ||
            streamed.length != whole.length ||
            memcmp(strbuf_text(&streamed), strbuf_text(&whole), whole.length) != 0)
            abort();
    }
    decode_stream_destroy(&stream);
    strbuf_free(&whole);
    strbuf_free(&streamed);
}

static void check_encoding(const tokenizer *t, const char *text, size_t n, encode_options options) {
    encoding e = {0};
    graft_error err;
    if (tokenizer_encode(t, &e, text, n, options, &err) == GRAFT_OK) {
        for (size_t i = 0; i < e.n; i++)
            if (e.begin[i] > n || e.end[i] > n || e.ids[i] < 0 ||
                e.ids[i] >= tokenizer_vocab_size(t) || !tokenizer_token_text(t, e.ids[i]))
                abort();
        check_decoding(t, &e, false);
        check_decoding(t, &e, true);
    }
    encoding_free(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *end = size ? memchr(data, 0xFF, size) : NULL;
    size_t n_file = end ? (size_t)(end - data) : size;
    const char *text = end ? (const char *)end + 1 : "";
    size_t n = end ? size - n_file - 1 : 0;
    tokenizer *t = NULL;
    graft_error err;
    if (tokenizer_load(&t, write_file(data, n_file), NULL, &err) != GRAFT_OK)
        return 0;
    check_encoding(t, text, n, (encode_options){true, false});
    check_encoding(t, text, n, (encode_options){false, true});
    tokenizer_destroy(&t);
    return 0;
}
