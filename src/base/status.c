#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Ends the text at a whole UTF-8 character when it was cut at `capacity`. */
static void trim_partial_character(char *text) {
    size_t length = strlen(text);
    size_t start = length;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t expected = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (length - (start - 1) < expected)
        text[start - 1] = '\0';
}

/* Copies with control characters shown as \xNN, so that a message cannot drive the terminal. */
static void copy_escaped(char *out, size_t capacity, const char *in) {
    static const char hex[] = "0123456789abcdef";
    size_t n = 0;
    for (; *in && n + 5 < capacity; in++) {
        unsigned char c = (unsigned char)*in;
        if ((c < 0x20 && c != '\n') || c == 0x7F) {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        } else {
            out[n++] = (char)c;
        }
    }
    out[n] = '\0';
    trim_partial_character(out);
}

graft_status error_set(graft_error *err, graft_status code, const char *format, ...) {
    if (!err)
        return code;
    char raw[sizeof err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    err->code = code;
    copy_escaped(err->message, sizeof err->message, raw);
    return code;
}

void error_prefix(graft_error *err, const char *format, ...) {
    if (!err)
        return;
    char joined[2 * sizeof err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(joined, sizeof err->message, format, args);
    va_end(args);
    size_t used = strlen(joined);
    snprintf(joined + used, sizeof joined - used, ": %s", err->message);
    copy_escaped(err->message, sizeof err->message, joined);
}

graft_status error_memory(graft_error *err, size_t bytes, const char *what) {
    return error_set(err, GRAFT_E_MEMORY, "out of memory: %zu bytes wanted for %s", bytes, what);
}

int graft_exit_status(graft_status code) {
    switch (code) {
    case GRAFT_OK:
        return 0;
    case GRAFT_E_USAGE:
    case GRAFT_E_INPUT:
    case GRAFT_E_UNSUPPORTED:
        return 2;
    default:
        return 1;
    }
}
