#include "base/strbuf.h"

#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(strbuf *b, size_t extra) {
    size_t needed;
    if (b->failed || !size_add(&needed, b->length, extra) || !size_add(&needed, needed, 1) ||
        !mem_reserve(&b->data, &b->capacity, needed, 1))
        b->failed = true;
    return !b->failed;
}

void strbuf_add(strbuf *b, const char *bytes, size_t n) {
    if (!reserve(b, n))
        return;
    if (n)
        memcpy(b->data + b->length, bytes, n);
    b->length += n;
    b->data[b->length] = '\0';
}

void strbuf_add_text(strbuf *b, const char *text) {
    strbuf_add(b, text, strlen(text));
}

void strbuf_add_char(strbuf *b, char c) {
    strbuf_add(b, &c, 1);
}

void strbuf_printf(strbuf *b, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        b->failed = true;
    else if (reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->length, (size_t)n + 1, format, again);
        b->length += (size_t)n;
    }
    va_end(again);
}

const char *strbuf_text(const strbuf *b) {
    return b->data ? b->data : "";
}

char *strbuf_take(strbuf *b) {
    if (!b->data)
        strbuf_add(b, "", 0);
    char *taken = b->failed ? NULL : b->data;
    if (!taken)
        free(b->data);
    *b = (strbuf){0};
    return taken;
}

void strbuf_clear(strbuf *b) {
    b->length = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

void strbuf_free(strbuf *b) {
    free(b->data);
    *b = (strbuf){0};
}
