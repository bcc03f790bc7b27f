/* Filters of one text. What is no text is printed first, as Jinja's soft_str does. */
#include "text/template/filters.h"

#include "text/template/transform.h"

#include <stdio.h>
#include <string.h>

/* The value as text, for filters without arguments; NULL when it failed. */
static const text *alone(vm *m, value self, const char *what, const arguments *given) {
    return bind(m, NULL, what, "", 0, given) ? value_str(m, self) : NULL;
}

value filter_capitalize(vm *m, value self, const arguments *given) {
    const text *t = alone(m, self, "capitalize", given);
    return t ? string_capitalize(m, t) : failed_value;
}

value filter_lower(vm *m, value self, const arguments *given) {
    const text *t = alone(m, self, "lower", given);
    return t ? string_convert(m, t, CASE_LOWER) : failed_value;
}

value filter_upper(vm *m, value self, const arguments *given) {
    const text *t = alone(m, self, "upper", given);
    return t ? string_convert(m, t, CASE_UPPER) : failed_value;
}

value filter_string(vm *m, value self, const arguments *given) {
    return value_text(alone(m, self, "string", given));
}

value filter_safe(vm *m, value self, const arguments *given) {
    return mark_safe(m, alone(m, self, "safe", given));
}

value filter_escape(vm *m, value self, const arguments *given) {
    const text *t = alone(m, self, "escape", given);
    return t ? escape_text(m, t) : failed_value;
}

value filter_forceescape(vm *m, value self, const arguments *given) {
    const text *t = alone(m, self, "forceescape", given);
    if (!t)
        return failed_value;
    text plain = *t;
    plain.is_safe = false;
    return escape_text(m, &plain);
}

static bool begins_word(uint32_t c) {
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || char_is_space(c);
}

value filter_title(vm *m, value self, const arguments *given) {
    const text *t = alone(m, self, "title", given);
    builder b = builder_on(m);
    for (size_t at = 0; t && at < t->n;) {
        size_t begin = at, second = 0;
        uint32_t c;
        char_at(&c, t->bytes + at, t->n - at);
        bool is_between = begins_word(c);
        while (at < t->n) {
            size_t length = char_at(&c, t->bytes + at, t->n - at);
            if (begins_word(c) != is_between)
                break;
            at += length;
            second = second ? second : at;
        }
        value first = string_convert(m, text_slice(m, t, begin, second), CASE_UPPER);
        value rest =
            is_failed(first) ? first : string_convert(m, text_slice(m, t, second, at), CASE_LOWER);
        if (is_failed(rest))
            return rest;
        build_text(&b, first.text);
        build_text(&b, rest.text);
    }
    return value_text(t ? builder_finish(&b) : NULL);
}

value filter_trim(vm *m, value self, const arguments *given) {
    value v[1];
    const text *chars = NULL, *t = NULL;
    if (!bind(m, v, "trim", "chars", 0, given) ||
        (v[0].kind != VALUE_NONE && !take_text(m, &chars, v[0], "trim's chars")) ||
        !(t = value_str(m, self)))
        return failed_value;
    return string_strip(m, t, chars, SIDE_BOTH);
}

value filter_center(vm *m, value self, const arguments *given) {
    value v[1];
    int64_t width = 80;
    const text *t = NULL, space = {.bytes = " ", .n = 1};
    if (!bind(m, v, "center", "width", 0, given) || !take_int(m, &width, v[0], "center's width") ||
        !(t = value_str(m, self)))
        return failed_value;
    return string_pad(m, t, width, &space, SIDE_BOTH);
}

value filter_replace(vm *m, value self, const arguments *given) {
    value v[3];
    int64_t count = -1;
    const text *t, *old, *new;
    if (!bind(m, v, "replace", "old new count", 2, given) ||
        (v[2].kind != VALUE_NONE && !take_int(m, &count, v[2], "replace's count")) ||
        !(t = value_str(m, self)) || !(old = value_str(m, v[0])) || !(new = value_str(m, v[1])))
        return failed_value;
    return string_replace(m, t, old, new, count);
}

value filter_format(vm *m, value self, const arguments *given) {
    const text *t = value_str(m, self);
    if (!t)
        return failed_value;
    if (given->n && given->n_named)
        return refuse(m, "format takes arguments either with names or without, not both");
    if (given->n_named) {
        dict *d = dict_create(m);
        for (size_t i = 0; d && i < given->n_named; i++)
            if (!dict_set(m, d, value_text(given->names[i]), given->named[i]))
                return failed_value;
        return d ? format_percent(m, t, value_dict(d)) : failed_value;
    }
    list *l = list_create(m, LIST_TUPLE, given->n);
    if (!l)
        return failed_value;
    if (given->n)
        memcpy(l->items, given->items, given->n * sizeof *l->items);
    return format_percent(m, t, value_list(l));
}

value filter_indent(vm *m, value self, const arguments *given) {
    value v[3];
    int64_t width = 4;
    bool first = false, blank = false;
    const text *t = NULL, *indent = NULL;
    if (!bind(m, v, "indent", "width first blank", 0, given) ||
        !take_text(m, &t, self, "what indent is used on"))
        return failed_value;
    if (was_given(v[0]) && v[0].kind == VALUE_TEXT)
        indent = v[0].text;
    else if (!take_int(m, &width, v[0], "indent's width"))
        return failed_value;
    take_bool(&first, v[1]);
    take_bool(&blank, v[2]);
    builder spaces = builder_on(m), b = builder_on(m);
    if (!indent) {
        build_repeat(&spaces, ' ', width > 0 ? (size_t)width : 0);
        indent = builder_finish(&spaces);
    }
    build_text(&b, t);
    build_literal(&b, "\n"); /* so that a newline at the end gives an empty last line */
    const text *extended = builder_finish(&b);
    const list *lines = extended && indent ? string_lines(m, extended, false) : NULL;
    b = builder_on(m);
    for (size_t i = 0; lines && i < lines->n; i++) {
        const text *line = lines->items[i].text;
        if (i)
            build_literal(&b, "\n");
        if (i ? line->n || blank : first)
            build_text(&b, indent);
        build_text(&b, line);
    }
    return value_text(lines ? builder_finish(&b) : NULL);
}

value filter_truncate(vm *m, value self, const arguments *given) {
    value v[4];
    int64_t length = 255, leeway = 5;
    bool kills_words = false;
    const text *t = NULL, ellipsis = {.bytes = "...", .n = 3}, *end = &ellipsis;
    if (self.kind == VALUE_UNDEFINED)
        return self; /* it is short enough */
    if (!bind(m, v, "truncate", "length killwords end leeway", 0, given) ||
        !take_text(m, &t, self, "what truncate is used on") ||
        !take_int(m, &length, v[0], "truncate's length") ||
        !take_text(m, &end, v[2], "truncate's end") ||
        (v[3].kind != VALUE_NONE && !take_int(m, &leeway, v[3], "truncate's leeway")))
        return failed_value;
    take_bool(&kills_words, v[1]);
    int64_t n = (int64_t)char_count(t->bytes, t->n);
    int64_t kept = length - (int64_t)char_count(end->bytes, end->n);
    if (kept < 0 || leeway < 0)
        return refuse(m, "truncate's length is shorter than its end, or its leeway is negative");
    if (leeway > INT64_MAX - length || n <= length + leeway)
        return value_text(t);
    size_t cut = char_offset(t->bytes, t->n, (size_t)kept);
    const char *space = cut && !kills_words ? memrchr(t->bytes, ' ', cut) : NULL;
    if (space)
        cut = (size_t)(space - t->bytes);
    builder b = builder_on(m);
    build_slice(&b, t, 0, cut);
    build_text(&b, end);
    return value_text(builder_finish(&b));
}

value filter_wordcount(vm *m, value self, const arguments *given) {
    const text *t = alone(m, self, "wordcount", given);
    int64_t words = 0;
    bool inside = false;
    for (size_t at = 0; t && at < t->n;) {
        uint32_t c;
        at += char_at(&c, t->bytes + at, t->n - at);
        bool is_word = c == '_' || char_is_letter(c) || char_is_numeric(c);
        words += is_word && !inside;
        inside = is_word;
    }
    return t ? value_int(words) : failed_value;
}

static void build_quoted(builder *b, const text *t, bool in_query) {
    for (size_t i = 0; i < t->n; i++) {
        unsigned char c = (unsigned char)t->bytes[i];
        char code[4];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
                        (c >= 'a' && c <= 'z') || (c && strchr("_.-~", c)) ||
                        (c == '/' && !in_query);
        if (is_plain)
            snprintf(code, sizeof code, "%c", c);
        else if (c == ' ' && in_query)
            snprintf(code, sizeof code, "+");
        else
            snprintf(code, sizeof code, "%%%02X", c);
        build_literal(b, code);
    }
}

static value urlencode_pairs(vm *m, const list *pairs) {
    builder b = builder_on(m);
    for (size_t i = 0; i < pairs->n; i++) {
        const list *pair = value_items(m, pairs->items[i], "urlencode");
        if (!pair)
            return failed_value;
        if (pair->n != 2)
            return refuse(m, "urlencode needs pairs, found %zu values", pair->n);
        for (size_t part = 0; part < 2; part++) {
            const text *t = value_str(m, pair->items[part]);
            if (!t)
                return failed_value;
            build_literal(&b, part ? "=" : i ? "&" : "");
            build_quoted(&b, t, true);
        }
    }
    return value_text(builder_finish(&b));
}

value filter_urlencode(vm *m, value self, const arguments *given) {
    if (!bind(m, NULL, "urlencode", "", 0, given))
        return failed_value;
    if (self.kind == VALUE_DICT) {
        value pairs = filter_items(m, self, given);
        return is_failed(pairs) ? pairs : urlencode_pairs(m, pairs.list);
    }
    if (self.kind == VALUE_LIST) {
        const list *pairs = value_items(m, self, "urlencode");
        return pairs ? urlencode_pairs(m, pairs) : failed_value;
    }
    const text *t = value_str(m, self);
    builder b = builder_on(m);
    if (t)
        build_quoted(&b, t, false);
    return value_text(t ? builder_finish(&b) : NULL);
}

value filter_xmlattr(vm *m, value self, const arguments *given) {
    value v[1];
    bool with_space = true, is_first = true;
    builder b = builder_on(m);
    if (!bind(m, v, "xmlattr", "autospace", 0, given))
        return failed_value;
    take_bool(&with_space, v[0]);
    if (self.kind != VALUE_DICT)
        return refuse(m, "xmlattr needs a dict, found a %s", value_type(self));
    for (size_t i = 0; i < self.dict->n; i++) {
        const dict_entry *entry = &self.dict->entries[i];
        if (entry->item.kind == VALUE_NONE || entry->item.kind == VALUE_UNDEFINED)
            continue;
        const text *key = NULL, *item = value_str(m, entry->item);
        if (!take_text(m, &key, entry->key, "the name of an attribute") || !item)
            return failed_value;
        for (size_t at = 0; at < key->n; at++)
            if (key->bytes[at] && strchr(" \t\n\v\f\r/>=", key->bytes[at]))
                return refuse(m, "xmlattr: \"%.*s\" cannot be the name of an attribute",
                              (int)key->n, key->bytes);
        value escaped_key = escape_text(m, key), escaped = escape_text(m, item);
        if (is_failed(escaped_key) || is_failed(escaped))
            return failed_value;
        build_literal(&b, is_first && !with_space ? "" : " ");
        build_text(&b, escaped_key.text);
        build_literal(&b, "=\"");
        build_text(&b, escaped.text);
        build_literal(&b, "\"");
        is_first = false;
    }
    return value_text(builder_finish(&b));
}
