/* Running a syntax tree. */
#ifndef GRAFT_TEXT_TEMPLATE_EVALUATOR_H
#define GRAFT_TEXT_TEMPLATE_EVALUATOR_H

#include "text/template/ast.h"
#include "text/template/builtins.h"

/* Variables of one block. Names are interned: found by address. */
typedef struct scope {
    struct scope *parent; /* where to look next; NULL: the outermost */
    struct binding {
        const text *name;
        value bound;
    } * bindings;
    size_t n, capacity;
    bool is_kept; /* a macro or loop refers to it: it cannot be used again */
} scope;

scope *scope_create(vm *, scope *parent);
void scope_keep(scope *);
bool scope_set(vm *, scope *, const text *name, value);
const value *scope_get(const scope *, const text *name); /* NULL: not there */

/* What a list of statements ended with. */
typedef enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAILED } flow;

flow run_body(vm *, const node_list *, scope *, builder *out);
value evaluate(vm *, const node *, scope *);
/* A body's output as a text of its own, in a scope of its own. */
const text *run_captured(vm *, const node_list *, scope *parent);
/* a|b|c with `input` in front of the first one. */
value run_filters(vm *, const node *filters, scope *, value input);
/* The filter or test of a node, on `self`. */
value apply_builtin(vm *, const node *, scope *, value self);
/* Assigns to a name, an attribute of a namespace, or a tuple of those. */
bool assign(vm *, const node *target, scope *, value);

value call_node_value(vm *, const node *call, scope *, const macro *caller);
value call_macro(vm *, const macro *, const arguments *);
/* A loop over the list, printed into out. */
bool run_loop(vm *, const node *for_node, const list *over, scope *, builder *out, int32_t depth0);
value call_loop(vm *, loop *, const arguments *);
value loop_attribute(vm *, loop *, const text *name);

/* Numbers and other operators. */
value operate(vm *, operator_kind, value, value);
value negate(vm *, value);
bool compare(vm *, bool *out, operator_kind, value, value);

#endif
