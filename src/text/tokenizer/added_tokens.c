#include "text/tokenizer/added_tokens.h"

#include "base/memory.h"
#include "text/tokenizer/chars.h"

#include <stdlib.h>
#include <string.h>

static void token_free(added_token *token) {
    if (token->pattern != token->content)
        free(token->pattern);
    free(token->content);
    *token = (added_token){0};
}

void added_tokens_free(added_tokens *t) {
    for (size_t i = 0; i < t->n; i++)
        token_free(&t->items[i]);
    free(t->items);
    free(t->by_id);
    free(t->raw.order);
    free(t->normalized.order);
    *t = (added_tokens){0};
}

const added_token *added_token_of(const added_tokens *t, int32_t id) {
    if (id < 0 || (size_t)id >= t->n_by_id || t->by_id[id] == 0)
        return NULL;
    return &t->items[t->by_id[id] - 1];
}

static bool reserve(added_tokens *t, int32_t id) {
    if (!mem_reserve(&t->items, &t->capacity, t->n + 1, sizeof *t->items) ||
        !mem_reserve(&t->by_id, &t->by_id_capacity, (size_t)id + 1, sizeof *t->by_id))
        return false;
    for (; t->n_by_id <= (size_t)id; t->n_by_id++)
        t->by_id[t->n_by_id] = 0;
    return true;
}

graft_status added_tokens_add(added_tokens *t, const added_token *token, graft_error *err) {
    added_token copy = *token;
    copy.content = mem_text(token->content, token->content_bytes);
    copy.pattern = copy.content;
    copy.pattern_bytes = copy.content_bytes;
    if (!copy.content || !reserve(t, token->id)) {
        free(copy.content);
        return error_memory(err, token->content_bytes, "an added token");
    }
    if (t->by_id[token->id]) {
        token_free(&t->items[t->by_id[token->id] - 1]);
    } else {
        t->by_id[token->id] = (int32_t)++t->n;
        t->items[t->n - 1] = (added_token){0};
    }
    t->items[t->by_id[token->id] - 1] = copy;
    return GRAFT_OK;
}

/* ---- Preparing ---- */

static int pattern_compare(const added_token *a, const added_token *b) {
    size_t shorter = a->pattern_bytes < b->pattern_bytes ? a->pattern_bytes : b->pattern_bytes;
    int order = memcmp(a->pattern, b->pattern, shorter);
    if (order != 0)
        return order;
    return (a->pattern_bytes > b->pattern_bytes) - (a->pattern_bytes < b->pattern_bytes);
}

static int order_compare(const void *a, const void *b, void *items) {
    const added_token *tokens = items;
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    int order = pattern_compare(&tokens[left], &tokens[right]);
    return order ? order : (left > right) - (left < right);
}

static bool finder_build(token_finder *finder, added_tokens *t, bool normalized) {
    finder->order = mem_array(t->n, sizeof *finder->order);
    if (!finder->order)
        return false;
    for (size_t i = 0; i < t->n; i++)
        if (t->items[i].normalized == normalized && t->items[i].pattern_bytes > 0)
            finder->order[finder->n++] = (uint32_t)i;
    qsort_r(finder->order, finder->n, sizeof *finder->order, order_compare, t->items);
    size_t at = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        finder->first[byte] = (uint32_t)at;
        while (at < finder->n && (unsigned char)t->items[finder->order[at]].pattern[0] == byte)
            at++;
    }
    finder->first[256] = (uint32_t)at;
    if (finder->n > 0) {
        finder->one_byte = (unsigned char)t->items[finder->order[0]].pattern[0];
        finder->has_one_byte =
            finder->first[finder->one_byte] == 0 && finder->first[finder->one_byte + 1] == at;
    }
    return true;
}

static graft_status normalize_pattern(added_token *token, const normalizer_list *normalizers,
                                      workspace *w, graft_error *err) {
    text_view in = {token->content, token->content_bytes, NULL, 0}, out;
    w->steps[0].limit = w->steps[1].limit = (size_t)64 * ADDED_TOKEN_BYTES_MAX;
    graft_status status = normalizer_list_apply(normalizers, w, &in, 0, &out, err);
    if (status != GRAFT_OK || out.bytes == in.bytes)
        return status;
    token->pattern = mem_text(out.bytes, out.n);
    token->pattern_bytes = out.n;
    if (token->pattern)
        return GRAFT_OK;
    token->pattern = token->content;
    return error_memory(err, out.n, "an added token");
}

graft_status added_tokens_prepare(added_tokens *t, const normalizer_list *normalizers,
                                  graft_error *err) {
    workspace *w = NULL;
    graft_status status = workspace_create(&w, err);
    for (size_t i = 0; i < t->n && status == GRAFT_OK; i++)
        if (t->items[i].normalized)
            status = normalize_pattern(&t->items[i], normalizers, w, err);
    if (status == GRAFT_OK &&
        (!finder_build(&t->raw, t, false) || !finder_build(&t->normalized, t, true)))
        status = error_memory(err, t->n * sizeof(uint32_t), "the added tokens");
    workspace_destroy(&w);
    return status;
}

/* ---- Finding ---- */

/* The byte at `depth` of the i-th pattern, or -1 past its end. */
static int pattern_byte(const added_tokens *t, const token_finder *finder, uint32_t i,
                        size_t depth) {
    const added_token *token = &t->items[finder->order[i]];
    return depth < token->pattern_bytes ? (unsigned char)token->pattern[depth] : -1;
}

/* The first of [low, high) whose byte at `depth` is at least `byte`; they are ordered by it. */
static uint32_t lower_bound(const added_tokens *t, const token_finder *finder, uint32_t low,
                            uint32_t high, size_t depth, int byte) {
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (pattern_byte(t, finder, middle, depth) < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest pattern at the beginning of text, or NULL. */
static const added_token *longest_at(const added_tokens *t, const token_finder *finder,
                                     const char *text, size_t n) {
    const added_token *best = NULL;
    uint32_t low = finder->first[(unsigned char)text[0]];
    uint32_t high = finder->first[(unsigned char)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        const added_token *token = &t->items[finder->order[low]];
        if (token->pattern_bytes == depth)
            best = token;
        if (depth == n)
            break;
        int byte = (unsigned char)text[depth];
        low = lower_bound(t, finder, low, high, depth, byte);
        high = lower_bound(t, finder, low, high, depth, byte + 1);
    }
    return best;
}

/* The next place from `at` on where a pattern may begin. */
static size_t next_candidate(const token_finder *finder, const char *text, size_t at, size_t n) {
    if (finder->n == 0 || at >= n)
        return n;
    if (finder->has_one_byte) {
        const char *found = memchr(text + at, finder->one_byte, n - at);
        return found ? (size_t)(found - text) : n;
    }
    while (at < n &&
           finder->first[(unsigned char)text[at]] == finder->first[(unsigned char)text[at] + 1])
        at++;
    return at;
}

static bool stands_alone(const char *text, size_t begin, size_t end, size_t n) {
    size_t length;
    if (begin > 0 && char_is(char_decode_before(text + begin, &length), CHAR_WORD))
        return false;
    return end == n || !char_is(char_decode(text + end, &length), CHAR_WORD);
}

static size_t spaces_begin(const char *text, size_t begin, size_t low) {
    size_t length;
    while (begin > low && char_is(char_decode_before(text + begin, &length), CHAR_SPACE))
        begin -= length;
    return begin;
}

static size_t spaces_end(const char *text, size_t end, size_t n) {
    size_t length;
    while (end < n && char_is(char_decode(text + end, &length), CHAR_SPACE))
        end += length;
    return end;
}

/* Adds the pieces of text, which is at `base` of the current text. A match that is not wanted still
 * hides those inside it. */
static void find_tokens(const added_tokens *t, const token_finder *finder, const char *text,
                        size_t n, uint32_t base, bool split_special, piece_list *out) {
    size_t done = 0;
    for (size_t at = next_candidate(finder, text, 0, n); at < n;) {
        const added_token *token = longest_at(t, finder, text + at, n - at);
        size_t begin = at, end = at + (token ? token->pattern_bytes : 1);
        bool wanted = token && !(split_special && token->special) &&
                      !(token->single_word && !stands_alone(text, begin, end, n));
        if (wanted) {
            if (token->lstrip)
                begin = spaces_begin(text, begin, done);
            if (token->rstrip)
                end = spaces_end(text, end, n);
            piece_add(out, base + (uint32_t)done, base + (uint32_t)begin, -1);
            piece_add(out, base + (uint32_t)begin, base + (uint32_t)end, token->id);
            done = end;
        }
        at = next_candidate(finder, text, end, n);
    }
    piece_add(out, base + (uint32_t)done, base + (uint32_t)n, -1);
}

graft_status added_tokens_split(const added_tokens *t, workspace *w, bool split_special,
                                graft_error *err) {
    w->pieces.n = 0;
    w->pieces.failed = false;
    find_tokens(t, &t->raw, w->text.bytes, w->text.n, 0, split_special, &w->pieces);
    return w->pieces.failed ? error_memory(err, w->text.n, "a text's pieces") : GRAFT_OK;
}

/* Until the first piece that its normalizer changes, the text stays the input; from there on it is
 * copied. */
graft_status added_tokens_normalize(const added_tokens *t, const normalizer_list *normalizers,
                                    workspace *w, bool split_special, graft_error *err) {
    if (normalizers->n == 0 && t->normalized.n == 0)
        return GRAFT_OK;
    bool copied = false;
    aligned_text *copy = &w->buffers[0];
    aligned_text_clear(copy);
    w->next_pieces.n = 0;
    w->next_pieces.failed = false;
    for (size_t i = 0; i < w->pieces.n; i++) {
        text_piece p = w->pieces.items[i];
        text_view in = text_view_slice(&w->text, p.begin, p.end), out = in;
        if (p.id < 0) {
            graft_status status = normalizer_list_apply(normalizers, w, &in, p.begin, &out, err);
            if (status != GRAFT_OK)
                return status;
        }
        if (!copied && out.bytes != in.bytes) {
            text_view before = text_view_slice(&w->text, 0, p.begin);
            aligned_text_add_view(copy, &before);
            copied = true;
        }
        uint32_t base = copied ? (uint32_t)copy->n : p.begin;
        if (copied)
            aligned_text_add_view(copy, &out);
        if (p.id >= 0)
            piece_add(&w->next_pieces, base, base + (uint32_t)out.n, p.id);
        else
            find_tokens(t, &t->normalized, out.bytes, out.n, base, split_special, &w->next_pieces);
    }
    piece_list old = w->pieces;
    w->pieces = w->next_pieces;
    w->next_pieces = old;
    if (w->pieces.failed)
        return error_memory(err, w->pieces.n * sizeof(text_piece), "a text's pieces");
    if (copied)
        w->text = aligned_text_view(copy);
    return aligned_text_status(copy, err);
}
