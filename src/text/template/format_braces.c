/* "{} of {name!r:>8}".format(...). */
#include "text/template/builtins.h"

#include "text/template/format.h"
#include "text/template/unicode.h"

#include <string.h>

typedef struct braces {
    vm *m;
    const arguments *given;
    size_t n_automatic;
    bool is_numbered;
} braces;

static bool is_digits(const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (bytes[i] < '0' || bytes[i] > '9')
            return false;
    return n > 0;
}

static bool read_number(vm *m, int64_t *out, const char *bytes, size_t n) {
    *out = 0;
    for (size_t i = 0; i < n; i++) {
        *out = *out * 10 + (bytes[i] - '0');
        if (*out > INT32_MAX)
            return fail(m, "a number in the format is too large");
    }
    return true;
}

static value positional(braces *s, int64_t index) {
    if ((uint64_t)index >= s->given->n)
        return refuse(s->m, "the format asks for value %lld; there are %zu", (long long)index,
                      s->given->n);
    return s->given->items[index];
}

/* The argument that a field names, without what follows its first name. */
static value find_argument(braces *s, const char *bytes, size_t n) {
    int64_t index;
    if (n == 0 || is_digits(bytes, n)) {
        bool is_automatic = n == 0;
        if (is_automatic ? s->is_numbered : s->n_automatic > 0)
            return refuse(s->m, "a format either numbers all its fields or none");
        if (is_automatic)
            return positional(s, (int64_t)s->n_automatic++);
        s->is_numbered = true;
        return read_number(s->m, &index, bytes, n) ? positional(s, index) : failed_value;
    }
    for (size_t i = 0; i < s->given->n_named; i++)
        if (s->given->names[i]->n == n && memcmp(s->given->names[i]->bytes, bytes, n) == 0)
            return s->given->named[i];
    return refuse(s->m, "the format asks for '%.*s', which is not given", (int)n, bytes);
}

/* name.attribute[key]... */
static value find_field(braces *s, const char *bytes, size_t n) {
    size_t at = 0;
    while (at < n && bytes[at] != '.' && bytes[at] != '[')
        at++;
    if (at == 0 && n > 0)
        return refuse(s->m, "a field of the format needs a name or a number");
    value v = find_argument(s, bytes, at);
    while (at < n && !is_failed(v)) {
        bool is_key = bytes[at] == '[';
        size_t begin = ++at;
        while (at < n && (is_key ? bytes[at] != ']' : bytes[at] != '.' && bytes[at] != '['))
            at++;
        size_t length = at - begin;
        if (length == 0 || (is_key && at == n))
            return refuse(s->m, "a field of the format is not complete");
        at += is_key;
        int64_t index;
        const text *name = text_of(s->m, bytes + begin, length);
        if (!name)
            return failed_value;
        if (!is_key)
            v = get_attribute(s->m, v, name);
        else if (!is_digits(bytes + begin, length))
            v = get_item(s->m, v, value_text(name));
        else if (!read_number(s->m, &index, bytes + begin, length))
            return failed_value;
        else
            v = get_item(s->m, v, value_int(index));
    }
    return v;
}

static char peek(const text *t, size_t at) {
    return at < t->n ? t->bytes[at] : 0;
}

static bool is_align(char c) {
    return c && strchr("<>=^", c);
}

static bool read_spec(vm *m, format_spec *out, const text *t) {
    size_t at = 0, first = t->n ? char_offset(t->bytes, t->n, 1) : 0;
    *out = (format_spec){.precision = -1};
    if (first && is_align(peek(t, first))) {
        out->fill = text_slice(m, t, 0, first);
        out->align = t->bytes[first];
        at = first + 1;
    } else if (is_align(peek(t, 0))) {
        out->align = t->bytes[at++];
    }
    if (peek(t, at) && strchr("+- ", peek(t, at)))
        out->sign = t->bytes[at++];
    if (peek(t, at) == '#') {
        out->is_alternate = true;
        at++;
    }
    if (peek(t, at) == '0') {
        out->is_zero_padded = true;
        at++;
    }
    size_t digits = 0;
    while (peek(t, at + digits) >= '0' && peek(t, at + digits) <= '9')
        digits++;
    if (!read_number(m, &out->width, t->bytes + at, digits))
        return false;
    at += digits;
    if (peek(t, at) == ',' || peek(t, at) == '_')
        out->grouping = t->bytes[at++];
    if (peek(t, at) == '.') {
        size_t begin = ++at;
        while (peek(t, at) >= '0' && peek(t, at) <= '9')
            at++;
        if (at == begin)
            return fail(m, "the format has a point without a precision");
        if (!read_number(m, &out->precision, t->bytes + begin, at - begin))
            return false;
    }
    if (at < t->n)
        out->type = t->bytes[at++];
    return at == t->n || fail(m, "\"%.*s\" is not a valid format", (int)t->n, t->bytes);
}

static bool build_value(builder *out, value v, const text *spec_text) {
    format_spec spec;
    if (!read_spec(out->m, &spec, spec_text))
        return false;
    if (spec_text->n == 0)
        return build_str(out, v);
    if (v.kind == VALUE_TEXT)
        return build_formatted_text(out, v.text, &spec);
    if (v.kind == VALUE_INT || (v.kind == VALUE_BOOL && spec.type))
        return build_formatted_int(out, v.kind == VALUE_INT ? v.integer : v.boolean, &spec);
    if (v.kind == VALUE_FLOAT)
        return build_formatted_float(out, v.number, &spec);
    if (v.kind == VALUE_BOOL)
        return build_formatted_int(out, v.boolean, &spec);
    return fail(out->m, "a %s takes no format", value_type(v));
}

static bool build_braces(braces *s, builder *out, const text *format, int depth);

/* A field from behind its "{" to its "}". */
static bool build_field(braces *s, builder *out, const text *format, size_t begin, size_t end,
                        int depth) {
    size_t at = begin;
    bool in_key = false;
    while (at < end && (in_key || (format->bytes[at] != '!' && format->bytes[at] != ':'))) {
        in_key = format->bytes[at] == '[' || (in_key && format->bytes[at] != ']');
        at++;
    }
    value v = find_field(s, format->bytes + begin, at - begin);
    if (is_failed(v))
        return false;
    if (at < end && format->bytes[at] == '!') {
        char conversion = at + 1 < end ? format->bytes[at + 1] : 0;
        builder shown = builder_on(s->m);
        if (conversion == 's' ? !build_str(&shown, v) : !build_repr(&shown, v))
            return false;
        if ((conversion != 's' && conversion != 'r') ||
            (at + 2 < end && format->bytes[at + 2] != ':'))
            return fail(s->m, "\"!\" in a format needs r or s after it");
        v = value_text(builder_finish(&shown));
        at += 2;
    }
    builder spec = builder_on(s->m);
    if (at < end) {
        const text *rest = text_slice(s->m, format, at + 1, end);
        if (!rest || !build_braces(s, &spec, rest, depth + 1))
            return false;
    }
    const text *spec_text = builder_finish(&spec);
    return spec_text && build_value(out, v, spec_text);
}

static bool build_braces(braces *s, builder *out, const text *format, int depth) {
    if (depth > 1)
        return fail(s->m, "a format inside a format cannot have fields inside it again");
    for (size_t at = 0; at < format->n;) {
        char c = format->bytes[at];
        if (c != '{' && c != '}') {
            size_t plain = at;
            while (at < format->n && format->bytes[at] != '{' && format->bytes[at] != '}')
                at++;
            build_slice(out, format, plain, at);
            continue;
        }
        if (peek(format, at + 1) == c && depth == 0) {
            build_bytes(out, &c, 1);
            at += 2;
            continue;
        }
        if (c == '}')
            return fail(s->m, "a single \"}\" in a format");
        size_t begin = at + 1, open = 1, end = begin;
        while (end < format->n && open > 0) {
            open += format->bytes[end] == '{';
            open -= format->bytes[end] == '}';
            end++;
        }
        if (open > 0)
            return fail(s->m, "a \"{\" in a format has no \"}\"");
        if (!build_field(s, out, format, begin, end - 1, depth))
            return false;
        at = end;
    }
    return s->m->status == GRAFT_OK;
}

value format_braces(vm *m, const text *format, const arguments *given) {
    braces s = {.m = m, .given = given};
    builder out = builder_on(m);
    if (!build_braces(&s, &out, format, 0))
        return failed_value;
    return value_text(builder_finish(&out));
}
