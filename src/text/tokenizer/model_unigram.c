/* Unigram: of all ways to cut a piece into tokens, the one with the highest sum of scores
 * (Viterbi). A character that no token starts with costs the lowest score less 10; neighbouring
 * unknown ones are one token. */
#include "base/memory.h"
#include "text/tokenizer/chars.h"
#include "text/tokenizer/model.h"

#include <math.h>
#include <stdlib.h>

#define UNK_PENALTY 10.0

void unigram_free(unigram_model *u) {
    free(u->scores);
    trie_free(&u->trie);
    *u = (unigram_model){0};
}

graft_status unigram_prepare(model *m, graft_error *err) {
    unigram_model *u = &m->unigram;
    double lowest = INFINITY;
    bool ok = trie_create(&u->trie);
    for (size_t id = 0; id < m->tokens.n_ids && ok; id++) {
        size_t n;
        const char *text = vocab_text(&m->tokens, (int32_t)id, &n);
        if (!text || !isfinite(u->scores[id]))
            continue;
        if (u->scores[id] < lowest)
            lowest = u->scores[id];
        if (n)
            ok = trie_add(&u->trie, text, n, (int32_t)id);
    }
    if (!ok)
        return error_memory(err, m->tokens.n_bytes, "the vocabulary's trie");
    u->unk_score = lowest - UNK_PENALTY;
    byte_tokens_find(u->byte_ids, &m->tokens);
    return GRAFT_OK;
}

static void reach(const unigram_model *u, path_node *node, double score, size_t begin, int32_t id) {
    if (u->single_precision)
        score = (double)(float)score;
    if (node->begin != UINT32_MAX && !(score > node->score))
        return;
    *node = (path_node){score, id, (uint32_t)begin};
}

/* Fills w->path[1..n] forward. */
static graft_status find_paths(const model *m, token_writer *writer, const char *text, size_t n,
                               graft_error *err) {
    workspace *w = writer->w;
    const unigram_model *u = &m->unigram;
    if (!mem_reserve(&w->path, &w->path_capacity, n + 1, sizeof *w->path))
        return error_memory(err, n * sizeof *w->path, "the paths through a word");
    for (size_t i = 0; i <= n; i++)
        w->path[i] = (path_node){0.0, -1, UINT32_MAX};
    for (size_t at = 0, length; at < n; at += length) {
        double here = w->path[at].score;
        bool has_character = false;
        uint32_t node = 0;
        length = char_length(text[at]);
        for (size_t end = at; end < n; end++) {
            node = trie_next(&u->trie, node, (unsigned char)text[end]);
            if (node == UINT32_MAX)
                break;
            int32_t id = u->trie.ids[node];
            if (id < 0 || !model_allows(m, writer, id))
                continue;
            reach(u, &w->path[end + 1], u->scores[id] + here, at, id);
            has_character |= end + 1 - at == length;
        }
        if (has_character)
            continue;
        if (m->unk_id < 0)
            return model_unk_needed(m, err);
        reach(u, &w->path[at + length], u->unk_score + here, at, m->unk_id);
    }
    return GRAFT_OK;
}

/* Walks back from the end and leaves the pieces' ends, first to last, in the path's `begin`s:
 * path[b].begin becomes the end of the token that begins at b, path[b].id its token. Unknown
 * neighbours are joined. */
static void turn_path(const model *m, path_node *path, size_t n) {
    size_t end = n;
    path_node node = path[end];
    while (end > 0) {
        size_t begin = node.begin;
        int32_t id = node.id;
        path_node before = path[begin];
        while (id == m->unk_id && begin > 0 && before.id == m->unk_id) {
            begin = before.begin;
            before = path[begin];
        }
        path[begin].begin = (uint32_t)end;
        path[begin].id = id;
        end = begin;
        node = before;
    }
}

/* A joined unknown stretch may be a token after all; else its bytes may be. */
static bool write_unknown(const model *m, token_writer *writer, size_t begin, size_t end) {
    const char *text = writer->piece.bytes + begin;
    size_t n = end - begin;
    int32_t id = vocab_find(&m->tokens, text, n);
    if (id >= 0 && !model_allows(m, writer, id))
        id = -1;
    bool has_bytes = m->unigram.byte_fallback && id < 0;
    for (size_t i = 0; i < n && has_bytes; i++)
        has_bytes = m->unigram.byte_ids[(unsigned char)text[i]] >= 0;
    if (!has_bytes)
        return token_write(writer, id >= 0 ? id : m->unk_id, begin, end, text, n);
    for (size_t i = 0; i < n; i++)
        if (!token_write(writer, m->unigram.byte_ids[(unsigned char)text[i]], begin, end, "", 0))
            return false;
    return true;
}

static bool write_known(token_writer *writer, const cached_word *known) {
    size_t at = 0;
    for (size_t i = 0; i < known->n_tokens; at += known->lengths[i++])
        if (!token_write(writer, known->ids[i], at, at + known->lengths[i],
                         writer->piece.bytes + at, known->lengths[i]))
            return false;
    return true;
}

/* Remembers the word unless it has unknown parts (those may become several tokens over one
 * stretch). */
static void remember(const model *m, token_writer *writer, uint32_t hash, const text_view *piece) {
    workspace *w = writer->w;
    size_t count = 0;
    for (size_t at = 0; at < piece->n; at = w->path[at].begin)
        if (w->path[at].id == m->unk_id || ++count > CACHED_WORD_TOKENS)
            return;
    cached_word *entry = word_cache_add(&w->caches[writer->is_plain], hash, piece->bytes, piece->n);
    for (size_t at = 0; entry && at < piece->n; at = w->path[at].begin) {
        entry->ids[entry->n_tokens] = w->path[at].id;
        entry->lengths[entry->n_tokens++] = (uint8_t)(w->path[at].begin - at);
    }
}

graft_status unigram_tokenize(const model *m, token_writer *writer, graft_error *err) {
    const text_view *piece = &writer->piece;
    workspace *w = writer->w;
    uint32_t hash = 0;
    bool ok = true;
    if (piece->n <= CACHED_WORD_BYTES) {
        const cached_word *known =
            word_cache_find(&w->caches[writer->is_plain], piece->bytes, piece->n, &hash);
        if (known)
            return write_known(writer, known) ? GRAFT_OK
                                              : error_memory(err, 0, "the tokens of a text");
    }
    graft_status status = find_paths(m, writer, piece->bytes, piece->n, err);
    if (status != GRAFT_OK)
        return status;
    turn_path(m, w->path, piece->n);
    if (piece->n <= CACHED_WORD_BYTES)
        remember(m, writer, hash, piece);
    for (size_t at = 0, end; at < piece->n && ok; at = end) {
        end = w->path[at].begin;
        ok = w->path[at].id == m->unk_id
                 ? write_unknown(m, writer, at, end)
                 : token_write(writer, w->path[at].id, at, end, piece->bytes + at, end - at);
    }
    return ok ? GRAFT_OK : error_memory(err, 0, "the tokens of a text");
}
