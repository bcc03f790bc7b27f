#include "text/tokenizer/chars.h"

#include <oniguruma.h>
#include <pthread.h>
#include <string.h>
#include <utf8proc.h>

uint8_t char_classes[N_CHARACTERS];

static void mark_property(const char *name, uint8_t class) {
    const OnigUChar *begin = (const OnigUChar *)name;
    int type = ONIGENC_PROPERTY_NAME_TO_CTYPE(ONIG_ENCODING_UTF8, (OnigUChar *)begin,
                                              (OnigUChar *)begin + strlen(name));
    OnigCodePoint unused;
    const OnigCodePoint *ranges;
    if (type < 0 ||
        ONIGENC_GET_CTYPE_CODE_RANGE(ONIG_ENCODING_UTF8, (OnigCtype)type, &unused, &ranges) != 0)
        return;
    for (OnigCodePoint i = 0; i < ranges[0]; i++)
        for (uint32_t c = ranges[1 + 2 * i]; c <= ranges[2 + 2 * i] && c < N_CHARACTERS; c++)
            char_classes[c] |= class;
}

static void initialize(void) {
    static const struct {
        const char *property;
        uint8_t class;
    } table[] = {
        {"L", CHAR_LETTER},          {"N", CHAR_NUMBER},
        {"Space", CHAR_SPACE},       {"M", CHAR_MARK},
        {"Mn", CHAR_NONSPACING},     {"P", CHAR_PUNCTUATION},
        {"Alphabetic", CHAR_WORD},   {"M", CHAR_WORD},
        {"Nd", CHAR_WORD},           {"Pc", CHAR_WORD},
        {"Join_Control", CHAR_WORD}, {"Cc", CHAR_CONTROL},
        {"Cf", CHAR_CONTROL},        {"Co", CHAR_CONTROL},
    };
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        mark_property(table[i].property, table[i].class);
    for (const char *c = "$+<=>^`|~"; *c; c++)
        char_classes[(unsigned char)*c] |= CHAR_PUNCTUATION;
}

void chars_initialize(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialize);
}

size_t char_unfinished_suffix(const char *text, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)text[n - back];
        if ((c & 0xC0) == 0x80)
            continue;
        if (c < 0xC2 || c > 0xF4 || char_length((char)c) <= back)
            return 0;
        if (back == 1)
            return 1;
        unsigned char second = (unsigned char)text[n - back + 1];
        bool possible = c == 0xE0   ? second >= 0xA0
                        : c == 0xED ? second < 0xA0
                        : c == 0xF0 ? second >= 0x90
                        : c == 0xF4 ? second < 0x90
                                    : true;
        return possible ? back : 0;
    }
    return 0;
}

size_t char_lower(uint32_t out[2], uint32_t character) {
    if (character == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)character);
    return 1;
}
