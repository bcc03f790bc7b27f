#include "text/template/format.h"

#include "text/template/unicode.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PRECISION_MAX = 1000, DIGITS_MAX = PRECISION_MAX + 400 };

static void build_fill(builder *b, const format_spec *spec, int64_t count) {
    if (count > 0 && !build_reserve(b, (size_t)count))
        return;
    for (int64_t i = 0; i < count && b->m->status == GRAFT_OK; i++)
        if (spec->fill)
            build_text(b, spec->fill);
        else
            build_bytes(b, " ", 1);
}

bool build_formatted_text(builder *b, const text *t, const format_spec *spec) {
    size_t end = t->n;
    if (spec->type && spec->type != 's')
        return fail(b->m, "the format '%c' is not for a str", spec->type);
    if (spec->precision >= 0)
        end = char_offset(t->bytes, t->n, (size_t)spec->precision);
    int64_t missing = spec->width - (int64_t)char_count(t->bytes, end);
    missing = missing > 0 ? missing : 0;
    if (spec->align == '=')
        return fail(b->m, "the alignment '=' is for numbers only");
    int64_t left = spec->align == '>' ? missing : spec->align == '^' ? missing / 2 : 0;
    build_fill(b, spec, left);
    build_slice(b, t, 0, end);
    build_fill(b, spec, missing - left);
    return b->m->status == GRAFT_OK;
}

/* Digits with a separator between every three (or four, of bits) of the whole part. */
static size_t group_digits(char *out, const char *digits, size_t n_whole, char separator,
                           size_t size) {
    size_t n = 0;
    for (size_t i = 0; digits[i]; i++) {
        if (separator && i > 0 && i < n_whole && (n_whole - i) % size == 0)
            out[n++] = separator;
        out[n++] = digits[i];
    }
    out[n] = '\0';
    return n;
}

/* Sign, prefix and digits, padded. */
static bool build_number(builder *b, bool is_negative, const char *prefix, const char *digits,
                         const format_spec *spec) {
    char sign[2] = {is_negative ? '-' : spec->sign == '+' ? '+' : spec->sign == ' ' ? ' ' : 0};
    char align = spec->align ? spec->align : spec->is_zero_padded ? '=' : '>';
    format_spec padding = *spec;
    static const text zero = {.bytes = "0", .n = 1};
    if (spec->is_zero_padded && !spec->fill)
        padding.fill = &zero;
    int64_t missing = spec->width - (int64_t)(strlen(sign) + strlen(prefix) + strlen(digits));
    missing = missing > 0 ? missing : 0;
    int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
    int64_t inner = align == '=' ? missing : 0;
    build_fill(b, &padding, left);
    build_literal(b, sign);
    build_literal(b, prefix);
    build_fill(b, &padding, inner);
    build_literal(b, digits);
    build_fill(b, &padding, missing - left - inner);
    return b->m->status == GRAFT_OK;
}

static void write_bits(char *out, uint64_t magnitude) {
    int bits = 64 - (magnitude ? __builtin_clzll(magnitude) : 63);
    for (int i = 0; i < bits; i++)
        out[i] = magnitude >> (bits - 1 - i) & 1 ? '1' : '0';
    out[bits] = '\0';
}

bool build_formatted_int(builder *b, int64_t i, const format_spec *spec) {
    char digits[80], grouped[160];
    uint64_t magnitude = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    const char *prefix = "";
    switch (spec->type) {
    case 0:
    case 'd':
    case 'n':
        snprintf(digits, sizeof digits, "%" PRIu64, magnitude);
        break;
    case 'b':
        write_bits(digits, magnitude);
        prefix = "0b";
        break;
    case 'o':
        snprintf(digits, sizeof digits, "%" PRIo64, magnitude);
        prefix = "0o";
        break;
    case 'x':
        snprintf(digits, sizeof digits, "%" PRIx64, magnitude);
        prefix = "0x";
        break;
    case 'X':
        snprintf(digits, sizeof digits, "%" PRIX64, magnitude);
        prefix = "0X";
        break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
    case '%':
        return build_formatted_float(b, (double)i, spec);
    default:
        return fail(b->m, "the format '%c' is not for an int", spec->type);
    }
    size_t size = spec->type && strchr("boxX", spec->type) ? 4 : 3;
    group_digits(grouped, digits, strlen(digits), spec->grouping, size);
    return build_number(b, i < 0, spec->is_alternate ? prefix : "", grouped, spec);
}

/* Without a type a float is written as repr does, or, with a precision, like 'g' but with a digit
 * after the point. */
static void write_general(char *out, size_t capacity, double magnitude, int precision) {
    snprintf(out, capacity, "%.*g", precision ? precision : 1, magnitude);
    bool has_exponent = strchr(out, 'e') != NULL;
    if (!has_exponent && !strchr(out, '.') && strlen(out) >= (size_t)(precision ? precision : 1))
        snprintf(out, capacity, "%.*e", precision > 1 ? precision - 1 : 0, magnitude);
    else if (!has_exponent && !strchr(out, '.'))
        strcat(out, ".0");
}

static bool write_float(vm *m, char *out, size_t capacity, double magnitude,
                        const format_spec *spec) {
    int precision = spec->precision < 0 ? 6 : (int)spec->precision;
    if (spec->precision > PRECISION_MAX)
        return fail(m, "a precision of %" PRId64 " is too large: the limit is %d", spec->precision,
                    PRECISION_MAX);
    if (isnan(magnitude) || isinf(magnitude)) {
        snprintf(out, capacity, "%s", isnan(magnitude) ? "nan" : "inf");
        return true;
    }
    const bool alternate = spec->is_alternate;
    switch (spec->type) {
    case 0:
        if (spec->precision >= 0) {
            write_general(out, capacity, magnitude, precision);
        } else {
            builder shown = builder_on(m);
            if (!build_float(&shown, magnitude))
                return false;
            snprintf(out, capacity, "%.*s", (int)shown.n, shown.bytes);
        }
        return true;
    case 'e':
        snprintf(out, capacity, alternate ? "%#.*e" : "%.*e", precision, magnitude);
        return true;
    case 'E':
        snprintf(out, capacity, alternate ? "%#.*E" : "%.*E", precision, magnitude);
        return true;
    case 'f':
    case 'F':
        snprintf(out, capacity, alternate ? "%#.*f" : "%.*f", precision, magnitude);
        return true;
    case 'g':
    case 'n':
        snprintf(out, capacity, alternate ? "%#.*g" : "%.*g", precision, magnitude);
        return true;
    case 'G':
        snprintf(out, capacity, alternate ? "%#.*G" : "%.*G", precision, magnitude);
        return true;
    case '%':
        snprintf(out, capacity, "%.*f%%", precision, magnitude * 100);
        return true;
    default:
        return fail(m, "the format '%c' is not for a float", spec->type);
    }
}

bool build_formatted_float(builder *b, double d, const format_spec *spec) {
    char digits[DIGITS_MAX], grouped[2 * DIGITS_MAX];
    if (!write_float(b->m, digits, sizeof digits, fabs(d), spec))
        return false;
    group_digits(grouped, digits, strspn(digits, "0123456789"), spec->grouping, 3);
    return build_number(b, signbit(d) && !isnan(d), "", grouped, spec);
}
