/* Filters of sequences and mappings. */
#include "text/template/filters.h"

#include "text/template/attribute.h"
#include "text/template/transform.h"

#include <string.h>

value filter_list(vm *m, value self, const arguments *given) {
    if (!bind(m, NULL, "list", "", 0, given))
        return failed_value;
    const list *items = value_items(m, self, "list");
    list *copy = items ? list_create(m, LIST_LIST, items->n) : NULL;
    if (copy && items->n)
        memcpy(copy->items, items->items, items->n * sizeof *copy->items);
    return value_list(copy);
}

value filter_items(vm *m, value self, const arguments *given) {
    if (!bind(m, NULL, "items", "", 0, given))
        return failed_value;
    if (self.kind != VALUE_DICT && self.kind != VALUE_UNDEFINED)
        return refuse(m, "items needs a mapping, found a %s", value_type(self));
    size_t n = self.kind == VALUE_DICT ? self.dict->n : 0;
    list *pairs = list_iterator(m, n, "generator");
    for (size_t i = 0; pairs && i < n; i++) {
        pairs->items[i] = value_pair(m, self.dict->entries[i].key, self.dict->entries[i].item);
        if (is_failed(pairs->items[i]))
            return failed_value;
    }
    return value_list(pairs);
}

static value end_of(vm *m, value self, bool is_last, const char *empty) {
    if (is_last && self.kind == VALUE_LIST && self.list->kind == LIST_ITERATOR)
        return refuse(m, "last cannot be used on a %s; use |list|last", value_type(self));
    const list *items = value_items(m, self, is_last ? "last" : "first");
    if (!items)
        return failed_value;
    if (items->n == 0)
        return value_undefined(m, (undefined){.hint = empty, .holder = failed_value});
    return items->items[is_last ? items->n - 1 : 0];
}

value filter_first(vm *m, value self, const arguments *given) {
    return bind(m, NULL, "first", "", 0, given)
               ? end_of(m, self, false, "there is no first item: the sequence is empty")
               : failed_value;
}

value filter_last(vm *m, value self, const arguments *given) {
    return bind(m, NULL, "last", "", 0, given)
               ? end_of(m, self, true, "there is no last item: the sequence is empty")
               : failed_value;
}

value filter_join(vm *m, value self, const arguments *given) {
    value v[2];
    const text empty = {.bytes = ""}, *separator = &empty;
    if (!bind(m, v, "join", "d attribute", 0, given))
        return failed_value;
    if (was_given(v[0]) && !(separator = value_str(m, v[0])))
        return failed_value;
    const list *items = value_items(m, self, "join");
    if (!items)
        return failed_value;
    if (was_given(v[1]) && v[1].kind != VALUE_NONE) {
        list *picked = list_create(m, LIST_LIST, items->n);
        for (size_t i = 0; picked && i < items->n; i++)
            if (is_failed(picked->items[i] = attribute_path(m, items->items[i], v[1])))
                return failed_value;
        items = picked;
    }
    return items ? string_join(m, separator, items) : failed_value;
}

value filter_reverse(vm *m, value self, const arguments *given) {
    if (!bind(m, NULL, "reverse", "", 0, given))
        return failed_value;
    if (self.kind == VALUE_TEXT)
        return get_slice(m, self, none_value, none_value, value_int(-1));
    const list *items = value_items(m, self, "reverse");
    list *reversed = items ? list_iterator(m, items->n, "list_reverseiterator") : NULL;
    if (reversed && self.kind == VALUE_LIST && self.list->kind == LIST_ITERATOR)
        reversed->kind = LIST_LIST; /* Jinja makes a list of what has no end to begin from */
    for (size_t i = 0; reversed && i < items->n; i++)
        reversed->items[i] = items->items[items->n - 1 - i];
    return value_list(reversed);
}

static list *sublist(vm *m, const list *of, size_t begin, size_t end, size_t padded, value fill) {
    list *part = list_create(m, LIST_LIST, padded);
    for (size_t i = 0; part && i < padded; i++)
        part->items[i] = begin + i < end ? of->items[begin + i] : fill;
    return part;
}

value filter_batch(vm *m, value self, const arguments *given) {
    value v[2];
    int64_t size = 0;
    if (!bind(m, v, "batch", "linecount fill_with", 1, given) ||
        !take_int(m, &size, v[0], "batch's size"))
        return failed_value;
    const list *items = value_items(m, self, "batch");
    if (!items)
        return failed_value;
    if (size < 1)
        return refuse(m, "batch's size must be 1 or more, found %lld", (long long)size);
    bool fills = was_given(v[1]) && v[1].kind != VALUE_NONE;
    size_t each = (size_t)size < items->n || fills ? (size_t)size : items->n;
    size_t n = items->n ? (items->n - 1) / each + 1 : 0;
    list *batches = list_iterator(m, n, "generator");
    for (size_t i = 0; batches && i < n; i++) {
        size_t begin = i * each, end = begin + each < items->n ? begin + each : items->n;
        batches->items[i] =
            value_list(sublist(m, items, begin, end, fills ? each : end - begin, v[1]));
        if (is_failed(batches->items[i]))
            return failed_value;
    }
    return value_list(batches);
}

value filter_slice(vm *m, value self, const arguments *given) {
    value v[2];
    int64_t slices = 0;
    if (!bind(m, v, "slice", "slices fill_with", 1, given) ||
        !take_int(m, &slices, v[0], "slice's number of slices"))
        return failed_value;
    const list *items = value_items(m, self, "slice");
    if (!items)
        return failed_value;
    if (slices < 1)
        return refuse(m, "slice needs 1 slice or more, found %lld", (long long)slices);
    bool fills = was_given(v[1]) && v[1].kind != VALUE_NONE;
    size_t each = items->n / (size_t)slices, extra = items->n % (size_t)slices, begin = 0;
    list *l = list_iterator(m, (size_t)slices, "generator");
    for (size_t i = 0; l && i < (size_t)slices; i++) {
        size_t end = begin + each + (i < extra), padded = end - begin + (fills && i >= extra);
        l->items[i] = value_list(sublist(m, items, begin, end, padded, v[1]));
        if (is_failed(l->items[i]))
            return failed_value;
        begin = end;
    }
    return value_list(l);
}

value filter_sum(vm *m, value self, const arguments *given) {
    value v[2];
    if (!bind(m, v, "sum", "attribute start", 0, given))
        return failed_value;
    value total = was_given(v[1]) ? v[1] : value_int(0);
    const list *items = value_items(m, self, "sum");
    if (!items)
        return failed_value;
    if (total.kind == VALUE_TEXT)
        return refuse(m, "sum cannot add strings; use |join");
    for (size_t i = 0; i < items->n && !is_failed(total); i++) {
        value item = was_given(v[0]) && v[0].kind != VALUE_NONE
                         ? attribute_path(m, items->items[i], v[0])
                         : items->items[i];
        total = is_failed(item) ? item : add_values(m, total, item);
    }
    return total;
}

/* A filter or test named by the first argument, with the rest as its own arguments. */
static const builtin *named_builtin(vm *m, arguments *rest, const arguments *given, size_t at,
                                    bool is_filter) {
    const char *what = is_filter ? "filter" : "test";
    if (given->n <= at) {
        fail(m, "expected the name of a %s as argument", what);
        return NULL;
    }
    value name = given->items[at];
    if (name.kind == VALUE_UNDEFINED) {
        fail(m, "the name of a %s is undefined; it needs quotes", what);
        return NULL;
    }
    const builtin *found = name.kind != VALUE_TEXT ? NULL
                           : is_filter             ? filter_find(name.text)
                                                   : test_find(name.text);
    if (!found) {
        const text *shown = value_str(m, name);
        if (shown)
            fail(m, "there is no %s named \"%.*s\"", what, (int)shown->n, shown->bytes);
        return NULL;
    }
    if (!found->run) {
        fail_as(m, GRAFT_E_UNSUPPORTED, "the %s \"%s\" is not supported", what, found->name);
        return NULL;
    }
    *rest = *given;
    rest->items += at + 1;
    rest->n -= at + 1;
    return found;
}

/* Like value_items, but what is false (even none) has no items. */
static const list *items_if_true(vm *m, value self, const char *what) {
    return value_truth(self) ? value_items(m, self, what) : list_create(m, LIST_LIST, 0);
}

static value map_attribute(vm *m, value self, const arguments *given) {
    value v[2];
    if (!bind(m, v, "map", "attribute default", 1, given))
        return failed_value;
    const list *items = items_if_true(m, self, "map");
    list *mapped = items ? list_iterator(m, items->n, "generator") : NULL;
    for (size_t i = 0; mapped && i < items->n; i++) {
        value found = attribute_path_or(m, items->items[i], v[0], v[1]);
        if (is_failed(found))
            return found;
        mapped->items[i] = found;
    }
    return value_list(mapped);
}

value filter_map(vm *m, value self, const arguments *given) {
    arguments rest;
    if (given->n == 0 && given->n_named > 0)
        return map_attribute(m, self, given);
    const builtin *mapped_by = named_builtin(m, &rest, given, 0, true);
    const list *items = mapped_by ? items_if_true(m, self, "map") : NULL;
    list *mapped = items ? list_iterator(m, items->n, "generator") : NULL;
    if (!mapped || !enter(m))
        return failed_value;
    for (size_t i = 0; i < items->n; i++)
        if (!spend(m, 1) ||
            is_failed(mapped->items[i] = run_filter(m, mapped_by, items->items[i], &rest)))
            return failed_value;
    leave(m);
    return value_list(mapped);
}

/* The items for which a test (or, without one, their truth) comes out as wanted. */
static value choose(vm *m, value self, const arguments *given, bool by_attribute, bool wanted) {
    arguments rest = {0};
    size_t at = by_attribute;
    const builtin *test = NULL;
    if (by_attribute && given->n == 0)
        return refuse(m, "expected the name of an attribute as argument");
    if (given->n > at && !(test = named_builtin(m, &rest, given, at, false)))
        return failed_value;
    const list *items = items_if_true(m, self, wanted ? "select" : "reject");
    list *kept = items ? list_iterator(m, items->n, "generator") : NULL;
    if (!kept || !enter(m))
        return failed_value;
    kept->n = 0;
    for (size_t i = 0; i < items->n; i++) {
        value tested =
            by_attribute ? attribute_path(m, items->items[i], given->items[0]) : items->items[i];
        if (test && !is_failed(tested))
            tested = run_test(m, test, tested, &rest);
        if (is_failed(tested) || !spend(m, 1))
            return failed_value;
        if (value_truth(tested) == wanted)
            kept->items[kept->n++] = items->items[i];
    }
    leave(m);
    return value_list(kept);
}

value filter_select(vm *m, value self, const arguments *given) {
    return choose(m, self, given, false, true);
}

value filter_reject(vm *m, value self, const arguments *given) {
    return choose(m, self, given, false, false);
}

value filter_selectattr(vm *m, value self, const arguments *given) {
    return choose(m, self, given, true, true);
}

value filter_rejectattr(vm *m, value self, const arguments *given) {
    return choose(m, self, given, true, false);
}
