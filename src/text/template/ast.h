/* The syntax tree of a template: all nodes in one arena. */
#ifndef GRAFT_TEXT_TEMPLATE_AST_H
#define GRAFT_TEXT_TEMPLATE_AST_H

#include "text/template/value.h"

typedef enum node_kind {
    /* Expressions */
    NODE_CONST,     /* constant */
    NODE_NAME,      /* name */
    NODE_TUPLE,     /* items; also as a target */
    NODE_LIST,      /* items */
    NODE_DICT,      /* items: key, value, key, value, ... */
    NODE_NEGATE,    /* a */
    NODE_PLUS,      /* a */
    NODE_NOT,       /* a */
    NODE_AND,       /* a, b */
    NODE_OR,        /* a, b */
    NODE_BINARY,    /* a op b */
    NODE_COMPARE,   /* items[0] operators[0] items[1] operators[1] ... */
    NODE_CONCAT,    /* items */
    NODE_CONDITION, /* a if b else c; c may be NULL */
    NODE_ATTRIBUTE, /* a.name; as a target: of the namespace a */
    NODE_ITEM,      /* a[b] */
    NODE_SLICE,     /* a[b:c:d]; each may be NULL */
    NODE_CALL,      /* a(call) */
    NODE_FILTER,    /* a|builtin(call); a NULL: the body of a block */
    NODE_TEST,      /* a is builtin(call) */
    /* Statements */
    NODE_TEXT,         /* constant */
    NODE_PRINT,        /* a */
    NODE_IF,           /* items: conditions; branches: one body each; else bodies[0] */
    NODE_FOR,          /* for a in b if c: bodies[0], else bodies[1]; name: "loop" */
    NODE_SET,          /* a = b */
    NODE_SET_BLOCK,    /* a, b: filters or NULL, bodies[0] */
    NODE_MACRO,        /* name, parameters, bodies[0] */
    NODE_CALL_BLOCK,   /* a: the call, parameters, bodies[0] */
    NODE_FILTER_BLOCK, /* b: filters, bodies[0] */
    NODE_WITH,         /* items: target, value, ...; bodies[0] */
    NODE_GENERATION,   /* bodies[0] */
    NODE_BREAK,
    NODE_CONTINUE
} node_kind;

typedef enum operator_kind {
    OPERATOR_ADD,
    OPERATOR_SUBTRACT,
    OPERATOR_MULTIPLY,
    OPERATOR_DIVIDE,
    OPERATOR_FLOOR_DIVIDE,
    OPERATOR_MODULO,
    OPERATOR_POWER,
    OPERATOR_EQUAL,
    OPERATOR_NOT_EQUAL,
    OPERATOR_LESS,
    OPERATOR_LESS_EQUAL,
    OPERATOR_GREATER,
    OPERATOR_GREATER_EQUAL,
    OPERATOR_IN,
    OPERATOR_NOT_IN
} operator_kind;

typedef struct node node;

typedef struct node_list {
    const node **items;
    size_t n, capacity;
} node_list;

typedef struct call_node {
    node_list positional;
    const text **names; /* of the named ones; interned */
    node_list named;
    const node *star, *star_star; /* *sequence, **mapping; NULL: none */
} call_node;

typedef struct macro_node {
    const text **names; /* parameters; interned */
    size_t n, names_capacity;
    const node **defaults;                 /* [n]; NULL: none */
    const text *caller, *varargs, *kwargs; /* those names; NULL unless the body mentions them */
} macro_node;

struct node {
    node_kind kind;
    int32_t line;
    const node *a, *b, *c, *d;
    node_list items;
    node_list bodies[2];
    const node_list *branches; /* IF: [items.n] */
    const text *name;          /* interned: equal names are one pointer */
    value constant;
    operator_kind op;
    const operator_kind *operators; /* COMPARE: [items.n - 1] */
    const struct builtin *builtin;
    call_node *call;
    macro_node *macro;
    bool is_recursive; /* FOR */
};

#endif
