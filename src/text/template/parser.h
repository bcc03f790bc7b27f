/* From source to syntax tree. Whatever the language does not have is refused here, by name and
 * line. */
#ifndef GRAFT_TEXT_TEMPLATE_PARSER_H
#define GRAFT_TEXT_TEMPLATE_PARSER_H

#include "text/template/ast.h"
#include "text/template/lexer.h"

typedef struct syntax_tree {
    node_list body;
    const text **names; /* every variable name of the template, each once */
    size_t n_names, names_capacity;
    bool has_generation;
} syntax_tree;

/* The tree borrows nothing of source; all lies in the vm's arena. */
bool parse_template(syntax_tree *out, vm *, const char *source, size_t n);

/* What the files of the parser share. Functions that return a node give NULL when they failed. */
typedef struct parser {
    vm *m;
    lexer lexer;
    token current, next;
    bool has_next;
    syntax_tree *tree;
    const text **table; /* interned names, open addressing */
    size_t table_size;
    macro_node *macros[32]; /* around the current place */
    size_t n_macros;
    int32_t loops; /* around the current place, within the innermost macro */
    int32_t nesting;
    const char *closing; /* what the innermost block waits for, for messages */
    int32_t closing_line;
    int32_t block_line; /* of the innermost block's head */
} parser;

bool parser_advance(parser *);
bool parser_peek(parser *, token *out);
bool parser_is_op(const parser *, const char *op);
bool parser_is_name(const parser *, const char *name);
bool parser_take_op(parser *, const char *op); /* only if it is there */
bool parser_take_name(parser *, const char *name);
bool parser_expect_op(parser *, const char *op); /* fails if it is not there */
bool parser_expect_name(parser *, const char *name);
/* "expected WHAT, found TOKEN" */
bool parser_fail(parser *, const char *expected);
const text *parser_intern(parser *, const text *name);
node *parser_node(parser *, node_kind, int32_t line);
bool parser_add(parser *, node_list *, const node *);
bool parser_enter(parser *);
void parser_leave(parser *);

node *parse_expression(parser *);
/* "a, b" gives a tuple. An inline if is read unless it would take a statement's own "if". */
node *parse_tuple(parser *, bool with_condition);
node *parse_target(parser *, bool with_namespace);
node *parse_name_target(parser *);
call_node *parse_call_arguments(parser *);
/* |name(...) as long as there are more; `is_inline`: the first one comes without its bar. */
node *parse_filters(parser *, node *input, bool is_inline);

#endif
