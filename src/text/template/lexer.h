/* A template cut into tokens, with Jinja's white space rules (trim_blocks, lstrip_blocks, - and +
 * marks) applied. */
#ifndef GRAFT_TEXT_TEMPLATE_LEXER_H
#define GRAFT_TEXT_TEMPLATE_LEXER_H

#include "text/template/value.h"

typedef enum token_kind {
    TOKEN_END,   /* of the template */
    TOKEN_TEXT,  /* between tags: content */
    TOKEN_PRINT, /* {{ */
    TOKEN_PRINT_END,
    TOKEN_BLOCK, /* {% */
    TOKEN_BLOCK_END,
    TOKEN_NAME,     /* content */
    TOKEN_CONSTANT, /* constant: a string, integer or float */
    TOKEN_OPERATOR  /* op */
} token_kind;

typedef struct token {
    token_kind kind;
    int32_t line;
    const text *content; /* TEXT, NAME */
    value constant;
    char op[3]; /* "+", "**", "(", ... */
} token;

typedef struct lexer {
    vm *m;
    const char *source; /* lines end in \n only */
    size_t n, at;
    int32_t line;
    bool after_line_end; /* what was read last ended in a newline, or nothing was read */
    token_kind inside;   /* PRINT or BLOCK; END: between tags */
    bool is_entering;    /* the token that begins `inside` is still to be given */
    bool is_raw;         /* what follows is the body of a raw block */
    char open[256];      /* brackets to be closed, as closing characters */
    size_t n_open;
} lexer;

/* Normalises line ends, drops one newline at the very end. False when it failed (text that is not
 * UTF-8). */
bool lexer_open(lexer *, vm *, const char *source, size_t n);
/* False when it failed. */
bool lexer_next(lexer *, token *out);

#endif
