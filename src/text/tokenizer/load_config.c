/* What stands beside a tokenizer's own file: tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json. */
#include "base/atomic_file.h"
#include "base/memory.h"
#include "text/tokenizer/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static graft_status read_object(json_t **out, const char *folder, const char *name,
                                graft_error *err) {
    char *path = path_join(folder, name);
    if (!path)
        return error_memory(err, strlen(folder) + strlen(name), "a path");
    graft_status status = GRAFT_OK;
    if (path_exists(path)) {
        status = json_read_file(out, path, TOKENIZER_FILE_BYTES_MAX, err);
        if (status == GRAFT_OK && !json_is_object(*out))
            status = error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", path,
                               json_type_name(*out));
    }
    free(path);
    return status;
}

graft_status tokenizer_config_read(tokenizer_config *c, const char *folder, graft_error *err) {
    *c = (tokenizer_config){0};
    graft_status status = read_object(&c->config, folder, "tokenizer_config.json", err);
    if (status == GRAFT_OK)
        status = read_object(&c->special_tokens, folder, "special_tokens_map.json", err);
    if (status == GRAFT_OK)
        status = read_object(&c->added_tokens, folder, "added_tokens.json", err);
    return status;
}

void tokenizer_config_free(tokenizer_config *c) {
    json_decref(c->config);
    json_decref(c->special_tokens);
    json_decref(c->added_tokens);
    *c = (tokenizer_config){0};
}

/* A token is a string, or an object with its content. */
static const char *token_text(const json_t *json) {
    return json_string_value(json_is_object(json) ? json_object_get(json, "content") : json);
}

static bool ends_in_token(const char *name) {
    static const char ending[] = "_token";
    size_t n = strlen(name);
    return n > sizeof ending - 1 && strcmp(name + n - (sizeof ending - 1), ending) == 0;
}

static const char *find_named(const tokenizer *t, const char *name) {
    for (size_t i = 0; i < t->n_named; i++)
        if (strcmp(t->named[i].name, name) == 0)
            return t->named[i].text;
    return NULL;
}

graft_status tokenizer_name_token(tokenizer *t, const char *name, const char *text,
                                  graft_error *err) {
    if (find_named(t, name))
        return GRAFT_OK;
    named_token added = {mem_text(name, strlen(name)), mem_text(text, strlen(text))};
    if (!added.name || !added.text ||
        !mem_reserve(&t->named, &t->named_capacity, t->n_named + 1, sizeof *t->named)) {
        free(added.name);
        free(added.text);
        return error_memory(err, strlen(text), "a special token");
    }
    t->named[t->n_named++] = added;
    return GRAFT_OK;
}

static graft_status add_named(tokenizer *t, const json_t *object, graft_error *err) {
    const char *name;
    json_t *value;
    graft_status status = GRAFT_OK;
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        const char *text = token_text(value);
        if (text && ends_in_token(name) && status == GRAFT_OK)
            status = tokenizer_name_token(t, name, text, err);
    }
    return status;
}

static int32_t named_id(const tokenizer *t, const char *name, const message_sink *sink) {
    const char *text = find_named(t, name);
    int32_t id = text ? tokenizer_token_id(t, text) : -1;
    if (text && id < 0)
        message_emit(sink, MESSAGE_WARNING,
                     "tokenizer: %s is \"%s\", which is not in the vocabulary; it is passed over",
                     name, text);
    return id;
}

graft_status tokenizer_take_names(tokenizer *t, const tokenizer_config *c, graft_error *err) {
    graft_status status = add_named(t, c->config, err);
    if (status == GRAFT_OK)
        status = add_named(t, json_object_get(c->config, "extra_special_tokens"), err);
    return status == GRAFT_OK ? add_named(t, c->special_tokens, err) : status;
}

void tokenizer_find_named(tokenizer *t, const message_sink *sink) {
    t->bos = named_id(t, "bos_token", sink);
    t->eos = named_id(t, "eos_token", sink);
    t->pad = named_id(t, "pad_token", sink);
}

/* ---- Tokens that only these files name ---- */

typedef struct config_token {
    added_token token;
    int64_t id;
} config_token;

typedef struct config_tokens {
    config_token *items;
    size_t n, capacity;
} config_tokens;

static bool push(config_tokens *list, added_token token, int64_t id) {
    if (!mem_reserve(&list->items, &list->capacity, list->n + 1, sizeof *list->items))
        return false;
    list->items[list->n++] = (config_token){token, id};
    return true;
}

static int by_id(const void *a, const void *b) {
    int64_t left = ((const config_token *)a)->id, right = ((const config_token *)b)->id;
    return (left > right) - (left < right);
}

/* {"151643": {"content": ...}, ...} */
static graft_status take_decoder(config_tokens *list, const json_t *listed, const char *place,
                                 graft_error *err) {
    const char *key;
    json_t *json;
    json_object_foreach((json_t *)(uintptr_t)listed, key, json) {
        const char *content = json_string_value(json_object_get(json, "content"));
        char *end;
        long long id = strtoll(key, &end, 10);
        if (!content || *end || end == key || id < 0 || id >= VOCAB_IDS_MAX)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: added_tokens_decoder[\"%.32s\"]: expected an id and an object "
                             "with \"content\"",
                             place, key);
        added_token token;
        graft_status status = read_added_token(&token, json, content, place, err);
        if (status != GRAFT_OK)
            return status;
        if (!push(list, token, id))
            return error_memory(err, sizeof token, "an added token");
    }
    return GRAFT_OK;
}

/* {"<|endoftext|>": 151643, ...} */
static graft_status take_ids(config_tokens *list, const json_t *ids, graft_error *err) {
    const char *content;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)ids, content, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            return error_set(err, GRAFT_E_INPUT,
                             "added_tokens.json: \"%.64s\": expected an id from 0 on, found %s",
                             content, json_type_name(id));
        added_token token = {.content = (char *)(uintptr_t)content,
                             .content_bytes = strlen(content),
                             .special = true};
        if (!push(list, token, json_integer_value(id)))
            return error_memory(err, sizeof token, "an added token");
    }
    return GRAFT_OK;
}

static graft_status load_special_tokens(tokenizer *t, const json_t *object, const char *place,
                                        const message_sink *sink, graft_error *err) {
    graft_status status = GRAFT_OK;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        const char *content = token_text(value);
        if (!content || !ends_in_token(name) || status != GRAFT_OK)
            continue;
        int32_t id = tokenizer_token_id(t, content);
        if (added_token_of(&t->added, id))
            continue;
        added_token token;
        status = read_added_token(&token, value, content, place, err);
        token.special = true;
        token.normalized = false;
        if (status == GRAFT_OK)
            status = load_added_token(t, &token, -1, false, place, sink, err);
    }
    return status;
}

graft_status load_config_tokens(tokenizer *t, const tokenizer_config *c, bool exact,
                                const message_sink *sink, graft_error *err) {
    static const char place[] = "tokenizer_config.json";
    config_tokens list = {0};
    const json_t *listed = json_object_get(c->config, "added_tokens_decoder");
    graft_status status = json_object_size(listed) > 0 ? take_decoder(&list, listed, place, err)
                                                       : take_ids(&list, c->added_tokens, err);
    if (list.n > 0)
        qsort(list.items, list.n, sizeof *list.items, by_id);
    for (size_t i = 0; i < list.n && status == GRAFT_OK; i++)
        status =
            load_added_token(t, &list.items[i].token, list.items[i].id, exact, place, sink, err);
    free(list.items);
    if (status == GRAFT_OK)
        status = load_special_tokens(t, c->config, place, sink, err);
    return status == GRAFT_OK ? load_special_tokens(t, c->special_tokens, place, sink, err)
                              : status;
}
