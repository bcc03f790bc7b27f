#include "train/data/scripts.h"

/* Blocks of Unicode, ascending; letters outside all of them are "other". Names by `names`. */
typedef struct script_range {
    uint32_t first, last;
    uint8_t script;
} script_range;

enum {
    LATIN,
    GREEK,
    CYRILLIC,
    ARMENIAN,
    HEBREW,
    ARABIC,
    DEVANAGARI,
    BENGALI,
    GURMUKHI,
    GUJARATI,
    TAMIL,
    TELUGU,
    THAI,
    GEORGIAN,
    ETHIOPIC,
    HANGUL,
    HIRAGANA,
    KATAKANA,
    HAN,
    OTHER
};

static const char *const names[N_SCRIPTS] = {
    "Latin",    "Greek",    "Cyrillic", "Armenian", "Hebrew", "Arabic", "Devanagari",
    "Bengali",  "Gurmukhi", "Gujarati", "Tamil",    "Telugu", "Thai",   "Georgian",
    "Ethiopic", "Hangul",   "Hiragana", "Katakana", "Han",    "other"};

static const script_range ranges[] = {
    {0x41, 0x5A, LATIN},        {0x61, 0x7A, LATIN},        {0xAA, 0xAA, LATIN},
    {0xBA, 0xBA, LATIN},        {0xC0, 0xD6, LATIN},        {0xD8, 0xF6, LATIN},
    {0xF8, 0x2AF, LATIN},       {0x370, 0x373, GREEK},      {0x376, 0x37D, GREEK},
    {0x37F, 0x3FF, GREEK},      {0x400, 0x52F, CYRILLIC},   {0x531, 0x58A, ARMENIAN},
    {0x5D0, 0x5F2, HEBREW},     {0x620, 0x64A, ARABIC},     {0x66E, 0x6D3, ARABIC},
    {0x6D5, 0x6EF, ARABIC},     {0x6FA, 0x6FF, ARABIC},     {0x750, 0x77F, ARABIC},
    {0x8A0, 0x8FF, ARABIC},     {0x904, 0x963, DEVANAGARI}, {0x971, 0x97F, DEVANAGARI},
    {0x980, 0x9E3, BENGALI},    {0xA01, 0xA5F, GURMUKHI},   {0xA70, 0xA75, GURMUKHI},
    {0xA81, 0xAE3, GUJARATI},   {0xB82, 0xBE3, TAMIL},      {0xC00, 0xC63, TELUGU},
    {0xE01, 0xE4E, THAI},       {0x10A0, 0x10FF, GEORGIAN}, {0x1100, 0x11FF, HANGUL},
    {0x1200, 0x137F, ETHIOPIC}, {0x1C80, 0x1C88, CYRILLIC}, {0x1C90, 0x1CBF, GEORGIAN},
    {0x1E00, 0x1EFF, LATIN},    {0x1F00, 0x1FFF, GREEK},    {0x2C60, 0x2C7F, LATIN},
    {0x2DE0, 0x2DFF, CYRILLIC}, {0x3041, 0x309F, HIRAGANA}, {0x30A1, 0x30FF, KATAKANA},
    {0x3130, 0x318F, HANGUL},   {0x31F0, 0x31FF, KATAKANA}, {0x3400, 0x4DBF, HAN},
    {0x4E00, 0x9FFF, HAN},      {0xA640, 0xA69F, CYRILLIC}, {0xA720, 0xA7FF, LATIN},
    {0xAC00, 0xD7A3, HANGUL},   {0xF900, 0xFAFF, HAN},      {0xFB1D, 0xFB4F, HEBREW},
    {0xFB50, 0xFDFF, ARABIC},   {0xFE70, 0xFEFC, ARABIC},   {0xFF21, 0xFF3A, LATIN},
    {0xFF41, 0xFF5A, LATIN},    {0xFF66, 0xFF9D, KATAKANA}, {0xFFA0, 0xFFDC, HANGUL},
    {0x20000, 0x323AF, HAN},
};

/* Blocks of letters that the table above does not name: what a text in them is, is worth saying. */
static int is_other_letter(uint32_t c) {
    return (c >= 0x700 && c < 0x2000) || (c >= 0xA000 && c < 0xABFF) ||
           (c >= 0x10000 && c < 0x1D000);
}

static size_t script_of(uint32_t c) {
    size_t low = 0, high = sizeof ranges / sizeof *ranges;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < sizeof ranges / sizeof *ranges && c >= ranges[low].first)
        return ranges[low].script;
    return is_other_letter(c) ? OTHER : N_SCRIPTS;
}

/* The character at text, of bytes that are valid UTF-8. */
static size_t decode(uint32_t *c, const char *text, size_t n) {
    unsigned char lead = (unsigned char)text[0];
    size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (length > n)
        length = n;
    *c = length == 1 ? lead : lead & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++)
        *c = *c << 6 | ((unsigned char)text[i] & 0x3F);
    return length;
}

void scripts_count(script_counts *counts, const char *text, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += decode(&c, text + i, n - i);
        size_t script = script_of(c);
        if (script == N_SCRIPTS)
            continue;
        counts->letters[script]++;
        counts->total++;
    }
}

const char *script_name(size_t script) {
    return names[script];
}
