#include "text/template/transform.h"

#include "formats/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_stripped(uint32_t c, const text *chars) {
    if (!chars)
        return char_is_space(c);
    for (size_t at = 0; at < chars->n;) {
        uint32_t other;
        at += char_at(&other, chars->bytes + at, chars->n - at);
        if (other == c)
            return true;
    }
    return false;
}

value string_strip(vm *m, const text *t, const text *chars, side sides) {
    size_t begin = 0, end = t->n;
    uint32_t c;
    while ((sides & SIDE_LEFT) && begin < end) {
        size_t length = char_at(&c, t->bytes + begin, end - begin);
        if (!is_stripped(c, chars))
            break;
        begin += length;
    }
    while ((sides & SIDE_RIGHT) && end > begin) {
        size_t length = char_before(&c, t->bytes + begin, end - begin);
        if (!is_stripped(c, chars))
            break;
        end -= length;
    }
    size_t passed = t->n - (end - begin);
    return spend_bytes(m, passed * (chars ? chars->n : 1))
               ? value_text(text_slice(m, t, begin, end))
               : failed_value;
}

/* A capital sigma is final, and so turns into another small letter, after a cased character and
 * before none. */
static bool is_final_sigma(const text *t, size_t at, size_t length) {
    size_t before = at;
    uint32_t c = 0;
    bool has_before = false;
    while (before > 0) {
        before -= char_before(&c, t->bytes, before);
        if (!char_is_case_ignorable(c)) {
            has_before = char_is_cased(c);
            break;
        }
    }
    for (size_t after = at + length; has_before && after < t->n;) {
        after += char_at(&c, t->bytes + after, t->n - after);
        if (!char_is_case_ignorable(c))
            return !char_is_cased(c);
    }
    return has_before;
}

static size_t convert_char(uint32_t out[3], const text *t, size_t at, size_t length, uint32_t c,
                           char_case wanted) {
    if (c != 0x3A3 || wanted != CASE_LOWER || !is_final_sigma(t, at, length))
        return char_convert(out, c, wanted);
    out[0] = 0x3C2;
    return 1;
}

typedef char_case choose_case(uint32_t character, bool after_cased, bool is_first);

static value convert_each(vm *m, const text *t, choose_case *choose) {
    builder b = builder_on(m);
    bool after_cased = false;
    size_t cursor = 0;
    if (t->n == 0)
        return value_text(t);
    if (!spend(m, t->n / 2))
        return failed_value;
    for (size_t at = 0; at < t->n;) {
        uint32_t c, converted[3];
        const stretch *source = text_stretch(t, &cursor, at);
        size_t length = char_at(&c, t->bytes + at, t->n - at);
        size_t n = convert_char(converted, t, at, length, c, choose(c, after_cased, at == 0));
        for (size_t i = 0; i < n; i++) {
            char bytes[4];
            build_like(&b, bytes, utf8_encode(bytes, converted[i]), source);
        }
        after_cased = char_is_cased(c);
        at += length;
    }
    return value_text(builder_finish(&b));
}

static char_case choose_lower(uint32_t c, bool after_cased, bool is_first) {
    (void)c, (void)after_cased, (void)is_first;
    return CASE_LOWER;
}

static char_case choose_upper(uint32_t c, bool after_cased, bool is_first) {
    (void)c, (void)after_cased, (void)is_first;
    return CASE_UPPER;
}

static char_case choose_fold(uint32_t c, bool after_cased, bool is_first) {
    (void)c, (void)after_cased, (void)is_first;
    return CASE_FOLD;
}

static char_case choose_capital(uint32_t c, bool after_cased, bool is_first) {
    (void)c, (void)after_cased;
    return is_first ? CASE_TITLE : CASE_LOWER;
}

static char_case choose_title(uint32_t c, bool after_cased, bool is_first) {
    (void)c, (void)is_first;
    return after_cased ? CASE_LOWER : CASE_TITLE;
}

static char_case choose_swapped(uint32_t c, bool after_cased, bool is_first) {
    (void)after_cased, (void)is_first;
    return char_is_upper(c) ? CASE_LOWER : CASE_UPPER;
}

value string_convert(vm *m, const text *t, char_case wanted) {
    return convert_each(m, t,
                        wanted == CASE_LOWER   ? choose_lower
                        : wanted == CASE_UPPER ? choose_upper
                                               : choose_fold);
}

value string_capitalize(vm *m, const text *t) {
    return convert_each(m, t, choose_capital);
}

value string_swap_case(vm *m, const text *t) {
    return convert_each(m, t, choose_swapped);
}

value string_title(vm *m, const text *t) {
    return convert_each(m, t, choose_title);
}

/* Where the next occurrence begins; the empty text occurs between any two characters. */
static size_t find_next(vm *m, const text *t, const text *old, size_t from, bool is_first) {
    if (old->n > 0 || is_first)
        return text_find(m, t, old, from, t->n);
    if (from >= t->n)
        return SIZE_MAX;
    return from + char_offset(t->bytes + from, t->n - from, 1);
}

value string_replace(vm *m, const text *t, const text *old, const text *new, int64_t count) {
    builder b = builder_on(m);
    size_t done = 0, from = 0;
    bool is_first = true;
    while (count-- != 0) {
        size_t found = find_next(m, t, old, from, is_first);
        if (found == SIZE_MAX)
            break;
        build_slice(&b, t, done, found);
        build_text(&b, new);
        done = from = found + old->n;
        is_first = false;
        if (m->status != GRAFT_OK)
            return failed_value;
    }
    if (is_first)
        return m->status == GRAFT_OK ? value_text(t) : failed_value;
    build_slice(&b, t, done, t->n);
    return value_text(builder_finish(&b));
}

static bool add_part(vm *m, list *l, size_t *capacity, const text *part) {
    if (l->n == *capacity) {
        size_t larger = *capacity ? 2 * *capacity : 4;
        value *items =
            arena_grow(&m->memory, l->items, *capacity * sizeof *items, larger * sizeof *items);
        if (!items)
            return fail_memory(m);
        l->items = items;
        *capacity = larger;
    }
    l->items[l->n++] = value_text(part);
    return part != NULL;
}

list *string_lines(vm *m, const text *t, bool keep_ends) {
    list *l = list_create(m, LIST_LIST, 0);
    size_t capacity = 0, begin = 0;
    for (size_t at = 0; l && at < t->n;) {
        uint32_t c;
        size_t end = at;
        at += char_at(&c, t->bytes + at, t->n - at);
        if (!char_is_line_end(c) && at < t->n)
            continue;
        if (!char_is_line_end(c))
            end = at;
        else if (c == '\r' && at < t->n && t->bytes[at] == '\n')
            at++;
        if (!add_part(m, l, &capacity, text_slice(m, t, begin, keep_ends ? at : end)))
            return NULL;
        begin = at;
    }
    return spend_bytes(m, t->n) ? l : NULL;
}

static void reverse(list *l) {
    for (size_t i = 0; i < l->n / 2; i++) {
        value kept = l->items[i];
        l->items[i] = l->items[l->n - 1 - i];
        l->items[l->n - 1 - i] = kept;
    }
}

static list *split_at(vm *m, const text *t, const text *separator, int64_t limit) {
    list *l = list_create(m, LIST_LIST, 0);
    size_t capacity = 0, begin = 0;
    while (l && limit-- != 0) {
        size_t found = text_find(m, t, separator, begin, t->n);
        if (found == SIZE_MAX)
            break;
        if (!add_part(m, l, &capacity, text_slice(m, t, begin, found)))
            return NULL;
        begin = found + separator->n;
    }
    return l && m->status == GRAFT_OK && add_part(m, l, &capacity, text_slice(m, t, begin, t->n))
               ? l
               : NULL;
}

static list *split_right_at(vm *m, const text *t, const text *separator, int64_t limit) {
    list *l = list_create(m, LIST_LIST, 0);
    size_t capacity = 0, end = t->n;
    while (l && limit-- != 0) {
        size_t found = text_find_last(m, t, separator, 0, end);
        if (found == SIZE_MAX)
            break;
        if (!add_part(m, l, &capacity, text_slice(m, t, found + separator->n, end)))
            return NULL;
        end = found;
    }
    if (!l || m->status != GRAFT_OK || !add_part(m, l, &capacity, text_slice(m, t, 0, end)))
        return NULL;
    reverse(l);
    return l;
}

/* Words between runs of white space; what is left once `limit` were taken is one part. */
static list *split_space(vm *m, const text *t, int64_t limit, bool from_right) {
    list *l = list_create(m, LIST_LIST, 0);
    size_t capacity = 0;
    const text *rest = t;
    while (l && spend(m, 1)) {
        value stripped = string_strip(m, rest, NULL, from_right ? SIDE_RIGHT : SIDE_LEFT);
        if (is_failed(stripped))
            return NULL;
        rest = stripped.text;
        if (rest->n == 0)
            break;
        size_t at = from_right ? rest->n : 0;
        bool is_last = limit >= 0 && limit-- == 0;
        for (uint32_t c; from_right ? at > 0 : at < rest->n;) {
            size_t length = from_right ? char_before(&c, rest->bytes, at)
                                       : char_at(&c, rest->bytes + at, rest->n - at);
            if (char_is_space(c) && !is_last)
                break;
            at = from_right ? at - length : at + length;
        }
        const text *part =
            from_right ? text_slice(m, rest, at, rest->n) : text_slice(m, rest, 0, at);
        if (!part || !add_part(m, l, &capacity, part))
            return NULL;
        rest = from_right ? text_slice(m, rest, 0, at) : text_slice(m, rest, at, rest->n);
        if (!rest)
            return NULL;
    }
    if (l && from_right)
        reverse(l);
    return m->status == GRAFT_OK ? l : NULL;
}

list *string_split(vm *m, const text *t, const text *separator, int64_t limit, bool from_right) {
    if (!spend_bytes(m, 16 * t->n))
        return NULL;
    if (!separator)
        return split_space(m, t, limit, from_right);
    if (separator->n == 0) {
        fail(m, "the separator is empty");
        return NULL;
    }
    return from_right ? split_right_at(m, t, separator, limit) : split_at(m, t, separator, limit);
}

value string_pad(vm *m, const text *t, int64_t width, const text *fill, side padded) {
    int64_t n = (int64_t)char_count(t->bytes, t->n);
    if (width <= n)
        return value_text(t);
    builder b = builder_on(m);
    int64_t missing = width - n, left = padded == SIDE_LEFT ? missing : 0;
    if (!build_reserve(&b, (size_t)missing))
        return failed_value;
    if (padded == SIDE_BOTH) /* as Python rounds it */
        left = missing / 2 + (missing & width & 1);
    for (int64_t i = 0; i <= missing && m->status == GRAFT_OK; i++)
        build_text(&b, i == left ? t : fill);
    return value_text(builder_finish(&b));
}

value string_join(vm *m, const text *separator, const list *parts) {
    builder b = builder_on(m);
    for (size_t i = 0; i < parts->n; i++) {
        if (i)
            build_text(&b, separator);
        if (!build_str(&b, parts->items[i]))
            return failed_value;
    }
    return value_text(builder_finish(&b));
}

/* ASCII digits of a number without its spaces and single underscores, NUL-terminated; false where
 * Python sees none. */
static bool copy_number(char *out, size_t capacity, const text *t) {
    size_t n = 0;
    const char *at = t->bytes, *end = t->bytes + t->n;
    while (at < end && char_is_space((unsigned char)*at))
        at++;
    while (end > at && char_is_space((unsigned char)end[-1]))
        end--;
    for (; at < end; at++) {
        bool is_between = at[0] == '_' && n > 0 && at + 1 < end && at[-1] != '_';
        if (is_between)
            continue;
        if ((unsigned char)*at >= 0x80 || *at == '_' || *at == '\0' || n + 1 >= capacity)
            return false;
        out[n++] = *at;
    }
    out[n] = '\0';
    return n > 0;
}

bool string_to_int(int64_t *out, const text *t, int base) {
    char digits[512], *at = digits, *end;
    if (!copy_number(digits, sizeof digits, t))
        return false;
    bool is_negative = *at == '-';
    at += *at == '-' || *at == '+';
    char letter = at[0] == '0' ? (char)(at[1] | 32) : 0;
    int implied = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (implied && (base == implied || base == 0)) {
        at += 2;
        base = implied;
    } else if (base == 0) {
        base = 10;
    }
    if (!*at || strchr("+- \t\n\v\f\r", *at) || (base == 16 && (at[1] | 32) == 'x'))
        return false;
    unsigned long long total = strtoull(at, &end, base);
    if (*end || total > (unsigned long long)INT64_MAX)
        return false;
    *out = is_negative ? -(int64_t)total : (int64_t)total;
    return true;
}

bool string_to_float(double *out, const text *t) {
    char digits[512], *end;
    if (!copy_number(digits, sizeof digits, t) || strpbrk(digits, "xX(pP"))
        return false;
    *out = strtod(digits, &end);
    return *end == '\0' && end != digits;
}
