/* Filters that order, compare and group: sort, dictsort, groupby, unique, min, max. */
#include "text/template/filters.h"

#include "text/template/attribute.h"
#include "text/template/transform.h"

#include <string.h>

typedef struct keyed {
    value key, item;
} keyed;

/* Strings count without their case unless that matters. */
static value fold_key(vm *m, value key, bool is_case_sensitive) {
    return key.kind == VALUE_TEXT && !is_case_sensitive ? string_convert(m, key.text, CASE_LOWER)
                                                        : key;
}

static bool precedes(vm *m, bool *out, const keyed *a, const keyed *b, bool is_reversed) {
    int order;
    if (!value_order(m, &order, a->key, b->key, "<"))
        return false;
    *out = is_reversed ? order > 0 : order < 0;
    return true;
}

/* Merges two sorted halves; equal keys stay in order. */
static bool merge(vm *m, keyed *all, size_t half, size_t n, keyed *spare, bool is_reversed) {
    size_t a = 0, b = half, at = 0;
    memcpy(spare, all, half * sizeof *all);
    while (a < half && b < n) {
        bool second_first;
        if (!precedes(m, &second_first, &all[b], &spare[a], is_reversed))
            return false;
        all[at++] = second_first ? all[b++] : spare[a++];
    }
    if (a < half)
        memcpy(all + at, spare + a, (half - a) * sizeof *all);
    return true;
}

static bool sort(vm *m, keyed *all, size_t n, keyed *spare, bool is_reversed) {
    size_t half = n / 2;
    if (n < 2)
        return true;
    return sort(m, all, half, spare, is_reversed) &&
           sort(m, all + half, n - half, spare, is_reversed) &&
           merge(m, all, half, n, spare, is_reversed);
}

static bool sort_keyed(vm *m, keyed *all, size_t n, bool is_reversed) {
    keyed *spare = vm_take(m, n, sizeof *spare);
    return spare && sort(m, all, n, spare, is_reversed);
}

/* The key for "a,b" is [a, b]; for anything else the attribute itself. */
static value sort_key(vm *m, value item, value attribute, bool is_case_sensitive) {
    static const text comma = {.bytes = ",", .n = 1};
    const list *paths =
        attribute.kind == VALUE_TEXT ? string_split(m, attribute.text, &comma, -1, false) : NULL;
    if (m->status != GRAFT_OK)
        return failed_value;
    if (!paths || paths->n == 1) {
        value key = was_given(attribute) ? attribute_path(m, item, attribute) : item;
        return is_failed(key) ? key : fold_key(m, key, is_case_sensitive);
    }
    list *keys = list_create(m, LIST_LIST, paths->n);
    for (size_t i = 0; keys && i < paths->n; i++) {
        value key = attribute_path(m, item, paths->items[i]);
        keys->items[i] = is_failed(key) ? key : fold_key(m, key, is_case_sensitive);
        if (is_failed(keys->items[i]))
            return failed_value;
    }
    return value_list(keys);
}

static keyed *with_keys(vm *m, const list *items, value attribute, bool is_case_sensitive) {
    keyed *all = items ? vm_take(m, items->n, sizeof *all) : NULL;
    for (size_t i = 0; all && i < items->n; i++) {
        all[i].item = items->items[i];
        all[i].key = sort_key(m, items->items[i], attribute, is_case_sensitive);
        if (is_failed(all[i].key) || !spend(m, 1))
            return NULL;
    }
    return all;
}

static value list_of_items(vm *m, const keyed *all, size_t n) {
    list *l = all ? list_create(m, LIST_LIST, n) : NULL;
    for (size_t i = 0; l && i < n; i++)
        l->items[i] = all[i].item;
    return value_list(l);
}

value filter_sort(vm *m, value self, const arguments *given) {
    value v[3];
    bool is_reversed = false, is_case_sensitive = false;
    if (!bind(m, v, "sort", "reverse case_sensitive attribute", 0, given))
        return failed_value;
    take_bool(&is_reversed, v[0]);
    take_bool(&is_case_sensitive, v[1]);
    const list *items = value_items(m, self, "sort");
    keyed *all = with_keys(m, items, v[2], is_case_sensitive);
    if (!all || !sort_keyed(m, all, items->n, is_reversed))
        return failed_value;
    return list_of_items(m, all, items->n);
}

value filter_dictsort(vm *m, value self, const arguments *given) {
    value v[3];
    bool is_reversed = false, is_case_sensitive = false;
    const text *by = NULL;
    if (!bind(m, v, "dictsort", "case_sensitive by reverse", 0, given) ||
        !take_text(m, &by, v[1], "dictsort's by"))
        return failed_value;
    take_bool(&is_case_sensitive, v[0]);
    take_bool(&is_reversed, v[2]);
    bool by_value = by && text_is(by, "value");
    if (by && !by_value && !text_is(by, "key"))
        return refuse(m, "dictsort's by must be \"key\" or \"value\"");
    if (self.kind != VALUE_DICT)
        return refuse(m, "dictsort needs a dict, found a %s", value_type(self));
    size_t n = self.dict->n;
    keyed *all = vm_take(m, n, sizeof *all);
    for (size_t i = 0; all && i < n; i++) {
        const dict_entry *entry = &self.dict->entries[i];
        all[i].key = fold_key(m, by_value ? entry->item : entry->key, is_case_sensitive);
        all[i].item = value_pair(m, entry->key, entry->item);
        if (is_failed(all[i].key) || is_failed(all[i].item))
            return failed_value;
    }
    return all && sort_keyed(m, all, n, is_reversed) ? list_of_items(m, all, n) : failed_value;
}

value filter_unique(vm *m, value self, const arguments *given) {
    value v[2];
    bool is_case_sensitive = false;
    if (!bind(m, v, "unique", "case_sensitive attribute", 0, given))
        return failed_value;
    take_bool(&is_case_sensitive, v[0]);
    const list *items = value_items(m, self, "unique");
    keyed *all = with_keys(m, items, v[1], is_case_sensitive);
    list *kept = all ? list_iterator(m, items->n, "generator") : NULL;
    dict *seen = dict_create(m);
    if (!kept || !seen)
        return failed_value;
    kept->n = 0;
    for (size_t i = 0; i < items->n; i++) {
        size_t before = seen->n;
        if (!dict_set(m, seen, all[i].key, none_value))
            return failed_value;
        if (seen->n > before)
            kept->items[kept->n++] = all[i].item;
    }
    return value_list(kept);
}

static value find_extreme(vm *m, value self, const arguments *given, const char *what,
                          bool is_max) {
    value v[2];
    bool is_case_sensitive = false;
    if (!bind(m, v, what, "case_sensitive attribute", 0, given))
        return failed_value;
    take_bool(&is_case_sensitive, v[0]);
    const list *items = value_items(m, self, what);
    keyed *all = with_keys(m, items, v[1], is_case_sensitive);
    if (!all)
        return failed_value;
    if (items->n == 0)
        return value_undefined(
            m, (undefined){.hint = "there is no smallest or largest item: the sequence is empty",
                           .holder = failed_value});
    size_t best = 0;
    for (size_t i = 1; i < items->n; i++) {
        bool is_better;
        if (!precedes(m, &is_better, &all[i], &all[best], is_max))
            return failed_value;
        best = is_better ? i : best;
    }
    return all[best].item;
}

value filter_min(vm *m, value self, const arguments *given) {
    return find_extreme(m, self, given, "min", false);
}

value filter_max(vm *m, value self, const arguments *given) {
    return find_extreme(m, self, given, "max", true);
}

static value make_group(vm *m, const keyed *members, size_t n, value attribute, value fallback) {
    value grouper = attribute_path_or(m, members[0].item, attribute, fallback);
    value items = list_of_items(m, members, n);
    if (is_failed(grouper) || is_failed(items))
        return failed_value;
    value group = value_pair(m, grouper, items);
    if (!is_failed(group))
        group.list->is_group = true;
    return group;
}

value filter_groupby(vm *m, value self, const arguments *given) {
    value v[3];
    bool is_case_sensitive = false;
    if (!bind(m, v, "groupby", "attribute default case_sensitive", 1, given))
        return failed_value;
    take_bool(&is_case_sensitive, v[2]);
    const list *items = value_items(m, self, "groupby");
    keyed *all = items ? vm_take(m, items->n, sizeof *all) : NULL;
    for (size_t i = 0; all && i < items->n; i++) {
        value key = attribute_path_or(m, items->items[i], v[0], v[1]);
        all[i].item = items->items[i];
        all[i].key = is_failed(key) ? key : fold_key(m, key, is_case_sensitive);
        if (is_failed(all[i].key))
            return failed_value;
    }
    list *groups =
        all && sort_keyed(m, all, items->n, false) ? list_create(m, LIST_LIST, items->n) : NULL;
    if (!groups)
        return failed_value;
    groups->n = 0;
    for (size_t begin = 0, end = 0; begin < items->n; begin = end) {
        bool same = true;
        while (++end < items->n && same)
            if (!value_equal(m, &same, all[begin].key, all[end].key))
                return failed_value;
        end -= !same;
        value group = make_group(m, all + begin, end - begin, v[0], v[1]);
        if (is_failed(group))
            return group;
        groups->items[groups->n++] = group;
    }
    return value_list(groups);
}
