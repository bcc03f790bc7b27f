/* Speed of encoding and decoding, one thread: bench_tokenizer_speed TOKENIZER TEXT...
 *
 * A text is cut into documents at empty lines (a .jsonl file: its lines). Prints one line of CSV
 * for each text: bytes, tokens, and the best of several passes in MB/s. tokenizer_speed.py does the
 * same with Hugging Face's tokenizers. */
#include "base/clock.h"
#include "base/file_map.h"
#include "text/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PASSES = 7, DOCUMENTS_MAX = 1 << 20 };

typedef struct document {
    const char *text;
    size_t n;
} document;

typedef struct timing {
    double encode_s, decode_s;
    size_t tokens;
} timing;

/* Pieces of text between separators, which belong to the piece before them. */
static size_t split(document *out, const char *text, size_t n, const char *separator) {
    size_t count = 0;
    const char *end = text + n;
    while (text < end && count < DOCUMENTS_MAX) {
        const char *found = memmem(text, (size_t)(end - text), separator, strlen(separator));
        const char *stop = found ? found + strlen(separator) : end;
        out[count++] = (document){text, (size_t)(stop - text)};
        text = stop;
    }
    return count;
}

static graft_status pass(timing *out, const tokenizer *t, encoding *e, strbuf *text,
                         const document *documents, size_t n, graft_error *err) {
    graft_status status = GRAFT_OK;
    *out = (timing){0};
    for (size_t i = 0; i < n && status == GRAFT_OK; i++) {
        double start = clock_seconds();
        status = tokenizer_encode(t, e, documents[i].text, documents[i].n,
                                  (encode_options){.add_special_tokens = true}, err);
        double middle = clock_seconds();
        strbuf_clear(text);
        if (status == GRAFT_OK)
            status = tokenizer_decode(t, text, e->ids, e->n, true, err);
        out->encode_s += middle - start;
        out->decode_s += clock_seconds() - middle;
        out->tokens += e->n;
    }
    return status;
}

static graft_status measure(const tokenizer *t, const char *path, graft_error *err) {
    file_map map = {0};
    encoding e = {0};
    strbuf text = {0};
    timing best = {0}, now;
    document *documents = malloc(DOCUMENTS_MAX * sizeof *documents);
    graft_status status = documents ? file_map_open(&map, path, err)
                                    : error_set(err, GRAFT_E_MEMORY, "out of memory");
    const char *separator = strstr(path, ".jsonl") ? "\n" : "\n\n";
    size_t n =
        status == GRAFT_OK ? split(documents, (const char *)map.data, map.size, separator) : 0;
    for (int i = 0; i < PASSES && status == GRAFT_OK; i++) {
        status = pass(&now, t, &e, &text, documents, n, err);
        if (i == 0 || now.encode_s < best.encode_s)
            best.encode_s = now.encode_s;
        if (i == 0 || now.decode_s < best.decode_s)
            best.decode_s = now.decode_s;
        best.tokens = now.tokens;
    }
    if (status == GRAFT_OK)
        printf("%s,%zu,%zu,%zu,%.1f,%.1f\n", path, n, map.size, best.tokens,
               (double)map.size / best.encode_s / 1e6, (double)map.size / best.decode_s / 1e6);
    free(documents);
    encoding_free(&e);
    strbuf_free(&text);
    file_map_close(&map);
    return status;
}

int main(int argc, char **argv) {
    graft_error err = {0};
    tokenizer *t = NULL;
    if (argc < 3) {
        fprintf(stderr, "usage: bench_tokenizer_speed TOKENIZER TEXT...\n");
        return 2;
    }
    double start = clock_seconds();
    graft_status status = tokenizer_load(&t, argv[1], NULL, &err);
    printf("# %s loaded in %.3f s\ntext,documents,bytes,tokens,encode_mb_s,decode_mb_s\n", argv[1],
           clock_seconds() - start);
    for (int i = 2; i < argc && status == GRAFT_OK; i++)
        status = measure(t, argv[i], &err);
    if (status != GRAFT_OK)
        fprintf(stderr, "%s\n", err.message);
    tokenizer_destroy(&t);
    return graft_exit_status(status);
}
