#include "text/tokenizer/component.h"

#include "base/memory.h"
#include "text/tokenizer/chars.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct walk {
    void *pipeline;
    component_reader *read;
    const char *list_key;
    unsigned n_read;
} walk;

static graft_status walk_one(walk *w, const json_t *json, const char *place, unsigned depth,
                             graft_error *err);

static graft_status walk_list(walk *w, const json_t *json, const char *place, unsigned depth,
                              graft_error *err) {
    const json_t *list = json_object_get(json, w->list_key);
    if (!json_is_array(list))
        return error_set(err, GRAFT_E_INPUT, "%s.%s: expected an array, found %s", place,
                         w->list_key, json_type_name(list));
    if (depth >= COMPONENT_DEPTH_MAX)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: Sequences are nested deeper than %d; flatten them", place,
                         COMPONENT_DEPTH_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char inner[PLACE_BYTES];
        snprintf(inner, sizeof inner, "%s.%s[%zu]", place, w->list_key, i);
        graft_status status = walk_one(w, json_array_get(list, i), inner, depth + 1, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static graft_status walk_one(walk *w, const json_t *json, const char *place, unsigned depth,
                             graft_error *err) {
    if (!json_is_object(json))
        return error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", place,
                         json_type_name(json));
    const char *type;
    graft_status status = json_get_string(&type, json, "type", NULL, place, err);
    if (status != GRAFT_OK)
        return status;
    if (!type)
        return error_set(err, GRAFT_E_INPUT, "%s.type: missing; expected the component's name",
                         place);
    if (strcmp(type, "Sequence") == 0)
        return walk_list(w, json, place, depth, err);
    if (++w->n_read > COMPONENTS_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: more than %d components in one pipeline", place,
                         COMPONENTS_MAX);
    return w->read(w->pipeline, type, json, place, err);
}

graft_status components_read(void *pipeline, component_reader *read, const char *list_key,
                             const json_t *json, const char *place, graft_error *err) {
    walk w = {pipeline, read, list_key, 0};
    return !json || json_is_null(json) ? GRAFT_OK : walk_one(&w, json, place, 0, err);
}

graft_status component_unknown(const char *type, const char *known, const char *place,
                               graft_error *err) {
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s.type: \"%.64s\" is not among those that Graft has: %s, Sequence", place,
                     type, known);
}

graft_status component_text(char **out, size_t *n, const json_t *json, const char *key,
                            const char *place, graft_error *err) {
    const json_t *member = json_object_get(json, key);
    if (!json_is_string(member))
        return error_set(err, GRAFT_E_INPUT, "%s.%s: expected a string, found %s", place, key,
                         member ? json_type_name(member) : "nothing");
    *n = json_string_length(member);
    *out = mem_text(json_string_value(member), *n);
    return *out ? GRAFT_OK : error_memory(err, *n, "a tokenizer's text");
}

graft_status component_character(uint32_t *out, const json_t *json, const char *key,
                                 const char *place, graft_error *err) {
    const json_t *member = json_object_get(json, key);
    const char *text = json_is_string(member) ? json_string_value(member) : "";
    size_t length = 0, n = json_is_string(member) ? json_string_length(member) : 0;
    if (n > 0)
        *out = char_decode(text, &length);
    if (n == 0 || length != n)
        return error_set(err, GRAFT_E_INPUT,
                         "%s.%s: expected a string of one character, found %s of %zu bytes", place,
                         key, member ? json_type_name(member) : "nothing", n);
    return GRAFT_OK;
}

graft_status component_size(size_t *out, const json_t *json, const char *key, int64_t low,
                            int64_t fallback, const char *place, graft_error *err) {
    int64_t value;
    graft_status status = json_get_i64(&value, json, key, low, INT64_MAX, fallback, place, err);
    *out = status == GRAFT_OK ? (size_t)value : 0;
    return status;
}

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

graft_status base64_decode(unsigned char **out, size_t *n, const char *text, size_t text_bytes,
                           const char *place, graft_error *err) {
    *out = NULL;
    *n = 0;
    size_t digits = text_bytes;
    while (digits > 0 && text_bytes - digits < 2 && text[digits - 1] == '=')
        digits--;
    unsigned char *bytes = malloc(digits / 4 * 3 + 3);
    if (!bytes)
        return error_memory(err, digits, "decoded base64");
    uint32_t bits = 0;
    size_t count = 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0 || digits % 4 == 1) {
            free(bytes);
            return error_set(err, GRAFT_E_INPUT, "%s: its %zu bytes are no base64", place,
                             text_bytes);
        }
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 > 0)
            bytes[count++] = (unsigned char)(bits >> (6 - 2 * (i % 4)));
    }
    *out = bytes;
    *n = count;
    return GRAFT_OK;
}
