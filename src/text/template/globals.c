/* Functions that every template can call. */
#include "text/template/builtins.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { RANGE_MAX = 100000 }; /* of Jinja's sandbox */

static value global_raise(vm *m, value self, const arguments *given) {
    value v[1];
    (void)self;
    if (!bind(m, v, "raise_exception", "message", 1, given))
        return failed_value;
    const text *message = value_str(m, v[0]);
    if (!message)
        return failed_value;
    return refuse(m, "the template refuses this conversation: %.*s", (int)message->n,
                  message->bytes);
}

static value global_strftime(vm *m, value self, const arguments *given) {
    value v[1];
    const text *format = NULL;
    (void)self;
    if (!bind(m, v, "strftime_now", "format", 1, given) ||
        !take_text(m, &format, v[0], "strftime_now's format"))
        return failed_value;
    return strftime_now(m, format);
}

static const text *range_printed(vm *m, int64_t begin, int64_t end, int64_t step) {
    char shown[96];
    int n = snprintf(shown, sizeof shown, "range(%" PRId64 ", %" PRId64, begin, end);
    if (step != 1)
        n += snprintf(shown + n, sizeof shown - (size_t)n, ", %" PRId64, step);
    n += snprintf(shown + n, sizeof shown - (size_t)n, ")");
    return text_of(m, shown, (size_t)n);
}

static value global_range(vm *m, value self, const arguments *given) {
    value v[3];
    int64_t begin = 0, end = 0, step = 1;
    (void)self;
    if (!bind(m, v, "range", "start stop step", 1, given) ||
        !take_int(m, was_given(v[1]) ? &begin : &end, v[0], "range's bound") ||
        !take_int(m, &end, v[1], "range's stop") || !take_int(m, &step, v[2], "range's step"))
        return failed_value;
    if (step == 0)
        return refuse(m, "range's step must not be zero");
    bool is_empty = step > 0 ? begin >= end : begin <= end;
    uint64_t distance =
        step > 0 ? (uint64_t)end - (uint64_t)begin : (uint64_t)begin - (uint64_t)end;
    uint64_t size = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    uint64_t n = is_empty ? 0 : (distance - 1) / size + 1;
    if (n > RANGE_MAX)
        return refuse(m, "a range of %" PRIu64 " numbers is too long: the limit is %d", n,
                      RANGE_MAX);
    list *l = spend(m, n) ? list_create(m, LIST_RANGE, n) : NULL;
    if (!l || !(l->printed = range_printed(m, begin, end, step)))
        return failed_value;
    for (uint64_t i = 0; i < n; i++)
        l->items[i] = value_int((int64_t)((uint64_t)begin + i * (uint64_t)step));
    return value_list(l);
}

static bool add_pairs(vm *m, dict *d, value pairs) {
    if (pairs.kind == VALUE_DICT) {
        for (size_t i = 0; i < pairs.dict->n; i++)
            if (!dict_set(m, d, pairs.dict->entries[i].key, pairs.dict->entries[i].item))
                return false;
        d->owner = pairs.dict->owner;
        d->is_message = pairs.dict->is_message;
        return true;
    }
    const list *items = value_items(m, pairs, "dict");
    for (size_t i = 0; items && i < items->n; i++) {
        const list *pair = value_items(m, items->items[i], "dict");
        if (!pair)
            return false;
        if (pair->n != 2)
            return fail(m, "dict needs pairs, found %zu values", pair->n);
        if (!dict_set(m, d, pair->items[0], pair->items[1]))
            return false;
    }
    return items != NULL;
}

/* What dict(...) and namespace(...) are made of. */
static dict *make_dict(vm *m, const arguments *given, const char *what) {
    dict *d = dict_create(m);
    if (!d)
        return NULL;
    if (given->n > 1) {
        fail(m, "%s takes one argument without a name at most, found %zu", what, given->n);
        return NULL;
    }
    if (given->n && !add_pairs(m, d, given->items[0]))
        return NULL;
    for (size_t i = 0; i < given->n_named; i++)
        if (!dict_set(m, d, value_text(given->names[i]), given->named[i]))
            return NULL;
    return d;
}

static value global_dict(vm *m, value self, const arguments *given) {
    (void)self;
    return value_dict(make_dict(m, given, "dict"));
}

static value global_namespace(vm *m, value self, const arguments *given) {
    (void)self;
    dict *d = make_dict(m, given, "namespace");
    if (!d)
        return failed_value;
    for (size_t i = 0; i < d->n; i++) {
        value key = d->entries[i].key;
        if (key.kind == VALUE_TEXT && key.text->n && key.text->bytes[0] == '_')
            return refuse(m, "a namespace holds no attribute that begins with \"_\" (\"%.*s\")",
                          (int)key.text->n, key.text->bytes);
    }
    return (value){.kind = VALUE_NAMESPACE, .dict = d};
}

static value global_cycler(vm *m, value self, const arguments *given) {
    (void)self;
    if (!given->n)
        return refuse(m, "cycler needs something to cycle through");
    cycler *c = vm_take(m, 1, sizeof *c);
    if (!c)
        return failed_value;
    *c = (cycler){.items = given->items, .n = given->n};
    return (value){.kind = VALUE_CYCLER, .cycler = c};
}

static value global_joiner(vm *m, value self, const arguments *given) {
    value v[1];
    (void)self;
    joiner *j = vm_take(m, 1, sizeof *j);
    if (!j || !bind(m, v, "joiner", "sep", 0, given))
        return failed_value;
    j->separator = was_given(v[0]) ? v[0] : value_text(text_literal(m, ", "));
    return is_failed(j->separator) ? failed_value : (value){.kind = VALUE_JOINER, .joiner = j};
}

static value global_lipsum(vm *m, value self, const arguments *given) {
    (void)self, (void)given;
    fail_as(m, GRAFT_E_UNSUPPORTED, "lipsum is not supported: its text is random");
    return failed_value;
}

static const function functions[] = {
    {{"raise_exception", global_raise}},
    {{"namespace", global_namespace}},
    {{"range", global_range}},
    {{"strftime_now", global_strftime}},
    {{"dict", global_dict}},
    {{"cycler", global_cycler}},
    {{"joiner", global_joiner}},
    {{"lipsum", global_lipsum}},
};

const function *function_find(const text *name) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (text_is(name, functions[i].builtin.name))
            return &functions[i];
    return NULL;
}
