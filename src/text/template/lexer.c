#include "text/template/lexer.h"

#include "formats/utf8.h"
#include "text/template/template.h"
#include "text/template/unicode.h"

#include <stdlib.h>
#include <string.h>

bool lexer_open(lexer *l, vm *m, const char *source, size_t n) {
    *l = (lexer){.m = m, .line = 1, .after_line_end = true, .inside = TOKEN_END};
    m->line = 1;
    if (n > TEMPLATE_SOURCE_MAX)
        return fail(m, "the template has %zu bytes; at most %d are read", n, TEMPLATE_SOURCE_MAX);
    if (utf8_valid_length(source, n) != n)
        return fail(m, "byte %zu is not valid UTF-8; save the template as UTF-8",
                    utf8_valid_length(source, n));
    char *lines = vm_take(m, n, 1);
    if (!lines)
        return false;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        bool is_pair = source[i] == '\r' && i + 1 < n && source[i + 1] == '\n';
        if (!is_pair)
            lines[kept++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (kept > 0 && lines[kept - 1] == '\n')
        kept--;
    l->source = lines;
    l->n = kept;
    return true;
}

static void advance(lexer *l, size_t to) {
    for (; l->at < to; l->at++)
        l->line += l->source[l->at] == '\n';
}

static bool sees(const lexer *l, size_t at, const char *literal) {
    size_t n = strlen(literal);
    return at <= l->n && n <= l->n - at && memcmp(l->source + at, literal, n) == 0;
}

static size_t skip_space(const lexer *l, size_t at) {
    uint32_t c;
    while (at < l->n) {
        size_t length = char_at(&c, l->source + at, l->n - at);
        if (!char_is_space(c))
            break;
        at += length;
    }
    return at;
}

static size_t trim_space(const lexer *l, size_t begin, size_t end) {
    uint32_t c;
    while (end > begin) {
        size_t length = char_before(&c, l->source + begin, end - begin);
        if (!char_is_space(c))
            break;
        end -= length;
    }
    return end;
}

/* Where text [begin, tag) ends once the tag at `tag` has taken what it strips. */
static size_t strip_before(const lexer *l, size_t begin, size_t tag, char sign, bool is_print) {
    if (sign == '-')
        return trim_space(l, begin, tag);
    if (sign == '+' || is_print)
        return tag;
    const char *newline = tag > begin ? memrchr(l->source + begin, '\n', tag - begin) : NULL;
    size_t line = newline ? (size_t)(newline - l->source) + 1 : begin;
    bool starts_line = newline || l->after_line_end;
    return starts_line && trim_space(l, line, tag) == line ? line : tag;
}

static char sign_at(const lexer *l, size_t at) {
    return at < l->n && (l->source[at] == '-' || l->source[at] == '+') ? l->source[at] : 0;
}

/* If a closing mark like "%}" stands at `at` (with its sign before it), where what it takes ends;
 * else 0. */
static size_t end_mark(const lexer *l, size_t at, const char *mark, bool takes_newline) {
    char sign = sign_at(l, at);
    size_t begin = at + (sign != 0);
    if (!sees(l, begin, mark))
        return 0;
    size_t end = begin + strlen(mark);
    if (sign == '-')
        return skip_space(l, end);
    return end + (!sign && takes_newline && end < l->n && l->source[end] == '\n');
}

/* "raw" or "endraw" with its closing mark, from behind the sign of a "{%"; where it ends, or 0. */
static size_t raw_mark(const lexer *l, size_t at, const char *word, bool takes_newline) {
    at = skip_space(l, at);
    if (!sees(l, at, word))
        return 0;
    at = skip_space(l, at + strlen(word));
    if (!takes_newline && sign_at(l, at) == '+')
        return 0;
    return end_mark(l, at, "%}", takes_newline);
}

static void finish_mark(lexer *l, size_t end) {
    advance(l, end);
    l->after_line_end = end > 0 && l->source[end - 1] == '\n';
}

static bool skip_comment(lexer *l, size_t at) {
    for (size_t i = at; i < l->n; i++) {
        size_t end = end_mark(l, i, "#}", true);
        if (end) {
            finish_mark(l, end);
            return true;
        }
    }
    l->m->line = l->line;
    return fail(l->m, "the comment that begins here has no end: expected \"#}\"");
}

static bool give_text(lexer *l, token *out, size_t begin, size_t end, int32_t line) {
    *out = (token){.kind = TOKEN_TEXT,
                   .line = line,
                   .content = text_view(l->m, l->source + begin, end - begin)};
    return out->content != NULL;
}

static bool read_raw(lexer *l, token *out) {
    size_t begin = l->at;
    int32_t line = l->line;
    for (size_t i = begin; i < l->n; i++) {
        if (!sees(l, i, "{%"))
            continue;
        char sign = sign_at(l, i + 2);
        size_t end = raw_mark(l, i + 2 + (sign != 0), "endraw", true);
        if (!end)
            continue;
        size_t text_end = strip_before(l, begin, i, sign, false);
        finish_mark(l, end);
        l->is_raw = false;
        return give_text(l, out, begin, text_end, line);
    }
    l->m->line = line;
    return fail(l->m, "the raw block that begins here has no end: expected {%% endraw %%}");
}

static size_t find_tag(const lexer *l) {
    size_t at = l->at;
    while (at < l->n) {
        const char *brace = memchr(l->source + at, '{', l->n - at);
        if (!brace)
            return l->n;
        at = (size_t)(brace - l->source);
        if (at + 1 < l->n && strchr("{%#", l->source[at + 1]) && l->source[at + 1])
            return at;
        at++;
    }
    return l->n;
}

/* Text up to the next tag, which is entered. */
static bool read_between(lexer *l, token *out) {
    size_t begin = l->at, tag = find_tag(l);
    int32_t line = l->line;
    if (tag == l->n) {
        advance(l, l->n);
        return give_text(l, out, begin, l->n, line);
    }
    char type = l->source[tag + 1], sign = sign_at(l, tag + 2);
    size_t inside = tag + 2 + (sign != 0);
    size_t text_end = strip_before(l, begin, tag, sign, type == '{');
    advance(l, tag);
    size_t raw = type == '%' ? raw_mark(l, inside, "raw", false) : 0;
    if (raw) {
        finish_mark(l, raw);
        l->is_raw = true;
    } else if (type == '#') {
        if (!skip_comment(l, inside))
            return false;
    } else {
        advance(l, inside);
        l->inside = type == '%' ? TOKEN_BLOCK : TOKEN_PRINT;
        l->is_entering = true;
    }
    return give_text(l, out, begin, text_end, line);
}

static bool is_digit(char c, int base) {
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : 99;
    return digit < base;
}

/* Digits with single underscores between them; where they end. */
static size_t skip_digits(const lexer *l, size_t at, int base) {
    while (at < l->n) {
        if (is_digit(l->source[at], base))
            at++;
        else if (l->source[at] == '_' && at + 1 < l->n && is_digit(l->source[at + 1], base))
            at += 2;
        else
            break;
    }
    return at;
}

/* The number's characters without underscores, NUL-terminated. */
static const char *digits_of(lexer *l, size_t begin, size_t end) {
    char *digits = vm_take(l->m, end - begin + 1, 1);
    size_t n = 0;
    for (size_t i = begin; digits && i < end; i++)
        if (l->source[i] != '_')
            digits[n++] = l->source[i];
    return digits;
}

static size_t float_end(const lexer *l, size_t at) {
    if (at > 0 && l->source[at - 1] == '.')
        return 0; /* x.0.1 are two indices */
    size_t whole = skip_digits(l, at, 10), end = whole;
    if (end + 1 < l->n && l->source[end] == '.' && is_digit(l->source[end + 1], 10))
        end = skip_digits(l, end + 1, 10);
    if (end < l->n && (l->source[end] == 'e' || l->source[end] == 'E')) {
        size_t exponent = end + 1 + (sign_at(l, end + 1) != 0);
        if (exponent < l->n && is_digit(l->source[exponent], 10))
            return skip_digits(l, exponent, 10);
    }
    return end > whole ? end : 0;
}

static bool read_number(lexer *l, token *out) {
    size_t begin = l->at, end = float_end(l, begin);
    out->kind = TOKEN_CONSTANT;
    if (end) {
        const char *digits = digits_of(l, begin, end);
        if (!digits)
            return false;
        out->constant = value_float(strtod(digits, NULL));
        advance(l, end);
        return true;
    }
    int base = 10;
    char letter = begin + 2 < l->n && l->source[begin] == '0' ? l->source[begin + 1] : 0;
    if (letter == 'x' || letter == 'X')
        base = 16;
    else if (letter == 'o' || letter == 'O')
        base = 8;
    else if (letter == 'b' || letter == 'B')
        base = 2;
    if (base != 10 && !is_digit(l->source[begin + 2], base))
        base = 10;
    size_t first = begin + (base != 10 ? 2 : 0);
    end = skip_digits(l, first, base == 10 && l->source[begin] == '0' ? 1 : base);
    const char *digits = digits_of(l, first, end);
    if (!digits)
        return false;
    uint64_t total = 0;
    for (const char *d = digits; *d; d++) {
        unsigned digit = *d <= '9' ? (unsigned)(*d - '0') : ((unsigned)*d | 32u) - 'a' + 10u;
        if (__builtin_mul_overflow(total, (uint64_t)base, &total) ||
            __builtin_add_overflow(total, digit, &total) || total > INT64_MAX)
            return fail(l->m, "the integer at byte %zu does not fit 64 bits", begin);
    }
    out->constant = value_int((int64_t)total);
    advance(l, end);
    return true;
}

static int hex_value(char c) {
    return c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
}

/* \xHH, \uHHHH, \UHHHHHHHH from behind the backslash. Returns how many bytes it takes; 0 when it
 * failed. */
static size_t read_code(lexer *l, builder *b, size_t at, size_t end) {
    size_t digits = l->source[at] == 'x' ? 2 : l->source[at] == 'u' ? 4 : 8;
    uint32_t code = 0;
    for (size_t i = 1; i <= digits; i++) {
        if (at + i >= end || !is_digit(l->source[at + i], 16)) {
            fail(l->m, "\\%c in a string needs %zu hexadecimal digits", l->source[at], digits);
            return 0;
        }
        code = code << 4 | (uint32_t)hex_value(l->source[at + i]);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
        fail(l->m, "\\%c%0*x in a string is not a character", l->source[at], (int)digits, code);
        return 0;
    }
    build_char(b, code);
    return 1 + digits;
}

static size_t read_octal(lexer *l, builder *b, size_t at, size_t end) {
    uint32_t code = 0;
    size_t n = 0;
    while (n < 3 && at + n < end && is_digit(l->source[at + n], 8))
        code = code * 8 + (uint32_t)(l->source[at + n++] - '0');
    build_char(b, code);
    return n;
}

/* One escape, from behind the backslash; how many bytes it takes, 0 when it failed. */
static size_t read_escape(lexer *l, builder *b, size_t at, size_t end) {
    static const char letters[] = "\n\\'\"abfnrtv", meanings[] = "\0\\'\"\a\b\f\n\r\t\v";
    char c = l->source[at];
    const char *known = c ? strchr(letters, c) : NULL;
    if (known) {
        if (c != '\n')
            build_bytes(b, meanings + (known - letters), 1);
        return 1;
    }
    if (c == 'x' || c == 'u' || c == 'U')
        return read_code(l, b, at, end);
    if (is_digit(c, 8))
        return read_octal(l, b, at, end);
    if (c == 'N') {
        fail_as(l->m, GRAFT_E_UNSUPPORTED,
                "\\N{...} in a string is not supported: write the character itself");
        return 0;
    }
    build_literal(b, "\\"); /* not an escape: Python keeps both */
    build_bytes(b, &c, 1);
    return 1;
}

static bool read_string(lexer *l, token *out) {
    char quote = l->source[l->at];
    size_t begin = l->at + 1, end = begin;
    while (end < l->n && l->source[end] != quote)
        end += l->source[end] == '\\' ? 2 : 1;
    if (end >= l->n)
        return fail(l->m, "the string that begins here has no end: expected %c", quote);
    builder b = builder_on(l->m);
    for (size_t at = begin; at < end;) {
        const char *slash = memchr(l->source + at, '\\', end - at);
        size_t plain = slash ? (size_t)(slash - l->source) : end;
        build_bytes(&b, l->source + at, plain - at);
        at = plain;
        if (at == end)
            break;
        size_t taken = read_escape(l, &b, at + 1, end);
        if (!taken)
            return false;
        at += 1 + taken;
    }
    out->kind = TOKEN_CONSTANT;
    out->constant = value_text(builder_finish(&b));
    advance(l, end + 1);
    return !is_failed(out->constant);
}

static bool read_operator(lexer *l, token *out) {
    static const char *const pairs[] = {"//", "**", "==", "!=", ">=", "<="};
    char c = l->source[l->at];
    out->kind = TOKEN_OPERATOR;
    out->op[0] = c;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (sees(l, l->at, pairs[i])) {
            out->op[1] = pairs[i][1];
            advance(l, l->at + 2);
            return true;
        }
    if (!c || !strchr("+-/*%~[](){}><=.:|,;", c))
        return fail(l->m, "unexpected character \"%c\" in a tag", c);
    if (strchr("([{", c)) {
        if (l->n_open == sizeof l->open)
            return fail(l->m, "more than %zu brackets are open", sizeof l->open);
        l->open[l->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c)) {
        if (l->n_open == 0)
            return fail(l->m, "unexpected \"%c\": no bracket is open", c);
        if (l->open[--l->n_open] != c)
            return fail(l->m, "unexpected \"%c\": expected \"%c\"", c, l->open[l->n_open]);
    }
    advance(l, l->at + 1);
    return true;
}

static bool read_name(lexer *l, token *out) {
    size_t end = l->at;
    uint32_t c;
    while (end < l->n) {
        size_t length = char_at(&c, l->source + end, l->n - end);
        if (!char_continues_name(c))
            break;
        end += length;
    }
    out->kind = TOKEN_NAME;
    out->content = text_view(l->m, l->source + l->at, end - l->at);
    advance(l, end);
    return out->content != NULL;
}

static bool read_inside(lexer *l, token *out) {
    bool is_block = l->inside == TOKEN_BLOCK;
    *out = (token){.line = l->line};
    l->m->line = l->line;
    size_t end = l->n_open                                 ? 0
                 : is_block                                ? end_mark(l, l->at, "%}", true)
                 : l->at < l->n && l->source[l->at] == '+' ? 0
                                                           : end_mark(l, l->at, "}}", false);
    if (end) {
        out->kind = is_block ? TOKEN_BLOCK_END : TOKEN_PRINT_END;
        l->inside = TOKEN_END;
        finish_mark(l, end);
        return true;
    }
    if (l->at == l->n) {
        out->kind = TOKEN_END;
        return true;
    }
    uint32_t c;
    char_at(&c, l->source + l->at, l->n - l->at);
    if (c >= '0' && c <= '9')
        return read_number(l, out);
    if (char_begins_name(c))
        return read_name(l, out);
    if (c == '\'' || c == '"')
        return read_string(l, out);
    return read_operator(l, out);
}

bool lexer_next(lexer *l, token *out) {
    for (;;) {
        if (l->is_entering) {
            l->is_entering = false;
            *out = (token){.kind = l->inside, .line = l->line};
            return true;
        }
        if (l->inside != TOKEN_END) {
            advance(l, skip_space(l, l->at));
            return read_inside(l, out);
        }
        if (l->is_raw) {
            if (!read_raw(l, out))
                return false;
        } else if (l->at == l->n) {
            *out = (token){.kind = TOKEN_END, .line = l->line};
            return true;
        } else if (!read_between(l, out)) {
            return false;
        }
        if (out->content->n > 0)
            return true;
    }
}
