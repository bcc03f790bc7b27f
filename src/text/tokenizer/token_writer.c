#include "text/tokenizer/token_writer.h"

#include "base/memory.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/chars.h"

#include <stdlib.h>

void encoding_free(encoding *e) {
    free(e->ids);
    free(e->begin);
    free(e->end);
    free(e->special);
    *e = (encoding){0};
}

static bool grow(void *array, size_t capacity, size_t needed, size_t element_bytes) {
    return mem_reserve(array, &capacity, needed, element_bytes);
}

bool encoding_reserve(encoding *e, size_t needed) {
    if (needed <= e->capacity)
        return true;
    size_t wanted = needed < 16 ? 16 : needed + needed / 2;
    if (!grow(&e->ids, e->capacity, wanted, sizeof *e->ids) ||
        !grow(&e->begin, e->capacity, wanted, sizeof *e->begin) ||
        !grow(&e->end, e->capacity, wanted, sizeof *e->end) ||
        !grow(&e->special, e->capacity, wanted, sizeof *e->special))
        return false;
    e->capacity = wanted;
    return true;
}

static bool is_space(uint32_t c) {
    return c == byte_to_character(' ') || char_is(c, CHAR_SPACE);
}

static token_spaces count_spaces(const char *text, size_t n) {
    token_spaces spaces = {0, 0};
    size_t length;
    for (size_t i = 0; i < n && is_space(char_decode(text + i, &length)); i += length)
        spaces.leading++;
    for (size_t i = n; i > 0 && is_space(char_decode_before(text + i, &length)); i -= length)
        spaces.trailing++;
    return spaces;
}

static source_range offsets(const token_writer *writer, size_t begin, size_t end) {
    const text_view *piece = &writer->piece;
    if (begin < end && end <= piece->n) {
        source_range last = text_view_source(piece, end - 1);
        return (source_range){text_view_source(piece, begin).begin, last.end};
    }
    /* A token over no text, or (from byte fallback under a subword prefix) over more than there is:
     * its offsets mean little, but must lie in the text. */
    size_t start = begin == end && piece->n ? begin + text_view_source(piece, 0).begin : begin;
    size_t stop = start + (end - begin);
    size_t limit = writer->text_bytes;
    return (source_range){(uint32_t)(start < limit ? start : limit),
                          (uint32_t)(stop < limit ? stop : limit)};
}

bool token_write(token_writer *writer, int32_t id, size_t begin, size_t end, const char *text,
                 size_t n) {
    encoding *out = writer->out;
    if (out->n == out->capacity && !encoding_reserve(out, out->n + 1))
        return false;
    source_range range = offsets(writer, begin, end);
    out->ids[out->n] = id;
    out->begin[out->n] = range.begin;
    out->end[out->n] = range.end;
    out->special[out->n] = 0;
    if (writer->counts_spaces) {
        workspace *w = writer->w;
        if (!mem_reserve(&w->spaces, &w->spaces_capacity, out->n + 1, sizeof *w->spaces))
            return false;
        w->spaces[out->n] = count_spaces(text, n);
    }
    out->n++;
    return true;
}
