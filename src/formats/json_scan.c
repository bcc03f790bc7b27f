#include "formats/json_scan.h"

#include <string.h>

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_numeric(char c) {
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

static json_token scan_string(const char *text, size_t n, size_t begin) {
    size_t at = begin + 1;
    while (at < n && text[at] != '"')
        at += text[at] == '\\' ? (size_t)2 : 1;
    if (at >= n)
        return (json_token){JSON_TOKEN_OPEN_STRING, begin, n};
    return (json_token){JSON_TOKEN_STRING, begin, at + 1};
}

json_token json_scan(const char *text, size_t n, size_t from) {
    size_t begin = from;
    while (begin < n && is_space(text[begin]))
        begin++;
    if (begin >= n)
        return (json_token){JSON_TOKEN_END, n, n};
    char first = text[begin];
    if (first == '"')
        return scan_string(text, n, begin);
    size_t end = begin + 1;
    if (strchr("{}[]:,", first) && first)
        return (json_token){JSON_TOKEN_PUNCTUATION, begin, end};
    if (first == '-' || (first >= '0' && first <= '9')) {
        while (end < n && is_numeric(text[end]))
            end++;
        return (json_token){JSON_TOKEN_NUMBER, begin, end};
    }
    if (is_letter(first)) {
        while (end < n && is_letter(text[end]))
            end++;
        return (json_token){JSON_TOKEN_WORD, begin, end};
    }
    return (json_token){JSON_TOKEN_OTHER, begin, end};
}

bool json_token_is(const char *text, json_token token, const char *expected) {
    size_t length = strlen(expected);
    return token.end - token.begin == length && !memcmp(text + token.begin, expected, length);
}

int32_t json_hex4(const char *text, size_t n, size_t at) {
    if (at > n || n - at < 4)
        return -1;
    int32_t value = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = text[i];
        int32_t digit;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if (c >= 'a' && c <= 'f')
            digit = c - 'a' + 10;
        else if (c >= 'A' && c <= 'F')
            digit = c - 'A' + 10;
        else
            return -1;
        value = value * 16 + digit;
    }
    return value;
}
