/* WordPiece: the longest token that the word starts with, then the longest continuation of what is
 * left, and so on; a word that cannot be cut so is unknown as a whole. WordLevel: the word is a
 * token or unknown. */
#include "text/tokenizer/chars.h"
#include "text/tokenizer/model.h"

#include <stdlib.h>
#include <string.h>

static graft_status write_failed(graft_error *err) {
    return error_memory(err, 0, "the tokens of a text");
}

void wordpiece_free(wordpiece_model *w) {
    free(w->prefix);
    trie_free(&w->trie);
    *w = (wordpiece_model){0};
}

graft_status wordpiece_prepare(model *m, graft_error *err) {
    wordpiece_model *w = &m->wordpiece;
    bool ok = trie_create(&w->trie);
    for (size_t id = 0; id < m->tokens.n_ids && ok; id++) {
        size_t n;
        const char *text = vocab_text(&m->tokens, (int32_t)id, &n);
        ok = !text || trie_add(&w->trie, text, n, (int32_t)id);
    }
    if (!ok)
        return error_memory(err, m->tokens.n_bytes, "the vocabulary's trie");
    w->inner_node = 0;
    for (const char *p = w->prefix; *p && w->inner_node != UINT32_MAX; p++)
        w->inner_node = trie_next(&w->trie, w->inner_node, (unsigned char)*p);
    return GRAFT_OK;
}

static graft_status write_whole_unknown(const model *m, token_writer *writer, graft_error *err) {
    if (m->unk_id < 0)
        return model_unk_needed(m, err);
    const char *text = m->unk_token;
    return token_write(writer, m->unk_id, 0, writer->piece.n, text, strlen(text))
               ? GRAFT_OK
               : write_failed(err);
}

static size_t count_characters(const char *text, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += !char_is_continuation(text[i]);
    return count;
}

/* The longest token that the word has at `begin`; *end is its end. -1 when there is none. */
static int32_t longest_token(const model *m, const token_writer *writer, size_t begin,
                             size_t *end) {
    const wordpiece_model *w = &m->wordpiece;
    const text_view *word = &writer->piece;
    int32_t best = -1;
    uint32_t node = begin ? w->inner_node : 0;
    for (size_t at = begin; at < word->n && node != UINT32_MAX; at++) {
        node = trie_next(&w->trie, node, (unsigned char)word->bytes[at]);
        int32_t id = node == UINT32_MAX ? -1 : w->trie.ids[node];
        if (id >= 0 && model_allows(m, writer, id)) {
            best = id;
            *end = at + 1;
        }
    }
    return best;
}

graft_status wordpiece_tokenize(const model *m, token_writer *writer, graft_error *err) {
    const text_view *word = &writer->piece;
    size_t first = writer->out->n;
    if (count_characters(word->bytes, word->n) > m->wordpiece.characters_max)
        return write_whole_unknown(m, writer, err);
    for (size_t begin = 0, end = 0; begin < word->n; begin = end) {
        int32_t id = longest_token(m, writer, begin, &end);
        if (id < 0) {
            writer->out->n = first;
            return write_whole_unknown(m, writer, err);
        }
        size_t n;
        const char *text = vocab_text(&m->tokens, id, &n);
        if (!token_write(writer, id, begin, end, text, n))
            return write_failed(err);
    }
    return GRAFT_OK;
}

graft_status wordlevel_tokenize(const model *m, token_writer *writer, graft_error *err) {
    const text_view *word = &writer->piece;
    int32_t id = vocab_find(&m->tokens, word->bytes, word->n);
    if (id < 0 || !model_allows(m, writer, id))
        return write_whole_unknown(m, writer, err);
    return token_write(writer, id, 0, word->n, word->bytes, word->n) ? GRAFT_OK : write_failed(err);
}
