/* Methods of dicts, lists and cyclers. Those that change their object are hidden by the sandbox
 * (access.c). */
#include "text/template/builtins.h"

#include <string.h>

static value dict_view(vm *m, value self, const arguments *given, const char *what,
                       const char *type_name, int part) {
    if (!bind(m, NULL, what, "", 0, given))
        return failed_value;
    const dict *d = self.dict;
    list *view = list_create(m, LIST_KEYS, d->n);
    for (size_t i = 0; view && i < d->n; i++) {
        const dict_entry *entry = &d->entries[i];
        view->items[i] = part == 0   ? entry->key
                         : part == 1 ? entry->item
                                     : value_pair(m, entry->key, entry->item);
        if (is_failed(view->items[i]))
            return failed_value;
    }
    if (view)
        view->type_name = type_name;
    return value_list(view);
}

static value dict_keys(vm *m, value self, const arguments *given) {
    return dict_view(m, self, given, "keys", "dict_keys", 0);
}

static value dict_values(vm *m, value self, const arguments *given) {
    return dict_view(m, self, given, "values", "dict_values", 1);
}

static value dict_items(vm *m, value self, const arguments *given) {
    return dict_view(m, self, given, "items", "dict_items", 2);
}

static value dict_get_method(vm *m, value self, const arguments *given) {
    value v[2];
    uint64_t hash = 0;
    if (!bind(m, v, "get", "key default", 1, given) || !value_hash(m, &hash, v[0]))
        return failed_value;
    const value *found = dict_get(m, self.dict, v[0]);
    if (m->status != GRAFT_OK)
        return failed_value;
    return found ? *found : was_given(v[1]) ? v[1] : none_value;
}

static value dict_copy_method(vm *m, value self, const arguments *given) {
    return bind(m, NULL, "copy", "", 0, given) ? value_dict(dict_copy(m, self.dict)) : failed_value;
}

static value list_copy(vm *m, value self, const arguments *given) {
    return bind(m, NULL, "copy", "", 0, given)
               ? get_slice(m, self, none_value, none_value, none_value)
               : failed_value;
}

static value list_count(vm *m, value self, const arguments *given) {
    value v[1];
    int64_t count = 0;
    if (!bind(m, v, "count", "value", 1, given))
        return failed_value;
    for (size_t i = 0; i < self.list->n; i++) {
        bool same;
        if (!value_equal(m, &same, self.list->items[i], v[0]))
            return failed_value;
        count += same;
    }
    return value_int(count);
}

static value list_index(vm *m, value self, const arguments *given) {
    value v[3];
    int64_t n = (int64_t)self.list->n, begin = 0, end = n;
    if (!bind(m, v, "index", "value start stop", 1, given) ||
        !take_int(m, &begin, v[1], "index's start") || !take_int(m, &end, v[2], "index's stop"))
        return failed_value;
    begin = begin < -n ? 0 : begin < 0 ? begin + n : begin;
    end = end < -n ? 0 : end < 0 ? end + n : end > n ? n : end;
    for (int64_t i = begin; i < end; i++) {
        bool same;
        if (!value_equal(m, &same, self.list->items[i], v[0]))
            return failed_value;
        if (same)
            return value_int(i);
    }
    return refuse(m, "index: the value is not in the list");
}

static value cycler_next(vm *m, value self, const arguments *given) {
    cycler *c = self.cycler;
    if (!bind(m, NULL, "next", "", 0, given))
        return failed_value;
    value current = c->items[c->at];
    c->at = (c->at + 1) % c->n;
    return current;
}

static value cycler_reset(vm *m, value self, const arguments *given) {
    if (!bind(m, NULL, "reset", "", 0, given))
        return failed_value;
    self.cycler->at = 0;
    return none_value;
}

static const builtin dict_methods[] = {
    {"items", dict_items},    {"keys", dict_keys},        {"values", dict_values},
    {"get", dict_get_method}, {"copy", dict_copy_method},
};
static const builtin list_methods[] = {
    {"count", list_count}, {"index", list_index}, {"copy", list_copy}};
static const builtin cycler_methods[] = {{"next", cycler_next}, {"reset", cycler_reset}};

const builtin *dict_method_find(const text *name) {
    return builtin_find(dict_methods, sizeof dict_methods / sizeof *dict_methods, name);
}

const builtin *list_method_find(const text *name) {
    return builtin_find(list_methods, sizeof list_methods / sizeof *list_methods, name);
}

const builtin *cycler_method_find(const text *name) {
    return builtin_find(cycler_methods, sizeof cycler_methods / sizeof *cycler_methods, name);
}
