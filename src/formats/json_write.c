#include "formats/json.h"

#include "base/memory.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS_MAX = 17 }; /* always enough for a double */

/* A decimal d.ddd * 10^exponent. */
typedef struct decimal {
    char digits[DIGITS_MAX + 1];
    int n, exponent;
} decimal;

static decimal decimal_of(double magnitude, int n) {
    char text[40];
    snprintf(text, sizeof text, "%.*e", n - 1, magnitude);
    decimal d = {.n = n};
    const char *at = text;
    for (int i = 0; i < n; at++)
        if (*at >= '0' && *at <= '9')
            d.digits[i++] = *at;
    d.exponent = atoi(strchr(text, 'e') + 1);
    return d;
}

static bool decimal_reads_as(const decimal *d, double magnitude) {
    char text[40];
    snprintf(text, sizeof text, "%se%d", d->digits, d->exponent - d->n + 1);
    return strtod(text, NULL) == magnitude;
}

static void decimal_step_up(decimal *d) {
    int i = d->n - 1;
    while (i >= 0 && d->digits[i] == '9')
        d->digits[i--] = '0';
    if (i >= 0) {
        d->digits[i]++;
    } else {
        d->digits[0] = '1';
        d->exponent++;
    }
}

/* The shortest decimal that reads back as magnitude. Up to 15 digits every decimal survives a
 * double, so trying 15 and dropping zeros finds the shortest; not so for subnormals, where every
 * length is tried. Above a power of two the doubles lie twice as far apart as below: there the
 * nearest decimal can miss where the next one up does not. */
static decimal decimal_shortest(double magnitude) {
    decimal d = {0};
    for (int n = magnitude < DBL_MIN ? 1 : DBL_DIG; n <= DIGITS_MAX; n++) {
        d = decimal_of(magnitude, n);
        if (decimal_reads_as(&d, magnitude))
            break;
        decimal up = d;
        decimal_step_up(&up);
        if (decimal_reads_as(&up, magnitude)) {
            d = up;
            break;
        }
    }
    while (d.n > 1 && d.digits[d.n - 1] == '0')
        d.n--;
    d.digits[d.n] = '\0';
    return d;
}

static void add_zeros(strbuf *out, int n) {
    for (int i = 0; i < n; i++)
        strbuf_add_char(out, '0');
}

void json_write_double(strbuf *out, double value) {
    if (isnan(value)) {
        strbuf_add_text(out, "NaN");
        return;
    }
    if (signbit(value))
        strbuf_add_char(out, '-');
    if (isinf(value) || value == 0) {
        strbuf_add_text(out, isinf(value) ? "Infinity" : "0.0");
        return;
    }
    decimal d = decimal_shortest(fabs(value));
    int point = d.exponent + 1; /* digits before it */
    if (point < -3 || point > 16) {
        strbuf_add(out, d.digits, 1);
        if (d.n > 1)
            strbuf_printf(out, ".%s", d.digits + 1);
        strbuf_printf(out, "e%c%02d", d.exponent < 0 ? '-' : '+', abs(d.exponent));
    } else if (point <= 0) {
        strbuf_add_text(out, "0.");
        add_zeros(out, -point);
        strbuf_add_text(out, d.digits);
    } else if (point >= d.n) {
        strbuf_add_text(out, d.digits);
        add_zeros(out, point - d.n);
        strbuf_add_text(out, ".0");
    } else {
        strbuf_add(out, d.digits, (size_t)point);
        strbuf_printf(out, ".%s", d.digits + point);
    }
}

static void write_escape(strbuf *out, unsigned char c) {
    static const char named[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    const char *at = c ? strchr(named, c) : NULL;
    if (at) {
        strbuf_add_char(out, '\\');
        strbuf_add_char(out, letters[at - named]);
    } else {
        strbuf_printf(out, "\\u%04x", c);
    }
}

void json_write_string(strbuf *out, const char *text, size_t n) {
    strbuf_add_char(out, '"');
    size_t plain = 0; /* where the bytes begin that need no escape */
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        strbuf_add(out, text + plain, i - plain);
        write_escape(out, c);
        plain = i + 1;
    }
    strbuf_add(out, text + plain, n - plain);
    strbuf_add_char(out, '"');
}

static void write_gap(strbuf *out, json_style style, int depth) {
    if (style != JSON_INDENT_2)
        return;
    strbuf_add_char(out, '\n');
    for (int i = 0; i < depth; i++)
        strbuf_add_text(out, "  ");
}

static void write_value(strbuf *, const json_t *, json_style, bool sort_keys, int depth);

static void write_array(strbuf *out, const json_t *array, json_style style, bool sort_keys,
                        int depth) {
    size_t n = json_array_size(array);
    strbuf_add_char(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i)
            strbuf_add_text(out, style == JSON_PYTHON ? ", " : ",");
        write_gap(out, style, depth + 1);
        write_value(out, json_array_get(array, i), style, sort_keys, depth + 1);
    }
    if (n)
        write_gap(out, style, depth);
    strbuf_add_char(out, ']');
}

typedef struct member {
    const char *key;
    const json_t *value;
} member;

static int compare_keys(const void *a, const void *b) {
    return strcmp(((const member *)a)->key, ((const member *)b)->key);
}

/* The members in the order to write them; NULL when out of memory. */
static member *list_members(const json_t *object, bool sort_keys) {
    member *members = mem_array(json_object_size(object), sizeof *members);
    if (!members)
        return NULL;
    size_t n = 0;
    json_t *walked;
    memcpy(&walked, &object, sizeof walked); /* jansson's iterators take no const */
    for (void *at = json_object_iter(walked); at; at = json_object_iter_next(walked, at))
        members[n++] = (member){json_object_iter_key(at), json_object_iter_value(at)};
    if (sort_keys)
        qsort(members, n, sizeof *members, compare_keys);
    return members;
}

static void write_object(strbuf *out, const json_t *object, json_style style, bool sort_keys,
                         int depth) {
    size_t n = json_object_size(object);
    member *members = list_members(object, sort_keys);
    if (!members) {
        out->failed = true;
        return;
    }
    strbuf_add_char(out, '{');
    for (size_t i = 0; i < n; i++) {
        if (i)
            strbuf_add_text(out, style == JSON_PYTHON ? ", " : ",");
        write_gap(out, style, depth + 1);
        json_write_string(out, members[i].key, strlen(members[i].key));
        strbuf_add_text(out, style == JSON_TIGHT ? ":" : ": ");
        write_value(out, members[i].value, style, sort_keys, depth + 1);
    }
    if (n)
        write_gap(out, style, depth);
    strbuf_add_char(out, '}');
    free(members);
}

static void write_value(strbuf *out, const json_t *value, json_style style, bool sort_keys,
                        int depth) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        write_object(out, value, style, sort_keys, depth);
        break;
    case JSON_ARRAY:
        write_array(out, value, style, sort_keys, depth);
        break;
    case JSON_STRING:
        json_write_string(out, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        strbuf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        json_write_double(out, json_real_value(value));
        break;
    case JSON_TRUE:
        strbuf_add_text(out, "true");
        break;
    case JSON_FALSE:
        strbuf_add_text(out, "false");
        break;
    case JSON_NULL:
        strbuf_add_text(out, "null");
        break;
    }
}

void json_write(strbuf *out, const json_t *value, json_style style, bool sort_keys) {
    assert(value);
    write_value(out, value, style, sort_keys, 0);
}
