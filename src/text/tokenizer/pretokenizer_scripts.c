#include "text/tokenizer/pretokenizer.h"

#include "text/tokenizer/chars.h"

#include <oniguruma.h>
#include <pthread.h>
#include <string.h>

static uint8_t scripts[N_CHARACTERS];

/* Unicode's scripts by name; a character's script is the name's place here + 1. Han comes first:
 * see fixed(). */
static const char *const names[] = {
    "Han",
    "Hiragana",
    "Katakana",
    "Common",
    "Inherited",
    "Adlam",
    "Ahom",
    "Anatolian_Hieroglyphs",
    "Arabic",
    "Armenian",
    "Avestan",
    "Balinese",
    "Bamum",
    "Bassa_Vah",
    "Batak",
    "Bengali",
    "Bhaiksuki",
    "Bopomofo",
    "Brahmi",
    "Braille",
    "Buginese",
    "Buhid",
    "Canadian_Aboriginal",
    "Carian",
    "Caucasian_Albanian",
    "Chakma",
    "Cham",
    "Cherokee",
    "Chorasmian",
    "Coptic",
    "Cuneiform",
    "Cypriot",
    "Cypro_Minoan",
    "Cyrillic",
    "Deseret",
    "Devanagari",
    "Dives_Akuru",
    "Dogra",
    "Duployan",
    "Egyptian_Hieroglyphs",
    "Elbasan",
    "Elymaic",
    "Ethiopic",
    "Georgian",
    "Glagolitic",
    "Gothic",
    "Grantha",
    "Greek",
    "Gujarati",
    "Gunjala_Gondi",
    "Gurmukhi",
    "Hangul",
    "Hanifi_Rohingya",
    "Hanunoo",
    "Hatran",
    "Hebrew",
    "Imperial_Aramaic",
    "Inscriptional_Pahlavi",
    "Inscriptional_Parthian",
    "Javanese",
    "Kaithi",
    "Kannada",
    "Kawi",
    "Kayah_Li",
    "Kharoshthi",
    "Khitan_Small_Script",
    "Khmer",
    "Khojki",
    "Khudawadi",
    "Lao",
    "Latin",
    "Lepcha",
    "Limbu",
    "Linear_A",
    "Linear_B",
    "Lisu",
    "Lycian",
    "Lydian",
    "Mahajani",
    "Makasar",
    "Malayalam",
    "Mandaic",
    "Manichaean",
    "Marchen",
    "Masaram_Gondi",
    "Medefaidrin",
    "Meetei_Mayek",
    "Mende_Kikakui",
    "Meroitic_Cursive",
    "Meroitic_Hieroglyphs",
    "Miao",
    "Modi",
    "Mongolian",
    "Mro",
    "Multani",
    "Myanmar",
    "Nabataean",
    "Nag_Mundari",
    "Nandinagari",
    "New_Tai_Lue",
    "Newa",
    "Nko",
    "Nushu",
    "Nyiakeng_Puachue_Hmong",
    "Ogham",
    "Ol_Chiki",
    "Old_Hungarian",
    "Old_Italic",
    "Old_North_Arabian",
    "Old_Permic",
    "Old_Persian",
    "Old_Sogdian",
    "Old_South_Arabian",
    "Old_Turkic",
    "Old_Uyghur",
    "Oriya",
    "Osage",
    "Osmanya",
    "Pahawh_Hmong",
    "Palmyrene",
    "Pau_Cin_Hau",
    "Phags_Pa",
    "Phoenician",
    "Psalter_Pahlavi",
    "Rejang",
    "Runic",
    "Samaritan",
    "Saurashtra",
    "Sharada",
    "Shavian",
    "Siddham",
    "SignWriting",
    "Sinhala",
    "Sogdian",
    "Sora_Sompeng",
    "Soyombo",
    "Sundanese",
    "Syloti_Nagri",
    "Syriac",
    "Tagalog",
    "Tagbanwa",
    "Tai_Le",
    "Tai_Tham",
    "Tai_Viet",
    "Takri",
    "Tamil",
    "Tangsa",
    "Tangut",
    "Telugu",
    "Thaana",
    "Thai",
    "Tibetan",
    "Tifinagh",
    "Tirhuta",
    "Toto",
    "Ugaritic",
    "Vai",
    "Vithkuqi",
    "Wancho",
    "Warang_Citi",
    "Yezidi",
    "Yi",
    "Zanabazar_Square",
};

enum { HAN = 1, HIRAGANA, KATAKANA };

static void fill(const char *name, uint8_t script) {
    OnigUChar *begin = (OnigUChar *)(uintptr_t)name;
    int type = ONIGENC_PROPERTY_NAME_TO_CTYPE(ONIG_ENCODING_UTF8, begin, begin + strlen(name));
    OnigCodePoint unused;
    const OnigCodePoint *ranges;
    if (type < 0 ||
        ONIGENC_GET_CTYPE_CODE_RANGE(ONIG_ENCODING_UTF8, (OnigCtype)type, &unused, &ranges) != 0)
        return;
    for (OnigCodePoint i = 0; i < ranges[0]; i++)
        for (uint32_t c = ranges[1 + 2 * i]; c <= ranges[2 + 2 * i] && c < N_CHARACTERS; c++)
            scripts[c] = script;
}

static void initialize(void) {
    _Static_assert(sizeof names / sizeof names[0] < 255, "scripts fit a byte");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        fill(names[i], (uint8_t)(i + 1));
}

void scripts_initialize(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    chars_initialize();
    pthread_once(&once, initialize);
}

/* SentencePiece's view, which Hugging Face follows: Japanese is one script, with its long-vowel
 * mark. */
unsigned character_script(uint32_t character) {
    enum { LONG_VOWEL_MARK = 0x30FC };
    if (character == ' ')
        return 0;
    unsigned script = scripts[character];
    if (character == LONG_VOWEL_MARK || script == HIRAGANA || script == KATAKANA)
        return HAN;
    return script;
}
