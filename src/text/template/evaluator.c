/* Statements. */
#include "text/template/evaluator.h"

#include <assert.h>
#include <string.h>

scope *scope_create(vm *m, scope *parent) {
    scope *s = vm_take(m, 1, sizeof *s);
    if (s)
        s->parent = parent;
    return s;
}

void scope_keep(scope *s) {
    for (; s && !s->is_kept; s = s->parent)
        s->is_kept = true;
}

bool scope_set(vm *m, scope *s, const text *name, value bound) {
    for (size_t i = 0; i < s->n; i++)
        if (s->bindings[i].name == name) {
            s->bindings[i].bound = bound;
            return true;
        }
    if (s->n == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 4;
        struct binding *grown = arena_grow(&m->memory, s->bindings, s->capacity * sizeof *grown,
                                           capacity * sizeof *grown);
        if (!grown)
            return fail_memory(m);
        s->bindings = grown;
        s->capacity = capacity;
    }
    s->bindings[s->n++] = (struct binding){name, bound};
    return true;
}

const value *scope_get(const scope *s, const text *name) {
    for (; s; s = s->parent)
        for (size_t i = 0; i < s->n; i++)
            if (s->bindings[i].name == name)
                return &s->bindings[i].bound;
    return NULL;
}

static bool assign_attribute(vm *m, const node *target, scope *s, value v) {
    value holder = evaluate(m, target->a, s);
    if (is_failed(holder))
        return false;
    if (holder.kind != VALUE_NAMESPACE)
        return fail(m, "attributes can be set on a namespace only; '%.*s' is a %s",
                    (int)target->a->name->n, target->a->name->bytes, value_type(holder));
    if (target->name->n && target->name->bytes[0] == '_')
        return fail(m, "a namespace holds no attribute that begins with \"_\" (\"%.*s\")",
                    (int)target->name->n, target->name->bytes);
    return dict_set(m, holder.dict, value_text(target->name), v);
}

static bool assign_tuple(vm *m, const node *target, scope *s, value v) {
    size_t n = target->items.n;
    const list *parts = value_items(m, v, "unpacking");
    if (!parts)
        return false;
    if (parts->n != n)
        return fail(m, "expected %zu values to unpack, found %zu", n, parts->n);
    for (size_t i = 0; i < n; i++)
        if (!assign(m, target->items.items[i], s, parts->items[i]))
            return false;
    return true;
}

bool assign(vm *m, const node *target, scope *s, value v) {
    switch (target->kind) {
    case NODE_NAME:
        return scope_set(m, s, target->name, v);
    case NODE_ATTRIBUTE:
        return assign_attribute(m, target, s, v);
    default:
        assert(target->kind == NODE_TUPLE);
        return assign_tuple(m, target, s, v);
    }
}

const text *run_captured(vm *m, const node_list *body, scope *parent) {
    scope *inner = scope_create(m, parent);
    builder captured = builder_on(m);
    if (!inner || run_body(m, body, inner, &captured) == FLOW_FAILED)
        return NULL;
    return builder_finish(&captured);
}

value run_filters(vm *m, const node *filters, scope *s, value input) {
    if (!filters)
        return input;
    value inner = run_filters(m, filters->a, s, input);
    if (is_failed(inner))
        return inner;
    return apply_builtin(m, filters, s, inner);
}

static flow run_if(vm *m, const node *n, scope *s, builder *out) {
    for (size_t i = 0; i < n->items.n; i++) {
        value condition = evaluate(m, n->items.items[i], s);
        if (is_failed(condition))
            return FLOW_FAILED;
        if (value_truth(condition))
            return run_body(m, &n->branches[i], s, out);
    }
    return run_body(m, &n->bodies[0], s, out);
}

/* The items that a loop's condition lets through, in a list of their own. */
static const list *select_items(vm *m, const node *n, const list *from, scope *s) {
    list *kept = list_create(m, LIST_LIST, from->n);
    if (!kept)
        return NULL;
    kept->n = 0;
    for (size_t i = 0; i < from->n; i++) {
        scope *inner = scope_create(m, s);
        if (!inner || !assign(m, n->a, inner, from->items[i]))
            return NULL;
        value condition = evaluate(m, n->c, inner);
        if (is_failed(condition))
            return NULL;
        if (value_truth(condition))
            kept->items[kept->n++] = from->items[i];
    }
    return kept;
}

/* The only message that the text printed since byte `begin` shows anything of; NOBODY when there
 * are several or none. */
static int32_t only_owner(const builder *out, size_t begin) {
    int32_t owner = NOBODY;
    for (size_t i = out->n_stretches; i-- > 0 && out->stretches[i].end >= begin;) {
        const stretch *shown = &out->stretches[i];
        if (shown->begin < begin && shown->end == begin)
            break;
        int32_t whose = shown->turn != NOBODY ? shown->turn : shown->owner;
        if (owner != NOBODY && whose != NOBODY && whose != owner)
            return NOBODY;
        if (whose != NOBODY)
            owner = whose;
    }
    return owner;
}

/* One iteration. Outside any turn it is the turn of the message it is about: the one the loop's
 * variable is, else the only one whose fields it printed. */
static flow run_iteration(vm *m, const node *n, value item, scope *inner, builder *out) {
    bool is_outermost = m->turn == NOBODY;
    size_t begin = out->n;
    if (is_outermost && item.kind == VALUE_DICT && item.dict->is_message)
        m->turn = item.dict->owner;
    bool was_known = m->turn != NOBODY;
    flow ended = run_body(m, &n->bodies[0], inner, out);
    if (is_outermost)
        m->turn = NOBODY;
    if (!was_known && ended != FLOW_FAILED) {
        int32_t owner = only_owner(out, begin);
        if (owner != NOBODY)
            build_claim(out, begin, owner);
    }
    return m->status == GRAFT_OK ? ended : FLOW_FAILED;
}

bool run_loop(vm *m, const node *n, const list *over, scope *s, builder *out, int32_t depth0) {
    if (n->c && !(over = select_items(m, n, over, s)))
        return false;
    loop *state = vm_take(m, 1, sizeof *state);
    if (!state)
        return false;
    *state = (loop){.over = over, .depth0 = depth0, .node = n->is_recursive ? n : NULL, .scope = s};
    const value loop_value = {.kind = VALUE_LOOP, .loop = state};
    if (n->is_recursive)
        scope_keep(s);
    scope *inner = NULL;
    for (size_t i = 0; i < over->n; i++) {
        if (inner && !inner->is_kept)
            inner->n = 0;
        else if (!(inner = scope_create(m, s)))
            return false;
        state->index0 = i;
        if (!spend(m, 1) || !assign(m, n->a, inner, over->items[i]) ||
            !scope_set(m, inner, n->name, loop_value))
            return false;
        flow ended = run_iteration(m, n, over->items[i], inner, out);
        if (ended == FLOW_FAILED)
            return false;
        if (ended == FLOW_BREAK)
            break;
    }
    if (over->n > 0 || n->bodies[1].n == 0)
        return true;
    inner = scope_create(m, s);
    return inner && run_body(m, &n->bodies[1], inner, out) != FLOW_FAILED;
}

static bool run_for(vm *m, const node *n, scope *s, builder *out) {
    value iterated = evaluate(m, n->b, s);
    if (is_failed(iterated))
        return false;
    m->line = n->line;
    const list *over = value_items(m, iterated, "a for loop");
    return over && run_loop(m, n, over, s, out, 0);
}

static bool run_set_block(vm *m, const node *n, scope *s) {
    const text *body = run_captured(m, &n->bodies[0], s);
    if (!body)
        return false;
    value filtered = run_filters(m, n->b, s, value_text(body));
    return !is_failed(filtered) && assign(m, n->a, s, filtered);
}

static bool print_value(builder *out, value v) {
    if (is_failed(v))
        return false;
    const text *shown = value_str(out->m, v);
    if (shown)
        build_print(out, shown);
    return out->m->status == GRAFT_OK;
}

static bool run_call_block(vm *m, const node *n, scope *s, builder *out) {
    macro *caller = vm_take(m, 1, sizeof *caller);
    if (!caller)
        return false;
    *caller = (macro){.node = n, .scope = s};
    scope_keep(s);
    return print_value(out, call_node_value(m, n->a, s, caller));
}

static bool run_with(vm *m, const node *n, scope *s, builder *out) {
    scope *inner = scope_create(m, s);
    for (size_t i = 0; inner && i < n->items.n; i += 2) {
        value v = evaluate(m, n->items.items[i + 1], s);
        if (is_failed(v) || !assign(m, n->items.items[i], inner, v))
            return false;
    }
    return inner && run_body(m, &n->bodies[0], inner, out) != FLOW_FAILED;
}

static bool run_generation(vm *m, const node *n, scope *s, builder *out) {
    scope *inner = scope_create(m, s);
    int32_t outer = m->generation;
    m->generation = m->n_generations++;
    bool done = inner && run_body(m, &n->bodies[0], inner, out) != FLOW_FAILED;
    m->generation = outer;
    return done;
}

static bool define_macro(vm *m, const node *n, scope *s) {
    macro *defined = vm_take(m, 1, sizeof *defined);
    if (!defined)
        return false;
    *defined = (macro){.node = n, .scope = s};
    scope_keep(s);
    return scope_set(m, s, n->name, (value){.kind = VALUE_MACRO, .macro = defined});
}

static bool run_filter_block(vm *m, const node *n, scope *s, builder *out) {
    const text *body = run_captured(m, &n->bodies[0], s);
    return body && print_value(out, run_filters(m, n->b, s, value_text(body)));
}

static bool run_set(vm *m, const node *n, scope *s) {
    value v = evaluate(m, n->b, s);
    m->line = n->line;
    return !is_failed(v) && assign(m, n->a, s, v);
}

static flow run_statement(vm *m, const node *n, scope *s, builder *out) {
    bool done = true;
    switch (n->kind) {
    case NODE_TEXT:
        build_print(out, n->constant.text);
        break;
    case NODE_PRINT:
        done = print_value(out, evaluate(m, n->a, s));
        break;
    case NODE_IF:
        return run_if(m, n, s, out);
    case NODE_FOR:
        done = run_for(m, n, s, out);
        break;
    case NODE_SET:
        done = run_set(m, n, s);
        break;
    case NODE_SET_BLOCK:
        done = run_set_block(m, n, s);
        break;
    case NODE_MACRO:
        done = define_macro(m, n, s);
        break;
    case NODE_CALL_BLOCK:
        done = run_call_block(m, n, s, out);
        break;
    case NODE_FILTER_BLOCK:
        done = run_filter_block(m, n, s, out);
        break;
    case NODE_WITH:
        done = run_with(m, n, s, out);
        break;
    case NODE_GENERATION:
        done = run_generation(m, n, s, out);
        break;
    case NODE_BREAK:
        return FLOW_BREAK;
    default:
        assert(n->kind == NODE_CONTINUE);
        return FLOW_CONTINUE;
    }
    return done && m->status == GRAFT_OK ? FLOW_NEXT : FLOW_FAILED;
}

flow run_body(vm *m, const node_list *body, scope *s, builder *out) {
    flow ended = FLOW_NEXT;
    if (!enter(m))
        return FLOW_FAILED;
    for (size_t i = 0; i < body->n && ended == FLOW_NEXT; i++) {
        m->line = body->items[i]->line;
        ended = spend(m, 1) ? run_statement(m, body->items[i], s, out) : FLOW_FAILED;
    }
    leave(m);
    return ended;
}
