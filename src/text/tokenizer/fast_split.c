#include "text/tokenizer/fast_split.h"

#include "text/tokenizer/chars.h"

#include <string.h>

const char *const gpt2_pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const char *const llama3_pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+"
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const char *const qwen2_pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

enum { KINDS = CHAR_LETTER | CHAR_NUMBER | CHAR_SPACE };

static unsigned kind_at(const char *text, size_t at, size_t *length) {
    return char_classes[char_decode(text + at, length)] & KINDS;
}

/* The end of the run of characters of this kind (0: neither letter, number nor space). */
static size_t run_end(const char *text, size_t at, size_t n, unsigned kind) {
    size_t length;
    while (at < n && kind_at(text, at, &length) == kind)
        at += length;
    return at;
}

/* \s+(?!\S)|\s+ on a run of white space: the last character is left to the word after it. */
static size_t space_run_end(const char *text, size_t at, size_t n) {
    size_t end = run_end(text, at, n, CHAR_SPACE);
    if (end == n)
        return end;
    size_t last;
    char_decode_before(text + end, &last);
    return end - last > at ? end - last : end;
}

/* Bytes of the contraction that `letters` (what follows the apostrophe) begin; 0 for none. */
static size_t contraction(const char *letters, size_t n) {
    if (n == 0)
        return 0;
    char c = letters[0], d = n > 1 ? letters[1] : '\0';
    if (c == 's' || c == 't' || c == 'm' || c == 'd')
        return 1;
    if ((c == 'r' && d == 'e') || (c == 'v' && d == 'e') || (c == 'l' && d == 'l'))
        return 2;
    return 0;
}

/* The same without regard to case; U+017F (long s) folds to s. */
static size_t contraction_any_case(const char *letters, size_t n) {
    if (n >= 2 && memcmp(letters, "\xC5\xBF", 2) == 0)
        return 2;
    char lower[2] = {0};
    for (size_t i = 0; i < 2 && i < n; i++)
        lower[i] = letters[i] >= 'A' && letters[i] <= 'Z' ? (char)(letters[i] | 0x20) : letters[i];
    return contraction(lower, n < 2 ? n : 2);
}

size_t split_gpt2(const char *text, size_t at, size_t n) {
    if (text[at] == '\'') {
        size_t letters = contraction(text + at + 1, n - at - 1);
        if (letters)
            return at + 1 + letters;
    }
    size_t first, second;
    unsigned kind = kind_at(text, at, &first);
    if (kind != CHAR_SPACE)
        return run_end(text, at + first, n, kind);
    if (text[at] == ' ' && at + 1 < n) {
        kind = kind_at(text, at + 1, &second);
        if (kind != CHAR_SPACE)
            return run_end(text, at + 1 + second, n, kind);
    }
    return space_run_end(text, at, n);
}

static bool is_line_end(char c) {
    return c == '\r' || c == '\n';
}

static size_t digits_end(const char *text, size_t at, size_t n, unsigned digits_max) {
    size_t length;
    for (unsigned digits = 0; digits < digits_max && at < n; digits++) {
        if (kind_at(text, at, &length) != CHAR_NUMBER)
            break;
        at += length;
    }
    return at;
}

/* [^\s\p{L}\p{N}]+[\r\n]* */
static size_t symbols_end(const char *text, size_t at, size_t n) {
    at = run_end(text, at, n, 0);
    while (at < n && is_line_end(text[at]))
        at++;
    return at;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t space_or_lines_end(const char *text, size_t at, size_t n) {
    size_t end = run_end(text, at, n, CHAR_SPACE);
    for (size_t i = end; i > at; i--)
        if (is_line_end(text[i - 1]))
            return i;
    return space_run_end(text, at, n);
}

static inline size_t split_cl100k(const char *text, size_t at, size_t n, unsigned digits_max) {
    if (text[at] == '\'') {
        size_t letters = contraction_any_case(text + at + 1, n - at - 1);
        if (letters)
            return at + 1 + letters;
    }
    size_t first, second;
    unsigned kind = kind_at(text, at, &first);
    if (kind == CHAR_LETTER)
        return run_end(text, at + first, n, CHAR_LETTER);
    if (kind == CHAR_NUMBER)
        return digits_end(text, at, n, digits_max);
    if (at + first < n && !is_line_end(text[at])) {
        unsigned next = kind_at(text, at + first, &second);
        if (next == CHAR_LETTER)
            return run_end(text, at + first + second, n, CHAR_LETTER);
        if (text[at] == ' ' && next == 0)
            return symbols_end(text, at + 1, n);
    }
    return kind == 0 ? symbols_end(text, at, n) : space_or_lines_end(text, at, n);
}

static size_t split_llama3(const char *text, size_t at, size_t n) {
    return split_cl100k(text, at, n, 3);
}

static size_t split_qwen2(const char *text, size_t at, size_t n) {
    return split_cl100k(text, at, n, 1);
}

fast_splitter fast_splitter_of(const char *regex, size_t n) {
    const struct {
        const char *pattern;
        fast_splitter split;
    } table[] = {
        {gpt2_pattern, split_gpt2}, {llama3_pattern, split_llama3}, {qwen2_pattern, split_qwen2}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (n == strlen(table[i].pattern) && memcmp(regex, table[i].pattern, n) == 0)
            return table[i].split;
    return NULL;
}
