/* vocab.json + merges.txt: a byte-level BPE whose pipeline is not written down; the tokenizer's
 * class in tokenizer_config.json says which it is. */
#include "base/file_map.h"
#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line without its end; false past the last. Lines end in LF or CRLF. */
static bool next_line(const char **at, const char *end, const char **line, size_t *n) {
    if (*at == end)
        return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    *line = *at;
    *n = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : end;
    if (*n > 0 && (*line)[*n - 1] == '\r')
        --*n;
    return true;
}

static graft_status read_merge_line(model *m, const char *line, size_t n, size_t rank,
                                    graft_error *err) {
    const char *space = memchr(line, ' ', n);
    const char *end = line + n;
    if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
        return error_set(err, GRAFT_E_INPUT,
                         "expected two tokens with a space between, found \"%.*s\"",
                         (int)(n < 64 ? n : 64), line);
    return load_merge(m, line, (size_t)(space - line), space + 1, (size_t)(end - space - 1), rank,
                      "merges", err);
}

static graft_status read_merges(model *m, const char *text, size_t n, const char *path,
                                graft_error *err) {
    const char *at = text, *end = text + n, *line;
    size_t valid = utf8_valid_length(text, n), length, rank = 0;
    if (valid < n)
        return error_set(err, GRAFT_E_INPUT, "%s: no valid UTF-8 at byte %zu", path, valid);
    for (size_t number = 1; next_line(&at, end, &line, &length); number++) {
        if ((length >= 8 && memcmp(line, "#version", 8) == 0) || (length == 0 && at == end))
            continue;
        graft_status status = read_merge_line(m, line, length, rank++, err);
        if (status != GRAFT_OK) {
            error_prefix(err, "%s:%zu", path, number);
            return status;
        }
    }
    return GRAFT_OK;
}

static graft_status gpt2_pipeline(tokenizer *t, bool add_prefix_space, graft_error *err) {
    return add_byte_level(t, add_prefix_space, true, err);
}

static graft_status qwen2_pipeline(tokenizer *t, bool add_prefix_space, graft_error *err) {
    normalizer *form = normalizer_list_add(&t->normalizers);
    if (!form)
        return error_memory(err, sizeof *form, "a normalizer");
    form->kind = NORMALIZER_NFC;
    graft_status status = add_split(t, qwen2_pattern, "Qwen2's pattern", err);
    return status == GRAFT_OK ? add_byte_level(t, add_prefix_space, false, err) : status;
}

/* A tokenizer class of Transformers: its pipeline, and the special token that stands where its
 * config names none. */
typedef struct known_class {
    const char *name;
    graft_status (*build)(tokenizer *, bool add_prefix_space, graft_error *);
    const char *default_token;
    const char *default_names[4];
} known_class;

static const known_class *find_class(const char *name) {
    static const known_class table[] = {
        {"GPT2Tokenizer", gpt2_pipeline, "<|endoftext|>", {"unk_token", "bos_token", "eos_token"}},
        {"CodeGenTokenizer",
         gpt2_pipeline,
         "<|endoftext|>",
         {"unk_token", "bos_token", "eos_token"}},
        {"Qwen2Tokenizer",
         qwen2_pipeline,
         "<|endoftext|>",
         {"unk_token", "eos_token", "pad_token"}},
    };
    size_t n = strlen(name);
    if (n > 4 && strcmp(name + n - 4, "Fast") == 0)
        n -= 4;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strlen(table[i].name) == n && memcmp(name, table[i].name, n) == 0)
            return &table[i];
    return NULL;
}

static graft_status build_pipeline(const known_class **out, tokenizer *t, const tokenizer_config *c,
                                   const char *path, graft_error *err) {
    const char *place = "tokenizer_config.json", *name;
    bool add_prefix_space;
    graft_status status =
        json_get_string(&name, c->config, "tokenizer_class", "GPT2Tokenizer", place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&add_prefix_space, c->config, "add_prefix_space", false, place, err);
    if (status != GRAFT_OK)
        return status;
    *out = find_class(name);
    if (*out)
        return (*out)->build(t, add_prefix_space, err);
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s: its pipeline is that of \"%.64s\" (tokenizer_config.json), which Graft "
                     "knows only from a tokenizer.json; save one with Transformers' "
                     "AutoTokenizer",
                     path, name);
}

/* The class's special token, under the names that the config leaves open. */
static graft_status add_default_token(tokenizer *t, const known_class *class,
                                      const tokenizer_config *c, const message_sink *sink,
                                      graft_error *err) {
    bool named = false;
    graft_status status = tokenizer_take_names(t, c, err);
    for (size_t i = 0; class->default_names[i] && status == GRAFT_OK; i++) {
        if (json_object_get(c->config, class->default_names[i]))
            continue;
        named = true;
        status = tokenizer_name_token(t, class->default_names[i], class->default_token, err);
    }
    int32_t id = tokenizer_token_id(t, class->default_token);
    if (status != GRAFT_OK || !named || id < 0 || added_token_of(&t->added, id))
        return status;
    added_token token = {.content = (char *)(uintptr_t) class->default_token,
                         .content_bytes = strlen(class->default_token),
                         .special = true};
    return load_added_token(t, &token, -1, false, class->name, sink, err);
}

graft_status load_vocab_merges(tokenizer *t, const char *vocab_path, const char *merges_path,
                               const tokenizer_config *c, const message_sink *sink,
                               graft_error *err) {
    json_t *json = NULL;
    char *merges = NULL;
    size_t n = 0;
    const known_class *class = NULL;
    graft_status status = build_pipeline(&class, t, c, vocab_path, err);
    if (status == GRAFT_OK)
        status = json_read_file(&json, vocab_path, TOKENIZER_FILE_BYTES_MAX, err);
    if (status == GRAFT_OK)
        status = load_vocab_object(&t->model.tokens, json, vocab_path, err);
    if (status == GRAFT_OK)
        status = file_read_all(&merges, &n, merges_path, TOKENIZER_FILE_BYTES_MAX, err);
    t->model.kind = MODEL_BPE;
    if (status == GRAFT_OK)
        status = read_merges(&t->model, merges, n, merges_path, err);
    if (status == GRAFT_OK)
        status = model_set_unk(&t->model, NULL, err);
    if (status == GRAFT_OK)
        status = load_config_tokens(t, c, false, sink, err);
    if (status == GRAFT_OK)
        status = add_default_token(t, class, c, sink, err);
    free(merges);
    json_decref(json);
    return status;
}
