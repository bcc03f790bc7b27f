/* Values as text, as Python prints them. */
#include "text/template/value.h"

#include "formats/json.h"
#include "text/template/ast.h"
#include "text/template/unicode.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

bool build_int(builder *b, int64_t i) {
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRId64, i);
    build_literal(b, digits);
    return b->m->status == GRAFT_OK;
}

bool build_float(builder *b, double d) {
    if (isnan(d)) {
        build_literal(b, "nan");
    } else if (isinf(d)) {
        build_literal(b, d < 0 ? "-inf" : "inf");
    } else {
        strbuf digits = {0};
        json_write_double(&digits, d);
        if (digits.failed)
            fail_memory(b->m);
        else
            build_bytes(b, digits.data, digits.length);
        strbuf_free(&digits);
    }
    return b->m->status == GRAFT_OK;
}

static void build_escape(builder *b, uint32_t c) {
    char code[16];
    const char *format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
    snprintf(code, sizeof code, format, c);
    build_literal(b, code);
}

/* Quotes are single unless only single ones occur inside. */
static bool repr_text(builder *b, const text *t) {
    bool has_single = memchr(t->bytes, '\'', t->n) != NULL;
    char quote = has_single && !memchr(t->bytes, '"', t->n) ? '"' : '\'';
    build_bytes(b, &quote, 1);
    size_t done = 0, at = 0;
    while (at < t->n) {
        uint32_t c;
        size_t length = char_at(&c, t->bytes + at, t->n - at);
        bool is_plain = c != '\\' && c != (uint32_t)quote && char_is_printable(c);
        if (is_plain) {
            at += length;
            continue;
        }
        build_slice(b, t, done, at);
        if (c == '\n' || c == '\t' || c == '\r' || c == '\\' || c == (uint32_t)quote) {
            char escape[3] = {'\\',
                              c == '\n'   ? 'n'
                              : c == '\t' ? 't'
                              : c == '\r' ? 'r'
                                          : (char)c,
                              0};
            build_literal(b, escape);
        } else {
            build_escape(b, c);
        }
        at += length;
        done = at;
    }
    build_slice(b, t, done, t->n);
    build_bytes(b, &quote, 1);
    return spend_bytes(b->m, 4 * t->n);
}

static bool repr_list(builder *b, const list *l) {
    if (l->kind == LIST_RANGE) {
        build_text(b, l->printed);
        return b->m->status == GRAFT_OK;
    }
    if (l->kind == LIST_ITERATOR) {
        build_literal(b, "<");
        build_literal(b, l->type_name);
        build_literal(b, " object>");
        return b->m->status == GRAFT_OK;
    }
    if (l->kind == LIST_KEYS) {
        build_literal(b, l->type_name);
        build_literal(b, "(");
    }
    build_literal(b, l->kind == LIST_TUPLE ? "(" : "[");
    for (size_t i = 0; i < l->n; i++) {
        build_literal(b, i ? ", " : "");
        if (!build_repr(b, l->items[i]))
            return false;
    }
    build_literal(b, l->kind == LIST_TUPLE ? (l->n == 1 ? ",)" : ")") : "]");
    build_literal(b, l->kind == LIST_KEYS ? ")" : "");
    return b->m->status == GRAFT_OK;
}

static bool repr_dict(builder *b, const dict *d) {
    build_literal(b, "{");
    for (size_t i = 0; i < d->n; i++) {
        build_literal(b, i ? ", " : "");
        if (!build_repr(b, d->entries[i].key))
            return false;
        build_literal(b, ": ");
        if (!build_repr(b, d->entries[i].item))
            return false;
    }
    build_literal(b, "}");
    return b->m->status == GRAFT_OK;
}

static bool repr_macro(builder *b, const macro *called) {
    const text *name = called->node->name;
    build_literal(b, "<Macro ");
    if (!name) {
        build_literal(b, "anonymous");
    } else if (!repr_text(b, name)) {
        return false;
    }
    build_literal(b, ">");
    return b->m->status == GRAFT_OK;
}

static bool repr_container(builder *b, value v) {
    switch (v.kind) {
    case VALUE_LIST:
        return repr_list(b, v.list);
    case VALUE_DICT:
        return repr_dict(b, v.dict);
    case VALUE_NAMESPACE:
        build_literal(b, "<Namespace ");
        if (!repr_dict(b, v.dict))
            return false;
        build_literal(b, ">");
        return true;
    default:
        return repr_macro(b, v.macro);
    }
}

bool build_repr(builder *b, value v) {
    if (!spend(b->m, 1))
        return false;
    switch (v.kind) {
    case VALUE_UNDEFINED:
        build_literal(b, "Undefined");
        return true;
    case VALUE_NONE:
        build_literal(b, "None");
        return true;
    case VALUE_BOOL:
        build_literal(b, v.boolean ? "True" : "False");
        return true;
    case VALUE_INT:
        return build_int(b, v.integer);
    case VALUE_FLOAT:
        return build_float(b, v.number);
    case VALUE_TEXT:
        build_literal(b, v.text->is_safe ? "Markup(" : "");
        if (!repr_text(b, v.text))
            return false;
        build_literal(b, v.text->is_safe ? ")" : "");
        return true;
    case VALUE_LIST:
    case VALUE_DICT:
    case VALUE_NAMESPACE:
    case VALUE_MACRO: {
        if (!enter(b->m))
            return false;
        bool done = repr_container(b, v);
        leave(b->m);
        return done;
    }
    case VALUE_LOOP:
        build_literal(b, "<LoopContext ");
        build_int(b, (int64_t)v.loop->index0 + 1);
        build_literal(b, "/");
        build_int(b, (int64_t)v.loop->over->n);
        build_literal(b, ">");
        return true;
    default:
        build_literal(b, "<");
        build_literal(b, value_type(v));
        build_literal(b, " object>");
        return true;
    }
}

bool build_str(builder *b, value v) {
    if (v.kind == VALUE_TEXT)
        build_text(b, v.text);
    else if (v.kind != VALUE_UNDEFINED)
        return build_repr(b, v);
    return b->m->status == GRAFT_OK;
}

const text *value_str(vm *m, value v) {
    if (v.kind == VALUE_TEXT)
        return v.text;
    builder b = builder_on(m);
    return build_str(&b, v) ? builder_finish(&b) : NULL;
}
