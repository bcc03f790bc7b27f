/* tiktoken's rank files: a token (base64) and its rank a line. The rank is the id, and two tokens
 * merge when their concatenation is a token, the lowest rank first. The file does not say how text
 * is split: that comes from a known name, or from "pat_str" in tokenizer_config.json. */
#include "base/file_map.h"
#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/chars.h"
#include "text/tokenizer/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKED_BYTES_MAX = 1024 };

typedef struct known_special {
    const char *text;
    int32_t id;
} known_special;

typedef struct known_encoding {
    const char *name;
    const char *const *pattern;
    bool nfc;
    known_special special[8];
} known_encoding;

static const char *const o200k_pattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";

static const known_encoding known[] = {
    {"r50k_base", &gpt2_pattern, false, {{"<|endoftext|>", 50256}}},
    {"p50k_base", &gpt2_pattern, false, {{"<|endoftext|>", 50256}}},
    {"cl100k_base",
     &llama3_pattern,
     false,
     {{"<|endoftext|>", 100257},
      {"<|fim_prefix|>", 100258},
      {"<|fim_middle|>", 100259},
      {"<|fim_suffix|>", 100260},
      {"<|endofprompt|>", 100276}}},
    {"o200k_base", &o200k_pattern, false, {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
    {"qwen",
     &qwen2_pattern,
     true,
     {{"<|endoftext|>", 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}}},
};

static const known_encoding *find_known(const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t n = strlen(known[i].name);
        if (strncmp(name, known[i].name, n) == 0 && (name[n] == '.' || name[n] == '\0'))
            return &known[i];
    }
    return NULL;
}

static graft_status add_ranked(vocab *tokens, const unsigned char *bytes, size_t n, int32_t rank,
                               graft_error *err) {
    if (n == 0 || n > RANKED_BYTES_MAX)
        return error_set(err, GRAFT_E_INPUT, "a token of %zu bytes; expected 1 to %d", n,
                         RANKED_BYTES_MAX);
    char text[2 * RANKED_BYTES_MAX + 4];
    size_t n_text = 0;
    for (size_t i = 0; i < n; i++)
        n_text += utf8_encode(text + n_text, byte_to_character(bytes[i]));
    vocab_result result = vocab_add(tokens, text, n_text, rank);
    if (result == VOCAB_NO_MEMORY)
        return error_memory(err, tokens->n_bytes, "the vocabulary");
    if (result != VOCAB_ADDED)
        return error_set(err, GRAFT_E_INPUT, "the token or its rank %d is there before", rank);
    return GRAFT_OK;
}

/* The number that ends a line, below `limit`; -1 when it is none. */
static int32_t read_rank(const char *text, size_t n, int32_t limit) {
    int64_t rank = n > 0 ? 0 : -1;
    for (size_t i = 0; i < n && rank >= 0; i++) {
        bool ok = text[i] >= '0' && text[i] <= '9';
        rank = ok ? rank * 10 + (text[i] - '0') : -1;
        if (rank >= limit)
            rank = -1;
    }
    return (int32_t)rank;
}

/* "IQ== 0" */
static graft_status read_line(vocab *tokens, const char *line, size_t n, int32_t limit,
                              graft_error *err) {
    const char *space = memchr(line, ' ', n);
    unsigned char *bytes = NULL;
    size_t n_bytes = 0;
    int32_t rank = space ? read_rank(space + 1, n - (size_t)(space - line) - 1, limit) : -1;
    if (rank < 0)
        return error_set(err, GRAFT_E_INPUT,
                         "expected a token in base64, a space and its rank below %d, found "
                         "\"%.*s\"",
                         limit, (int)(n < 64 ? n : 64), line);
    graft_status status =
        base64_decode(&bytes, &n_bytes, line, (size_t)(space - line), "the token", err);
    if (status == GRAFT_OK)
        status = add_ranked(tokens, bytes, n_bytes, rank, err);
    free(bytes);
    return status;
}

static graft_status read_ranks(vocab *tokens, const char *text, size_t n, const char *path,
                               graft_error *err) {
    size_t lines = 1, number = 1;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    size_t limit = lines + VOCAB_GAPS_MAX < VOCAB_IDS_MAX ? lines + VOCAB_GAPS_MAX : VOCAB_IDS_MAX;
    for (size_t at = 0, stop; at < n; at = stop + 1, number++) {
        const char *end = memchr(text + at, '\n', n - at);
        stop = end ? (size_t)(end - text) : n;
        size_t length = stop - at;
        if (length > 0 && text[at + length - 1] == '\r')
            length--;
        if (length == 0)
            continue;
        graft_status status = read_line(tokens, text + at, length, (int32_t)limit, err);
        if (status != GRAFT_OK) {
            error_prefix(err, "%s:%zu", path, number);
            return status;
        }
    }
    return GRAFT_OK;
}

static graft_status fill_pairs(model *m, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t id = 0; id < m->tokens.n_ids; id++) {
        size_t n;
        const char *text = vocab_text(&m->tokens, (int32_t)id, &n);
        if (!text)
            continue;
        for (size_t cut = char_length(*text); cut < n && status == GRAFT_OK;
             cut += char_length(text[cut])) {
            int32_t left = vocab_find(&m->tokens, text, cut);
            int32_t right = vocab_find(&m->tokens, text + cut, n - cut);
            if (left >= 0 && right >= 0)
                status = bpe_add_pair(&m->bpe, left, right, (uint32_t)id, (int32_t)id, err);
        }
    }
    return status;
}

static graft_status fill_pipeline(tokenizer *t, const known_encoding *name,
                                  const tokenizer_config *c, const char *path, graft_error *err) {
    const char *pattern;
    graft_status status = json_get_string(
        &pattern, c->config, "pat_str", name ? *name->pattern : NULL, "tokenizer_config.json", err);
    if (status != GRAFT_OK)
        return status;
    if (!pattern)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: a tiktoken file does not say how text is split; name it "
                         "cl100k_base, o200k_base, p50k_base, r50k_base or qwen (.tiktoken), or "
                         "give the pattern as \"pat_str\" in tokenizer_config.json",
                         path);
    if (name && name->nfc) {
        normalizer *form = normalizer_list_add(&t->normalizers);
        if (!form)
            return error_memory(err, sizeof *form, "a normalizer");
        form->kind = NORMALIZER_NFC;
    }
    status = add_split(t, pattern, path, err);
    return status == GRAFT_OK ? add_byte_level(t, false, false, err) : status;
}

static graft_status fill_special(tokenizer *t, const known_encoding *name, const char *path,
                                 const message_sink *sink, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; name && name->special[i].text && status == GRAFT_OK; i++) {
        added_token token = {.content = (char *)(uintptr_t)name->special[i].text,
                             .content_bytes = strlen(name->special[i].text),
                             .special = true};
        status = load_added_token(t, &token, name->special[i].id, true, path, sink, err);
    }
    return status;
}

graft_status load_tiktoken(tokenizer *t, const char *path, const tokenizer_config *c,
                           const message_sink *sink, graft_error *err) {
    const known_encoding *name = find_known(path);
    model *m = &t->model;
    char *text = NULL;
    size_t n = 0;
    graft_status status = fill_pipeline(t, name, c, path, err);
    if (status == GRAFT_OK)
        status = file_read_all(&text, &n, path, TOKENIZER_FILE_BYTES_MAX, err);
    if (status == GRAFT_OK)
        status = read_ranks(&m->tokens, text, n, path, err);
    m->kind = MODEL_BPE;
    m->bpe.ignore_merges = true;
    if (status == GRAFT_OK)
        status = model_set_unk(m, NULL, err);
    if (status == GRAFT_OK)
        status = fill_pairs(m, err);
    if (status == GRAFT_OK)
        status = fill_special(t, name, path, sink, err);
    if (status == GRAFT_OK)
        status = load_config_tokens(t, c, true, sink, err);
    free(text);
    return status;
}
