/* Unicode's normal forms, told as changes (see char_change): decompose, order the marks, compose.
 * The changes of a composition add up as in the crate that Hugging Face uses, which decides the
 * offsets. */
#include "base/memory.h"
#include "text/tokenizer/chars.h"
#include "text/tokenizer/normalizer.h"

#include <string.h>
#include <utf8proc.h>

/* No character below U+0300 is a mark, changes in NFC, or composes with the one before it; of ASCII
 * the same holds for every form. So text is normalized in stretches: each ends where such a plain
 * character begins the next one. */
enum { FIRST_MARK = 0x300, LEAD_OF_FIRST_MARK = 0xCC };

static bool is_compatible(normalizer_kind form) {
    return form == NORMALIZER_NFKC || form == NORMALIZER_NFKD;
}

static bool is_composed(normalizer_kind form) {
    return form == NORMALIZER_NFC || form == NORMALIZER_NFKC;
}

static bool is_plain(normalizer_kind form, char lead) {
    return (unsigned char)lead < (form == NORMALIZER_NFC ? LEAD_OF_FIRST_MARK : 0x80);
}

static unsigned char combining_class(uint32_t c) {
    return c < FIRST_MARK
               ? 0
               : (unsigned char)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

static void decompose(normalizer_kind form, change_list *changes, const text_view *in) {
    utf8proc_option_t options =
        is_compatible(form) ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
    for (size_t i = 0, length; i < in->n; i += length) {
        uint32_t c = char_decode(in->bytes + i, &length);
        utf8proc_int32_t parts[32]; /* Unicode's longest is 18 */
        int last_class = UTF8PROC_BOUNDCLASS_START;
        utf8proc_ssize_t n = c < 0x80 ? 0
                                      : utf8proc_decompose_char((utf8proc_int32_t)c, parts, 32,
                                                                options, &last_class);
        if (n <= 0 || n > 32)
            change_add(changes, c, 0);
        for (utf8proc_ssize_t k = 0; k < n && n <= 32; k++)
            change_add(changes, (uint32_t)parts[k], k > 0);
    }
}

/* Stable, by combining class: a counting sort, because a hostile text is one long run of marks. */
static void sort_marks(char_change *run, size_t n, char_change *scratch) {
    size_t starts[257] = {0};
    for (size_t i = 0; i < n; i++)
        starts[combining_class(run[i].character) + 1]++;
    for (size_t class = 0; class < 256; class ++)
        starts[class + 1] += starts[class];
    for (size_t i = 0; i < n; i++)
        scratch[starts[combining_class(run[i].character)]++] = run[i];
    memcpy(run, scratch, n * sizeof *run);
}

static bool is_ordered(const char_change *run, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (combining_class(run[i - 1].character) > combining_class(run[i].character))
            return false;
    return true;
}

static void order_marks(workspace *w) {
    change_list *changes = &w->changes;
    for (size_t i = 0; i < changes->n;) {
        size_t end = i;
        while (end < changes->n && combining_class(changes->items[end].character) != 0)
            end++;
        size_t n = end - i;
        if (n > 1 && !is_ordered(changes->items + i, n)) {
            if (!mem_reserve(&w->marks, &w->marks_capacity, n, sizeof *w->marks)) {
                changes->failed = true;
                return;
            }
            sort_marks(changes->items + i, n, w->marks);
        }
        i = end + 1;
    }
}

/* 0 when the two do not compose. */
static uint32_t compose_pair(uint32_t a, uint32_t b) {
    utf8proc_int32_t pair[3] = {(utf8proc_int32_t)a, (utf8proc_int32_t)b, 0};
    utf8proc_ssize_t n = utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    return n == 1 ? (uint32_t)pair[0] : 0;
}

/* Writes the composed text over the decomposed one. A starter waits at `starter` for what composes
 * with it; marks that do not, stay behind it and block marks of their class or a lower one. */
static void compose(change_list *changes) {
    char_change *items = changes->items;
    size_t out = 0, starter = SIZE_MAX;
    int last_class = -1; /* of the mark kept last behind the starter; -1: none is */
    for (size_t i = 0; i < changes->n; i++) {
        char_change item = items[i];
        int class = combining_class(item.character);
        bool blocked = last_class >= class || starter == SIZE_MAX;
        uint32_t composed = blocked ? 0 : compose_pair(items[starter].character, item.character);
        if (composed) {
            items[starter].character = composed;
            items[starter].change += item.change - 1;
            continue;
        }
        if (class == 0) {
            starter = out;
            last_class = -1;
        } else if (starter != SIZE_MAX) {
            last_class = class;
        }
        items[out++] = item;
    }
    changes->n = out;
}

static void form_changes(normalizer_kind form, workspace *w, const text_view *in) {
    w->changes.n = 0;
    w->changes.failed = false;
    decompose(form, &w->changes, in);
    order_marks(w);
    if (is_composed(form))
        compose(&w->changes);
}

static bool changes_nothing(const change_list *changes, const text_view *in) {
    size_t at = 0, length;
    for (size_t i = 0; i < changes->n; i++, at += length)
        if (at >= in->n || changes->items[i].change != 0 ||
            char_decode(in->bytes + at, &length) != changes->items[i].character)
            return false;
    return at == in->n;
}

/* The next stretch that may change: from the plain character before one that is not, to the next
 * plain one. */
static bool next_stretch(normalizer_kind form, const text_view *in, size_t from, size_t *begin,
                         size_t *end) {
    size_t at = from;
    while (at < in->n && (is_plain(form, in->bytes[at]) || char_is_continuation(in->bytes[at])))
        at++;
    if (at == in->n)
        return false;
    *begin = at;
    while (*begin > from && (at == *begin || char_is_continuation(in->bytes[*begin])))
        --*begin;
    while (at < in->n && (!is_plain(form, in->bytes[at]) || char_is_continuation(in->bytes[at])))
        at++;
    *end = at;
    return true;
}

bool normalizer_form(normalizer_kind form, workspace *w, const text_view *in, uint32_t start,
                     aligned_text *out) {
    size_t done = 0, begin, end;
    bool changed = false;
    for (size_t at = 0; next_stretch(form, in, at, &begin, &end); at = end) {
        text_view stretch = text_view_slice(in, begin, end);
        form_changes(form, w, &stretch);
        if (changes_nothing(&w->changes, &stretch) && !w->changes.failed)
            continue;
        text_view before = text_view_slice(in, done, begin);
        aligned_text_add_view(out, &before);
        aligned_text_transform(out, &stretch, &w->changes, 0, start);
        done = end;
        changed = true;
    }
    text_view rest = text_view_slice(in, done, in->n);
    if (changed)
        aligned_text_add_view(out, &rest);
    return changed;
}
