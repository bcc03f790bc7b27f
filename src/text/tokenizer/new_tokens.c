#include "text/tokenizer/new_tokens.h"

#include "base/atomic_file.h"
#include "base/file_map.h"
#include "base/memory.h"
#include "formats/json.h"
#include "formats/utf8.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_BYTES_MAX = 64 << 20, FILE_BYTES_MAX = 1 << 30, COMPANION_BYTES_MAX = 16 << 20 };

void new_tokens_free(new_tokens *tokens) {
    for (size_t i = 0; i < tokens->n; i++)
        free(tokens->items[i].content);
    free(tokens->items);
    *tokens = (new_tokens){0};
}

/* ---- The list ---- */

static graft_status add_token(new_tokens *tokens, const char *content, size_t n, bool is_special,
                              const char *origin, graft_error *err) {
    if (!n || n > ADDED_TOKEN_BYTES_MAX || memchr(content, '\0', n))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected a token of 1 to %d bytes without NUL, found %zu", origin,
                         (int)ADDED_TOKEN_BYTES_MAX, n);
    for (size_t i = 0; i < tokens->n; i++)
        if (strlen(tokens->items[i].content) == n && !memcmp(tokens->items[i].content, content, n))
            return error_set(err, GRAFT_E_INPUT,
                             "%s: token %zu of this list again; expected each once", origin, i + 1);
    if (!mem_reserve(&tokens->items, &tokens->capacity, tokens->n + 1, sizeof *tokens->items))
        return error_memory(err, tokens->n * sizeof *tokens->items, "the new tokens");
    new_token *token = &tokens->items[tokens->n];
    *token = (new_token){.content = mem_text(content, n), .is_special = is_special, .id = -1};
    if (!token->content)
        return error_memory(err, n, "a new token");
    tokens->n++;
    return GRAFT_OK;
}

/* A line that is a JSON object with a content; any other line is a token as it stands. */
static graft_status read_line(new_tokens *tokens, const char *line, size_t n, const char *origin,
                              graft_error *err) {
    json_t *object = NULL;
    bool is_special = false;
    const char *content = NULL;
    graft_status status = GRAFT_OK;
    if (line[0] == '{' && json_parse(&object, line, n, origin, NULL) == GRAFT_OK &&
        json_is_string(json_object_get(object, "content"))) {
        content = json_string_value(json_object_get(object, "content"));
        n = json_string_length(json_object_get(object, "content"));
        status = json_get_bool(&is_special, object, "special", false, origin, err);
    }
    if (status == GRAFT_OK)
        status = add_token(tokens, content ? content : line, n, is_special, origin, err);
    json_decref(object);
    return status;
}

graft_status new_tokens_read(new_tokens *out, const char *path, graft_error *err) {
    char *text = NULL;
    size_t size = 0;
    *out = (new_tokens){0};
    graft_status status = file_read_all(&text, &size, path, LIST_BYTES_MAX, err);
    if (status == GRAFT_OK && utf8_valid_length(text, size) < size)
        status =
            error_set(err, GRAFT_E_INPUT, "%s: byte %zu: expected UTF-8 text; convert it to UTF-8",
                      path, utf8_valid_length(text, size));
    size_t line = 1;
    for (size_t at = 0; status == GRAFT_OK && at < size; line++) {
        char origin[4200];
        const char *newline = memchr(text + at, '\n', size - at);
        size_t n = newline ? (size_t)(newline - text) - at : size - at;
        size_t kept = n && text[at + n - 1] == '\r' ? n - 1 : n;
        snprintf(origin, sizeof origin, "%s:%zu", path, line);
        if (kept)
            status = read_line(out, text + at, kept, origin, err);
        at += n + 1;
    }
    if (status == GRAFT_OK && !out->n)
        status = error_set(err, GRAFT_E_INPUT, "%s: expected one token a line, found none", path);
    if (status != GRAFT_OK)
        new_tokens_free(out);
    free(text);
    return status;
}

/* ---- Files ---- */

static graft_status write_json(const char *folder, const char *name, const json_t *json,
                               graft_error *err) {
    strbuf text = {0};
    char *path = path_join(folder, name);
    json_write(&text, json, JSON_INDENT_2, false);
    strbuf_add_char(&text, '\n');
    graft_status status = path && !text.failed
                              ? file_write_atomic(path, strbuf_text(&text), text.length, err)
                              : error_memory(err, text.length, name);
    strbuf_free(&text);
    free(path);
    return status;
}

/* *json is NULL when there is no such file. */
static graft_status read_json(json_t **json, const char *folder, const char *name, size_t limit,
                              graft_error *err) {
    char *path = path_join(folder, name);
    *json = NULL;
    if (!path)
        return error_memory(err, strlen(folder), "a file name");
    graft_status status = GRAFT_OK;
    if (path_exists(path))
        status = json_read_file(json, path, limit, err);
    free(path);
    return status;
}

/* ---- Growing ---- */

/* What Transformers' AddedToken(content, special=...) is. */
static json_t *token_json(const new_token *token, bool with_id) {
    json_t *json = json_object();
    bool ok = json != NULL;
    if (with_id)
        ok = ok && !json_object_set_new(json, "id", json_integer(token->id));
    ok = ok && !json_object_set_new(json, "content", json_string(token->content)) &&
         !json_object_set_new(json, "single_word", json_false()) &&
         !json_object_set_new(json, "lstrip", json_false()) &&
         !json_object_set_new(json, "rstrip", json_false()) &&
         !json_object_set_new(json, "normalized", json_boolean(!token->is_special)) &&
         !json_object_set_new(json, "special", json_boolean(token->is_special));
    if (ok)
        return json;
    json_decref(json);
    return NULL;
}

/* Gives ids, and lists what is new in tokenizer.json and, where it lists tokens, in
 * tokenizer_config.json. */
static graft_status add_tokens(json_t *file, json_t *config, new_tokens *tokens,
                               const tokenizer *known, int32_t *vocab_size, graft_error *err) {
    json_t *list = json_object_get(file, "added_tokens");
    json_t *decoder = json_object_get(config, "added_tokens_decoder");
    bool ok = true;
    *vocab_size = tokenizer_vocab_size(known);
    if (!json_is_array(list)) {
        list = json_array();
        ok = list && !json_object_set_new(file, "added_tokens", list);
    }
    for (size_t i = 0; ok && i < tokens->n; i++) {
        new_token *token = &tokens->items[i];
        token->id = tokenizer_token_id(known, token->content);
        if (token->id >= 0)
            continue;
        token->id = (*vocab_size)++;
        char id[16];
        snprintf(id, sizeof id, "%d", (int)token->id);
        ok = !json_array_append_new(list, token_json(token, true));
        if (json_is_object(decoder))
            ok = ok && !json_object_set_new(decoder, id, token_json(token, false));
    }
    return ok ? GRAFT_OK : error_memory(err, tokens->n * 64, "the new tokens");
}

/* What was written must load, with the ids that were given. */
static graft_status check_grown(const char *folder, const new_tokens *tokens, graft_error *err) {
    tokenizer *grown = NULL;
    graft_status status = tokenizer_load(&grown, folder, NULL, err);
    for (size_t i = 0; status == GRAFT_OK && i < tokens->n; i++)
        if (tokenizer_token_id(grown, tokens->items[i].content) != tokens->items[i].id)
            status = error_set(err, GRAFT_E_INTERNAL, "%s: token \"%s\" is not id %d", folder,
                               tokens->items[i].content, (int)tokens->items[i].id);
    tokenizer_destroy(&grown);
    return status;
}

graft_status tokenizer_grow(const char *to, const char *from, new_tokens *tokens,
                            int32_t *vocab_size, graft_error *err) {
    static const char *const companions[] = {"special_tokens_map.json", "chat_template.jinja",
                                             "chat_template.json"};
    json_t *file = NULL, *config = NULL;
    tokenizer *known = NULL;
    graft_status status = read_json(&file, from, "tokenizer.json", FILE_BYTES_MAX, err);
    if (status == GRAFT_OK && !file)
        status = error_set(err, GRAFT_E_UNSUPPORTED,
                           "%s: new tokens need a tokenizer.json, and there is none; make one with "
                           "Transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
                           from);
    if (status == GRAFT_OK)
        status = read_json(&config, from, "tokenizer_config.json", COMPANION_BYTES_MAX, err);
    if (status == GRAFT_OK)
        status = tokenizer_load(&known, from, NULL, err);
    if (status == GRAFT_OK)
        status = add_tokens(file, config, tokens, known, vocab_size, err);
    if (status == GRAFT_OK)
        status = folder_create(to, err);
    if (status == GRAFT_OK)
        status = write_json(to, "tokenizer.json", file, err);
    if (status == GRAFT_OK && config)
        status = write_json(to, "tokenizer_config.json", config, err);
    for (size_t i = 0; status == GRAFT_OK && i < sizeof companions / sizeof *companions; i++)
        status = folder_copy_file(to, from, companions[i], COMPANION_BYTES_MAX, err);
    if (status == GRAFT_OK)
        status = check_grown(to, tokens, err);
    json_decref(file);
    json_decref(config);
    tokenizer_destroy(&known);
    return status;
}
