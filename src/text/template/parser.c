/* Statements. */
#include "text/template/parser.h"

#include "text/template/builtins.h"
#include "text/template/template.h"

#include <stdio.h>
#include <string.h>

typedef node *parse_statement(parser *, int32_t line);

bool parser_advance(parser *p) {
    if (p->has_next) {
        p->current = p->next;
        p->has_next = false;
    } else if (!lexer_next(&p->lexer, &p->current)) {
        p->current = (token){.kind = TOKEN_END}; /* ends all that goes on reading */
        return false;
    }
    p->m->line = p->current.line;
    return true;
}

bool parser_peek(parser *p, token *out) {
    if (!p->has_next && !lexer_next(&p->lexer, &p->next)) {
        p->next = (token){.kind = TOKEN_END};
        return false;
    }
    p->has_next = true;
    p->m->line = p->current.line;
    *out = p->next;
    return true;
}

bool parser_is_op(const parser *p, const char *op) {
    return p->current.kind == TOKEN_OPERATOR && strcmp(p->current.op, op) == 0;
}

bool parser_is_name(const parser *p, const char *name) {
    return p->current.kind == TOKEN_NAME && text_is(p->current.content, name);
}

bool parser_take_op(parser *p, const char *op) {
    return parser_is_op(p, op) && parser_advance(p);
}

bool parser_take_name(parser *p, const char *name) {
    return parser_is_name(p, name) && parser_advance(p);
}

bool parser_fail(parser *p, const char *expected) {
    const token *t = &p->current;
    switch (t->kind) {
    case TOKEN_END:
        if (p->closing)
            return fail(p->m,
                        "expected %s, found the end of the template; {%% %s %%} for the block "
                        "of line %d is missing",
                        expected, p->closing, (int)p->closing_line);
        return fail(p->m, "expected %s, found the end of the template", expected);
    case TOKEN_NAME:
        return fail(p->m, "expected %s, found \"%.*s\"", expected, (int)t->content->n,
                    t->content->bytes);
    case TOKEN_OPERATOR:
        return fail(p->m, "expected %s, found \"%s\"", expected, t->op);
    case TOKEN_CONSTANT:
        return fail(p->m, "expected %s, found a %s", expected,
                    t->constant.kind == VALUE_TEXT ? "string" : "number");
    case TOKEN_BLOCK_END:
        return fail(p->m, "expected %s, found \"%%}\"", expected);
    case TOKEN_PRINT_END:
        return fail(p->m, "expected %s, found \"}}\"", expected);
    default:
        return fail(p->m, "expected %s, found text outside a tag", expected);
    }
}

bool parser_expect_op(parser *p, const char *op) {
    char wanted[8] = {'"', op[0], op[1] ? op[1] : '"', op[1] ? '"' : 0};
    return parser_is_op(p, op) ? parser_advance(p) : parser_fail(p, wanted);
}

bool parser_expect_name(parser *p, const char *name) {
    char wanted[32];
    snprintf(wanted, sizeof wanted, "\"%s\"", name);
    return parser_is_name(p, name) ? parser_advance(p) : parser_fail(p, wanted);
}

static bool grow_table(parser *p) {
    size_t size = p->table_size ? 2 * p->table_size : 128;
    const text **table = vm_take(p->m, size, sizeof *table);
    if (!table)
        return false;
    p->table = table;
    p->table_size = size;
    for (size_t i = 0; i < p->tree->n_names; i++) {
        uint64_t hash = 0;
        value_hash(p->m, &hash, value_text(p->tree->names[i]));
        while (table[hash & (size - 1)])
            hash++;
        table[hash & (size - 1)] = p->tree->names[i];
    }
    return true;
}

const text *parser_intern(parser *p, const text *name) {
    syntax_tree *tree = p->tree;
    if (2 * tree->n_names >= p->table_size && !grow_table(p))
        return NULL;
    uint64_t hash = 0;
    value_hash(p->m, &hash, value_text(name));
    size_t mask = p->table_size - 1;
    for (; p->table[hash & mask]; hash++)
        if (text_equal(p->table[hash & mask], name))
            return p->table[hash & mask];
    if (tree->n_names == tree->names_capacity) {
        size_t capacity = tree->names_capacity ? 2 * tree->names_capacity : 64;
        const text **grown =
            arena_grow(&p->m->memory, tree->names, tree->names_capacity * sizeof *grown,
                       capacity * sizeof *grown);
        if (!grown) {
            fail_memory(p->m);
            return NULL;
        }
        tree->names = grown;
        tree->names_capacity = capacity;
    }
    tree->names[tree->n_names++] = name;
    return p->table[hash & mask] = name;
}

node *parser_node(parser *p, node_kind kind, int32_t line) {
    node *n = vm_take(p->m, 1, sizeof *n);
    if (n) {
        n->kind = kind;
        n->line = line;
    }
    return n;
}

bool parser_add(parser *p, node_list *l, const node *item) {
    if (!item)
        return false;
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 4;
        const node **grown = arena_grow(&p->m->memory, l->items, l->capacity * sizeof *grown,
                                        capacity * sizeof *grown);
        if (!grown)
            return fail_memory(p->m);
        l->items = grown;
        l->capacity = capacity;
    }
    l->items[l->n++] = item;
    return true;
}

bool parser_enter(parser *p) {
    if (p->nesting >= TEMPLATE_DEPTH_MAX)
        return fail(p->m, "nested more than %d levels deep", TEMPLATE_DEPTH_MAX);
    p->nesting++;
    return true;
}

void parser_leave(parser *p) {
    p->nesting--;
}

static bool expect_block_end(parser *p) {
    return p->current.kind == TOKEN_BLOCK_END ? parser_advance(p)
                                              : parser_fail(p, "\"%}\" at the end of the tag");
}

static node *parse_block(parser *p);

/* Nodes up to {% END1 %} or one of the others, whose name is then the current token. A NULL end:
 * the template's end. */
static bool parse_body(parser *p, node_list *out, const char *const *ends) {
    const char *outer = p->closing;
    int32_t outer_line = p->closing_line;
    if (!parser_enter(p))
        return false;
    if (ends) {
        p->closing = ends[0];
        p->closing_line = p->block_line;
    }
    for (;;) {
        const token t = p->current;
        node *n = NULL;
        if (t.kind == TOKEN_END) {
            if (ends)
                return parser_fail(p, "more of the template");
            break;
        }
        if (!parser_advance(p))
            return false;
        if (t.kind == TOKEN_TEXT) {
            n = parser_node(p, NODE_TEXT, t.line);
            if (n)
                n->constant = value_text(t.content);
        } else if (t.kind == TOKEN_PRINT) {
            n = parser_node(p, NODE_PRINT, t.line);
            if (!n || !(n->a = parse_tuple(p, true)))
                return false;
            if (p->current.kind != TOKEN_PRINT_END)
                return parser_fail(p, "\"}}\"");
            if (!parser_advance(p))
                return false;
        } else {
            for (size_t i = 0; ends && ends[i]; i++)
                if (parser_is_name(p, ends[i]))
                    goto ended;
            n = parse_block(p);
        }
        if (!parser_add(p, out, n))
            return false;
    }
ended:
    parser_leave(p);
    p->closing = outer;
    p->closing_line = outer_line;
    return true;
}

/* From behind a block's head: its "%}", its body and {% END %}, up to that tag's own "%}" (not
 * taken). */
static bool parse_until(parser *p, node_list *out, const char *end) {
    const char *const ends[] = {end, NULL};
    parser_take_op(p, ":");
    return expect_block_end(p) && parse_body(p, out, ends) && parser_advance(p);
}

static bool parse_branch(parser *p, node_list *out, const char *const *ends) {
    parser_take_op(p, ":");
    return expect_block_end(p) && parse_body(p, out, ends);
}

static node *parse_if(parser *p, int32_t line) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    node *n = parser_node(p, NODE_IF, line);
    node_list *branches = NULL;
    size_t capacity = 0;
    do {
        if (!n || !parser_advance(p) || !parser_add(p, &n->items, parse_tuple(p, false)))
            return NULL;
        if (n->items.n > capacity) {
            size_t grown = capacity ? 2 * capacity : 2;
            branches = arena_grow(&p->m->memory, branches, capacity * sizeof *branches,
                                  grown * sizeof *branches);
            if (!branches) {
                fail_memory(p->m);
                return NULL;
            }
            capacity = grown;
        }
        node_list *branch = &branches[n->items.n - 1];
        *branch = (node_list){0};
        if (!parse_branch(p, branch, ends))
            return NULL;
    } while (parser_is_name(p, "elif"));
    n->branches = branches;
    if (!parser_is_name(p, "else"))
        return parser_advance(p) ? n : NULL;
    return parser_advance(p) && parse_until(p, &n->bodies[0], "endif") ? n : NULL;
}

static node *parse_for(parser *p, int32_t line) {
    static const char *const ends[] = {"endfor", "else", NULL};
    static const text loop_name = {.bytes = "loop", .n = 4};
    node *n = parser_node(p, NODE_FOR, line);
    p->loops++;
    if (!n || !(n->name = parser_intern(p, &loop_name)) || !parser_advance(p) ||
        !(n->a = parse_target(p, false)) || !parser_expect_name(p, "in") ||
        !(n->b = parse_tuple(p, false)))
        return NULL;
    if (parser_is_name(p, "if") && (!parser_advance(p) || !(n->c = parse_expression(p))))
        return NULL;
    n->is_recursive = parser_take_name(p, "recursive");
    if (!parse_branch(p, &n->bodies[0], ends))
        return NULL;
    p->loops--;
    if (!parser_is_name(p, "else"))
        return parser_advance(p) ? n : NULL;
    return parser_advance(p) && parse_until(p, &n->bodies[1], "endfor") ? n : NULL;
}

static node *parse_set(parser *p, int32_t line) {
    node *n = parser_node(p, NODE_SET, line);
    if (!n || !parser_advance(p) || !(n->a = parse_target(p, true)))
        return NULL;
    if (parser_is_op(p, "="))
        return parser_advance(p) && (n->b = parse_tuple(p, true)) ? n : NULL;
    n->kind = NODE_SET_BLOCK;
    if (parser_is_op(p, "|") && !(n->b = parse_filters(p, NULL, false)))
        return NULL;
    return parse_until(p, &n->bodies[0], "endset") ? n : NULL;
}

static bool add_parameter(parser *p, macro_node *of) {
    if (of->n == of->names_capacity) {
        size_t old = of->names_capacity, capacity = old ? 2 * old : 4;
        of->names = arena_grow(&p->m->memory, of->names, old * sizeof *of->names,
                               capacity * sizeof *of->names);
        of->defaults = arena_grow(&p->m->memory, of->defaults, old * sizeof *of->defaults,
                                  capacity * sizeof *of->defaults);
        if (!of->names || !of->defaults)
            return fail_memory(p->m);
        of->names_capacity = capacity;
    }
    if (p->current.kind != TOKEN_NAME)
        return parser_fail(p, "the name of a parameter");
    of->names[of->n] = parser_intern(p, p->current.content);
    of->defaults[of->n] = NULL;
    if (!of->names[of->n] || !parser_advance(p))
        return false;
    if (parser_is_op(p, "=")) {
        if (!parser_advance(p) || !(of->defaults[of->n] = parse_expression(p)))
            return false;
    } else if (of->n > 0 && of->defaults[of->n - 1]) {
        return fail(p->m, "a parameter without a default follows one that has one");
    }
    of->n++;
    return true;
}

static bool parse_parameters(parser *p, macro_node *of) {
    if (!parser_expect_op(p, "("))
        return false;
    while (!parser_is_op(p, ")"))
        if ((of->n && !parser_expect_op(p, ",")) || !add_parameter(p, of))
            return false;
    return parser_advance(p);
}

/* The body of something called: loops outside it cannot be left from within, and names in it are
 * looked at. */
static bool parse_called_body(parser *p, node *n, const char *end) {
    if (p->n_macros == sizeof p->macros / sizeof *p->macros)
        return fail(p->m, "macros are nested more than %zu deep", p->n_macros);
    int32_t loops = p->loops;
    p->macros[p->n_macros++] = n->macro;
    p->loops = 0;
    bool done = parse_until(p, &n->bodies[0], end);
    p->n_macros--;
    p->loops = loops;
    return done;
}

static node *parse_macro(parser *p, int32_t line) {
    node *n = parser_node(p, NODE_MACRO, line);
    if (!n || !(n->macro = vm_take(p->m, 1, sizeof *n->macro)) || !parser_advance(p))
        return NULL;
    if (p->current.kind != TOKEN_NAME) {
        parser_fail(p, "the name of the macro");
        return NULL;
    }
    n->name = parser_intern(p, p->current.content);
    return n->name && parser_advance(p) && parse_parameters(p, n->macro) &&
                   parse_called_body(p, n, "endmacro")
               ? n
               : NULL;
}

static node *parse_call_block(parser *p, int32_t line) {
    node *n = parser_node(p, NODE_CALL_BLOCK, line);
    if (!n || !(n->macro = vm_take(p->m, 1, sizeof *n->macro)) || !parser_advance(p))
        return NULL;
    if (parser_is_op(p, "(") && !parse_parameters(p, n->macro))
        return NULL;
    if (!(n->a = parse_expression(p)))
        return NULL;
    if (n->a->kind != NODE_CALL) {
        fail(p->m, "{%% call %%} needs a call, like {%% call name(...) %%}");
        return NULL;
    }
    return parse_called_body(p, n, "endcall") ? n : NULL;
}

static node *parse_filter_block(parser *p, int32_t line) {
    node *n = parser_node(p, NODE_FILTER_BLOCK, line);
    return n && parser_advance(p) && (n->b = parse_filters(p, NULL, true)) &&
                   parse_until(p, &n->bodies[0], "endfilter")
               ? n
               : NULL;
}

static node *parse_with(parser *p, int32_t line) {
    node *n = parser_node(p, NODE_WITH, line);
    if (!n || !parser_advance(p))
        return NULL;
    while (p->current.kind != TOKEN_BLOCK_END) {
        if ((n->items.n && !parser_expect_op(p, ",")) ||
            !parser_add(p, &n->items, parse_target(p, false)) || !parser_expect_op(p, "=") ||
            !parser_add(p, &n->items, parse_expression(p)))
            return NULL;
    }
    return parse_until(p, &n->bodies[0], "endwith") ? n : NULL;
}

static node *parse_generation(parser *p, int32_t line) {
    node *n = parser_node(p, NODE_GENERATION, line);
    p->tree->has_generation = true;
    int32_t loops = p->loops;
    p->loops = 0;
    bool done = n && parser_advance(p) && parse_until(p, &n->bodies[0], "endgeneration");
    p->loops = loops;
    return done ? n : NULL;
}

static node *parse_jump(parser *p, int32_t line) {
    bool is_break = parser_is_name(p, "break");
    if (!p->loops) {
        fail(p->m, "{%% %s %%} outside a loop", is_break ? "break" : "continue");
        return NULL;
    }
    node *n = parser_node(p, is_break ? NODE_BREAK : NODE_CONTINUE, line);
    return n && parser_advance(p) ? n : NULL;
}

static node *parse_print(parser *p, int32_t line) {
    node *n = parser_node(p, NODE_PRINT, line);
    return n && parser_advance(p) && (n->a = parse_expression(p)) ? n : NULL;
}

static const struct {
    const char *name;
    parse_statement *parse; /* NULL: refused */
} statements[] = {
    {"if", parse_if},           {"for", parse_for},
    {"set", parse_set},         {"macro", parse_macro},
    {"call", parse_call_block}, {"filter", parse_filter_block},
    {"with", parse_with},       {"generation", parse_generation},
    {"break", parse_jump},      {"continue", parse_jump},
    {"print", parse_print},     {"include", NULL},
    {"import", NULL},           {"from", NULL},
    {"extends", NULL},          {"block", NULL},
    {"autoescape", NULL},
};

/* A statement, from behind "{%" to behind "%}". */
static node *parse_block(parser *p) {
    int32_t line = p->m->line;
    if (p->current.kind != TOKEN_NAME) {
        parser_fail(p, "the name of a statement");
        return NULL;
    }
    const text *name = p->current.content;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!text_is(name, statements[i].name))
            continue;
        if (!statements[i].parse) {
            fail_as(p->m, GRAFT_E_UNSUPPORTED,
                    "{%% %s %%} is not supported: a chat template is one file", statements[i].name);
            return NULL;
        }
        int32_t outer = p->block_line;
        p->block_line = line;
        node *n = statements[i].parse(p, line);
        p->block_line = outer;
        return n && expect_block_end(p) ? n : NULL;
    }
    if (p->closing)
        fail(p->m, "unknown statement \"%.*s\"; the block of line %d waits for {%% %s %%}",
             (int)name->n, name->bytes, (int)p->closing_line, p->closing);
    else
        fail(p->m, "unknown statement \"%.*s\"", (int)name->n, name->bytes);
    return NULL;
}

bool parse_template(syntax_tree *out, vm *m, const char *source, size_t n) {
    parser p = {.m = m, .tree = out};
    *out = (syntax_tree){0};
    return lexer_open(&p.lexer, m, source, n) && parser_advance(&p) &&
           parse_body(&p, &out->body, NULL) && m->status == GRAFT_OK;
}
