#include "text/tokenizer/aligned_text.h"

#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/chars.h"

#include <stdlib.h>
#include <string.h>

source_range text_view_source(const text_view *view, size_t i) {
    if (view->source)
        return view->source[i];
    size_t begin = i, end = i + 1;
    while (begin > 0 && char_is_continuation(view->bytes[begin]))
        begin--;
    while (end < view->n && char_is_continuation(view->bytes[end]))
        end++;
    return (source_range){view->origin + (uint32_t)begin, view->origin + (uint32_t)end};
}

text_view text_view_slice(const text_view *view, size_t begin, size_t end) {
    return (text_view){view->bytes + begin, end - begin, view->source ? view->source + begin : NULL,
                       view->origin + (uint32_t)begin};
}

void aligned_text_free(aligned_text *t) {
    free(t->bytes);
    free(t->source);
    *t = (aligned_text){0};
}

void aligned_text_clear(aligned_text *t) {
    t->n = 0;
    t->failed = false;
    t->too_long = false;
}

text_view aligned_text_view(const aligned_text *t) {
    return (text_view){t->bytes, t->n, t->source, 0};
}

static bool reserve(aligned_text *t, size_t extra) {
    if (t->failed || t->too_long)
        return false;
    if (extra > t->limit - t->n) {
        t->too_long = true;
        return false;
    }
    t->failed = !mem_reserve(&t->bytes, &t->bytes_capacity, t->n + extra, 1) ||
                !mem_reserve(&t->source, &t->source_capacity, t->n + extra, sizeof *t->source);
    return !t->failed;
}

void aligned_text_add(aligned_text *t, const char *bytes, size_t n, source_range source) {
    if (!n || !reserve(t, n))
        return;
    memcpy(t->bytes + t->n, bytes, n);
    for (size_t i = 0; i < n; i++)
        t->source[t->n + i] = source;
    t->n += n;
}

void aligned_text_add_character(aligned_text *t, uint32_t character, source_range source) {
    char bytes[4];
    aligned_text_add(t, bytes, utf8_encode(bytes, character), source);
}

void aligned_text_add_view(aligned_text *t, const text_view *view) {
    if (!view->n || !reserve(t, view->n))
        return;
    memcpy(t->bytes + t->n, view->bytes, view->n);
    source_range *source = t->source + t->n;
    if (view->source) {
        memcpy(source, view->source, view->n * sizeof *source);
    } else {
        for (size_t i = 0, length; i < view->n; i += length) {
            length = char_length(view->bytes[i]);
            uint32_t begin = view->origin + (uint32_t)i;
            for (size_t k = 0; k < length; k++)
                source[i + k] = (source_range){begin, begin + (uint32_t)length};
        }
    }
    t->n += view->n;
}

graft_status aligned_text_status(const aligned_text *t, graft_error *err) {
    if (t->too_long)
        return error_set(err, GRAFT_E_INPUT,
                         "the normalized text grows past %zu bytes: the tokenizer's normalizer "
                         "expands it beyond reason",
                         t->limit);
    if (t->failed)
        return error_memory(err, t->n, "the normalized text");
    return GRAFT_OK;
}

void change_add(change_list *list, uint32_t character, int32_t change) {
    if (!mem_reserve(&list->items, &list->capacity, list->n + 1, sizeof *list->items)) {
        list->failed = true;
        return;
    }
    list->items[list->n++] = (char_change){character, change};
}

/* The byte after `count` more characters from byte `at`. */
static size_t skip_characters(const text_view *text, size_t at, size_t count) {
    for (; count > 0 && at < text->n; count--)
        at += char_length(text->bytes[at]);
    return at;
}

void aligned_text_transform(aligned_text *out, const text_view *old, const change_list *changes,
                            size_t n_removed, uint32_t start) {
    out->failed |= changes->failed;
    size_t at = skip_characters(old, 0, n_removed);
    for (size_t i = 0; i < changes->n; i++) {
        char_change item = changes->items[i];
        /* Changes that claim more characters than there were stay at the last one. */
        size_t byte = item.change > 0 ? at - (at > 0) : at < old->n ? at : old->n - (old->n > 0);
        source_range source = {start, start};
        if (old->n && !(item.change > 0 && at == 0))
            source = text_view_source(old, byte);
        aligned_text_add_character(out, item.character, source);
        if (item.change <= 0)
            at = skip_characters(old, at, 1 + (size_t)-item.change);
    }
}
