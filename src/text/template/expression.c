/* Expressions. */
#include "text/template/evaluator.h"

#include <assert.h>

static value evaluate_name(vm *m, const node *n, scope *s) {
    const value *found = scope_get(s, n->name);
    if (found)
        return *found;
    const function *global = function_find(n->name);
    if (global)
        return (value){.kind = VALUE_FUNCTION, .function = global};
    return value_undefined(m, (undefined){.name = n->name, .holder = failed_value});
}

static value evaluate_sequence(vm *m, const node *n, scope *s) {
    list *l = list_create(m, n->kind == NODE_LIST ? LIST_LIST : LIST_TUPLE, n->items.n);
    for (size_t i = 0; l && i < n->items.n; i++) {
        l->items[i] = evaluate(m, n->items.items[i], s);
        if (is_failed(l->items[i]))
            return failed_value;
    }
    return value_list(l);
}

static value evaluate_dict(vm *m, const node *n, scope *s) {
    dict *d = dict_create(m);
    for (size_t i = 0; d && i < n->items.n; i += 2) {
        value key = evaluate(m, n->items.items[i], s);
        value item = is_failed(key) ? key : evaluate(m, n->items.items[i + 1], s);
        if (is_failed(item) || !dict_set(m, d, key, item))
            return failed_value;
    }
    return value_dict(d);
}

static value evaluate_unary(vm *m, const node *n, scope *s) {
    value v = evaluate(m, n->a, s);
    if (is_failed(v))
        return v;
    m->line = n->line;
    if (n->kind == NODE_NOT)
        return value_bool(!value_truth(v));
    if (n->kind == NODE_NEGATE)
        return negate(m, v);
    value twice = negate(m, v); /* as strict about types as minus is */
    return is_failed(twice) ? twice : negate(m, twice);
}

static value evaluate_logic(vm *m, const node *n, scope *s) {
    value left = evaluate(m, n->a, s);
    if (is_failed(left) || value_truth(left) == (n->kind == NODE_OR))
        return left;
    return evaluate(m, n->b, s);
}

static value evaluate_binary(vm *m, const node *n, scope *s) {
    value left = evaluate(m, n->a, s);
    value right = is_failed(left) ? left : evaluate(m, n->b, s);
    if (is_failed(right))
        return right;
    m->line = n->line;
    return operate(m, n->op, left, right);
}

static value evaluate_compare(vm *m, const node *n, scope *s) {
    value left = evaluate(m, n->items.items[0], s);
    bool holds = !is_failed(left);
    for (size_t i = 1; holds && i < n->items.n; i++) {
        value right = evaluate(m, n->items.items[i], s);
        m->line = n->line;
        if (is_failed(right) || !compare(m, &holds, n->operators[i - 1], left, right))
            return failed_value;
        left = right;
    }
    return is_failed(left) ? left : value_bool(holds);
}

static value evaluate_concat(vm *m, const node *n, scope *s) {
    builder b = builder_on(m);
    for (size_t i = 0; i < n->items.n; i++) {
        value part = evaluate(m, n->items.items[i], s);
        if (is_failed(part) || !build_str(&b, part))
            return failed_value;
    }
    return value_text(builder_finish(&b));
}

static value evaluate_condition(vm *m, const node *n, scope *s) {
    value condition = evaluate(m, n->b, s);
    if (is_failed(condition))
        return condition;
    if (value_truth(condition))
        return evaluate(m, n->a, s);
    if (n->c)
        return evaluate(m, n->c, s);
    m->line = n->line;
    return value_undefined(m, (undefined){.hint = "the inline if is false here and has no else",
                                          .holder = failed_value});
}

static value evaluate_slice(vm *m, const node *n, scope *s) {
    const node *parts[] = {n->b, n->c, n->d};
    value of = evaluate(m, n->a, s), bounds[3];
    if (is_failed(of))
        return of;
    for (int i = 0; i < 3; i++) {
        bounds[i] = parts[i] ? evaluate(m, parts[i], s) : none_value;
        if (is_failed(bounds[i]))
            return failed_value;
    }
    m->line = n->line;
    return get_slice(m, of, bounds[0], bounds[1], bounds[2]);
}

static value evaluate_access(vm *m, const node *n, scope *s) {
    value of = evaluate(m, n->a, s);
    if (is_failed(of))
        return of;
    if (n->kind == NODE_ATTRIBUTE) {
        m->line = n->line;
        return get_attribute(m, of, n->name);
    }
    value key = evaluate(m, n->b, s);
    m->line = n->line;
    return is_failed(key) ? key : get_item(m, of, key);
}

static value evaluate_any(vm *m, const node *n, scope *s) {
    switch (n->kind) {
    case NODE_CONST:
        return n->constant;
    case NODE_NAME:
        return evaluate_name(m, n, s);
    case NODE_TUPLE:
    case NODE_LIST:
        return evaluate_sequence(m, n, s);
    case NODE_DICT:
        return evaluate_dict(m, n, s);
    case NODE_NEGATE:
    case NODE_PLUS:
    case NODE_NOT:
        return evaluate_unary(m, n, s);
    case NODE_AND:
    case NODE_OR:
        return evaluate_logic(m, n, s);
    case NODE_BINARY:
        return evaluate_binary(m, n, s);
    case NODE_COMPARE:
        return evaluate_compare(m, n, s);
    case NODE_CONCAT:
        return evaluate_concat(m, n, s);
    case NODE_CONDITION:
        return evaluate_condition(m, n, s);
    case NODE_ATTRIBUTE:
    case NODE_ITEM:
        return evaluate_access(m, n, s);
    case NODE_SLICE:
        return evaluate_slice(m, n, s);
    case NODE_CALL:
        return call_node_value(m, n, s, NULL);
    default: {
        assert(n->kind == NODE_FILTER || n->kind == NODE_TEST);
        value self = evaluate(m, n->a, s);
        return is_failed(self) ? self : apply_builtin(m, n, s, self);
    }
    }
}

value evaluate(vm *m, const node *n, scope *s) {
    if (!spend(m, 1) || !enter(m))
        return failed_value;
    m->line = n->line;
    value v = evaluate_any(m, n, s);
    leave(m);
    return v;
}
