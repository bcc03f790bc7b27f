/* Writing reports: into a sink, as text for people or as JSON. */
#ifndef GRAFT_API_REPORT_H
#define GRAFT_API_REPORT_H

#include "base/strbuf.h"
#include "formats/json.h"

/* "1,234,567" and "1.23 GiB" in static storage (eight in turn). */
const char *count_text(int64_t);
const char *size_text(double bytes);

/* A sink that appends to the text. */
graft_sink strbuf_sink(strbuf *);
/* Hands the text to the sink and frees it; GRAFT_E_MEMORY when it failed. */
graft_status report_finish(const graft_sink *, strbuf *, graft_error *);
/* The same of a JSON document (consumed): indented, or on one line; one newline at the end. */
graft_status report_finish_json(const graft_sink *, json_t *document, graft_error *);
graft_status report_finish_json_line(const graft_sink *, json_t *document, graft_error *);

/* Building a document: out of memory is sticky. A value that could not be made, or added, takes the
 * whole document with it (*container becomes NULL), and report_finish_json() says so. Both consume
 * the value. */
void report_set(json_t **object, const char *key, json_t *value);
void report_add(json_t **array, json_t *value);
/* A JSON string of bytes that may be no UTF-8 (file names): what is not becomes U+FFFD. NULL when
 * out of memory. */
json_t *report_string(const char *text, size_t n);
/* A number, or null for NaN and infinities. */
json_t *report_number(double value);

/* "     label  value" lines. */
void report_line(strbuf *, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
