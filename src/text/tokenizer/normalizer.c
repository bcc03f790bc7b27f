#include "text/tokenizer/normalizer.h"

#include "base/memory.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/chars.h"

#include <stdlib.h>
#include <string.h>

normalizer *normalizer_list_add(normalizer_list *list) {
    if (!mem_reserve(&list->items, &list->capacity, list->n + 1, sizeof *list->items))
        return NULL;
    normalizer *added = &list->items[list->n++];
    *added = (normalizer){0};
    return added;
}

void normalizer_list_free(normalizer_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        text_pattern_free(&list->items[i].pattern);
        free(list->items[i].content);
        charsmap_free(&list->items[i].map);
    }
    free(list->items);
    *list = (normalizer_list){0};
}

static const uint32_t dropped = UINT32_MAX;

static uint32_t nmt_character(uint32_t c) {
    if ((c >= 1 && c <= 8) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
        c == 0x9F)
        return dropped;
    bool space = c == '\t' || c == '\n' || c == '\f' || c == '\r' || c == 0x1680 ||
                 (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                 c == 0xFEFF || c == CHAR_REPLACEMENT;
    return space ? ' ' : c;
}

static uint32_t bert_clean_character(uint32_t c) {
    if (c == '\t' || c == '\n' || c == '\r')
        return ' ';
    if (c == 0 || c == CHAR_REPLACEMENT || char_is(c, CHAR_CONTROL))
        return dropped;
    return char_is(c, CHAR_SPACE) ? ' ' : c;
}

/* What becomes of one character under the kinds that look at one at a time. */
static uint32_t filtered(normalizer_kind kind, uint32_t c) {
    switch (kind) {
    case NORMALIZER_NMT:
        return nmt_character(c);
    case NORMALIZER_BERT_CLEAN:
        return bert_clean_character(c);
    case NORMALIZER_STRIP_ACCENTS:
        return char_is(c, CHAR_MARK) ? dropped : c;
    default:
        return char_is(c, CHAR_NONSPACING) ? dropped : c;
    }
}

static void filter(normalizer_kind kind, const text_view *in, aligned_text *out) {
    for (size_t i = 0, length; i < in->n; i += length) {
        uint32_t c = filtered(kind, char_decode(in->bytes + i, &length));
        if (c != dropped)
            aligned_text_add_character(out, c, text_view_source(in, i));
    }
}

static void lowercase(const text_view *in, aligned_text *out) {
    for (size_t i = 0, length; i < in->n; i += length) {
        uint32_t lower[2];
        size_t n = char_lower(lower, char_decode(in->bytes + i, &length));
        for (size_t k = 0; k < n; k++)
            aligned_text_add_character(out, lower[k], text_view_source(in, i));
    }
}

static bool is_chinese(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void space_chinese(const text_view *in, aligned_text *out) {
    for (size_t i = 0, length; i < in->n; i += length) {
        uint32_t c = char_decode(in->bytes + i, &length);
        source_range source = text_view_source(in, i);
        bool spaced = is_chinese(c);
        if (spaced)
            aligned_text_add(out, " ", 1, source);
        aligned_text_add_character(out, c, source);
        if (spaced)
            aligned_text_add(out, " ", 1, source);
    }
}

static void byte_level(const text_view *in, aligned_text *out) {
    for (size_t i = 0; i < in->n; i++)
        aligned_text_add_character(out, byte_to_character((unsigned char)in->bytes[i]),
                                   text_view_source(in, i));
}

static void strip(const normalizer *step, const text_view *in, aligned_text *out) {
    size_t begin = 0, end = in->n, length;
    while (step->left && begin < end &&
           char_is(char_decode(in->bytes + begin, &length), CHAR_SPACE))
        begin += length;
    while (step->right && end > begin &&
           char_is(char_decode_before(in->bytes + end, &length), CHAR_SPACE))
        end -= length;
    text_view rest = text_view_slice(in, begin, end);
    aligned_text_add_view(out, &rest);
}

static void prepend(const normalizer *step, const text_view *in, aligned_text *out) {
    aligned_text_add(out, step->content, step->content_bytes, text_view_source(in, 0));
    aligned_text_add_view(out, in);
}

static graft_status replace(const normalizer *step, workspace *w, const text_view *in,
                            uint32_t start, aligned_text *out, graft_error *err) {
    graft_status status = text_pattern_spans(&step->pattern, w, in->bytes, in->n, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t i = 0; i < w->spans.n; i++) {
        span s = w->spans.items[i];
        if (!s.match) {
            text_view kept = text_view_slice(in, s.begin, s.end);
            aligned_text_add_view(out, &kept);
            continue;
        }
        /* What is put in stands where the last replaced byte stood. */
        source_range source =
            s.end ? text_view_source(in, s.end - 1) : (source_range){start, start};
        aligned_text_add(out, step->content, step->content_bytes, source);
    }
    return GRAFT_OK;
}

static bool is_ascii(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= 0x80)
            return false;
    return true;
}

/* Whether the step surely leaves the text as it is; only the cheap and common cases. */
static bool is_idle(const normalizer *step, const text_view *in) {
    switch (step->kind) {
    case NORMALIZER_STRIP_ACCENTS:
    case NORMALIZER_STRIP_NONSPACING:
    case NORMALIZER_BERT_CHINESE:
        return is_ascii(in->bytes, in->n);
    case NORMALIZER_REPLACE:
        return step->pattern.literal &&
               !memmem(in->bytes, in->n, step->pattern.literal, step->pattern.literal_bytes);
    case NORMALIZER_PREPEND:
        return step->content_bytes == 0;
    default:
        return false;
    }
}

/* *changed is false when the step left the text as it is, and out empty. */
static graft_status run_step(const normalizer *step, workspace *w, const text_view *in,
                             uint32_t start, aligned_text *out, bool *changed, graft_error *err) {
    *changed = true;
    switch (step->kind) {
    case NORMALIZER_NFC:
    case NORMALIZER_NFD:
    case NORMALIZER_NFKC:
    case NORMALIZER_NFKD:
        *changed = normalizer_form(step->kind, w, in, start, out);
        break;
    case NORMALIZER_LOWERCASE:
        lowercase(in, out);
        break;
    case NORMALIZER_STRIP:
        strip(step, in, out);
        break;
    case NORMALIZER_STRIP_ACCENTS:
    case NORMALIZER_STRIP_NONSPACING:
    case NORMALIZER_NMT:
    case NORMALIZER_BERT_CLEAN:
        filter(step->kind, in, out);
        break;
    case NORMALIZER_REPLACE:
        return replace(step, w, in, start, out, err);
    case NORMALIZER_PREPEND:
        prepend(step, in, out);
        break;
    case NORMALIZER_BYTE_LEVEL:
        byte_level(in, out);
        break;
    case NORMALIZER_BERT_CHINESE:
        space_chinese(in, out);
        break;
    case NORMALIZER_PRECOMPILED:
        *changed = normalizer_precompiled(step, w, in, start, out);
        break;
    case NORMALIZER_SENTENCEPIECE:
        normalizer_sentencepiece(step, in, start, out);
        break;
    }
    return GRAFT_OK;
}

graft_status normalizer_list_apply(const normalizer_list *list, workspace *w, const text_view *in,
                                   uint32_t start, text_view *out, graft_error *err) {
    *out = *in;
    for (size_t i = 0, turn = 0; i < list->n && out->n > 0; i++) {
        const normalizer *step = &list->items[i];
        bool changed;
        if (is_idle(step, out))
            continue;
        aligned_text *next = &w->steps[turn % 2];
        aligned_text_clear(next);
        graft_status status = run_step(step, w, out, start, next, &changed, err);
        if (status == GRAFT_OK)
            status = aligned_text_status(next, err);
        if (status != GRAFT_OK)
            return status;
        if (!changed)
            continue;
        *out = aligned_text_view(next);
        turn++;
    }
    return GRAFT_OK;
}
