/* "%s of %d" % values. */
#include "text/template/builtins.h"

#include "text/template/format.h"
#include "text/template/unicode.h"

#include <string.h>

typedef struct percent {
    vm *m;
    const text *format;
    size_t at; /* in the format */
    value argument;
    size_t n_taken;
    builder out;
} percent;

static char look(const percent *p) {
    return p->at < p->format->n ? p->format->bytes[p->at] : 0;
}

static bool is_sequence(value v) {
    return v.kind == VALUE_LIST && v.list->kind == LIST_TUPLE;
}

static value next_value(percent *p) {
    size_t n = is_sequence(p->argument) ? p->argument.list->n : 1;
    if (p->n_taken >= n)
        return refuse(p->m, "the format asks for more than %zu values", n);
    return is_sequence(p->argument) ? p->argument.list->items[p->n_taken++]
                                    : (p->n_taken++, p->argument);
}

/* (name): the value of that key. */
static value named_value(percent *p) {
    size_t begin = ++p->at, depth = 1;
    while (p->at < p->format->n && depth > 0) {
        depth += look(p) == '(';
        depth -= look(p) == ')';
        p->at++;
    }
    if (depth > 0)
        return refuse(p->m, "a name in the format has no end: expected \")\"");
    if (p->argument.kind != VALUE_DICT)
        return refuse(p->m, "the format asks for names, so it needs a dict; found a %s",
                      value_type(p->argument));
    const text name = {.bytes = p->format->bytes + begin, .n = p->at - 1 - begin};
    const value *found = dict_get_text(p->argument.dict, &name);
    return found ? *found
                 : refuse(p->m, "the format asks for '%.*s', which is not there", (int)name.n,
                          name.bytes);
}

/* Digits, or * for the next value; -1 in *out when there are none. */
static bool read_size(percent *p, int64_t *out) {
    *out = -1;
    if (look(p) == '*') {
        p->at++;
        value given = next_value(p);
        if (is_failed(given))
            return false;
        return value_as_int(out, given) || fail(p->m, "* in a format needs an int");
    }
    while (look(p) >= '0' && look(p) <= '9') {
        *out = (*out < 0 ? 0 : *out) * 10 + (look(p) - '0');
        p->at++;
        if (*out > INT32_MAX)
            return fail(p->m, "a size in the format is too large");
    }
    return true;
}

static void read_flags(percent *p, format_spec *spec) {
    for (; look(p) && strchr("#0- +", look(p)); p->at++) {
        spec->is_alternate |= look(p) == '#';
        spec->is_zero_padded |= look(p) == '0';
        if (look(p) == '-')
            spec->align = '<';
        else if (look(p) == '+' || (look(p) == ' ' && !spec->sign))
            spec->sign = look(p);
    }
    if (spec->align)
        spec->is_zero_padded = false;
}

static bool build_character(percent *p, value v, format_spec *spec) {
    int64_t code;
    builder one = builder_on(p->m);
    if (value_as_int(&code, v)) {
        if (code < 0 || code > 0x10FFFF)
            return fail(p->m, "%%c needs the number of a character");
        build_char(&one, (uint32_t)code);
    } else if (v.kind == VALUE_TEXT && char_count(v.text->bytes, v.text->n) == 1) {
        build_text(&one, v.text);
    } else {
        return fail(p->m, "%%c needs an int or one character, found a %s", value_type(v));
    }
    const text *t = builder_finish(&one);
    spec->type = 's';
    spec->precision = -1;
    return t && build_formatted_text(&p->out, t, spec);
}

static bool build_text_value(percent *p, value v, format_spec *spec) {
    const text *t;
    if (spec->type == 's') {
        t = value_str(p->m, v);
    } else {
        builder shown = builder_on(p->m);
        t = build_repr(&shown, v) ? builder_finish(&shown) : NULL;
    }
    spec->type = 's';
    spec->align = spec->align ? spec->align : '>';
    return t && build_formatted_text(&p->out, t, spec);
}

static bool build_integer(percent *p, value v, format_spec *spec) {
    int64_t i;
    bool is_decimal = strchr("diu", spec->type) != NULL;
    if (is_decimal && v.kind == VALUE_FLOAT && v.number > -0x1p63 && v.number < 0x1p63)
        v = value_int((int64_t)v.number);
    if (!value_as_int(&i, v))
        return fail(p->m, "%%%c needs an int, found a %s", spec->type, value_type(v));
    if (is_decimal)
        spec->type = 'd';
    if (spec->precision > 0) { /* at least so many digits */
        format_spec inner = {
            .type = spec->type, .precision = -1, .width = spec->precision, .is_zero_padded = true};
        builder digits = builder_on(p->m);
        uint64_t magnitude = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
        if (magnitude > INT64_MAX || !build_formatted_int(&digits, (int64_t)magnitude, &inner))
            return false;
        builder sign = builder_on(p->m);
        if (i < 0 || spec->sign)
            build_bytes(&sign, i < 0 ? "-" : &spec->sign, 1);
        build_bytes(&sign, digits.bytes, digits.n);
        const text *t = builder_finish(&sign);
        format_spec padded = {
            .width = spec->width, .precision = -1, .align = spec->align ? spec->align : '>'};
        return t && build_formatted_text(&p->out, t, &padded);
    }
    return build_formatted_int(&p->out, i, spec);
}

static bool convert(percent *p) {
    format_spec spec = {.precision = -1};
    value v = failed_value;
    if (look(p) == '(' && is_failed(v = named_value(p)))
        return false;
    read_flags(p, &spec);
    if (!read_size(p, &spec.width))
        return false;
    if (spec.width < -1) {
        spec.align = '<';
        spec.width = -spec.width;
    }
    if (look(p) == '.') {
        p->at++;
        if (!read_size(p, &spec.precision))
            return false;
        spec.precision = spec.precision < 0 ? 0 : spec.precision;
    }
    while (look(p) && strchr("hlL", look(p)))
        p->at++;
    spec.type = look(p);
    if (!spec.type)
        return fail(p->m, "the format ends inside a %% conversion");
    p->at++;
    if (spec.type == '%') {
        build_bytes(&p->out, "%", 1);
        return true;
    }
    if (!strchr("srdiuxXoeEfFgGc", spec.type))
        return fail(p->m, "unknown conversion %%%c in a format", spec.type);
    if (is_failed(v) && is_failed(v = next_value(p)))
        return false;
    if (spec.type == 's' || spec.type == 'r')
        return build_text_value(p, v, &spec);
    if (v.kind == VALUE_UNDEFINED)
        return fail_undefined(p->m, v.undefined);
    if (spec.type == 'c')
        return build_character(p, v, &spec);
    if (strchr("diuxXo", spec.type))
        return build_integer(p, v, &spec);
    if (!value_is_number(v))
        return fail(p->m, "%%%c needs a number, found a %s", spec.type, value_type(v));
    return build_formatted_float(&p->out, value_number(v), &spec);
}

value format_percent(vm *m, const text *format, value argument) {
    percent p = {.m = m, .format = format, .argument = argument, .out = builder_on(m)};
    while (p.at < format->n) {
        const char *sign = memchr(format->bytes + p.at, '%', format->n - p.at);
        size_t plain = sign ? (size_t)(sign - format->bytes) : format->n;
        build_slice(&p.out, format, p.at, plain);
        p.at = plain + 1;
        if (!sign)
            break;
        if (!convert(&p))
            return failed_value;
    }
    bool may_be_left = argument.kind == VALUE_DICT || argument.kind == VALUE_UNDEFINED ||
                       (argument.kind == VALUE_LIST && argument.list->kind == LIST_LIST);
    if (p.n_taken < (is_sequence(argument) ? argument.list->n : 1) && !may_be_left)
        return refuse(m, "the format takes %zu values; there are more", p.n_taken);
    return value_text(builder_finish(&p.out));
}
