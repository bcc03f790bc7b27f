#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/chars.h"
#include "text/tokenizer/normalizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* One unit of a darts-clone double array. */
static bool unit_has_leaf(uint32_t unit) {
    return (unit >> 8 & 1) == 1;
}

static uint32_t unit_value(uint32_t unit) {
    return unit & 0x7FFFFFFF;
}

static uint32_t unit_label(uint32_t unit) {
    return unit & (0x80000000u | 0xFF);
}

static uint32_t unit_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

void charsmap_free(charsmap *map) {
    free(map->units);
    free(map->texts);
    *map = (charsmap){0};
}

/* u32 bytes of the double array | the double array | the texts */
graft_status charsmap_read(charsmap *map, const unsigned char *blob, size_t n, const char *place,
                           graft_error *err) {
    *map = (charsmap){0};
    uint32_t array_bytes = 0;
    if (n >= 4)
        memcpy(&array_bytes, blob, 4);
    if (n < 4 || array_bytes == 0 || array_bytes % 4 || array_bytes > n - 4)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: the character map is damaged: its %zu bytes begin with a table of "
                         "%u bytes; expected a multiple of 4 that fits",
                         place, n, array_bytes);
    map->n_units = array_bytes / 4;
    map->texts_bytes = n - 4 - array_bytes;
    map->units = malloc(array_bytes);
    map->texts = mem_text((const char *)blob + 4 + array_bytes, map->texts_bytes);
    if (!map->units || !map->texts) {
        charsmap_free(map);
        return error_memory(err, n, "a character map");
    }
    memcpy(map->units, blob + 4, array_bytes);
    for (size_t i = 0, length; i < map->texts_bytes; i += length + 1) {
        length = strlen(map->texts + i);
        if (utf8_valid_length(map->texts + i, length) == length)
            continue;
        charsmap_free(map);
        return error_set(err, GRAFT_E_INPUT,
                         "%s: the character map's replacement at byte %zu is no valid UTF-8", place,
                         4 + array_bytes + i);
    }
    return GRAFT_OK;
}

const char *charsmap_find(const charsmap *map, const char *text, size_t n, bool longest,
                          size_t *taken) {
    const char *found = NULL;
    if (!map->n_units)
        return NULL;
    size_t node = unit_offset(map->units[0]);
    for (size_t i = 0; i < n && text[i]; i++) {
        unsigned char c = (unsigned char)text[i];
        node ^= c;
        if (node >= map->n_units || unit_label(map->units[node]) != c)
            return found;
        uint32_t unit = map->units[node];
        node ^= unit_offset(unit);
        if (!unit_has_leaf(unit) || node >= map->n_units)
            continue;
        uint32_t place = unit_value(map->units[node]);
        if (place > map->texts_bytes || char_is_continuation(map->texts[place]))
            continue;
        found = map->texts + place;
        *taken = i + 1;
        if (!longest)
            return found;
    }
    return found;
}

/* The changes of putting `text` in the place of n_old characters. What is removed with nothing in
 * its place is counted to the character before it: at the very beginning there is none, and it is
 * lost, as in Hugging Face's tokenizers. */
static void replace_changes(change_list *changes, const char *text, int32_t n_old) {
    int32_t n_new = 0;
    size_t length;
    for (const char *p = text; *p; p += length, n_new++)
        change_add(changes, char_decode(p, &length), 0);
    if (changes->failed)
        return;
    for (int32_t i = 0; i < n_new - n_old; i++)
        changes->items[changes->n - 1 - (size_t)i].change = 1;
    if (n_new < n_old && changes->n > 0)
        changes->items[changes->n - 1].change += n_new - n_old;
}

static size_t grapheme_end(const char *text, size_t at, size_t n, int32_t *n_characters) {
    size_t length;
    utf8proc_int32_t state = 0, before = (utf8proc_int32_t)char_decode(text + at, &length);
    *n_characters = 1;
    for (at += length; at < n; at += length, ++*n_characters) {
        utf8proc_int32_t c = (utf8proc_int32_t)char_decode(text + at, &length);
        if (utf8proc_grapheme_break_stateful(before, c, &state))
            break;
        before = c;
    }
    return at;
}

/* A short grapheme is looked up whole first (and its first known prefix stands for all of it), then
 * by character. */
static bool grapheme_changes(const charsmap *map, change_list *changes, const char *text, size_t n,
                             int32_t n_characters) {
    enum { GRAPHEME_BYTES_MAX = 5 };
    size_t taken, length;
    const char *found = n <= GRAPHEME_BYTES_MAX ? charsmap_find(map, text, n, false, &taken) : NULL;
    if (found) {
        replace_changes(changes, found, n_characters);
        return true;
    }
    bool changed = false;
    for (size_t i = 0; i < n; i += length) {
        uint32_t c = char_decode(text + i, &length);
        found = charsmap_find(map, text + i, length, false, &taken);
        if (found)
            replace_changes(changes, found, 1);
        else
            change_add(changes, c, 0);
        changed |= found != NULL;
    }
    return changed;
}

bool normalizer_precompiled(const normalizer *step, workspace *w, const text_view *in,
                            uint32_t start, aligned_text *out) {
    bool changed = false;
    w->changes.n = 0;
    w->changes.failed = false;
    for (size_t at = 0, end; at < in->n; at = end) {
        int32_t n_characters;
        end = grapheme_end(in->bytes, at, in->n, &n_characters);
        changed |=
            grapheme_changes(&step->map, &w->changes, in->bytes + at, end - at, n_characters);
    }
    if (changed || w->changes.failed)
        aligned_text_transform(out, in, &w->changes, 0, start);
    return changed || w->changes.failed;
}

static const char meta_space[] = "\xE2\x96\x81"; /* U+2581 */

/* What SentencePiece puts in the place of the text's first character or sequence. */
static const char *sentencepiece_prefix(const normalizer *step, const char *text, size_t n,
                                        size_t *n_new, size_t *taken) {
    const char *found = charsmap_find(&step->map, text, n, true, taken);
    if (found) {
        *n_new = strlen(found);
        return found;
    }
    *n_new = *taken = char_length(*text);
    return text;
}

static void sentencepiece_add(const normalizer *step, const char *text, size_t n,
                              source_range source, aligned_text *out) {
    for (size_t i = 0, length; i < n; i += length) {
        length = char_length(text[i]);
        if (step->escape_whitespaces && text[i] == ' ')
            aligned_text_add(out, meta_space, sizeof meta_space - 1, source);
        else
            aligned_text_add(out, text + i, length, source);
    }
}

static void sentencepiece_trim_end(const normalizer *step, size_t first, aligned_text *out) {
    const char *space = step->escape_whitespaces ? meta_space : " ";
    size_t n = strlen(space);
    while (out->n >= first + n && memcmp(out->bytes + out->n - n, space, n) == 0)
        out->n -= n;
}

/* As SentencePiece's own normalizer does it; only the text's beginning gets the dummy prefix. */
void normalizer_sentencepiece(const normalizer *step, const text_view *in, uint32_t start,
                              aligned_text *out) {
    size_t at = 0, n_new, taken, first = out->n;
    bool after_space = step->remove_extra_whitespaces,
         prefix = step->add_dummy_prefix && start == 0;
    for (; at < in->n; at += taken) {
        const char *text = sentencepiece_prefix(step, in->bytes + at, in->n - at, &n_new, &taken);
        source_range source = {text_view_source(in, at).begin,
                               text_view_source(in, at + taken - 1).end};
        for (; after_space && n_new > 0 && *text == ' '; text++)
            n_new--;
        if (n_new == 0)
            continue;
        if (prefix)
            sentencepiece_add(step, " ", 1, source, out);
        prefix = false;
        sentencepiece_add(step, text, n_new, source, out);
        after_space = step->remove_extra_whitespaces && text[n_new - 1] == ' ';
    }
    if (step->remove_extra_whitespaces)
        sentencepiece_trim_end(step, first, out);
}
