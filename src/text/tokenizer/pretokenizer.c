#include "text/tokenizer/pretokenizer.h"

#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/chars.h"

#include <stdlib.h>
#include <string.h>

pretokenizer *pretokenizer_list_add(pretokenizer_list *list) {
    if (!mem_reserve(&list->items, &list->capacity, list->n + 1, sizeof *list->items))
        return NULL;
    pretokenizer *added = &list->items[list->n++];
    *added = (pretokenizer){0};
    return added;
}

void pretokenizer_list_free(pretokenizer_list *list) {
    for (size_t i = 0; i < list->n; i++)
        text_pattern_free(&list->items[i].pattern);
    free(list->items);
    *list = (pretokenizer_list){0};
}

/* ---- From matches to pieces ---- */

/* Adds the piece [begin, end) of a text that starts at `base`. */
static void add_part(workspace *w, uint32_t base, uint32_t begin, uint32_t end) {
    piece_add(&w->next_pieces, base + begin, base + end, -1);
}

static void add_contiguous(workspace *w, uint32_t base) {
    const span_list *spans = &w->spans;
    for (size_t i = 0, end; i < spans->n; i = end) {
        for (end = i + 1; end < spans->n && spans->items[end].match == spans->items[i].match;)
            end++;
        add_part(w, base, spans->items[i].begin, spans->items[end - 1].end);
    }
}

/* A match joins what is before it, unless that is a match. */
static void add_merged_with_previous(workspace *w, uint32_t base) {
    const span_list *spans = &w->spans;
    for (size_t i = 0; i < spans->n; i++) {
        uint32_t begin = spans->items[i].begin, end = spans->items[i].end;
        if (!spans->items[i].match && i + 1 < spans->n && spans->items[i + 1].match)
            end = spans->items[++i].end;
        add_part(w, base, begin, end);
    }
}

/* A match joins what is after it, unless that is a match. */
static void add_merged_with_next(workspace *w, uint32_t base) {
    const span_list *spans = &w->spans;
    for (size_t i = 0; i < spans->n; i++) {
        uint32_t begin = spans->items[i].begin, end = spans->items[i].end;
        if (spans->items[i].match && i + 1 < spans->n && !spans->items[i + 1].match)
            end = spans->items[++i].end;
        add_part(w, base, begin, end);
    }
}

static void add_pieces(workspace *w, uint32_t base, split_behavior behavior) {
    switch (behavior) {
    case SPLIT_CONTIGUOUS:
        add_contiguous(w, base);
        return;
    case SPLIT_MERGED_WITH_PREVIOUS:
        add_merged_with_previous(w, base);
        return;
    case SPLIT_MERGED_WITH_NEXT:
        add_merged_with_next(w, base);
        return;
    case SPLIT_REMOVED:
    case SPLIT_ISOLATED:
        break;
    }
    for (size_t i = 0; i < w->spans.n; i++)
        if (behavior == SPLIT_ISOLATED || !w->spans.items[i].match)
            add_part(w, base, w->spans.items[i].begin, w->spans.items[i].end);
}

/* ---- Patterns that are classes of characters ---- */

typedef struct char_set {
    unsigned classes;
    uint32_t character; /* when classes is 0 */
} char_set;

static void character_spans(workspace *w, const char *text, size_t n, char_set set) {
    size_t done = 0;
    w->spans.n = 0;
    for (size_t i = 0, length; i < n; i += length) {
        uint32_t c = char_decode(text + i, &length);
        if (set.classes ? !char_is(c, set.classes) : c != set.character)
            continue;
        if (done < i)
            span_add(&w->spans, (uint32_t)done, (uint32_t)i, false);
        done = i + length;
        span_add(&w->spans, (uint32_t)i, (uint32_t)done, true);
    }
    if (done < n)
        span_add(&w->spans, (uint32_t)done, (uint32_t)n, false);
}

static void split_on(workspace *w, text_piece p, char_set set, split_behavior behavior) {
    character_spans(w, w->text.bytes + p.begin, p.end - p.begin, set);
    add_pieces(w, p.begin, behavior);
}

/* \w+|[^\w\s]+ and nothing else. */
static void split_words(workspace *w, text_piece p) {
    const char *text = w->text.bytes + p.begin;
    size_t n = p.end - p.begin, begin = 0;
    unsigned before = CHAR_SPACE;
    for (size_t i = 0, length; i < n; i += length) {
        uint32_t c = char_decode(text + i, &length);
        unsigned kind = char_is(c, CHAR_WORD) ? CHAR_WORD : char_is(c, CHAR_SPACE) ? CHAR_SPACE : 0;
        if (kind == before)
            continue;
        if (before != CHAR_SPACE)
            add_part(w, p.begin, (uint32_t)begin, (uint32_t)i);
        begin = i;
        before = kind;
    }
    if (before != CHAR_SPACE)
        add_part(w, p.begin, (uint32_t)begin, (uint32_t)n);
}

static void split_fixed(workspace *w, text_piece p, size_t n_characters) {
    uint32_t at = p.begin;
    while (at < p.end) {
        uint32_t begin = at;
        for (size_t i = 0; i < n_characters && at < p.end; i++)
            at += (uint32_t)char_length(w->text.bytes[at]);
        piece_add(&w->next_pieces, begin, at, -1);
    }
}

/* A piece begins where the script changes; a space takes on any. What stands before the first
 * script is dropped, as Hugging Face does. */
static void split_scripts(workspace *w, text_piece p) {
    unsigned last = 0;
    uint32_t begin = p.end;
    size_t length;
    for (uint32_t at = p.begin; at < p.end; at += (uint32_t)length) {
        unsigned script = character_script(char_decode(w->text.bytes + at, &length));
        if (script == 0)
            continue;
        if (script != last) {
            if (begin < at)
                piece_add(&w->next_pieces, begin, at, -1);
            begin = at;
        }
        last = script;
    }
    piece_add(&w->next_pieces, begin, p.end, -1);
}

static graft_status split_pattern(const pretokenizer *step, workspace *w, text_piece p,
                                  graft_error *err) {
    const char *text = w->text.bytes + p.begin;
    size_t n = p.end - p.begin;
    if (step->pattern.fast && step->behavior == SPLIT_ISOLATED) {
        for (size_t at = 0, stop; at < n; at = stop) {
            stop = step->pattern.fast(text, at, n);
            add_part(w, p.begin, (uint32_t)at, (uint32_t)stop);
        }
        return GRAFT_OK;
    }
    graft_status status = text_pattern_spans(&step->pattern, w, text, n, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t i = 0; step->invert && i < w->spans.n; i++)
        w->spans.items[i].match = !w->spans.items[i].match;
    add_pieces(w, p.begin, step->behavior);
    return GRAFT_OK;
}

static graft_status split_piece(const pretokenizer *step, workspace *w, text_piece p,
                                graft_error *err) {
    switch (step->kind) {
    case PRETOKENIZER_BYTE_LEVEL:
        for (size_t at = p.begin, stop; at < p.end; at = stop) {
            stop = split_gpt2(w->text.bytes, at, p.end);
            piece_add(&w->next_pieces, (uint32_t)at, (uint32_t)stop, -1);
        }
        return GRAFT_OK;
    case PRETOKENIZER_DELIMITER:
        split_on(w, p, (char_set){0, step->character}, SPLIT_REMOVED);
        return GRAFT_OK;
    case PRETOKENIZER_METASPACE:
        split_on(w, p, (char_set){0, step->character}, SPLIT_MERGED_WITH_NEXT);
        return GRAFT_OK;
    case PRETOKENIZER_WHITESPACE:
        split_words(w, p);
        return GRAFT_OK;
    case PRETOKENIZER_BERT: /* its first half; split_all() does the other */
    case PRETOKENIZER_WHITESPACE_SPLIT:
        split_on(w, p, (char_set){CHAR_SPACE, 0}, SPLIT_REMOVED);
        return GRAFT_OK;
    case PRETOKENIZER_SPLIT:
        return split_pattern(step, w, p, err);
    case PRETOKENIZER_PUNCTUATION:
        split_on(w, p, (char_set){CHAR_PUNCTUATION, 0}, step->behavior);
        return GRAFT_OK;
    case PRETOKENIZER_DIGITS:
        split_on(w, p, (char_set){CHAR_NUMBER, 0},
                 step->individual_digits ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
        return GRAFT_OK;
    case PRETOKENIZER_UNICODE_SCRIPTS:
        split_scripts(w, p);
        return GRAFT_OK;
    case PRETOKENIZER_FIXED_LENGTH:
        split_fixed(w, p, step->length);
        return GRAFT_OK;
    }
    return GRAFT_OK;
}

static graft_status take_next_pieces(workspace *w, graft_error *err) {
    if (w->next_pieces.failed || w->spans.failed)
        return error_memory(err, w->next_pieces.n * sizeof(text_piece), "a text's pieces");
    piece_list old = w->pieces;
    w->pieces = w->next_pieces;
    w->next_pieces = old;
    return GRAFT_OK;
}

static void begin_next_pieces(workspace *w) {
    w->next_pieces.n = 0;
    w->next_pieces.failed = w->spans.failed = false;
}

static graft_status split_all(const pretokenizer *step, workspace *w, graft_error *err) {
    begin_next_pieces(w);
    for (size_t i = 0; i < w->pieces.n; i++) {
        text_piece p = w->pieces.items[i];
        if (p.id >= 0) {
            piece_add(&w->next_pieces, p.begin, p.end, p.id);
            continue;
        }
        graft_status status = split_piece(step, w, p, err);
        if (status != GRAFT_OK)
            return status;
    }
    return take_next_pieces(w, err);
}

/* ---- Those that rewrite the text ---- */

/* Metaspace: spaces become the replacement, and one may be put first. */
static void rewrite_metaspace(const pretokenizer *step, const text_view *in, aligned_text *out) {
    char replacement[4];
    size_t n = utf8_encode(replacement, step->character);
    bool wants = step->prepend == PREPEND_ALWAYS ||
                 (step->prepend == PREPEND_FIRST && text_view_source(in, 0).begin == 0);
    bool has = in->bytes[0] == ' ' || (in->n >= n && memcmp(in->bytes, replacement, n) == 0);
    if (wants && !has)
        aligned_text_add(out, replacement, n, text_view_source(in, 0));
    for (size_t i = 0; i < in->n;) {
        const char *space = memchr(in->bytes + i, ' ', in->n - i);
        size_t stop = space ? (size_t)(space - in->bytes) : in->n;
        text_view word = text_view_slice(in, i, stop);
        aligned_text_add_view(out, &word);
        if (space)
            aligned_text_add(out, replacement, n, text_view_source(in, stop));
        i = stop + (space != NULL);
    }
}

static void rewrite_prefix_space(const pretokenizer *step, const text_view *in, aligned_text *out) {
    (void)step;
    if (in->bytes[0] != ' ')
        aligned_text_add(out, " ", 1, text_view_source(in, 0));
    aligned_text_add_view(out, in);
}

static void rewrite_bytes(const pretokenizer *step, const text_view *in, aligned_text *out) {
    (void)step;
    for (size_t i = 0; i < in->n; i++)
        aligned_text_add_character(out, byte_to_character((unsigned char)in->bytes[i]),
                                   text_view_source(in, i));
}

typedef void rewriter(const pretokenizer *, const text_view *in, aligned_text *out);

/* Puts what `rewrite` makes of each piece into the buffer that the current text is not in. Added
 * tokens are copied. */
static graft_status rewrite_all(const pretokenizer *step, workspace *w, rewriter *rewrite,
                                graft_error *err) {
    aligned_text *out = &w->buffers[w->text.bytes == w->buffers[0].bytes];
    aligned_text_clear(out);
    for (size_t i = 0; i < w->pieces.n; i++) {
        text_piece *p = &w->pieces.items[i];
        text_view in = text_view_slice(&w->text, p->begin, p->end);
        p->begin = (uint32_t)out->n;
        if (p->id >= 0)
            aligned_text_add_view(out, &in);
        else
            rewrite(step, &in, out);
        p->end = (uint32_t)out->n;
    }
    w->text = aligned_text_view(out);
    return aligned_text_status(out, err);
}

/* Whether rewrite_prefix_space would change nothing. */
static bool all_begin_with_space(const workspace *w) {
    for (size_t i = 0; i < w->pieces.n; i++)
        if (w->pieces.items[i].id < 0 && w->text.bytes[w->pieces.items[i].begin] != ' ')
            return false;
    return true;
}

static graft_status apply_byte_level(const pretokenizer *step, workspace *w, graft_error *err) {
    graft_status status = GRAFT_OK;
    if (step->add_prefix_space && !all_begin_with_space(w))
        status = rewrite_all(step, w, rewrite_prefix_space, err);
    if (status == GRAFT_OK && step->use_regex)
        status = split_all(step, w, err);
    if (status == GRAFT_OK && !step->keep_bytes)
        status = rewrite_all(step, w, rewrite_bytes, err);
    return status;
}

static graft_status apply(const pretokenizer *step, workspace *w, graft_error *err) {
    static const pretokenizer punctuation = {.kind = PRETOKENIZER_PUNCTUATION,
                                             .behavior = SPLIT_ISOLATED};
    if (step->kind == PRETOKENIZER_BYTE_LEVEL)
        return apply_byte_level(step, w, err);
    if (step->kind == PRETOKENIZER_METASPACE) {
        graft_status status = rewrite_all(step, w, rewrite_metaspace, err);
        return status != GRAFT_OK || !step->split ? status : split_all(step, w, err);
    }
    graft_status status = split_all(step, w, err);
    if (status == GRAFT_OK && step->kind == PRETOKENIZER_BERT)
        status = split_all(&punctuation, w, err);
    return status;
}

graft_status pretokenizer_list_apply(const pretokenizer_list *list, workspace *w,
                                     graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < list->n && status == GRAFT_OK; i++)
        status = apply(&list->items[i], w, err);
    return status;
}
