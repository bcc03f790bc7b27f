/* Status codes and error messages: every layer reports through these. The types are the public
 * ones of include/graft.h. */
#ifndef GRAFT_BASE_STATUS_H
#define GRAFT_BASE_STATUS_H

#include "graft.h"

/* Fills *err (may be NULL) and returns code, so that a caller can write
 * `return error_set(err, GRAFT_E_INPUT, "%s: ...", path);`. Control characters of the arguments are
 * shown escaped: messages may quote hostile file contents. Truncates at a whole UTF-8 character. */
graft_status error_set(graft_error *err, graft_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message that *err holds, e.g. the row or file a lower layer did not
 * know. */
void error_prefix(graft_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "out of memory (wanted N bytes for WHAT)". */
graft_status error_memory(graft_error *err, size_t bytes, const char *what);

#endif
