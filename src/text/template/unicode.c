#include "text/template/unicode.h"

#include "text/template/unicode_case.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

size_t char_at(uint32_t *character, const char *text, size_t n) {
    assert(n > 0);
    unsigned char lead = (unsigned char)text[0];
    if (lead < 0x80) {
        *character = lead;
        return 1;
    }
    utf8proc_int32_t decoded;
    utf8proc_ssize_t length =
        utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &decoded);
    assert(length > 0);
    *character = (uint32_t)decoded;
    return (size_t)length;
}

size_t char_before(uint32_t *character, const char *text, size_t n) {
    assert(n > 0);
    size_t begin = n - 1;
    while (begin > 0 && ((unsigned char)text[begin] & 0xC0) == 0x80)
        begin--;
    return char_at(character, text + begin, n - begin);
}

size_t char_count(const char *text, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

size_t char_offset(const char *text, size_t n, size_t index) {
    size_t at = 0;
    for (; at < n; at++)
        if (((unsigned char)text[at] & 0xC0) != 0x80 && index-- == 0)
            break;
    return at;
}

static utf8proc_category_t category(uint32_t character) {
    return utf8proc_category((utf8proc_int32_t)character);
}

bool char_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool char_is_line_end(uint32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

bool char_is_letter(uint32_t c) {
    switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return true;
    default:
        return false;
    }
}

bool char_is_decimal(uint32_t c) {
    return category(c) == UTF8PROC_CATEGORY_ND;
}

bool char_is_digit(uint32_t c) {
    return char_is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 ||
           (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
           (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247C) ||
           (c >= 0x2488 && c <= 0x2490) || (c >= 0x24F5 && c <= 0x24FD) ||
           (c >= 0x2776 && c <= 0x277E) || (c >= 0x2780 && c <= 0x2788) ||
           (c >= 0x278A && c <= 0x2792);
}

bool char_is_numeric(uint32_t c) {
    utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL ||
           kind == UTF8PROC_CATEGORY_NO;
}

bool char_is_upper(uint32_t c) {
    if (c < 0x80)
        return c >= 'A' && c <= 'Z';
    return category(c) == UTF8PROC_CATEGORY_LU || (c >= 0x2160 && c <= 0x216F) ||
           (c >= 0x24B6 && c <= 0x24CF);
}

bool char_is_lower(uint32_t c) {
    if (c < 0x80)
        return c >= 'a' && c <= 'z';
    return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA ||
           (c >= 0x2170 && c <= 0x217F) || (c >= 0x24D0 && c <= 0x24E9);
}

bool char_is_title(uint32_t c) {
    return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_LT;
}

bool char_is_printable(uint32_t c) {
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

bool char_is_cased(uint32_t c) {
    return char_is_upper(c) || char_is_lower(c) || char_is_title(c);
}

bool char_is_case_ignorable(uint32_t c) {
    switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x2018 || c == 0x2019;
    }
}

bool char_begins_name(uint32_t c) {
    return c == '_' || char_is_letter(c) || category(c) == UTF8PROC_CATEGORY_NL;
}

bool char_continues_name(uint32_t c) {
    switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return char_begins_name(c);
    }
}

static int compare_special(const void *key, const void *entry) {
    uint32_t character = *(const uint32_t *)key;
    uint32_t found = ((const struct special_case *)entry)->character;
    return (character > found) - (character < found);
}

static size_t convert_special(uint32_t out[3], const uint16_t in[3]) {
    size_t n = 0;
    while (n < 3 && in[n]) {
        out[n] = in[n];
        n++;
    }
    return n;
}

static size_t convert_fold(uint32_t out[3], uint32_t character) {
    utf8proc_int32_t folded[4];
    int boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)character, folded, 4,
                                                 UTF8PROC_CASEFOLD, &boundary);
    if (n < 1 || n > 3) {
        out[0] = character;
        return 1;
    }
    for (utf8proc_ssize_t i = 0; i < n; i++)
        out[i] = (uint32_t)folded[i];
    return (size_t)n;
}

size_t char_convert(uint32_t out[3], uint32_t character, char_case wanted) {
    utf8proc_int32_t c = (utf8proc_int32_t)character;
    if (character < 0x80) {
        bool is_changed = wanted == CASE_LOWER || wanted == CASE_FOLD ? char_is_upper(character)
                                                                      : char_is_lower(character);
        out[0] = is_changed ? character ^ 0x20 : character;
        return 1;
    }
    if (wanted == CASE_FOLD)
        return convert_fold(out, character);
    if (wanted == CASE_LOWER) {
        out[0] = character == 0x130 ? 'i' : (uint32_t)utf8proc_tolower(c);
        out[1] = 0x307; /* the dot of a Turkish capital stays */
        return character == 0x130 ? 2 : 1;
    }
    const struct special_case *special =
        bsearch(&character, special_cases, sizeof special_cases / sizeof *special_cases,
                sizeof *special_cases, compare_special);
    if (special)
        return convert_special(out, wanted == CASE_UPPER ? special->upper : special->title);
    out[0] = (uint32_t)(wanted == CASE_UPPER ? utf8proc_toupper(c) : utf8proc_totitle(c));
    return 1;
}
