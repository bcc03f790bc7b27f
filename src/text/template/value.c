#include "text/template/value.h"

#include "text/template/unicode.h"

#include <math.h>
#include <string.h>

value refuse(vm *m, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fail_list(m, GRAFT_E_INPUT, format, args);
    va_end(args);
    return failed_value;
}

value value_undefined(vm *m, undefined why) {
    undefined *kept = vm_take(m, 1, sizeof *kept);
    if (!kept)
        return failed_value;
    *kept = why;
    return (value){.kind = VALUE_UNDEFINED, .undefined = kept};
}

bool fail_undefined(vm *m, const undefined *u) {
    if (u->hint)
        return fail(m, "%s", u->hint);
    const char *holder = value_type(u->holder);
    if (u->is_unsafe)
        return fail(m, "access to attribute '%.*s' of a %s is unsafe", (int)u->name->n,
                    u->name->bytes, holder);
    if (!u->name) {
        builder b = builder_on(m);
        if (!build_repr(&b, u->element))
            return false;
        const text *element = builder_finish(&b);
        return element &&
               fail(m, "this %s has no element %.*s", holder, (int)element->n, element->bytes);
    }
    if (u->holder.kind == VALUE_FAILED)
        return fail(m, "'%.*s' is undefined", (int)u->name->n, u->name->bytes);
    if (u->holder.kind == VALUE_UNDEFINED)
        return fail_undefined(m, u->holder.undefined);
    if (u->holder.kind == VALUE_DICT && u->holder.dict->is_message)
        return fail(m, "message %d has no '%.*s'", (int)u->holder.dict->owner + 1, (int)u->name->n,
                    u->name->bytes);
    return fail(m, "this %s has no attribute '%.*s'", holder, (int)u->name->n, u->name->bytes);
}

list *list_create(vm *m, list_kind kind, size_t n) {
    list *l = vm_take(m, 1, sizeof *l);
    value *items = l ? vm_take(m, n, sizeof *items) : NULL;
    if (!items)
        return NULL;
    *l = (list){.items = items, .n = n, .kind = kind, .owner = NOBODY};
    return l;
}

list *list_iterator(vm *m, size_t n, const char *type_name) {
    list *l = list_create(m, LIST_ITERATOR, n);
    if (l)
        l->type_name = type_name;
    return l;
}

value value_pair(vm *m, value first, value second) {
    list *pair = list_create(m, LIST_TUPLE, 2);
    if (!pair)
        return failed_value;
    pair->items[0] = first;
    pair->items[1] = second;
    return value_list(pair);
}

const char *value_type(value v) {
    static const char *const names[] = {
        [VALUE_FAILED] = "nothing",   [VALUE_UNDEFINED] = "Undefined",
        [VALUE_NONE] = "NoneType",    [VALUE_BOOL] = "bool",
        [VALUE_INT] = "int",          [VALUE_FLOAT] = "float",
        [VALUE_TEXT] = "str",         [VALUE_LIST] = "list",
        [VALUE_DICT] = "dict",        [VALUE_NAMESPACE] = "Namespace",
        [VALUE_LOOP] = "LoopContext", [VALUE_MACRO] = "Macro",
        [VALUE_METHOD] = "method",    [VALUE_FUNCTION] = "function",
        [VALUE_CYCLER] = "Cycler",    [VALUE_JOINER] = "Joiner",
    };
    if (v.kind != VALUE_LIST || v.list->kind == LIST_LIST)
        return names[v.kind];
    if (v.list->type_name)
        return v.list->type_name;
    return v.list->kind == LIST_TUPLE ? "tuple" : "range";
}

bool value_truth(value v) {
    switch (v.kind) {
    case VALUE_FAILED:
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
        return v.boolean;
    case VALUE_INT:
        return v.integer != 0;
    case VALUE_FLOAT:
        return v.number != 0;
    case VALUE_TEXT:
        return v.text->n > 0;
    case VALUE_LIST:
        return v.list->n > 0 || v.list->kind == LIST_ITERATOR;
    case VALUE_DICT:
        return v.dict->n > 0;
    case VALUE_LOOP:
        return v.loop->over->n > 0;
    default:
        return true;
    }
}

bool value_is_number(value v) {
    return v.kind == VALUE_BOOL || v.kind == VALUE_INT || v.kind == VALUE_FLOAT;
}

double value_number(value v) {
    return v.kind == VALUE_FLOAT ? v.number
           : v.kind == VALUE_INT ? (double)v.integer
                                 : (double)v.boolean;
}

bool value_as_int(int64_t *out, value v) {
    if (v.kind == VALUE_INT)
        *out = v.integer;
    else if (v.kind == VALUE_BOOL)
        *out = v.boolean;
    else
        return false;
    return true;
}

/* Exact, as Python compares an int with a float. */
static int order_numbers(value a, value b, bool *is_unordered) {
    int64_t i, j;
    *is_unordered = false;
    if (value_as_int(&i, a) && value_as_int(&j, b))
        return (i > j) - (i < j);
    double x = value_number(a), y = value_number(b);
    *is_unordered = isnan(x) || isnan(y);
    if (x != y || *is_unordered)
        return (x > y) - (x < y);
    /* Equal once rounded: the integer decides, unless the float lies past all integers. */
    bool is_first = value_as_int(&i, a);
    if (!is_first && !value_as_int(&i, b))
        return 0;
    double other = is_first ? y : x;
    if (other >= 0x1p63)
        return is_first ? -1 : 1;
    int64_t whole = (int64_t)other;
    int order = (i > whole) - (i < whole);
    return is_first ? order : -order;
}

static bool equal_lists(vm *m, bool *out, const list *a, const list *b) {
    *out = false;
    if (a == b) {
        *out = a->kind == b->kind;
        return true;
    }
    if (a->kind != b->kind || a->kind >= LIST_KEYS || a->n != b->n)
        return true;
    for (size_t i = 0; i < a->n; i++)
        if (!value_equal(m, out, a->items[i], b->items[i]))
            return false;
        else if (!*out)
            return true;
    *out = true;
    return true;
}

static bool equal_dicts(vm *m, bool *out, const dict *a, const dict *b) {
    *out = a == b;
    if (*out || a->n != b->n)
        return true;
    for (size_t i = 0; i < a->n; i++) {
        const value *other = dict_get(m, b, a->entries[i].key);
        if (!other)
            return m->status == GRAFT_OK;
        if (!value_equal(m, out, a->entries[i].item, *other))
            return false;
        if (!*out)
            return true;
    }
    *out = true;
    return true;
}

bool value_equal(vm *m, bool *out, value a, value b) {
    *out = false;
    if (!spend(m, 1))
        return false;
    if (value_is_number(a) && value_is_number(b)) {
        bool is_unordered;
        *out = order_numbers(a, b, &is_unordered) == 0 && !is_unordered;
        return true;
    }
    if (a.kind != b.kind)
        return true;
    switch (a.kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        *out = true;
        return true;
    case VALUE_TEXT:
        *out = text_equal(a.text, b.text);
        return a.text->n != b.text->n || spend_bytes(m, a.text->n);
    case VALUE_LIST:
    case VALUE_DICT: {
        if (!enter(m))
            return false;
        bool done = a.kind == VALUE_LIST ? equal_lists(m, out, a.list, b.list)
                                         : equal_dicts(m, out, a.dict, b.dict);
        leave(m);
        return done;
    }
    default:
        *out = value_is_same(a, b);
        return true;
    }
}

bool value_is_same(value a, value b) {
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case VALUE_NONE:
    case VALUE_FAILED:
        return true;
    case VALUE_BOOL:
        return a.boolean == b.boolean;
    case VALUE_INT:
        return a.integer == b.integer;
    case VALUE_FLOAT:
        return a.number == b.number;
    case VALUE_TEXT:
        return text_equal(a.text, b.text);
    default:
        return a.list == b.list; /* any pointer of the union */
    }
}

static bool order_lists(vm *m, int *out, const list *a, const list *b, const char *symbol) {
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        if (!value_equal(m, &same, a->items[i], b->items[i]))
            return false;
        if (!same)
            return value_order(m, out, a->items[i], b->items[i], symbol);
    }
    *out = (a->n > b->n) - (a->n < b->n);
    return true;
}

bool value_order(vm *m, int *out, value a, value b, const char *symbol) {
    if (!spend(m, 1))
        return false;
    if (value_is_number(a) && value_is_number(b)) {
        bool is_unordered;
        *out = order_numbers(a, b, &is_unordered);
        return true;
    }
    if (a.kind == VALUE_UNDEFINED || b.kind == VALUE_UNDEFINED)
        return fail_undefined(m, a.kind == VALUE_UNDEFINED ? a.undefined : b.undefined);
    if (a.kind == VALUE_TEXT && b.kind == VALUE_TEXT) {
        *out = text_order(a.text, b.text);
        return true;
    }
    if (a.kind == VALUE_LIST && b.kind == VALUE_LIST && a.list->kind == b.list->kind &&
        a.list->kind <= LIST_TUPLE) {
        if (!enter(m))
            return false;
        bool done = order_lists(m, out, a.list, b.list, symbol);
        leave(m);
        return done;
    }
    return fail(m, "'%s' is not possible between a %s and a %s", symbol, value_type(a),
                value_type(b));
}

bool value_is_iterable(value v) {
    return v.kind == VALUE_TEXT || v.kind == VALUE_LIST || v.kind == VALUE_DICT ||
           v.kind == VALUE_UNDEFINED || v.kind == VALUE_LOOP;
}

static const list *characters(vm *m, const text *t) {
    text *plain = vm_take(m, 1, sizeof *plain);
    if (!plain)
        return NULL;
    *plain = *t; /* the characters of a safe text are not safe */
    plain->is_safe = false;
    t = plain;
    size_t n = char_count(t->bytes, t->n), at = 0;
    list *l = spend(m, n) ? list_create(m, LIST_LIST, n) : NULL;
    for (size_t i = 0; l && i < n; i++) {
        uint32_t character;
        size_t length = char_at(&character, t->bytes + at, t->n - at);
        l->items[i] = value_text(text_slice(m, t, at, at + length));
        if (is_failed(l->items[i]))
            return NULL;
        at += length;
    }
    return l;
}

static const list *keys(vm *m, const dict *d) {
    list *l = list_create(m, LIST_LIST, d->n);
    for (size_t i = 0; l && i < d->n; i++)
        l->items[i] = d->entries[i].key;
    return l;
}

const list *value_items(vm *m, value v, const char *what) {
    switch (v.kind) {
    case VALUE_TEXT:
        return characters(m, v.text);
    case VALUE_DICT:
        return keys(m, v.dict);
    case VALUE_UNDEFINED:
        return list_create(m, LIST_LIST, 0);
    case VALUE_LIST:
        if (!spend(m, 1 + v.list->n / 2)) /* whoever asks for items passes over them */
            return NULL;
        if (v.list->kind == LIST_ITERATOR) {
            if (v.list->is_used_up)
                return list_create(m, LIST_LIST, 0);
            v.list->is_used_up = true;
        }
        return v.list;
    default:
        fail(m, "%s needs something to iterate over, found a %s", what, value_type(v));
        return NULL;
    }
}
