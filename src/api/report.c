#include "api/report.h"

#include "base/units.h"
#include "formats/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static char *next_text(void) {
    static _Thread_local char texts[8][40];
    static _Thread_local unsigned turn;
    return texts[turn++ % 8];
}

const char *count_text(int64_t value) {
    char digits[32], *text = next_text();
    int n = snprintf(digits, sizeof digits, "%" PRId64, value), to = 0;
    for (int i = 0; i < n; i++) {
        text[to++] = digits[i];
        if ((n - 1 - i) % 3 == 0 && i + 1 < n && digits[i] != '-')
            text[to++] = ',';
    }
    text[to] = '\0';
    return text;
}

const char *size_text(double bytes) {
    return bytes_text(next_text(), bytes);
}

static void append(void *context, const char *text, size_t n) {
    strbuf_add(context, text, n);
}

graft_sink strbuf_sink(strbuf *text) {
    return (graft_sink){append, text};
}

graft_status report_finish(const graft_sink *sink, strbuf *text, graft_error *err) {
    graft_status status = text->failed ? error_memory(err, text->length, "a report") : GRAFT_OK;
    if (status == GRAFT_OK)
        sink->write(sink->context, strbuf_text(text), text->length);
    strbuf_free(text);
    return status;
}

static graft_status finish_json(const graft_sink *sink, json_t *document, json_style style,
                                graft_error *err) {
    strbuf text = {0};
    if (!document)
        return error_memory(err, 0, "a JSON document");
    json_write(&text, document, style, false);
    strbuf_add_char(&text, '\n');
    json_decref(document);
    return report_finish(sink, &text, err);
}

graft_status report_finish_json(const graft_sink *sink, json_t *document, graft_error *err) {
    return finish_json(sink, document, JSON_INDENT_2, err);
}

graft_status report_finish_json_line(const graft_sink *sink, json_t *document, graft_error *err) {
    return finish_json(sink, document, JSON_PYTHON, err);
}

/* What was added is consumed by jansson, in failure too. */
static void keep_if(bool added, json_t **container) {
    if (!added) {
        json_decref(*container);
        *container = NULL;
    }
}

void report_set(json_t **object, const char *key, json_t *value) {
    if (!*object)
        json_decref(value);
    else
        keep_if(json_object_set_new(*object, key, value) == 0, object);
}

void report_add(json_t **array, json_t *value) {
    if (!*array)
        json_decref(value);
    else
        keep_if(json_array_append_new(*array, value) == 0, array);
}

json_t *report_string(const char *text, size_t n) {
    strbuf valid = {0};
    for (size_t at = 0; at < n;) {
        size_t good = utf8_valid_length(text + at, n - at);
        strbuf_add(&valid, text + at, good);
        at += good;
        if (at < n) {
            strbuf_add_text(&valid, "\xEF\xBF\xBD");
            at++;
        }
    }
    json_t *string = valid.failed ? NULL : json_stringn(strbuf_text(&valid), valid.length);
    strbuf_free(&valid);
    return string;
}

json_t *report_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

void report_line(strbuf *text, const char *label, const char *format, ...) {
    char value[512];
    va_list args;
    va_start(args, format);
    vsnprintf(value, sizeof value, format, args);
    va_end(args);
    strbuf_printf(text, "  %-18s %s\n", label, value);
}
