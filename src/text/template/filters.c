/* The table of filters, and those that are about one value. */
#include "text/template/filters.h"

#include "text/template/transform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static value filter_abs(vm *m, value self, const arguments *given) {
    int64_t i;
    if (!bind(m, NULL, "abs", "", 0, given))
        return failed_value;
    if (self.kind == VALUE_FLOAT)
        return value_float(fabs(self.number));
    if (!value_as_int(&i, self))
        return refuse(m, "abs needs a number, found a %s", value_type(self));
    if (i == INT64_MIN)
        return refuse(m, "the result is an integer that does not fit 64 bits");
    return value_int(i < 0 ? -i : i);
}

static value filter_attr(vm *m, value self, const arguments *given) {
    value v[1];
    const text *name = NULL;
    if (!bind(m, v, "attr", "name", 1, given) || !take_text(m, &name, v[0], "attr's name"))
        return failed_value;
    return attribute_only(m, self, name);
}

static value filter_default(vm *m, value self, const arguments *given) {
    value v[2];
    if (!bind(m, v, "default", "default_value boolean", 0, given))
        return failed_value;
    bool replaces_false = was_given(v[1]) && value_truth(v[1]);
    if (self.kind != VALUE_UNDEFINED && (!replaces_false || value_truth(self)))
        return self;
    return was_given(v[0]) ? v[0] : value_text(text_literal(m, ""));
}

static value filter_float(vm *m, value self, const arguments *given) {
    value v[1];
    double number;
    if (!bind(m, v, "float", "default", 0, given))
        return failed_value;
    if (self.kind == VALUE_UNDEFINED) {
        fail_undefined(m, self.undefined);
        return failed_value;
    }
    if (value_is_number(self))
        return value_float(value_number(self));
    if (self.kind == VALUE_TEXT && string_to_float(&number, self.text))
        return value_float(number);
    return was_given(v[0]) ? v[0] : value_float(0);
}

static value float_to_int(vm *m, double number, value fallback) {
    if (isnan(number) || isinf(number))
        return fallback;
    number = trunc(number);
    if (!(number >= -0x1p63 && number < 0x1p63))
        return refuse(m, "the result is an integer that does not fit 64 bits");
    return value_int((int64_t)number);
}

static value filter_int(vm *m, value self, const arguments *given) {
    value v[2];
    int64_t base = 10, i;
    double number;
    if (!bind(m, v, "int", "default base", 0, given) || !take_int(m, &base, v[1], "int's base"))
        return failed_value;
    value fallback = was_given(v[0]) ? v[0] : value_int(0);
    if (self.kind == VALUE_UNDEFINED) {
        fail_undefined(m, self.undefined);
        return failed_value;
    }
    if (value_as_int(&i, self))
        return value_int(i);
    if (self.kind == VALUE_FLOAT)
        return float_to_int(m, self.number, fallback);
    if (self.kind != VALUE_TEXT)
        return fallback;
    if ((base == 0 || (base >= 2 && base <= 36)) && string_to_int(&i, self.text, (int)base))
        return value_int(i);
    return string_to_float(&number, self.text) ? float_to_int(m, number, fallback) : fallback;
}

/* Python rounds the decimal that the double stands for, half to even where it is exact: so does
 * printf. */
static double round_common(double number, int64_t precision) {
    char digits[400];
    if (precision > 300 || isnan(number) || isinf(number))
        return number;
    if (precision < 0) {
        double unit = pow(10, (double)-precision);
        return isinf(unit) ? 0 * number : nearbyint(number / unit) * unit;
    }
    snprintf(digits, sizeof digits, "%.*f", (int)precision, number);
    return fabs(number) > 1e80 ? number : strtod(digits, NULL);
}

static value round_int(vm *m, int64_t i, int64_t precision) {
    int64_t unit = 1;
    for (int64_t d = precision; d < 0; d++)
        if (__builtin_mul_overflow(unit, (int64_t)10, &unit))
            return value_int(0);
    int64_t rest = i % unit, down = i - rest;
    if (rest < 0) {
        rest += unit;
        down -= unit;
    }
    bool is_up = rest * 2 > unit || (rest * 2 == unit && down / unit % 2 != 0);
    int64_t up;
    if (is_up && __builtin_add_overflow(down, unit, &up))
        return refuse(m, "the result is an integer that does not fit 64 bits");
    return value_int(is_up ? up : down);
}

static value filter_round(vm *m, value self, const arguments *given) {
    value v[2];
    int64_t precision = 0, i;
    const text *how = NULL;
    if (!bind(m, v, "round", "precision method", 0, given) ||
        !take_int(m, &precision, v[0], "round's precision") ||
        !take_text(m, &how, v[1], "round's method"))
        return failed_value;
    bool is_ceil = how && text_is(how, "ceil"), is_floor = how && text_is(how, "floor");
    if (how && !is_ceil && !is_floor && !text_is(how, "common"))
        return refuse(m, "round's method must be common, ceil or floor");
    if (!value_is_number(self))
        return refuse(m, "round needs a number, found a %s", value_type(self));
    if (is_ceil || is_floor) {
        double unit = pow(10, (double)precision), scaled = value_number(self) * unit;
        return value_float((is_ceil ? ceil(scaled) : floor(scaled)) / unit);
    }
    if (value_as_int(&i, self))
        return precision >= 0 ? value_int(i) : round_int(m, i, precision);
    return value_float(round_common(self.number, precision));
}

static value filter_filesizeformat(vm *m, value self, const arguments *given) {
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    static const char *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    value v[1];
    bool is_binary = false;
    double bytes = 0;
    char shown[64];
    if (!bind(m, v, "filesizeformat", "binary", 0, given))
        return failed_value;
    take_bool(&is_binary, v[0]);
    if (value_is_number(self))
        bytes = value_number(self);
    else if (self.kind != VALUE_TEXT || !string_to_float(&bytes, self.text))
        return refuse(m, "filesizeformat needs a number, found a %s", value_type(self));
    double base = is_binary ? 1024 : 1000, unit = base;
    if (bytes == 1 || bytes < base) { /* + 0.0: no minus before a zero */
        snprintf(shown, sizeof shown, bytes == 1 ? "1 Byte" : "%.0f Bytes", trunc(bytes) + 0.0);
        return value_text(text_of(m, shown, strlen(shown)));
    }
    size_t i = 0;
    for (; i < 7 && bytes >= unit * base; i++)
        unit *= base;
    snprintf(shown, sizeof shown, "%.1f %s", bytes / unit, is_binary ? binary[i] : decimal[i]);
    return value_text(text_of(m, shown, strlen(shown)));
}

static value filter_length(vm *m, value self, const arguments *given) {
    if (!bind(m, NULL, "length", "", 0, given))
        return failed_value;
    switch (self.kind) {
    case VALUE_TEXT:
        return spend_bytes(m, self.text->n)
                   ? value_int((int64_t)char_count(self.text->bytes, self.text->n))
                   : failed_value;
    case VALUE_DICT:
        return value_int((int64_t)self.dict->n);
    case VALUE_UNDEFINED:
        return value_int(0);
    case VALUE_LOOP:
        return value_int((int64_t)self.loop->over->n);
    case VALUE_LIST:
        if (self.list->kind != LIST_ITERATOR)
            return value_int((int64_t)self.list->n);
        break;
    default:
        break;
    }
    return refuse(m, "a %s has no length", value_type(self));
}

static bool take_indent(vm *m, const text **out, value v) {
    int64_t width;
    if (!was_given(v) || v.kind == VALUE_NONE)
        return true;
    if (!value_as_int(&width, v))
        return take_text(m, out, v, "tojson's indent");
    builder b = builder_on(m);
    build_repeat(&b, ' ', width > 0 ? (size_t)width : 0);
    return (*out = builder_finish(&b)) != NULL;
}

static value filter_tojson(vm *m, value self, const arguments *given) {
    value v[4];
    json_options options = {0};
    if (!bind(m, v, "tojson", "ensure_ascii indent separators sort_keys", 0, given) ||
        !take_indent(m, &options.indent, v[1]))
        return failed_value;
    take_bool(&options.ensure_ascii, v[0]);
    take_bool(&options.sort_keys, v[3]);
    if (was_given(v[2]) && v[2].kind != VALUE_NONE) {
        const list *pair = value_items(m, v[2], "tojson's separators");
        if (!pair)
            return failed_value;
        if (pair->n != 2)
            return refuse(m, "tojson's separators must be two strings, found %zu", pair->n);
        if (!take_text(m, &options.item_separator, pair->items[0], "tojson's separator") ||
            !take_text(m, &options.key_separator, pair->items[1], "tojson's separator"))
            return failed_value;
    }
    return value_to_json(m, self, &options);
}

static const builtin filters[] = {
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"batch", filter_batch},
    {"capitalize", filter_capitalize},
    {"center", filter_center},
    {"count", filter_length},
    {"d", filter_default},
    {"default", filter_default},
    {"dictsort", filter_dictsort},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"filesizeformat", filter_filesizeformat},
    {"first", filter_first},
    {"float", filter_float},
    {"forceescape", filter_forceescape},
    {"format", filter_format},
    {"groupby", filter_groupby},
    {"indent", filter_indent},
    {"int", filter_int},
    {"items", filter_items},
    {"join", filter_join},
    {"last", filter_last},
    {"length", filter_length},
    {"list", filter_list},
    {"lower", filter_lower},
    {"map", filter_map},
    {"max", filter_max},
    {"min", filter_min},
    {"pprint", NULL},
    {"random", NULL},
    {"reject", filter_reject},
    {"rejectattr", filter_rejectattr},
    {"replace", filter_replace},
    {"reverse", filter_reverse},
    {"round", filter_round},
    {"safe", filter_safe},
    {"select", filter_select},
    {"selectattr", filter_selectattr},
    {"slice", filter_slice},
    {"sort", filter_sort},
    {"string", filter_string},
    {"striptags", NULL},
    {"sum", filter_sum},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"truncate", filter_truncate},
    {"unique", filter_unique},
    {"upper", filter_upper},
    {"urlencode", filter_urlencode},
    {"urlize", NULL},
    {"wordcount", filter_wordcount},
    {"wordwrap", NULL},
    {"xmlattr", filter_xmlattr},
};

const builtin *builtin_find(const builtin *table, size_t n, const text *name) {
    for (size_t i = 0; i < n; i++)
        if (text_is(name, table[i].name))
            return &table[i];
    return NULL;
}

const builtin *filter_find(const text *name) {
    return builtin_find(filters, sizeof filters / sizeof *filters, name);
}
