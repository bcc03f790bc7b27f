/* Calls: arguments, macros, loops called again. */
#include "text/template/evaluator.h"

#include "text/template/template.h"

#include <string.h>

static bool add_star_star(vm *m, arguments *out, const text **names, value *named, value mapping) {
    if (mapping.kind != VALUE_DICT)
        return fail(m, "** needs a dict, found a %s", value_type(mapping));
    for (size_t i = 0; i < mapping.dict->n; i++) {
        const dict_entry *entry = &mapping.dict->entries[i];
        if (entry->key.kind != VALUE_TEXT)
            return fail(m, "** needs keys that are strings");
        for (size_t j = 0; j < out->n_named; j++)
            if (text_equal(names[j], entry->key.text))
                return fail(m, "the argument '%.*s' is given twice", (int)names[j]->n,
                            names[j]->bytes);
        names[out->n_named] = entry->key.text;
        named[out->n_named++] = entry->item;
    }
    return true;
}

/* Positional arguments, with those of *sequence after them. */
static bool evaluate_positional(vm *m, arguments *out, const call_node *call, scope *s) {
    const list *more = NULL;
    size_t n = call->positional.n;
    if (call->star) {
        value star = evaluate(m, call->star, s);
        if (is_failed(star) || !(more = value_items(m, star, "*")))
            return false;
    }
    size_t total = n + (more ? more->n : 0);
    value *items = vm_take(m, total, sizeof *items);
    for (size_t i = 0; items && i < n; i++)
        if (is_failed(items[i] = evaluate(m, call->positional.items[i], s)))
            return false;
    if (items && total > n)
        memcpy(items + n, more->items, (total - n) * sizeof *items);
    *out = (arguments){.items = items, .n = total};
    return items != NULL;
}

static bool evaluate_arguments(vm *m, arguments *out, const call_node *call, scope *s,
                               const macro *caller) {
    static const text caller_name = {.bytes = "caller", .n = 6};
    if (!evaluate_positional(m, out, call, s))
        return false;
    value mapping = call->star_star ? evaluate(m, call->star_star, s) : none_value;
    size_t n_mapped = mapping.kind == VALUE_DICT ? mapping.dict->n : 0;
    size_t n_named = call->named.n + n_mapped + (caller != NULL);
    const text **names = vm_take(m, n_named, sizeof *names);
    value *named = names ? vm_take(m, n_named, sizeof *named) : NULL;
    if (!named || is_failed(mapping))
        return false;
    for (size_t i = 0; i < call->named.n; i++) {
        names[i] = call->names[i];
        if (is_failed(named[i] = evaluate(m, call->named.items[i], s)))
            return false;
    }
    out->names = names;
    out->named = named;
    out->n_named = call->named.n;
    if (call->star_star && !add_star_star(m, out, names, named, mapping))
        return false;
    if (caller) {
        names[out->n_named] = &caller_name;
        named[out->n_named++] = (value){.kind = VALUE_MACRO, .macro = caller};
    }
    return true;
}

value call_node_value(vm *m, const node *n, scope *s, const macro *caller) {
    arguments given;
    value callee = evaluate(m, n->a, s);
    if (is_failed(callee) || !evaluate_arguments(m, &given, n->call, s, caller))
        return failed_value;
    m->line = n->line;
    return call_value(m, callee, &given);
}

value apply_builtin(vm *m, const node *n, scope *s, value self) {
    arguments given = {0};
    if (n->call && !evaluate_arguments(m, &given, n->call, s, NULL))
        return failed_value;
    m->line = n->line;
    return n->kind == NODE_FILTER ? run_filter(m, n->builtin, self, &given)
                                  : run_test(m, n->builtin, self, &given);
}

value run_filter(vm *m, const builtin *filter, value self, const arguments *given) {
    return filter->run(m, self, given);
}

value run_test(vm *m, const builtin *test, value self, const arguments *given) {
    return test->run(m, self, given);
}

value call_value(vm *m, value callee, const arguments *given) {
    switch (callee.kind) {
    case VALUE_MACRO:
        return call_macro(m, callee.macro, given);
    case VALUE_FUNCTION:
        return callee.function->builtin.run(m, none_value, given);
    case VALUE_METHOD:
        return callee.method->builtin->run(m, callee.method->self, given);
    case VALUE_LOOP:
        return call_loop(m, callee.loop, given);
    case VALUE_JOINER: {
        bool is_first = !callee.joiner->is_used;
        callee.joiner->is_used = true;
        return is_first ? value_text(text_literal(m, "")) : callee.joiner->separator;
    }
    case VALUE_UNDEFINED:
        fail_undefined(m, callee.undefined);
        return failed_value;
    default:
        return refuse(m, "a %s cannot be called", value_type(callee));
    }
}

/* Takes the named argument out of the given ones; *used marks those already taken. */
static const value *take_named(const arguments *given, bool *used, const text *name) {
    for (size_t i = 0; i < given->n_named; i++)
        if (!used[i] && text_equal(given->names[i], name)) {
            used[i] = true;
            return &given->named[i];
        }
    return NULL;
}

static bool bind_parameter(vm *m, const node *n, size_t i, scope *inner, const value *given) {
    const macro_node *of = n->macro;
    value bound;
    if (given)
        bound = *given;
    else if (of->defaults[i])
        bound = evaluate(m, of->defaults[i], inner);
    else
        bound = value_undefined(m, (undefined){.name = of->names[i], .holder = failed_value});
    return !is_failed(bound) && scope_set(m, inner, of->names[i], bound);
}

/* caller, kwargs and varargs, where the body asks for them. */
static bool bind_specials(vm *m, const node *n, scope *inner, const arguments *given, bool *used) {
    const macro_node *of = n->macro;
    if (of->caller &&
        !scope_get(&(scope){.bindings = inner->bindings, .n = inner->n}, of->caller)) {
        const value *caller = take_named(given, used, of->caller);
        value bound = caller ? *caller
                             : value_undefined(m, (undefined){.hint = "No caller defined",
                                                              .holder = failed_value});
        if (is_failed(bound) || !scope_set(m, inner, of->caller, bound))
            return false;
    }
    dict *rest = of->kwargs ? dict_create(m) : NULL;
    for (size_t i = 0; i < given->n_named; i++) {
        if (used[i])
            continue;
        if (!of->kwargs)
            return fail(m, "the macro takes no argument '%.*s'", (int)given->names[i]->n,
                        given->names[i]->bytes);
        if (!rest || !dict_set(m, rest, value_text(given->names[i]), given->named[i]))
            return false;
    }
    if (of->kwargs && (!rest || !scope_set(m, inner, of->kwargs, value_dict(rest))))
        return false;
    size_t extra = given->n > of->n ? given->n - of->n : 0;
    if (!of->varargs)
        return !extra ||
               fail(m, "the macro takes %zu arguments at most, found %zu", of->n, given->n);
    list *more = list_create(m, LIST_TUPLE, extra);
    if (!more)
        return false;
    if (extra)
        memcpy(more->items, given->items + of->n, extra * sizeof *more->items);
    return scope_set(m, inner, of->varargs, value_list(more));
}

static bool enter_call(vm *m) {
    if (m->calls >= TEMPLATE_DEPTH_MAX)
        return fail(m, "macros or loops call themselves more than %d levels deep",
                    TEMPLATE_DEPTH_MAX);
    m->calls++;
    return true;
}

value call_macro(vm *m, const macro *called, const arguments *given) {
    const node *n = called->node;
    const macro_node *of = n->macro;
    bool *used = vm_take(m, given->n_named, sizeof *used);
    scope *inner = scope_create(m, called->scope);
    builder out = builder_on(m);
    if (!used || !inner || !enter_call(m))
        return failed_value;
    for (size_t i = 0; i < of->n; i++) {
        const value *bound =
            i < given->n ? &given->items[i] : take_named(given, used, of->names[i]);
        if (!bind_parameter(m, n, i, inner, bound))
            return failed_value;
    }
    if (!bind_specials(m, n, inner, given, used) ||
        run_body(m, &n->bodies[0], inner, &out) == FLOW_FAILED)
        return failed_value;
    m->calls--;
    return value_text(builder_finish(&out));
}

value call_loop(vm *m, loop *called, const arguments *given) {
    value over;
    builder out = builder_on(m);
    if (!called->node)
        return refuse(m, "only a loop marked \"recursive\" can be called");
    if (!bind(m, &over, "loop", "iterable", 1, given) || !enter_call(m))
        return failed_value;
    const list *items = value_items(m, over, "a recursive loop");
    if (!items || !run_loop(m, called->node, items, called->scope, &out, called->depth0 + 1))
        return failed_value;
    m->calls--;
    return value_text(builder_finish(&out));
}

static value cycle(vm *m, value self, const arguments *given) {
    if (!given->n)
        return refuse(m, "loop.cycle needs something to cycle through");
    return given->items[self.loop->index0 % given->n];
}

static value changed(vm *m, value self, const arguments *given) {
    bool same = false;
    list *now = list_create(m, LIST_TUPLE, given->n);
    if (!now)
        return failed_value;
    if (given->n)
        memcpy(now->items, given->items, given->n * sizeof *now->items);
    if (!is_failed(self.loop->changed) &&
        !value_equal(m, &same, self.loop->changed, value_list(now)))
        return failed_value;
    self.loop->changed = value_list(now);
    return value_bool(!same);
}

value loop_attribute(vm *m, loop *l, const text *name) {
    static const builtin methods[] = {{"cycle", cycle}, {"changed", changed}};
    const struct {
        const char *name;
        int64_t number;
    } numbers[] = {
        {"index", (int64_t)l->index0 + 1},
        {"index0", (int64_t)l->index0},
        {"revindex", (int64_t)(l->over->n - l->index0)},
        {"revindex0", (int64_t)(l->over->n - l->index0) - 1},
        {"length", (int64_t)l->over->n},
        {"depth", l->depth0 + 1},
        {"depth0", l->depth0},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (text_is(name, numbers[i].name))
            return value_int(numbers[i].number);
    bool is_first = l->index0 == 0, is_last = l->index0 + 1 == l->over->n;
    if (text_is(name, "first"))
        return value_bool(is_first);
    if (text_is(name, "last"))
        return value_bool(is_last);
    if (text_is(name, "previtem") || text_is(name, "nextitem")) {
        bool is_previous = name->bytes[0] == 'p';
        if (is_previous ? is_first : is_last)
            return value_undefined(m, (undefined){.hint = is_previous ? "there is no previous item"
                                                                      : "there is no next item",
                                                  .holder = failed_value});
        return l->over->items[is_previous ? l->index0 - 1 : l->index0 + 1];
    }
    for (size_t i = 0; i < 2; i++)
        if (text_is(name, methods[i].name)) {
            method *bound = vm_take(m, 1, sizeof *bound);
            if (!bound)
                return failed_value;
            *bound = (method){.self = {.kind = VALUE_LOOP, .loop = l}, .builtin = &methods[i]};
            return (value){.kind = VALUE_METHOD, .method = bound};
        }
    return failed_value;
}
