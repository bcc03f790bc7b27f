#include "formats/json.h"

#include "base/file_map.h"
#include "formats/foreign.h"
#include "formats/json_scan.h"
#include "formats/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Only the values are jansson's. Its parser is not used: it refuses what real model folders hold,
 * and takes an allocation that fails for bad JSON, or for a defect of its own. */
typedef struct reader {
    const char *text, *origin;
    size_t n, at;
    size_t depth, values;
    strbuf decoded; /* a string that has escapes */
    graft_error *err;
} reader;

/* ---- Refusing ---- */

/* Lines and columns from 1; a column is a character. */
static void find_place(const reader *r, size_t at, size_t *line, size_t *column) {
    size_t begin = 0;
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        if (r->text[i] == '\n') {
            ++*line;
            begin = i + 1;
        }
    }
    for (size_t i = begin; i < at; i++)
        *column += ((unsigned char)r->text[i] & 0xC0) != 0x80;
}

static graft_status refuse(const reader *r, size_t at, const char *what) {
    size_t line, column;
    find_place(r, at, &line, &column);
    bool is_one_line = !memchr(r->text, '\n', r->n);
    return is_one_line
               ? error_set(r->err, GRAFT_E_INPUT, "%s: column %zu: not valid JSON: %s", r->origin,
                           column, what)
               : error_set(r->err, GRAFT_E_INPUT, "%s: line %zu, column %zu: not valid JSON: %s",
                           r->origin, line, column, what);
}

static graft_status refuse_at(const reader *r, size_t at, const char *expected) {
    char what[160];
    unsigned char c = at < r->n ? (unsigned char)r->text[at] : 0;
    if (at >= r->n)
        snprintf(what, sizeof what,
                 "expected %s, found the end; the text looks cut off: get the file again",
                 expected);
    else if (c > 0x20 && c < 0x7F)
        snprintf(what, sizeof what, "expected %s, found '%c'", expected, c);
    else
        snprintf(what, sizeof what, "expected %s, found byte 0x%02x", expected, c);
    return refuse(r, at, what);
}

static graft_status refuse_more(const reader *r, size_t at, int limit, const char *of) {
    return error_set(r->err, GRAFT_E_INPUT, "%s: byte %zu: expected at most %d %s, found more",
                     r->origin, at, limit, of);
}

static graft_status no_memory(const reader *r) {
    return error_memory(r->err, r->n, r->origin);
}

/* So that a small text cannot ask for much memory. */
static graft_status count_value(reader *r) {
    return ++r->values > JSON_VALUES_MAX ? refuse_more(r, r->at, JSON_VALUES_MAX, "values")
                                         : GRAFT_OK;
}

/* ---- Tokens ---- */

static void skip_space(reader *r) {
    while (r->at < r->n && (r->text[r->at] == ' ' || r->text[r->at] == '\n' ||
                            r->text[r->at] == '\r' || r->text[r->at] == '\t'))
        r->at++;
}

static bool take(reader *r, char c) {
    skip_space(r);
    if (r->at >= r->n || r->text[r->at] != c)
        return false;
    r->at++;
    return true;
}

static bool is_digit_at(const reader *r, size_t at) {
    return at < r->n && r->text[at] >= '0' && r->text[at] <= '9';
}

static void skip_digits(reader *r) {
    while (is_digit_at(r, r->at))
        r->at++;
}

/* Transformers writes non-finite numbers as bare words or as such an object, by version; here they
 * are one. */
static graft_status nonfinite(json_t **out, const reader *r, const char *name) {
    json_t *object = json_object();
    if (!object || json_object_set_new(object, "__float__", json_string(name)) != 0) {
        json_decref(object);
        return no_memory(r);
    }
    *out = object;
    return GRAFT_OK;
}

static graft_status read_word(json_t **out, reader *r, bool is_negative) {
    size_t begin = r->at;
    while (r->at < r->n && ((r->text[r->at] >= 'a' && r->text[r->at] <= 'z') ||
                            (r->text[r->at] >= 'A' && r->text[r->at] <= 'Z')))
        r->at++;
    json_token word = {JSON_TOKEN_WORD, begin, r->at};
    if (json_token_is(r->text, word, "Infinity"))
        return nonfinite(out, r, is_negative ? "-Infinity" : "Infinity");
    if (is_negative)
        return refuse_at(r, begin, "a digit");
    if (json_token_is(r->text, word, "NaN"))
        return nonfinite(out, r, "NaN");
    if (json_token_is(r->text, word, "true"))
        *out = json_true();
    else if (json_token_is(r->text, word, "false"))
        *out = json_false();
    else if (json_token_is(r->text, word, "null"))
        *out = json_null();
    else
        return refuse_at(r, begin, "a value");
    return GRAFT_OK;
}

/* Digits [begin, r->at) after the sign; what does not fit saturates. */
static json_t *make_integer(const reader *r, size_t begin, bool is_negative) {
    json_int_t value = 0;
    for (size_t i = begin; i < r->at; i++) {
        int digit = r->text[i] - '0';
        if (is_negative ? value < (INT64_MIN + digit) / 10 : value > (INT64_MAX - digit) / 10)
            return json_integer(is_negative ? INT64_MIN : INT64_MAX);
        value = value * 10 + (is_negative ? -digit : digit);
    }
    return json_integer(value);
}

/* strtod wants a text that ends. */
static graft_status make_real(json_t **out, reader *r, size_t begin) {
    strbuf_clear(&r->decoded);
    strbuf_add(&r->decoded, r->text + begin, r->at - begin);
    if (r->decoded.failed)
        return no_memory(r);
    double value = strtod(r->decoded.data, NULL);
    if (!isfinite(value))
        return refuse(r, begin, "expected a number that fits a double, found a larger one");
    *out = json_real(value);
    return *out ? GRAFT_OK : no_memory(r);
}

static graft_status read_number(json_t **out, reader *r) {
    size_t begin = r->at;
    bool is_negative = r->text[r->at] == '-', is_real = false;
    r->at += is_negative;
    if (is_negative && r->at < r->n && (r->text[r->at] == 'I' || r->text[r->at] == 'N'))
        return read_word(out, r, true);
    if (!is_digit_at(r, r->at))
        return refuse_at(r, r->at, "a digit");
    size_t digits = r->at;
    if (r->text[r->at] == '0')
        r->at++;
    else
        skip_digits(r);
    if (r->at < r->n && r->text[r->at] == '.') {
        is_real = true;
        if (!is_digit_at(r, ++r->at))
            return refuse_at(r, r->at, "a digit");
        skip_digits(r);
    }
    if (r->at < r->n && (r->text[r->at] == 'e' || r->text[r->at] == 'E')) {
        is_real = true;
        r->at++;
        if (r->at < r->n && (r->text[r->at] == '+' || r->text[r->at] == '-'))
            r->at++;
        if (!is_digit_at(r, r->at))
            return refuse_at(r, r->at, "a digit");
        skip_digits(r);
    }
    if (is_real)
        return make_real(out, r, begin);
    *out = make_integer(r, digits, is_negative);
    return *out ? GRAFT_OK : no_memory(r);
}

/* ---- Strings ---- */

/* The UTF-16 unit of an escape \uXXXX at `at`, or -1. */
static int32_t escaped_unit(const reader *r, size_t at) {
    if (at + 6 > r->n || r->text[at] != '\\' || r->text[at + 1] != 'u')
        return -1;
    return json_hex4(r->text, r->n, at + 2);
}

/* Lone surrogates become U+FFFD; so does NUL in a key, where jansson cannot hold it. */
static graft_status read_unicode_escape(strbuf *out, reader *r, bool is_key) {
    int32_t unit = escaped_unit(r, r->at), low = -1;
    if (unit < 0)
        return refuse_at(r, r->at, "four hex digits after \\u");
    r->at += 6;
    uint32_t character = (uint32_t)unit;
    if (unit >= 0xD800 && unit <= 0xDBFF)
        low = escaped_unit(r, r->at);
    if (low >= 0xDC00 && low <= 0xDFFF) {
        character = 0x10000 + (((uint32_t)unit - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
        r->at += 6;
    }
    if (character == 0 && is_key)
        character = 0xFFFD;
    char bytes[4];
    strbuf_add(out, bytes, utf8_encode(bytes, character));
    return GRAFT_OK;
}

static graft_status read_escape(strbuf *out, reader *r, bool is_key) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = r->at + 1 < r->n ? r->text[r->at + 1] : '\0';
    if (c == 'u')
        return read_unicode_escape(out, r, is_key);
    const char *name = c ? strchr(names, c) : NULL;
    if (!name)
        return refuse_at(r, r->at + 1, "an escape (one of \" \\ / b f n r t u)");
    strbuf_add_char(out, values[name - names]);
    r->at += 2;
    return GRAFT_OK;
}

/* Bytes from r->at up to a quote, an escape, or what may not stand in a string. */
static size_t plain_length(const reader *r) {
    size_t at = r->at;
    while (at < r->n && r->text[at] != '"' && r->text[at] != '\\' &&
           (unsigned char)r->text[at] >= 0x20)
        at++;
    return at - r->at;
}

static graft_status check_utf8(const reader *r, size_t n) {
    size_t valid = utf8_valid_length(r->text + r->at, n);
    return valid == n ? GRAFT_OK : refuse_at(r, r->at + valid, "UTF-8");
}

/* The string whose opening quote is at r->at. A string without escapes is lent from the text,
 * others from `buffer`. */
static graft_status read_text(const char **text, size_t *n, reader *r, strbuf *buffer,
                              bool is_key) {
    r->at++;
    size_t length = plain_length(r);
    graft_status status = check_utf8(r, length);
    *text = r->text + r->at;
    *n = length;
    strbuf_clear(buffer);
    if (status == GRAFT_OK && r->at + length < r->n && r->text[r->at + length] == '"') {
        r->at += length + 1;
        return GRAFT_OK;
    }
    while (status == GRAFT_OK) {
        length = plain_length(r);
        if ((status = check_utf8(r, length)) != GRAFT_OK)
            break;
        strbuf_add(buffer, r->text + r->at, length);
        r->at += length;
        if (r->at < r->n && r->text[r->at] == '"')
            break;
        if (r->at >= r->n || r->text[r->at] != '\\')
            return refuse_at(r, r->at, "a closing quote (control characters must be escaped)");
        status = read_escape(buffer, r, is_key);
    }
    if (status == GRAFT_OK && buffer->failed)
        status = no_memory(r);
    r->at++;
    *text = strbuf_text(buffer);
    *n = buffer->length;
    return status;
}

static graft_status read_string(json_t **out, reader *r) {
    const char *text;
    size_t n;
    graft_status status = read_text(&text, &n, r, &r->decoded, false);
    if (status != GRAFT_OK)
        return status;
    *out = json_stringn_nocheck(text, n);
    return *out ? GRAFT_OK : no_memory(r);
}

/* ---- Containers ---- */

static graft_status read_value(json_t **out, reader *r);

static graft_status read_array(json_t **out, reader *r) {
    r->at++;
    *out = json_array();
    if (!*out)
        return no_memory(r);
    if (take(r, ']'))
        return GRAFT_OK;
    for (;;) {
        json_t *value = NULL;
        graft_status status = read_value(&value, r);
        if (status != GRAFT_OK)
            return status;
        if (json_array_append_new(*out, value) != 0)
            return no_memory(r);
        if (take(r, ']'))
            return GRAFT_OK;
        if (!take(r, ','))
            return refuse_at(r, r->at, "',' or ']'");
    }
}

/* A key with the colon after it, as text that ends: `key` holds it. */
static graft_status read_key(strbuf *key, reader *r, const json_t *object) {
    skip_space(r);
    size_t begin = r->at, n;
    const char *text;
    if (r->at >= r->n || r->text[r->at] != '"')
        return refuse_at(r, r->at, "a key in quotes");
    graft_status status = count_value(r);
    if (status == GRAFT_OK)
        status = read_text(&text, &n, r, &r->decoded, true);
    if (status != GRAFT_OK)
        return status;
    strbuf_clear(key);
    strbuf_add(key, text, n);
    if (key->failed)
        return no_memory(r);
    if (json_object_get(object, strbuf_text(key))) {
        char what[160];
        snprintf(what, sizeof what, "duplicate object key \"%.100s\"", strbuf_text(key));
        return refuse(r, begin, what);
    }
    return take(r, ':') ? GRAFT_OK : refuse_at(r, r->at, "':'");
}

static graft_status read_members(json_t *object, reader *r, strbuf *key) {
    for (;;) {
        json_t *value = NULL;
        graft_status status = read_key(key, r, object);
        if (status == GRAFT_OK)
            status = read_value(&value, r);
        if (status != GRAFT_OK)
            return status;
        if (json_object_set_new_nocheck(object, strbuf_text(key), value) != 0)
            return no_memory(r);
        if (take(r, '}'))
            return GRAFT_OK;
        if (!take(r, ','))
            return refuse_at(r, r->at, "',' or '}'");
    }
}

static graft_status read_object(json_t **out, reader *r) {
    r->at++;
    *out = json_object();
    if (!*out)
        return no_memory(r);
    if (take(r, '}'))
        return GRAFT_OK;
    strbuf key = {0};
    graft_status status = read_members(*out, r, &key);
    strbuf_free(&key);
    return status;
}

/* *out is NULL unless the value is whole. */
static graft_status read_value(json_t **out, reader *r) {
    *out = NULL;
    skip_space(r);
    if (r->at >= r->n)
        return refuse_at(r, r->at, "a value");
    graft_status status = count_value(r);
    if (status != GRAFT_OK)
        return status;
    char c = r->text[r->at];
    if (c == '"')
        return read_string(out, r);
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(out, r);
    if (c != '{' && c != '[')
        return read_word(out, r, false);
    if (r->depth == JSON_DEPTH_MAX)
        return refuse_more(r, r->at, JSON_DEPTH_MAX, "nested arrays and objects");
    r->depth++;
    status = c == '{' ? read_object(out, r) : read_array(out, r);
    r->depth--;
    if (status != GRAFT_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return status;
}

/* ---- Whole texts ---- */

graft_status json_parse(json_t **out, const char *text, size_t n, const char *origin,
                        graft_error *err) {
    *out = NULL;
    const char *foreign = foreign_format(text, n);
    if (foreign)
        return error_set(err, GRAFT_E_INPUT, "%s: expected JSON, found %s", origin, foreign);
    if (n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) {
        text += 3;
        n -= 3;
    }
    if (n == 0)
        return error_set(err, GRAFT_E_INPUT, "%s: expected JSON, found nothing", origin);
    if (n >= 2 && (!text[0] || !text[1]))
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: byte 0: expected JSON, found NUL bytes (UTF-16 text?); save it as UTF-8", origin);
    reader r = {.text = text, .origin = origin, .n = n, .err = err};
    graft_status status = read_value(out, &r);
    skip_space(&r);
    if (status == GRAFT_OK && r.at < n) {
        status = refuse_at(&r, r.at, "the end of the text");
        json_decref(*out);
        *out = NULL;
    }
    strbuf_free(&r.decoded);
    return status;
}

graft_status json_read_file(json_t **out, const char *path, size_t limit, graft_error *err) {
    *out = NULL;
    char *text = NULL;
    size_t n;
    graft_status status = file_read_all(&text, &n, path, limit, err);
    if (status == GRAFT_OK)
        status = json_parse(out, text, n, path, err);
    free(text);
    return status;
}
