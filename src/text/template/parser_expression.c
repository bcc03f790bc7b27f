/* Expressions, with the precedences of Jinja: or, and, not, comparisons, + -, ~, * / // %, **,
 * unary. */
#include "text/template/builtins.h"
#include "text/template/parser.h"

#include <string.h>

static node *parse_or(parser *);
static node *parse_unary(parser *, bool with_filter);
static node *parse_primary(parser *, bool with_namespace);

node *parse_expression(parser *p) {
    int32_t line = p->m->line;
    if (!parser_enter(p))
        return NULL;
    node *result = parse_or(p);
    while (result && parser_is_name(p, "if")) {
        node *n = parser_node(p, NODE_CONDITION, line);
        if (!n || !parser_advance(p))
            return NULL;
        n->a = result;
        if (!(n->b = parse_or(p)))
            return NULL;
        if (parser_is_name(p, "else") && (!parser_advance(p) || !(n->c = parse_expression(p))))
            return NULL;
        result = n;
    }
    parser_leave(p);
    return p->m->status == GRAFT_OK ? result : NULL;
}

static node *parse_not(parser *p);

static node *parse_and(parser *p) {
    node *left = parse_not(p);
    while (left && parser_is_name(p, "and")) {
        node *n = parser_node(p, NODE_AND, p->m->line);
        if (!n || !parser_advance(p))
            return NULL;
        n->a = left;
        if (!(n->b = parse_not(p)))
            return NULL;
        left = n;
    }
    return left;
}

static node *parse_or(parser *p) {
    node *left = parse_and(p);
    while (left && parser_is_name(p, "or")) {
        node *n = parser_node(p, NODE_OR, p->m->line);
        if (!n || !parser_advance(p))
            return NULL;
        n->a = left;
        if (!(n->b = parse_and(p)))
            return NULL;
        left = n;
    }
    return left;
}

static const struct {
    char text[3];
    operator_kind kind;
    int precedence;
} operators[] = {
    {"==", OPERATOR_EQUAL, 0},        {"!=", OPERATOR_NOT_EQUAL, 0},
    {"<", OPERATOR_LESS, 0},          {"<=", OPERATOR_LESS_EQUAL, 0},
    {">", OPERATOR_GREATER, 0},       {">=", OPERATOR_GREATER_EQUAL, 0},
    {"+", OPERATOR_ADD, 1},           {"-", OPERATOR_SUBTRACT, 1},
    {"*", OPERATOR_MULTIPLY, 3},      {"/", OPERATOR_DIVIDE, 3},
    {"//", OPERATOR_FLOOR_DIVIDE, 3}, {"%", OPERATOR_MODULO, 3},
    {"**", OPERATOR_POWER, 4},
};
enum { CONCAT_PRECEDENCE = 2, UNARY_PRECEDENCE = 5 };

static bool find_operator(const parser *p, int precedence, operator_kind *out) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (operators[i].precedence == precedence && parser_is_op(p, operators[i].text)) {
            *out = operators[i].kind;
            return true;
        }
    return false;
}

static node *parse_math(parser *p, int precedence);

static node *parse_concat(parser *p) {
    node *first = parse_math(p, CONCAT_PRECEDENCE + 1);
    if (!first || !parser_is_op(p, "~"))
        return first;
    node *n = parser_node(p, NODE_CONCAT, p->m->line);
    if (!n || !parser_add(p, &n->items, first))
        return NULL;
    while (parser_is_op(p, "~"))
        if (!parser_advance(p) || !parser_add(p, &n->items, parse_math(p, CONCAT_PRECEDENCE + 1)))
            return NULL;
    return n;
}

/* Chains of operators of one precedence group from the left, even **. */
static node *parse_math(parser *p, int precedence) {
    if (precedence == CONCAT_PRECEDENCE)
        return parse_concat(p);
    if (precedence == UNARY_PRECEDENCE)
        return parse_unary(p, true);
    node *left = parse_math(p, precedence + 1);
    operator_kind kind;
    while (left && find_operator(p, precedence, &kind)) {
        node *n = parser_node(p, NODE_BINARY, p->m->line);
        if (!n || !parser_advance(p))
            return NULL;
        n->op = kind;
        n->a = left;
        if (!(n->b = parse_math(p, precedence + 1)))
            return NULL;
        left = n;
    }
    return left;
}

/* A comparison's operator at the current place, taken; false when there is none or it failed. */
static bool take_comparison(parser *p, operator_kind *out) {
    if (find_operator(p, 0, out))
        return parser_advance(p);
    if (parser_is_name(p, "in")) {
        *out = OPERATOR_IN;
        return parser_advance(p);
    }
    token next;
    if (!parser_is_name(p, "not") || !parser_peek(p, &next) || next.kind != TOKEN_NAME ||
        !text_is(next.content, "in"))
        return false;
    *out = OPERATOR_NOT_IN;
    return parser_advance(p) && parser_advance(p);
}

static node *parse_compare(parser *p) {
    node *first = parse_math(p, 1), *n = NULL;
    operator_kind kind, *kinds = NULL;
    size_t n_kinds = 0;
    while (first && take_comparison(p, &kind)) {
        if (!n) {
            n = parser_node(p, NODE_COMPARE, p->m->line);
            if (!n || !parser_add(p, &n->items, first))
                return NULL;
        }
        kinds = arena_grow(&p->m->memory, kinds, n_kinds * sizeof *kinds,
                           (n_kinds + 1) * sizeof *kinds);
        if (!kinds) {
            fail_memory(p->m);
            return NULL;
        }
        kinds[n_kinds++] = kind;
        if (!parser_add(p, &n->items, parse_math(p, 1)))
            return NULL;
    }
    if (n)
        n->operators = kinds;
    return p->m->status != GRAFT_OK ? NULL : n ? n : first;
}

static node *parse_not(parser *p) {
    if (!parser_is_name(p, "not"))
        return parse_compare(p);
    node *n = parser_node(p, NODE_NOT, p->m->line);
    if (!n || !parser_enter(p) || !parser_advance(p) || !(n->a = parse_not(p)))
        return NULL;
    parser_leave(p);
    return n;
}

static node *parse_constant(parser *p, value constant) {
    node *n = parser_node(p, NODE_CONST, p->m->line);
    if (n)
        n->constant = constant;
    return n && parser_advance(p) ? n : NULL;
}

/* Strings that stand side by side are one. */
static node *parse_string(parser *p) {
    builder b = builder_on(p->m);
    node *n = parser_node(p, NODE_CONST, p->m->line);
    do {
        build_text(&b, p->current.constant.text);
        if (!n || !parser_advance(p))
            return NULL;
    } while (p->current.kind == TOKEN_CONSTANT && p->current.constant.kind == VALUE_TEXT);
    n->constant = value_text(builder_finish(&b));
    return is_failed(n->constant) ? NULL : n;
}

static void note_special_name(parser *p, const text *name) {
    for (size_t i = 0; i < p->n_macros; i++) {
        if (text_is(name, "caller"))
            p->macros[i]->caller = name;
        else if (text_is(name, "varargs"))
            p->macros[i]->varargs = name;
        else if (text_is(name, "kwargs"))
            p->macros[i]->kwargs = name;
    }
}

static node *parse_name(parser *p, bool with_namespace) {
    const text *name = p->current.content;
    if (text_is(name, "true") || text_is(name, "True"))
        return parse_constant(p, value_bool(true));
    if (text_is(name, "false") || text_is(name, "False"))
        return parse_constant(p, value_bool(false));
    if (text_is(name, "none") || text_is(name, "None"))
        return parse_constant(p, none_value);
    node *n = parser_node(p, NODE_NAME, p->m->line);
    if (!n || !(n->name = parser_intern(p, name)) || !parser_advance(p))
        return NULL;
    note_special_name(p, n->name);
    if (!with_namespace || !parser_is_op(p, "."))
        return n;
    node *attribute = parser_node(p, NODE_ATTRIBUTE, p->m->line);
    if (!attribute || !parser_advance(p))
        return NULL;
    if (p->current.kind != TOKEN_NAME) {
        parser_fail(p, "the name of an attribute");
        return NULL;
    }
    attribute->a = n;
    attribute->name = parser_intern(p, p->current.content);
    return attribute->name && parser_advance(p) ? attribute : NULL;
}

static node *parse_list(parser *p) {
    node *n = parser_node(p, NODE_LIST, p->m->line);
    if (!n || !parser_advance(p))
        return NULL;
    while (!parser_is_op(p, "]")) {
        if (n->items.n && !parser_expect_op(p, ","))
            return NULL;
        if (parser_is_op(p, "]"))
            break;
        if (!parser_add(p, &n->items, parse_expression(p)))
            return NULL;
    }
    return parser_advance(p) ? n : NULL;
}

static node *parse_dict(parser *p) {
    node *n = parser_node(p, NODE_DICT, p->m->line);
    if (!n || !parser_advance(p))
        return NULL;
    while (!parser_is_op(p, "}")) {
        if (n->items.n && !parser_expect_op(p, ","))
            return NULL;
        if (parser_is_op(p, "}"))
            break;
        if (!parser_add(p, &n->items, parse_expression(p)) || !parser_expect_op(p, ":") ||
            !parser_add(p, &n->items, parse_expression(p)))
            return NULL;
    }
    return parser_advance(p) ? n : NULL;
}

typedef enum tuple_place { TUPLE_BARE, TUPLE_IN_PARENTHESES, TUPLE_TARGET } tuple_place;

static bool ends_tuple(const parser *p, tuple_place place) {
    return p->current.kind == TOKEN_PRINT_END || p->current.kind == TOKEN_BLOCK_END ||
           parser_is_op(p, ")") || (place == TUPLE_TARGET && parser_is_name(p, "in")) ||
           (place == TUPLE_BARE && parser_is_name(p, "recursive"));
}

/* Items with commas between them; one item without a comma is itself. */
static node *parse_items(parser *p, tuple_place place, bool with_condition, bool with_namespace) {
    node *n = NULL, *item = NULL;
    int32_t line = p->m->line;
    for (;;) {
        if (ends_tuple(p, place))
            break;
        item = place == TUPLE_TARGET ? parse_primary(p, with_namespace)
               : with_condition      ? parse_expression(p)
                                     : parse_or(p);
        if (!item)
            return NULL;
        if (!n && !parser_is_op(p, ","))
            return item;
        if (!n && !(n = parser_node(p, NODE_TUPLE, line)))
            return NULL;
        if (!parser_add(p, &n->items, item))
            return NULL;
        if (!parser_is_op(p, ","))
            break;
        if (!parser_advance(p))
            return NULL;
    }
    if (!n && place == TUPLE_IN_PARENTHESES)
        return parser_node(p, NODE_TUPLE, line);
    if (!n)
        parser_fail(p, "an expression");
    return n;
}

node *parse_tuple(parser *p, bool with_condition) {
    return parse_items(p, TUPLE_BARE, with_condition, false);
}

static bool is_target(const node *n) {
    if (n->kind == NODE_TUPLE) {
        for (size_t i = 0; i < n->items.n; i++)
            if (!is_target(n->items.items[i]))
                return false;
        return true;
    }
    return n->kind == NODE_NAME || n->kind == NODE_ATTRIBUTE;
}

node *parse_target(parser *p, bool with_namespace) {
    node *n = parse_items(p, TUPLE_TARGET, false, with_namespace);
    if (n && !is_target(n)) {
        fail(p->m, "this cannot be assigned to: expected a name");
        return NULL;
    }
    if (n && n->kind == NODE_NAME && text_is(n->name, "loop") && p->loops > 0) {
        fail(p->m, "\"loop\" cannot be assigned to inside a loop");
        return NULL;
    }
    return n;
}

static node *parse_primary(parser *p, bool with_namespace) {
    const token *t = &p->current;
    if (t->kind == TOKEN_NAME)
        return parse_name(p, with_namespace);
    if (t->kind == TOKEN_CONSTANT)
        return t->constant.kind == VALUE_TEXT ? parse_string(p) : parse_constant(p, t->constant);
    if (parser_is_op(p, "[") || parser_is_op(p, "{")) {
        if (!parser_enter(p))
            return NULL;
        node *n = parser_is_op(p, "[") ? parse_list(p) : parse_dict(p);
        parser_leave(p);
        return n;
    }
    if (!parser_is_op(p, "(")) {
        parser_fail(p, "an expression");
        return NULL;
    }
    if (!parser_advance(p) || !parser_enter(p))
        return NULL;
    node *n = parse_items(p, TUPLE_IN_PARENTHESES, true, false);
    parser_leave(p);
    return n && parser_expect_op(p, ")") ? n : NULL;
}

/* What stands between brackets: an index, or begin:end:step. */
static node *parse_subscript(parser *p, node *of) {
    node *n = parser_node(p, NODE_ITEM, p->m->line);
    if (!n || !parser_advance(p))
        return NULL;
    n->a = of;
    if (!parser_is_op(p, ":") && !(n->b = parse_expression(p)))
        return NULL;
    if (parser_is_op(p, ":")) {
        n->kind = NODE_SLICE;
        if (!parser_advance(p))
            return NULL;
        if (!parser_is_op(p, ":") && !parser_is_op(p, "]") && !(n->c = parse_expression(p)))
            return NULL;
        if (parser_is_op(p, ":") &&
            (!parser_advance(p) || (!parser_is_op(p, "]") && !(n->d = parse_expression(p)))))
            return NULL;
    } else if (parser_is_op(p, ",")) { /* a[1, 2] is a[(1, 2)] */
        node *tuple = parser_node(p, NODE_TUPLE, n->line);
        if (!tuple || !parser_add(p, &tuple->items, n->b))
            return NULL;
        while (parser_take_op(p, ","))
            if (!parser_add(p, &tuple->items, parse_expression(p)))
                return NULL;
        n->b = tuple;
    }
    return parser_expect_op(p, "]") ? n : NULL;
}

static node *parse_dot(parser *p, node *of) {
    node *n = parser_node(p, NODE_ATTRIBUTE, p->m->line);
    if (!n || !parser_advance(p))
        return NULL;
    n->a = of;
    if (p->current.kind == TOKEN_CONSTANT && p->current.constant.kind == VALUE_INT) {
        n->kind = NODE_ITEM;
        return (n->b = parse_constant(p, p->current.constant)) ? n : NULL;
    }
    if (p->current.kind != TOKEN_NAME) {
        parser_fail(p, "a name or number after \".\"");
        return NULL;
    }
    n->name = parser_intern(p, p->current.content);
    return n->name && parser_advance(p) ? n : NULL;
}

static node *parse_call(parser *p, node *of) {
    node *n = parser_node(p, NODE_CALL, p->m->line);
    if (!n)
        return NULL;
    n->a = of;
    return (n->call = parse_call_arguments(p)) ? n : NULL;
}

static node *parse_postfix(parser *p, node *n) {
    while (n) {
        if (parser_is_op(p, "."))
            n = parse_dot(p, n);
        else if (parser_is_op(p, "["))
            n = parse_subscript(p, n);
        else if (parser_is_op(p, "("))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

static bool add_named(parser *p, call_node *call) {
    const text *name = parser_intern(p, p->current.content);
    const text **names = arena_grow(&p->m->memory, call->names, call->named.n * sizeof *names,
                                    (call->named.n + 1) * sizeof *names);
    if (!names || !name)
        return fail_memory(p->m);
    names[call->named.n] = name;
    call->names = names;
    return parser_advance(p) && parser_advance(p) &&
           parser_add(p, &call->named, parse_expression(p));
}

static bool add_argument(parser *p, call_node *call) {
    if (parser_is_op(p, "**")) {
        if (call->star_star)
            return fail(p->m, "a call can have one **mapping only");
        return parser_advance(p) && (call->star_star = parse_expression(p));
    }
    if (call->star_star)
        return fail(p->m, "nothing can follow **mapping in a call");
    if (parser_is_op(p, "*")) {
        if (call->star)
            return fail(p->m, "a call can have one *sequence only");
        return parser_advance(p) && (call->star = parse_expression(p));
    }
    token next = {0};
    if (p->current.kind == TOKEN_NAME) {
        if (!parser_peek(p, &next))
            return false;
        if (next.kind == TOKEN_OPERATOR && strcmp(next.op, "=") == 0)
            return add_named(p, call);
    }
    if (call->named.n || call->star)
        return fail(p->m, "an argument without a name follows one with a name");
    return parser_add(p, &call->positional, parse_expression(p));
}

call_node *parse_call_arguments(parser *p) {
    call_node *call = vm_take(p->m, 1, sizeof *call);
    bool is_first = true;
    if (!call || !parser_expect_op(p, "("))
        return NULL;
    for (; !parser_is_op(p, ")"); is_first = false) {
        if (!is_first && !parser_expect_op(p, ","))
            return NULL;
        if (parser_is_op(p, ")"))
            break;
        if (!add_argument(p, call))
            return NULL;
    }
    return parser_advance(p) ? call : NULL;
}

static bool find_builtin(parser *p, node *n, const char *what,
                         const builtin *(*find)(const text *)) {
    if (p->current.kind != TOKEN_NAME)
        return fail(p->m, "expected the name of a %s", what);
    const text *name = p->current.content;
    n->builtin = find(name);
    if (!n->builtin)
        return fail(p->m, "there is no %s named \"%.*s\"", what, (int)name->n, name->bytes);
    if (!n->builtin->run)
        return fail_as(p->m, GRAFT_E_UNSUPPORTED, "the %s \"%s\" is not supported", what,
                       n->builtin->name);
    return parser_advance(p);
}

node *parse_filters(parser *p, node *input, bool is_inline) {
    node *n = input;
    while (is_inline || parser_is_op(p, "|")) {
        if (!is_inline && !parser_advance(p))
            return NULL;
        is_inline = false;
        node *filter = parser_node(p, NODE_FILTER, p->m->line);
        if (!filter || !find_builtin(p, filter, "filter", filter_find))
            return NULL;
        filter->a = n;
        if (parser_is_op(p, "(") && !(filter->call = parse_call_arguments(p)))
            return NULL;
        n = filter;
    }
    return n;
}

/* A test may take one argument without parentheses: "x is divisibleby 3". */
static bool takes_bare_argument(const parser *p) {
    switch (p->current.kind) {
    case TOKEN_NAME:
        return !parser_is_name(p, "else") && !parser_is_name(p, "or") && !parser_is_name(p, "and");
    case TOKEN_CONSTANT:
        return true;
    default:
        return parser_is_op(p, "[") || parser_is_op(p, "{");
    }
}

static node *parse_test(parser *p, node *of) {
    node *n = parser_node(p, NODE_TEST, p->m->line);
    if (!n || !parser_advance(p))
        return NULL;
    bool is_negated = parser_take_name(p, "not");
    if (!find_builtin(p, n, "test", test_find))
        return NULL;
    n->a = of;
    if (parser_is_op(p, "(")) {
        if (!(n->call = parse_call_arguments(p)))
            return NULL;
    } else if (takes_bare_argument(p)) {
        if (parser_is_name(p, "is")) {
            fail(p->m, "tests cannot be chained with \"is\"");
            return NULL;
        }
        n->call = vm_take(p->m, 1, sizeof *n->call);
        if (!n->call)
            return NULL;
        node *argument = parse_primary(p, false);
        if (!parser_add(p, &n->call->positional, argument ? parse_postfix(p, argument) : NULL))
            return NULL;
    }
    if (!is_negated)
        return n;
    node *negated = parser_node(p, NODE_NOT, n->line);
    if (negated)
        negated->a = n;
    return negated;
}

static node *parse_unary(parser *p, bool with_filter) {
    node *n;
    if (parser_is_op(p, "-") || parser_is_op(p, "+")) {
        n = parser_node(p, parser_is_op(p, "-") ? NODE_NEGATE : NODE_PLUS, p->m->line);
        if (!n || !parser_enter(p) || !parser_advance(p) || !(n->a = parse_unary(p, false)))
            return NULL;
        parser_leave(p);
    } else {
        n = parse_primary(p, false);
    }
    n = n ? parse_postfix(p, n) : NULL;
    while (n && with_filter) {
        if (parser_is_op(p, "|"))
            n = parse_filters(p, n, false);
        else if (parser_is_name(p, "is"))
            n = parse_test(p, n);
        else if (parser_is_op(p, "("))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}
