#include "text/template/input.h"

#include "text/template/transform.h"

#include <string.h>

static const char mark[] = "CONTINUE_FINAL_MESSAGE_TAG ";
/* Names of a message's reasoning: the first that is there fills the others. */
static const char *const reasoning_names[] = {"reasoning_content", "thinking", "reasoning"};

static const text *string_text(vm *m, const char *bytes, size_t n, int32_t owner, bool is_role) {
    const text *t = text_view(m, bytes, n);
    return t && owner != NOBODY ? text_owned(m, t, owner, is_role) : t;
}

static value convert(vm *m, const json_t *json, int32_t owner, bool is_role);

static value convert_array(vm *m, const json_t *json, int32_t owner) {
    size_t n = json_array_size(json);
    list *l = list_create(m, LIST_LIST, n);
    for (size_t i = 0; l && i < n; i++) {
        l->items[i] = convert(m, json_array_get(json, i), owner, false);
        if (is_failed(l->items[i]))
            return failed_value;
    }
    if (l)
        l->owner = owner;
    return value_list(l);
}

static value convert_object(vm *m, const json_t *json, int32_t owner) {
    dict *d = dict_create(m);
    /* jansson's iterators are not const. */
    json_t *object = (json_t *)(uintptr_t)json;
    for (void *at = json_object_iter(object); d && at; at = json_object_iter_next(object, at)) {
        const char *key = json_object_iter_key(at);
        const text *name = string_text(m, key, strlen(key), owner, false);
        value item = name ? convert(m, json_object_iter_value(at), owner, false) : failed_value;
        if (is_failed(item) || !dict_set(m, d, value_text(name), item))
            return failed_value;
    }
    if (d)
        d->owner = owner;
    return value_dict(d);
}

static value convert(vm *m, const json_t *json, int32_t owner, bool is_role) {
    value v = none_value;
    switch (json_typeof(json)) {
    case JSON_NULL:
        return none_value;
    case JSON_TRUE:
    case JSON_FALSE:
        return value_bool(json_is_true(json));
    case JSON_INTEGER:
        return value_int(json_integer_value(json));
    case JSON_REAL:
        return value_float(json_real_value(json));
    case JSON_STRING:
        return value_text(
            string_text(m, json_string_value(json), json_string_length(json), owner, is_role));
    default:
        if (!enter(m))
            return failed_value;
        v = json_is_array(json) ? convert_array(m, json, owner) : convert_object(m, json, owner);
        leave(m);
        return v;
    }
}

value input_value(vm *m, const json_t *json) {
    return json ? convert(m, json, NOBODY, false) : none_value;
}

static bool set_literal(vm *m, dict *d, const char *key, value item) {
    const text *name = text_literal(m, key);
    return name && dict_set(m, d, value_text(name), item);
}

/* The label of a message rather than what it says. */
static bool is_label(const char *key) {
    return strcmp(key, "role") == 0 || strcmp(key, "name") == 0;
}

/* Null fields are dropped; the names of reasoning fill each other, "thinking" first and
 * "reasoning_content" last. */
static value convert_message(vm *m, const json_t *json, int32_t number) {
    dict *d = dict_create(m);
    const json_t *reasoning = NULL;
    for (size_t i = 0; i < 3 && (!reasoning || json_is_null(reasoning)); i++)
        reasoning = json_object_get(json, reasoning_names[i]);
    bool has_reasoning = reasoning && !json_is_null(reasoning);
    value shared = has_reasoning ? convert(m, reasoning, number, false) : none_value;
    if (!d || is_failed(shared) || (has_reasoning && !set_literal(m, d, "thinking", shared)))
        return failed_value;
    json_t *object = (json_t *)(uintptr_t)json;
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        const char *key = json_object_iter_key(at);
        if (json_is_null(json_object_iter_value(at)))
            continue;
        value item = convert(m, json_object_iter_value(at), number, is_label(key));
        if (is_failed(item) || !set_literal(m, d, key, item))
            return failed_value;
    }
    if (has_reasoning && !set_literal(m, d, "reasoning_content", shared))
        return failed_value;
    d->owner = number;
    d->is_message = true;
    return value_dict(d);
}

list *input_messages(vm *m, const json_t *messages) {
    size_t n = json_array_size(messages);
    if (!json_is_array(messages)) {
        fail(m, "the conversation must be an array of messages");
        return NULL;
    }
    if (n == 0) {
        fail(m, "the conversation is empty: give it at least one message");
        return NULL;
    }
    if (n > INT32_MAX) {
        fail(m, "the conversation has too many messages: %zu", n);
        return NULL;
    }
    list *l = list_create(m, LIST_LIST, n);
    for (size_t i = 0; l && i < n; i++) {
        const json_t *message = json_array_get(messages, i);
        if (!json_is_object(message)) {
            fail(m, "message %zu must be an object with \"role\" and \"content\", found %s", i + 1,
                 json_type_name(message));
            return NULL;
        }
        l->items[i] = convert_message(m, message, (int32_t)i);
        if (is_failed(l->items[i]))
            return NULL;
    }
    return l;
}

list *input_probe(vm *m) {
    list *l = list_create(m, LIST_LIST, 1);
    dict *d = dict_create(m);
    if (!l || !d || !set_literal(m, d, "role", value_text(text_literal(m, "user"))) ||
        !set_literal(m, d, "content", value_text(text_literal(m, "x"))))
        return NULL;
    d->owner = 0;
    d->is_message = true;
    l->items[0] = value_dict(d);
    return l;
}

scope *input_scope(vm *m, const syntax_tree *tree, const template_input *input, list *messages,
                   value tools, value documents) {
    scope *s = scope_create(m, NULL);
    for (size_t i = 0; s && i < tree->n_names; i++) {
        const text *name = tree->names[i];
        const json_t *given =
            input->variables ? json_object_getn(input->variables, name->bytes, name->n) : NULL;
        value v = failed_value;
        if (text_is(name, "messages"))
            v = value_list(messages);
        else if (text_is(name, "tools"))
            v = tools;
        else if (text_is(name, "documents"))
            v = documents;
        else if (text_is(name, "add_generation_prompt"))
            v = value_bool(input->add_generation_prompt);
        else if (given)
            v = input_value(m, given);
        if (m->status != GRAFT_OK || (!is_failed(v) && !scope_set(m, s, name, v)))
            return NULL;
    }
    return s;
}

/* The last part of the content that has text. */
static dict *last_text_part(const list *parts) {
    for (size_t i = parts->n; i-- > 0;)
        if (parts->items[i].kind == VALUE_DICT && dict_get_literal(parts->items[i].dict, "text"))
            return parts->items[i].dict;
    return NULL;
}

bool input_mark_final(vm *m, list *messages, const char *source, const text **final_content) {
    dict *holder = messages->items[messages->n - 1].dict;
    const char *key = "content";
    const value *content = dict_get_literal(holder, key);
    if (!content)
        return fail(m, "continue_final_message: the last message has no content to continue");
    if (!strstr(source, key))
        return fail(m, "continue_final_message: the template does not use the content of messages");
    if (content->kind == VALUE_LIST) {
        holder = last_text_part(content->list);
        if (!holder)
            return fail(m, "continue_final_message: the last message has no text to continue");
        key = "text";
        content = dict_get_literal(holder, key);
    }
    if (content->kind != VALUE_TEXT)
        return fail(
            m, "continue_final_message: the last message's content must be a string, found a %s",
            value_type(*content));
    builder marked = builder_on(m);
    *final_content = content->text;
    build_text(&marked, content->text);
    build_literal(&marked, mark);
    const text *t = builder_finish(&marked);
    return t && set_literal(m, holder, key, value_text(t));
}

const text *input_cut_at_mark(vm *m, const text *rendered, const text *final_content) {
    const text whole = {.bytes = mark, .n = sizeof mark - 1},
               bare = {.bytes = mark, .n = sizeof mark - 2};
    value stripped = string_strip(m, final_content, NULL, SIDE_BOTH);
    if (is_failed(stripped))
        return NULL;
    size_t at = text_find_last(m, rendered, &bare, 0, rendered->n);
    if (at == SIZE_MAX || text_find(m, rendered, stripped.text, 0, rendered->n) == SIZE_MAX) {
        fail(m,
             "continue_final_message: the template does not show the last message's content as it "
             "is, so it cannot be continued");
        return NULL;
    }
    const text *cut = text_slice(m, rendered, 0, at);
    if (!cut || (rendered->n - at >= whole.n && memcmp(rendered->bytes + at, mark, whole.n) == 0))
        return cut;
    return string_strip(m, cut, NULL, SIDE_RIGHT).text;
}
