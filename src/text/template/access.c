/* a.name, a[key], a[begin:end:step]. */
#include "text/template/evaluator.h"

#include "text/template/unicode.h"

#include <string.h>

static value missing(vm *m, value holder, value key) {
    undefined why = {.holder = holder, .element = key};
    if (key.kind == VALUE_TEXT)
        why.name = key.text;
    return value_undefined(m, why);
}

static value bound_method(vm *m, value self, const builtin *found) {
    method *bound = vm_take(m, 1, sizeof *bound);
    if (!bound)
        return failed_value;
    *bound = (method){.self = self, .builtin = found};
    return (value){.kind = VALUE_METHOD, .method = bound};
}

static value macro_attribute(vm *m, const macro *of, const text *name, value self) {
    const node *n = of->node;
    if (text_is(name, "name"))
        return n->kind == NODE_MACRO ? value_text(n->name) : none_value;
    if (text_is(name, "caller"))
        return value_bool(n->macro->caller != NULL);
    if (text_is(name, "catch_kwargs"))
        return value_bool(n->macro->kwargs != NULL);
    if (text_is(name, "catch_varargs"))
        return value_bool(n->macro->varargs != NULL);
    if (!text_is(name, "arguments"))
        return missing(m, self, value_text(name));
    list *names = list_create(m, LIST_TUPLE, n->macro->n);
    for (size_t i = 0; names && i < names->n; i++)
        names->items[i] = value_text(n->macro->names[i]);
    return value_list(names);
}

/* Methods that would change a value in place: the sandbox hides them. */
static bool is_hidden(value v, const text *name) {
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const of_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                          "sort",   "extend", "remove", NULL};
    const char *const *hidden = v.kind == VALUE_DICT                                ? of_dict
                                : v.kind == VALUE_LIST && v.list->kind == LIST_LIST ? of_list
                                                                                    : NULL;
    for (; hidden && *hidden; hidden++)
        if (text_is(name, *hidden))
            return true;
    return name->n > 3 && memcmp(name->bytes, "__", 2) == 0 && name->bytes[name->n - 1] == '_';
}

/* An attribute in Python's sense, not an item; VALUE_FAILED with no failure when there is none. */
static value own_attribute(vm *m, value v, const text *name) {
    if (is_hidden(v, name) && v.kind != VALUE_UNDEFINED)
        return value_undefined(m, (undefined){.name = name, .holder = v, .is_unsafe = true});
    const builtin *found = NULL;
    switch (v.kind) {
    case VALUE_TEXT:
        found = text_method_find(name);
        break;
    case VALUE_DICT:
        found = dict_method_find(name);
        break;
    case VALUE_LIST:
        if (v.list->kind <= LIST_TUPLE)
            found = list_method_find(name);
        if (v.list->is_group && text_is(name, "grouper"))
            return v.list->items[0];
        if (v.list->is_group && text_is(name, "list"))
            return v.list->items[1];
        break;
    case VALUE_NAMESPACE: {
        const value *item = dict_get_text(v.dict, name);
        return item ? *item : failed_value;
    }
    case VALUE_LOOP:
        return loop_attribute(m, v.loop, name);
    case VALUE_MACRO:
        return macro_attribute(m, v.macro, name, v);
    case VALUE_CYCLER:
        if (text_is(name, "current"))
            return v.cycler->items[v.cycler->at];
        found = cycler_method_find(name);
        break;
    default:
        break;
    }
    return found ? bound_method(m, v, found) : failed_value;
}

static bool is_undefined(vm *m, value v) {
    return v.kind == VALUE_UNDEFINED && !fail_undefined(m, v.undefined);
}

value get_attribute(vm *m, value v, const text *name) {
    if (is_undefined(m, v))
        return failed_value;
    value own = own_attribute(m, v, name);
    if (!is_failed(own) || m->status != GRAFT_OK)
        return own;
    const value *item = v.kind == VALUE_DICT ? dict_get_text(v.dict, name) : NULL;
    return item ? *item : missing(m, v, value_text(name));
}

value attribute_only(vm *m, value v, const text *name) {
    if (is_undefined(m, v))
        return failed_value;
    value own = own_attribute(m, v, name);
    return is_failed(own) && m->status == GRAFT_OK ? missing(m, v, value_text(name)) : own;
}

/* A possibly negative index into n; false when it lies outside. */
static bool find_index(size_t *out, int64_t index, size_t n) {
    if (index < 0)
        index += (int64_t)n;
    *out = (size_t)index;
    return index >= 0 && *out < n;
}

static value character_at(vm *m, value v, int64_t index) {
    const text *t = v.text;
    size_t n = char_count(t->bytes, t->n), at;
    if (!spend_bytes(m, 8 * t->n))
        return failed_value;
    if (!find_index(&at, index, n))
        return missing(m, v, value_int(index));
    size_t begin = char_offset(t->bytes, t->n, at);
    size_t length = char_offset(t->bytes + begin, t->n - begin, 1);
    return value_text(text_slice(m, t, begin, begin + length));
}

value get_item(vm *m, value v, value key) {
    int64_t index;
    size_t at;
    if (is_undefined(m, v))
        return failed_value;
    if (v.kind == VALUE_DICT) {
        const value *item = dict_get(m, v.dict, key);
        if (item)
            return *item;
    } else if (v.kind == VALUE_LIST && v.list->kind < LIST_KEYS && value_as_int(&index, key)) {
        if (find_index(&at, index, v.list->n))
            return v.list->items[at];
    } else if (v.kind == VALUE_TEXT && value_as_int(&index, key)) {
        return character_at(m, v, index);
    }
    if (m->status != GRAFT_OK)
        return failed_value;
    value own = key.kind == VALUE_TEXT ? own_attribute(m, v, key.text) : failed_value;
    return is_failed(own) && m->status == GRAFT_OK ? missing(m, v, key) : own;
}

/* A bound of a slice of n things, clamped as Python does; `fallback` where it is none. */
static bool find_bound(vm *m, int64_t *out, value bound, int64_t n, int64_t step,
                       int64_t fallback) {
    if (bound.kind == VALUE_NONE) {
        *out = fallback;
        return true;
    }
    if (!value_as_int(out, bound))
        return fail(m, "the bounds of a slice must be integers or none, found a %s",
                    value_type(bound));
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    if (*out < 0)
        *out = *out < -n ? low : *out + n;
    *out = *out < low ? low : *out > high ? high : *out;
    return true;
}

static value slice_text(vm *m, const text *t, int64_t begin, int64_t count, int64_t step) {
    if (!spend_bytes(m, 8 * t->n))
        return failed_value;
    if (step == 1) {
        size_t from = char_offset(t->bytes, t->n, (size_t)begin);
        size_t length = char_offset(t->bytes + from, t->n - from, (size_t)count);
        return value_text(text_slice(m, t, from, from + length));
    }
    const list *characters = value_items(m, value_text(t), "a slice");
    builder b = builder_on(m);
    for (int64_t i = 0; characters && i < count; i++)
        build_text(&b, characters->items[begin + i * step].text);
    return value_text(characters ? builder_finish(&b) : NULL);
}

value get_slice(vm *m, value v, value first, value last, value stride) {
    int64_t begin, end, step = 1, n;
    if (is_undefined(m, v))
        return failed_value;
    if (stride.kind != VALUE_NONE && !value_as_int(&step, stride))
        return refuse(m, "the step of a slice must be an integer, found a %s", value_type(stride));
    if (step == 0)
        return refuse(m, "the step of a slice must not be zero");
    bool is_list = v.kind == VALUE_LIST && v.list->kind < LIST_KEYS;
    if (!is_list && v.kind != VALUE_TEXT)
        return refuse(m, "a %s cannot be sliced", value_type(v));
    n = (int64_t)(is_list ? v.list->n : char_count(v.text->bytes, v.text->n));
    if (!find_bound(m, &begin, first, n, step, step < 0 ? n - 1 : 0) ||
        !find_bound(m, &end, last, n, step, step < 0 ? -1 : n))
        return failed_value;
    /* INT64_MIN has no positive twin; any step past the length takes one item. */
    int64_t size = step < 0 ? (step < -n ? n + 1 : -step) : step > n ? n + 1 : step;
    int64_t distance = step < 0 ? begin - end : end - begin;
    int64_t count = distance > 0 ? (distance - 1) / size + 1 : 0;
    step = step < 0 ? -size : size;
    if (v.kind == VALUE_TEXT)
        return slice_text(m, v.text, begin, count, step);
    list *l = list_create(m, v.list->kind == LIST_RANGE ? LIST_LIST : v.list->kind, (size_t)count);
    for (int64_t i = 0; l && i < count; i++)
        l->items[i] = v.list->items[begin + i * step];
    if (l)
        l->owner = v.list->owner;
    return value_list(l);
}
