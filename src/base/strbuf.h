/* A growing byte string. Out of memory is sticky: check `failed` once, at the end. */
#ifndef GRAFT_BASE_STRBUF_H
#define GRAFT_BASE_STRBUF_H

#include "base/status.h"

typedef struct strbuf {
    char *data; /* NUL after `length` bytes once anything was added; NULL before */
    size_t length, capacity;
    bool failed; /* an addition ran out of memory and was dropped */
} strbuf;

void strbuf_add(strbuf *, const char *bytes, size_t n);
void strbuf_add_text(strbuf *, const char *text);
void strbuf_add_char(strbuf *, char c);
void strbuf_printf(strbuf *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Never NULL: "" when nothing was added. */
const char *strbuf_text(const strbuf *);
/* Hands the bytes over (caller frees) and empties the buffer. NULL when it failed. */
char *strbuf_take(strbuf *);
void strbuf_clear(strbuf *); /* keeps the memory */
void strbuf_free(strbuf *);

#endif
