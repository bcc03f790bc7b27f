/* Methods of strings. */
#include "text/template/builtins.h"

#include "text/template/transform.h"

#include <string.h>

static bool no_arguments(vm *m, const arguments *given, const char *what) {
    return bind(m, NULL, what, "", 0, given);
}

static value text_lower(vm *m, value self, const arguments *given) {
    return no_arguments(m, given, "lower") ? string_convert(m, self.text, CASE_LOWER)
                                           : failed_value;
}

static value text_upper(vm *m, value self, const arguments *given) {
    return no_arguments(m, given, "upper") ? string_convert(m, self.text, CASE_UPPER)
                                           : failed_value;
}

static value text_casefold(vm *m, value self, const arguments *given) {
    return no_arguments(m, given, "casefold") ? string_convert(m, self.text, CASE_FOLD)
                                              : failed_value;
}

static value text_capitalize(vm *m, value self, const arguments *given) {
    return no_arguments(m, given, "capitalize") ? string_capitalize(m, self.text) : failed_value;
}

static value text_title(vm *m, value self, const arguments *given) {
    return no_arguments(m, given, "title") ? string_title(m, self.text) : failed_value;
}

static value text_swapcase(vm *m, value self, const arguments *given) {
    return no_arguments(m, given, "swapcase") ? string_swap_case(m, self.text) : failed_value;
}

static value strip_sides(vm *m, value self, const arguments *given, const char *what, side sides) {
    value v[1];
    const text *chars = NULL;
    if (!bind(m, v, what, "chars", 0, given) ||
        (v[0].kind != VALUE_NONE && !take_text(m, &chars, v[0], "the characters to strip")))
        return failed_value;
    return string_strip(m, self.text, chars, sides);
}

static value text_strip(vm *m, value self, const arguments *given) {
    return strip_sides(m, self, given, "strip", SIDE_BOTH);
}

static value text_lstrip(vm *m, value self, const arguments *given) {
    return strip_sides(m, self, given, "lstrip", SIDE_LEFT);
}

static value text_rstrip(vm *m, value self, const arguments *given) {
    return strip_sides(m, self, given, "rstrip", SIDE_RIGHT);
}

static value split_from(vm *m, value self, const arguments *given, const char *what, bool right) {
    value v[2];
    const text *separator = NULL;
    int64_t limit = -1;
    if (!bind(m, v, what, "sep maxsplit", 0, given) ||
        (v[0].kind != VALUE_NONE && !take_text(m, &separator, v[0], "the separator")) ||
        !take_int(m, &limit, v[1], "maxsplit"))
        return failed_value;
    return value_list(string_split(m, self.text, separator, limit, right));
}

static value text_split(vm *m, value self, const arguments *given) {
    return split_from(m, self, given, "split", false);
}

static value text_rsplit(vm *m, value self, const arguments *given) {
    return split_from(m, self, given, "rsplit", true);
}

static value text_splitlines(vm *m, value self, const arguments *given) {
    value v[1];
    bool keeps_ends = false;
    if (!bind(m, v, "splitlines", "keepends", 0, given))
        return failed_value;
    take_bool(&keeps_ends, v[0]);
    return value_list(string_lines(m, self.text, keeps_ends));
}

static value text_replace(vm *m, value self, const arguments *given) {
    value v[3];
    const text *old = NULL, *new = NULL;
    int64_t count = -1;
    if (!bind(m, v, "replace", "old new count", 2, given) ||
        !take_text(m, &old, v[0], "replace's old text") ||
        !take_text(m, &new, v[1], "replace's new text") ||
        !take_int(m, &count, v[2], "replace's count"))
        return failed_value;
    return string_replace(m, self.text, old, new, count);
}

static value text_join(vm *m, value self, const arguments *given) {
    value v[1];
    if (!bind(m, v, "join", "iterable", 1, given))
        return failed_value;
    const list *parts = value_items(m, v[0], "join");
    for (size_t i = 0; parts && i < parts->n; i++)
        if (parts->items[i].kind != VALUE_TEXT)
            return refuse(m, "join: item %zu is a %s; expected a str", i,
                          value_type(parts->items[i]));
    return parts ? string_join(m, self.text, parts) : failed_value;
}

/* Bytes [begin, end) that arguments start and stop (in characters, may be negative) leave of a
 * text. False when start lies past the end. */
static bool clamp_range(vm *m, bool *is_inside, size_t *begin, size_t *end, const text *t,
                        value start, value stop) {
    int64_t n = (int64_t)char_count(t->bytes, t->n), from = 0, to = n;
    if ((start.kind != VALUE_NONE && !take_int(m, &from, start, "the start")) ||
        (stop.kind != VALUE_NONE && !take_int(m, &to, stop, "the stop")))
        return false;
    from = from < -n ? 0 : from < 0 ? from + n : from;
    to = to < -n ? 0 : to < 0 ? to + n : to > n ? n : to;
    *is_inside = from <= to;
    *begin = char_offset(t->bytes, t->n, (size_t)from);
    *end = char_offset(t->bytes, t->n, (size_t)to);
    return spend_bytes(m, 8 * t->n);
}

static value find_index(vm *m, value self, const arguments *given, const char *what,
                        bool from_right, bool must_be_there) {
    value v[3];
    const text *t = self.text, *needle = NULL;
    size_t begin, end, found = SIZE_MAX;
    bool is_inside;
    if (!bind(m, v, what, "sub start end", 1, given) ||
        !take_text(m, &needle, v[0], "what is looked for") ||
        !clamp_range(m, &is_inside, &begin, &end, t, v[1], v[2]))
        return failed_value;
    if (is_inside)
        found = from_right ? text_find_last(m, t, needle, begin, end)
                           : text_find(m, t, needle, begin, end);
    if (m->status != GRAFT_OK)
        return failed_value;
    if (found == SIZE_MAX && must_be_there)
        return refuse(m, "%s: the substring is not there", what);
    return value_int(found == SIZE_MAX ? -1 : (int64_t)char_count(t->bytes, found));
}

static value text_find_method(vm *m, value self, const arguments *given) {
    return find_index(m, self, given, "find", false, false);
}

static value text_rfind(vm *m, value self, const arguments *given) {
    return find_index(m, self, given, "rfind", true, false);
}

static value text_index(vm *m, value self, const arguments *given) {
    return find_index(m, self, given, "index", false, true);
}

static value text_rindex(vm *m, value self, const arguments *given) {
    return find_index(m, self, given, "rindex", true, true);
}

static value text_count(vm *m, value self, const arguments *given) {
    value v[3];
    const text *t = self.text, *needle = NULL;
    size_t begin, end;
    int64_t count = 0;
    bool is_inside;
    if (!bind(m, v, "count", "sub start end", 1, given) ||
        !take_text(m, &needle, v[0], "what is counted") ||
        !clamp_range(m, &is_inside, &begin, &end, t, v[1], v[2]))
        return failed_value;
    if (!is_inside)
        return value_int(0);
    if (needle->n == 0)
        return value_int((int64_t)char_count(t->bytes + begin, end - begin) + 1);
    while ((begin = text_find(m, t, needle, begin, end)) != SIZE_MAX) {
        count++;
        begin += needle->n;
    }
    return m->status == GRAFT_OK ? value_int(count) : failed_value;
}

static bool has_affix(const text *t, const text *affix, size_t begin, size_t end, bool at_end) {
    return affix->n <= end - begin &&
           memcmp(t->bytes + (at_end ? end - affix->n : begin), affix->bytes, affix->n) == 0;
}

static value test_affix(vm *m, value self, const arguments *given, const char *what, bool at_end) {
    value v[3];
    size_t begin, end;
    bool is_inside;
    if (!bind(m, v, what, "prefix start end", 1, given) ||
        !clamp_range(m, &is_inside, &begin, &end, self.text, v[1], v[2]))
        return failed_value;
    bool is_tuple = v[0].kind == VALUE_LIST && v[0].list->kind == LIST_TUPLE;
    for (size_t i = 0; i < (is_tuple ? v[0].list->n : 1); i++) {
        const text *affix = NULL;
        if (!take_text(m, &affix, is_tuple ? v[0].list->items[i] : v[0], what))
            return failed_value;
        if (is_inside && has_affix(self.text, affix, begin, end, at_end))
            return value_bool(true);
    }
    return value_bool(false);
}

static value text_startswith(vm *m, value self, const arguments *given) {
    return test_affix(m, self, given, "startswith", false);
}

static value text_endswith(vm *m, value self, const arguments *given) {
    return test_affix(m, self, given, "endswith", true);
}

static value remove_affix(vm *m, value self, const arguments *given, const char *what,
                          bool at_end) {
    value v[1];
    const text *t = self.text, *affix = NULL;
    if (!bind(m, v, what, "prefix", 1, given) || !take_text(m, &affix, v[0], what))
        return failed_value;
    if (!has_affix(t, affix, 0, t->n, at_end))
        return self;
    return value_text(at_end ? text_slice(m, t, 0, t->n - affix->n)
                             : text_slice(m, t, affix->n, t->n));
}

static value text_removeprefix(vm *m, value self, const arguments *given) {
    return remove_affix(m, self, given, "removeprefix", false);
}

static value text_removesuffix(vm *m, value self, const arguments *given) {
    return remove_affix(m, self, given, "removesuffix", true);
}

static value part_at(vm *m, value self, const arguments *given, const char *what, bool from_right) {
    value v[1];
    const text *t = self.text, *separator = NULL;
    if (!bind(m, v, what, "sep", 1, given) || !take_text(m, &separator, v[0], "the separator"))
        return failed_value;
    if (separator->n == 0)
        return refuse(m, "the separator is empty");
    size_t found =
        from_right ? text_find_last(m, t, separator, 0, t->n) : text_find(m, t, separator, 0, t->n);
    list *parts = list_create(m, LIST_TUPLE, 3);
    if (!parts || m->status != GRAFT_OK)
        return failed_value;
    size_t cut = found != SIZE_MAX ? found : from_right ? 0 : t->n;
    size_t after = found != SIZE_MAX ? found + separator->n : cut;
    parts->items[0] = value_text(text_slice(m, t, 0, cut));
    parts->items[1] = value_text(text_slice(m, t, cut, after));
    parts->items[2] = value_text(text_slice(m, t, after, t->n));
    return m->status == GRAFT_OK ? value_list(parts) : failed_value;
}

static value text_partition(vm *m, value self, const arguments *given) {
    return part_at(m, self, given, "partition", false);
}

static value text_rpartition(vm *m, value self, const arguments *given) {
    return part_at(m, self, given, "rpartition", true);
}

static value justify(vm *m, value self, const arguments *given, const char *what, side padded) {
    value v[2];
    int64_t width = 0;
    const text space = {.bytes = " ", .n = 1}, *fill = &space;
    if (!bind(m, v, what, "width fillchar", 1, given) || !take_int(m, &width, v[0], "the width") ||
        !take_text(m, &fill, v[1], "the fill character"))
        return failed_value;
    if (char_count(fill->bytes, fill->n) != 1)
        return refuse(m, "%s: the fill character must be one character", what);
    return string_pad(m, self.text, width, fill, padded);
}

static value text_center(vm *m, value self, const arguments *given) {
    return justify(m, self, given, "center", SIDE_BOTH);
}

static value text_ljust(vm *m, value self, const arguments *given) {
    return justify(m, self, given, "ljust", SIDE_RIGHT);
}

static value text_rjust(vm *m, value self, const arguments *given) {
    return justify(m, self, given, "rjust", SIDE_LEFT);
}

static value text_zfill(vm *m, value self, const arguments *given) {
    value v[1];
    int64_t width = 0;
    const text *t = self.text, zero = {.bytes = "0", .n = 1};
    if (!bind(m, v, "zfill", "width", 1, given) || !take_int(m, &width, v[0], "the width"))
        return failed_value;
    size_t sign = t->n > 0 && (t->bytes[0] == '-' || t->bytes[0] == '+');
    const text *digits = text_slice(m, t, sign, t->n);
    value padded =
        digits ? string_pad(m, digits, width - (int64_t)sign, &zero, SIDE_LEFT) : failed_value;
    if (is_failed(padded) || !sign)
        return padded;
    return add_values(m, value_text(text_slice(m, t, 0, 1)), padded);
}

static value text_expandtabs(vm *m, value self, const arguments *given) {
    value v[1];
    int64_t size = 8, column = 0;
    const text *t = self.text;
    builder b = builder_on(m);
    if (!bind(m, v, "expandtabs", "tabsize", 0, given) || !take_int(m, &size, v[0], "the tab size"))
        return failed_value;
    for (size_t at = 0; at < t->n && m->status == GRAFT_OK;) {
        uint32_t c;
        size_t length = char_at(&c, t->bytes + at, t->n - at);
        if (c == '\t' && size > 0) {
            build_repeat(&b, ' ', (size_t)(size - column % size));
            column += size - column % size;
        } else if (c != '\t') {
            build_slice(&b, t, at, at + length);
            column = c == '\n' || c == '\r' ? 0 : column + 1;
        }
        at += length;
    }
    return value_text(builder_finish(&b));
}

static value text_format(vm *m, value self, const arguments *given) {
    return format_braces(m, self.text, given);
}

/* Whether there are characters and all of them are of a kind. */
static value all_are(vm *m, value self, const arguments *given, const char *what,
                     bool (*is_kind)(uint32_t), bool when_empty) {
    const text *t = self.text;
    if (!no_arguments(m, given, what))
        return failed_value;
    for (size_t at = 0; at < t->n;) {
        uint32_t c;
        at += char_at(&c, t->bytes + at, t->n - at);
        if (!is_kind(c))
            return value_bool(false);
    }
    return value_bool(t->n > 0 || when_empty);
}

static bool is_alphanumeric(uint32_t c) {
    return char_is_letter(c) || char_is_numeric(c);
}

static bool is_ascii(uint32_t c) {
    return c < 0x80;
}

static value text_isalnum(vm *m, value self, const arguments *given) {
    return all_are(m, self, given, "isalnum", is_alphanumeric, false);
}

static value text_isalpha(vm *m, value self, const arguments *given) {
    return all_are(m, self, given, "isalpha", char_is_letter, false);
}

static value text_isascii(vm *m, value self, const arguments *given) {
    return all_are(m, self, given, "isascii", is_ascii, true);
}

static value text_isdecimal(vm *m, value self, const arguments *given) {
    return all_are(m, self, given, "isdecimal", char_is_decimal, false);
}

static value text_isdigit(vm *m, value self, const arguments *given) {
    return all_are(m, self, given, "isdigit", char_is_digit, false);
}

static value text_isnumeric(vm *m, value self, const arguments *given) {
    return all_are(m, self, given, "isnumeric", char_is_numeric, false);
}

static value text_isprintable(vm *m, value self, const arguments *given) {
    return all_are(m, self, given, "isprintable", char_is_printable, true);
}

static value text_isspace(vm *m, value self, const arguments *given) {
    return all_are(m, self, given, "isspace", char_is_space, false);
}

static value text_isidentifier(vm *m, value self, const arguments *given) {
    uint32_t c = 0;
    if (self.text->n)
        char_at(&c, self.text->bytes, self.text->n);
    value rest = all_are(m, self, given, "isidentifier", char_continues_name, false);
    return is_failed(rest) ? rest : value_bool(rest.boolean && char_begins_name(c));
}

static value case_test(vm *m, value self, const arguments *given, const char *name) {
    const text word = {.bytes = name, .n = strlen(name)};
    return run_test(m, test_find(&word), self, given);
}

static value text_islower(vm *m, value self, const arguments *given) {
    return case_test(m, self, given, "lower");
}

static value text_isupper(vm *m, value self, const arguments *given) {
    return case_test(m, self, given, "upper");
}

static value text_istitle(vm *m, value self, const arguments *given) {
    bool any = false, after_cased = false;
    if (!no_arguments(m, given, "istitle"))
        return failed_value;
    for (size_t at = 0; at < self.text->n;) {
        uint32_t c;
        at += char_at(&c, self.text->bytes + at, self.text->n - at);
        bool is_capital = char_is_upper(c) || char_is_title(c);
        if (is_capital ? after_cased : char_is_lower(c) && !after_cased)
            return value_bool(false);
        after_cased = char_is_cased(c);
        any |= after_cased;
    }
    return value_bool(any);
}

static value unsupported(vm *m, value self, const arguments *given) {
    (void)self, (void)given;
    fail_as(m, GRAFT_E_UNSUPPORTED, "this method of a str is not supported");
    return failed_value;
}

static const builtin methods[] = {
    {"strip", text_strip},
    {"split", text_split},
    {"startswith", text_startswith},
    {"endswith", text_endswith},
    {"lstrip", text_lstrip},
    {"rstrip", text_rstrip},
    {"replace", text_replace},
    {"lower", text_lower},
    {"upper", text_upper},
    {"title", text_title},
    {"capitalize", text_capitalize},
    {"casefold", text_casefold},
    {"swapcase", text_swapcase},
    {"rsplit", text_rsplit},
    {"splitlines", text_splitlines},
    {"join", text_join},
    {"find", text_find_method},
    {"rfind", text_rfind},
    {"index", text_index},
    {"rindex", text_rindex},
    {"count", text_count},
    {"removeprefix", text_removeprefix},
    {"removesuffix", text_removesuffix},
    {"partition", text_partition},
    {"rpartition", text_rpartition},
    {"center", text_center},
    {"ljust", text_ljust},
    {"rjust", text_rjust},
    {"zfill", text_zfill},
    {"expandtabs", text_expandtabs},
    {"format", text_format},
    {"isalnum", text_isalnum},
    {"isalpha", text_isalpha},
    {"isascii", text_isascii},
    {"isdecimal", text_isdecimal},
    {"isdigit", text_isdigit},
    {"isidentifier", text_isidentifier},
    {"islower", text_islower},
    {"isnumeric", text_isnumeric},
    {"isprintable", text_isprintable},
    {"isspace", text_isspace},
    {"istitle", text_istitle},
    {"isupper", text_isupper},
    {"encode", unsupported},
    {"format_map", unsupported},
    {"maketrans", unsupported},
    {"translate", unsupported},
};

const builtin *text_method_find(const text *name) {
    return builtin_find(methods, sizeof methods / sizeof *methods, name);
}
