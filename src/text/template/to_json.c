/* |tojson: Python's json.dumps. */
#include "text/template/builtins.h"

#include "formats/json.h"
#include "text/template/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct writer {
    builder out;
    const json_options *options;
    size_t depth;
} writer;

static void write_line_end(writer *w) {
    if (!w->options->indent)
        return;
    build_literal(&w->out, "\n");
    for (size_t i = 0; i < w->depth; i++)
        build_text(&w->out, w->options->indent);
}

/* The same string with every character past ASCII escaped. */
static void write_ascii(builder *out, const char *bytes, size_t n) {
    for (size_t at = 0; at < n;) {
        uint32_t c;
        char code[16];
        at += char_at(&c, bytes + at, n - at);
        if (c < 0x80) {
            build_char(out, c);
            continue;
        }
        if (c < 0x10000)
            snprintf(code, sizeof code, "\\u%04x", c);
        else
            snprintf(code, sizeof code, "\\u%04x\\u%04x", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
        build_literal(out, code);
    }
}

static bool write_string(writer *w, const text *t) {
    vm *m = w->out.m;
    strbuf quoted = {0};
    json_write_string(&quoted, t->bytes, t->n);
    if (quoted.failed)
        fail_memory(m);
    else if (w->options->ensure_ascii)
        write_ascii(&w->out, quoted.data, quoted.length);
    else
        build_bytes(&w->out, quoted.data, quoted.length);
    strbuf_free(&quoted);
    return spend_bytes(m, t->n);
}

static bool write_float(builder *out, double d) {
    if (isnan(d) || isinf(d)) {
        build_literal(out, isnan(d) ? "NaN" : d < 0 ? "-Infinity" : "Infinity");
        return out->m->status == GRAFT_OK;
    }
    return build_float(out, d);
}

static bool write_scalar(writer *w, value v) {
    builder *out = &w->out;
    switch (v.kind) {
    case VALUE_NONE:
        build_literal(out, "null");
        return true;
    case VALUE_BOOL:
        build_literal(out, v.boolean ? "true" : "false");
        return true;
    case VALUE_INT:
        return build_int(out, v.integer);
    case VALUE_FLOAT:
        return write_float(out, v.number);
    case VALUE_TEXT:
        return write_string(w, v.text);
    case VALUE_UNDEFINED:
        return fail_undefined(out->m, v.undefined);
    default:
        return fail(out->m, "tojson cannot write a %s", value_type(v));
    }
}

static bool write_value(writer *w, value v);

static void write_separator(writer *w) {
    const text *given = w->options->item_separator;
    if (given)
        build_text(&w->out, given);
    else
        build_literal(&w->out, w->options->indent ? "," : ", ");
}

static bool write_list(writer *w, value v) {
    const list *l = v.list;
    if (l->kind > LIST_TUPLE)
        return fail(w->out.m, "tojson cannot write a %s", value_type(v));
    build_literal(&w->out, "[");
    w->depth++;
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            write_separator(w);
        write_line_end(w);
        if (!write_value(w, l->items[i]))
            return false;
    }
    w->depth--;
    if (l->n)
        write_line_end(w);
    build_literal(&w->out, "]");
    return true;
}

static bool write_key(writer *w, value key) {
    if (key.kind == VALUE_TEXT)
        return write_string(w, key.text);
    if (key.kind != VALUE_NONE && !value_is_number(key))
        return fail(w->out.m, "tojson cannot write a dict whose key is a %s", value_type(key));
    build_literal(&w->out, "\"");
    if (!write_scalar(w, key))
        return false;
    build_literal(&w->out, "\"");
    return true;
}

static int order_keys(const void *a, const void *b) {
    return text_order(((const dict_entry *)a)->key.text, ((const dict_entry *)b)->key.text);
}

static const dict_entry *sorted_entries(vm *m, const dict *d) {
    dict_entry *sorted = vm_take(m, d->n, sizeof *sorted);
    for (size_t i = 0; sorted && i < d->n; i++) {
        sorted[i] = d->entries[i];
        if (sorted[i].key.kind != VALUE_TEXT) {
            fail(m, "tojson can sort keys only where all are strings");
            return NULL;
        }
    }
    if (sorted)
        qsort(sorted, d->n, sizeof *sorted, order_keys);
    return sorted;
}

static bool write_dict(writer *w, const dict *d) {
    const dict_entry *entries = w->options->sort_keys ? sorted_entries(w->out.m, d) : d->entries;
    if (!entries && d->n)
        return false;
    build_literal(&w->out, "{");
    w->depth++;
    for (size_t i = 0; i < d->n; i++) {
        if (i)
            write_separator(w);
        write_line_end(w);
        if (!write_key(w, entries[i].key))
            return false;
        if (w->options->key_separator)
            build_text(&w->out, w->options->key_separator);
        else
            build_literal(&w->out, ": ");
        if (!write_value(w, entries[i].item))
            return false;
    }
    w->depth--;
    if (d->n)
        write_line_end(w);
    build_literal(&w->out, "}");
    return true;
}

static bool write_value(writer *w, value v) {
    vm *m = w->out.m;
    if (!spend(m, 1))
        return false;
    if (v.kind != VALUE_LIST && v.kind != VALUE_DICT)
        return write_scalar(w, v) && m->status == GRAFT_OK;
    if (!enter(m))
        return false;
    bool done = v.kind == VALUE_LIST ? write_list(w, v) : write_dict(w, v.dict);
    leave(m);
    return done && m->status == GRAFT_OK;
}

/* The message in which the value lies. */
static int32_t owner_of(value v) {
    const stretch *shown = v.kind == VALUE_TEXT ? text_owner(v.text) : NULL;
    if (shown)
        return shown->owner;
    return v.kind == VALUE_LIST ? v.list->owner : v.kind == VALUE_DICT ? v.dict->owner : NOBODY;
}

value value_to_json(vm *m, value v, const json_options *options) {
    writer w = {.out = builder_on(m), .options = options};
    if (!write_value(&w, v))
        return failed_value;
    const text *written = builder_finish(&w.out);
    int32_t owner = owner_of(v);
    if (!written || owner == NOBODY)
        return value_text(written);
    return value_text(text_owned(m, written, owner, false));
}
