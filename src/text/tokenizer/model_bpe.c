/* Byte-pair encoding: a word's characters (or bytes) are merged pair by pair, the lowest rank first
 * and the leftmost of equals, until no pair merges.
 *
 * Invariant: a merge only ever makes the text at a place longer, so a queued candidate whose merged
 * id no longer is what the pair there gives is out of date, and one whose id still is, is still
 * right. */
#include "base/memory.h"
#include "formats/utf8.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/chars.h"
#include "text/tokenizer/model.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { N_CHARACTER_IDS = 0x10000, SHORT_WORD = 48, META_SPACE_BYTES = 3 };

static const char meta_space[] = "\xE2\x96\x81"; /* U+2581, SentencePiece's space */

void bpe_free(bpe_model *bpe) {
    free(bpe->pairs);
    free(bpe->prefix);
    free(bpe->suffix);
    free(bpe->character_ids);
    *bpe = (bpe_model){0};
}

/* ---- The pair table ---- */

static uint64_t pair_key(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t pair_slot(const bpe_model *bpe, uint64_t key) {
    uint64_t hash = key * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(hash ^ hash >> 32) & (bpe->n_slots - 1);
    while (bpe->pairs[at].key != key && bpe->pairs[at].key != UINT64_MAX)
        at = (at + 1) & (bpe->n_slots - 1);
    return at;
}

static const bpe_pair *pair_find(const bpe_model *bpe, int32_t left, int32_t right) {
    if (!bpe->n_slots)
        return NULL;
    const bpe_pair *pair = &bpe->pairs[pair_slot(bpe, pair_key(left, right))];
    return pair->key == UINT64_MAX ? NULL : pair;
}

static bool pairs_grow(bpe_model *bpe) {
    bpe_pair *old = bpe->pairs;
    size_t n_old = bpe->n_slots;
    size_t n_slots = n_old ? n_old * 2 : 256;
    bpe_pair *pairs = mem_array(n_slots, sizeof *pairs);
    if (!pairs)
        return false;
    for (size_t i = 0; i < n_slots; i++)
        pairs[i].key = UINT64_MAX;
    bpe->pairs = pairs;
    bpe->n_slots = n_slots;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].key != UINT64_MAX)
            bpe->pairs[pair_slot(bpe, old[i].key)] = old[i];
    free(old);
    return true;
}

graft_status bpe_add_pair(bpe_model *bpe, int32_t left, int32_t right, uint32_t rank,
                          int32_t merged, graft_error *err) {
    if ((bpe->n_pairs + 1) * 8 > bpe->n_slots * 5 && !pairs_grow(bpe))
        return error_memory(err, bpe->n_slots * 2 * sizeof(bpe_pair), "the merges");
    uint64_t key = pair_key(left, right);
    bpe_pair *pair = &bpe->pairs[pair_slot(bpe, key)];
    bpe->n_pairs += pair->key == UINT64_MAX;
    *pair = (bpe_pair){key, rank, merged};
    return GRAFT_OK;
}

/* ---- Preparing ---- */

/* Whether at least the ASCII letters are there: then the vocabulary is over the byte alphabet. */
static bool find_byte_characters(bpe_model *bpe, const vocab *tokens) {
    bool plausible = true;
    bpe->has_all_bytes = true;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[4];
        size_t n = utf8_encode(text, byte_to_character((unsigned char)byte));
        bpe->byte_ids[byte] = vocab_find(tokens, text, n);
        bpe->has_all_bytes &= bpe->byte_ids[byte] >= 0;
        plausible &= bpe->byte_ids[byte] >= 0 || byte < 'a' || byte > 'z';
    }
    return plausible;
}

static bool find_characters(bpe_model *bpe, const vocab *tokens) {
    bpe->character_ids = mem_array(N_CHARACTER_IDS, sizeof *bpe->character_ids);
    if (!bpe->character_ids)
        return false;
    for (size_t id = 0; id < tokens->n_ids; id++) {
        size_t n, length;
        const char *text = vocab_text(tokens, (int32_t)id, &n);
        if (!text || n == 0 || char_length(*text) != n)
            continue;
        uint32_t c = char_decode(text, &length);
        if (c < N_CHARACTER_IDS)
            bpe->character_ids[c] = (int32_t)id + 1;
    }
    return true;
}

/* A token that may stand for other text than its own: the unknown one, or a byte. */
static bool is_stand_in(const model *m, int32_t id) {
    size_t n;
    const char *text = vocab_text(&m->tokens, id, &n);
    return id == m->unk_id || (text && n == 6 && memcmp(text, "<0x", 3) == 0);
}

/* Words may be merged apart from each other where no merge joins them; what decides it is which
 * bytes stand right before a meta space within any merged token. Every character must become a
 * symbol, or offsets would shift across words. */
static void find_cuts(model *m) {
    bpe_model *bpe = &m->bpe;
    bpe->cuts_before_space = m->unk_id >= 0 && !bpe->prefix && !bpe->suffix &&
                             vocab_find(&m->tokens, meta_space, META_SPACE_BYTES) >= 0;
    for (size_t i = 0; i < bpe->n_slots && bpe->cuts_before_space; i++) {
        if (bpe->pairs[i].key == UINT64_MAX)
            continue;
        if (is_stand_in(m, (int32_t)(bpe->pairs[i].key >> 32)) ||
            is_stand_in(m, (int32_t)(uint32_t)bpe->pairs[i].key))
            bpe->cuts_before_space = false;
        size_t n;
        const char *text = vocab_text(&m->tokens, bpe->pairs[i].id, &n);
        for (size_t at = 1; at + META_SPACE_BYTES <= n; at++)
            if (memcmp(text + at, meta_space, META_SPACE_BYTES) == 0)
                bpe->inside[(unsigned char)text[at - 1]] = true;
    }
}

graft_status bpe_prepare(model *m, bool wants_bytes, graft_error *err) {
    bpe_model *bpe = &m->bpe;
    bpe->reads_bytes =
        wants_bytes && !bpe->prefix && !bpe->suffix && find_byte_characters(bpe, &m->tokens);
    for (size_t id = 0; id < m->tokens.n_ids; id++)
        if (m->tokens.tokens[id].length > bpe->token_bytes_max)
            bpe->token_bytes_max = m->tokens.tokens[id].length;
    bpe->reads_bytes &= bpe->has_all_bytes || !bpe->byte_fallback;
    for (size_t i = 0; i < bpe->n_slots; i++)
        bpe->merges_into_special |=
            bpe->pairs[i].key != UINT64_MAX && m->is_special[bpe->pairs[i].id];
    if (bpe->reads_bytes && bpe->has_all_bytes)
        return GRAFT_OK;
    if (!bpe->reads_bytes)
        byte_tokens_find(bpe->byte_ids, &m->tokens);
    if (!find_characters(bpe, &m->tokens))
        return error_memory(err, N_CHARACTER_IDS * sizeof(int32_t), "the characters' tokens");
    if (!bpe->reads_bytes)
        find_cuts(m);
    return GRAFT_OK;
}

/* ---- From text to symbols ---- */

static bool symbol_add(workspace *w, size_t *n, int32_t id, size_t length) {
    if (*n == w->symbols_capacity &&
        !mem_reserve(&w->symbols, &w->symbols_capacity, *n + 1, sizeof *w->symbols))
        return false;
    w->symbols[(*n)++] = (bpe_symbol){.id = id, .length = (uint32_t)length};
    return true;
}

/* A character as the vocabulary has it at its place in the word: with the subword prefix, with the
 * word's suffix. */
typedef struct decorated {
    char text[4 + 2 * AFFIX_BYTES_MAX];
    size_t n;
} decorated;

static void decorated_add(decorated *d, const char *text, size_t n) {
    assert(d->n + n <= sizeof d->text);
    memcpy(d->text + d->n, text, n);
    d->n += n;
}

static void decorate(decorated *d, const bpe_model *bpe, const char *character, size_t n,
                     bool is_first, bool is_last) {
    d->n = 0;
    if (bpe->prefix && !is_first)
        decorated_add(d, bpe->prefix, strlen(bpe->prefix));
    decorated_add(d, character, n);
    if (bpe->suffix && is_last)
        decorated_add(d, bpe->suffix, strlen(bpe->suffix));
}

static int32_t character_id(const model *m, const char *character, size_t n, const decorated *d) {
    if (d)
        return vocab_find(&m->tokens, d->text, d->n);
    size_t length;
    uint32_t c = char_decode(character, &length);
    if (c < N_CHARACTER_IDS)
        return m->bpe.character_ids[c] - 1;
    return vocab_find(&m->tokens, character, n);
}

static bool has_all(const bpe_model *bpe, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (bpe->byte_ids[(unsigned char)text[i]] < 0)
            return false;
    return true;
}

static graft_status no_symbols_memory(graft_error *err) {
    return error_memory(err, 0, "the symbols of a word");
}

/* Characters that are no token become byte tokens, or the unknown token, or nothing. An unknown
 * stretch is kept open across byte tokens, as Hugging Face does. */
static graft_status characters_to_symbols(const model *m, workspace *w, const char *text, size_t n,
                                          size_t *n_symbols, graft_error *err) {
    const bpe_model *bpe = &m->bpe;
    bool plain = !bpe->prefix && !bpe->suffix, ok = true;
    size_t unk_length = 0; /* bytes of the open unknown stretch; 0: none */
    decorated d;
    for (size_t i = 0, length; i < n && ok; i += length) {
        length = char_length(text[i]);
        if (!plain)
            decorate(&d, bpe, text + i, length, i == 0, i + length == n);
        int32_t id = character_id(m, text + i, length, plain ? NULL : &d);
        if (id >= 0) {
            if (unk_length)
                ok = symbol_add(w, n_symbols, m->unk_id, unk_length);
            unk_length = 0;
            ok = ok && symbol_add(w, n_symbols, id, length);
            continue;
        }
        const char *shown = plain ? text + i : d.text;
        size_t shown_bytes = plain ? length : d.n;
        if (bpe->byte_fallback && has_all(bpe, shown, shown_bytes)) {
            for (size_t k = 0; k < shown_bytes && ok; k++)
                ok = symbol_add(w, n_symbols, bpe->byte_ids[(unsigned char)shown[k]], 1);
            continue;
        }
        if (m->unk_id == UNK_MISSING)
            return model_unk_needed(m, err);
        if (m->unk_id == UNK_NONE)
            continue;
        if (unk_length && !bpe->fuse_unk) {
            ok = symbol_add(w, n_symbols, m->unk_id, unk_length);
            unk_length = 0;
        }
        unk_length += length;
    }
    if (unk_length && ok)
        ok = symbol_add(w, n_symbols, m->unk_id, unk_length);
    return ok ? GRAFT_OK : no_symbols_memory(err);
}

static graft_status bytes_to_symbols(const bpe_model *bpe, workspace *w, const char *text, size_t n,
                                     size_t *n_symbols, graft_error *err) {
    if (!mem_reserve(&w->symbols, &w->symbols_capacity, n, sizeof *w->symbols))
        return no_symbols_memory(err);
    for (size_t i = 0; i < n; i++)
        w->symbols[i] = (bpe_symbol){.id = bpe->byte_ids[(unsigned char)text[i]], .length = 1};
    *n_symbols = n;
    return GRAFT_OK;
}

/* ---- Merging ---- */

static const uint32_t no_rank = UINT32_MAX;

/* `special` is NULL, or says which merges may not be made. */
static const bpe_pair *pair_allowed(const bpe_model *bpe, const bool *special, int32_t left,
                                    int32_t right) {
    const bpe_pair *pair = pair_find(bpe, left, right);
    return pair && special && special[pair->id] ? NULL : pair;
}

static void look_up(const bpe_model *bpe, const bool *special, const bpe_symbol *left,
                    const bpe_symbol *right, uint32_t *rank, int32_t *id) {
    const bpe_pair *pair = pair_allowed(bpe, special, left->id, right->id);
    *rank = pair ? pair->rank : no_rank;
    *id = pair ? pair->id : -1;
}

/* For words of a usual length: looks for the lowest rank each time. */
static size_t merge_short(const bpe_model *bpe, const bool *special, bpe_symbol *s, size_t n) {
    uint32_t ranks[SHORT_WORD]; /* of each symbol with the next one */
    int32_t ids[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++)
        look_up(bpe, special, &s[i], &s[i + 1], &ranks[i], &ids[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == no_rank)
            break;
        s[best].id = ids[best];
        s[best].length += s[best + 1].length;
        n--;
        memmove(&s[best + 1], &s[best + 2], (n - best - 1) * sizeof *s);
        memmove(&ranks[best], &ranks[best + 1], (n - best - 1) * sizeof *ranks);
        memmove(&ids[best], &ids[best + 1], (n - best - 1) * sizeof *ids);
        if (best > 0)
            look_up(bpe, special, &s[best - 1], &s[best], &ranks[best - 1], &ids[best - 1]);
        if (best + 1 < n)
            look_up(bpe, special, &s[best], &s[best + 1], &ranks[best], &ids[best]);
    }
    return n;
}

static bool is_before(bpe_candidate a, bpe_candidate b) {
    return a.rank != b.rank ? a.rank < b.rank : a.position < b.position;
}

static bool heap_push(workspace *w, size_t *n, bpe_candidate added) {
    if (!mem_reserve(&w->heap, &w->heap_capacity, *n + 1, sizeof *w->heap))
        return false;
    size_t at = (*n)++;
    for (; at > 0 && is_before(added, w->heap[(at - 1) / 2]); at = (at - 1) / 2)
        w->heap[at] = w->heap[(at - 1) / 2];
    w->heap[at] = added;
    return true;
}

static bpe_candidate heap_pop(workspace *w, size_t *n) {
    bpe_candidate top = w->heap[0], moved = w->heap[--*n];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < *n; at = child) {
        if (child + 1 < *n && is_before(w->heap[child + 1], w->heap[child]))
            child++;
        if (!is_before(w->heap[child], moved))
            break;
        w->heap[at] = w->heap[child];
    }
    w->heap[at] = moved;
    return top;
}

static bool push_pair(const bpe_model *bpe, const bool *special, workspace *w, size_t *n_heap,
                      int32_t left, int32_t right) {
    if (left < 0 || right < 0)
        return true;
    const bpe_pair *pair = pair_allowed(bpe, special, w->symbols[left].id, w->symbols[right].id);
    return !pair || heap_push(w, n_heap, (bpe_candidate){pair->rank, (uint32_t)left, pair->id});
}

/* For long words: a queue of candidates and linked symbols. SIZE_MAX when out of memory. */
static size_t merge_long(const bpe_model *bpe, const bool *special, workspace *w, size_t n) {
    size_t n_heap = 0;
    bpe_symbol *s = w->symbols;
    for (size_t i = 0; i < n; i++) {
        s[i].previous = (int32_t)i - 1;
        s[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < n; i++)
        if (!push_pair(bpe, special, w, &n_heap, (int32_t)i, (int32_t)i + 1))
            return SIZE_MAX;
    while (n_heap > 0) {
        bpe_candidate top = heap_pop(w, &n_heap);
        bpe_symbol *left = &s[top.position];
        if (left->length == 0 || left->next < 0)
            continue;
        bpe_symbol *right = &s[left->next];
        const bpe_pair *pair = pair_find(bpe, left->id, right->id);
        if (!pair || pair->id != top.id)
            continue;
        left->id = top.id;
        left->length += right->length;
        left->next = right->next;
        right->length = 0;
        if (left->next >= 0)
            s[left->next].previous = (int32_t)top.position;
        if (!push_pair(bpe, special, w, &n_heap, left->previous, (int32_t)top.position) ||
            !push_pair(bpe, special, w, &n_heap, (int32_t)top.position, left->next))
            return SIZE_MAX;
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (s[i].length)
            s[kept++] = s[i];
    return kept;
}

/* SIZE_MAX when out of memory. */
static size_t merge(const model *m, const token_writer *writer, size_t n_symbols) {
    const bool *special = writer->is_plain && m->bpe.merges_into_special ? m->is_special : NULL;
    return n_symbols <= SHORT_WORD ? merge_short(&m->bpe, special, writer->w->symbols, n_symbols)
                                   : merge_long(&m->bpe, special, writer->w, n_symbols);
}

/* ---- Words ---- */

static bool write_symbol(const model *m, token_writer *writer, int32_t id, size_t begin,
                         size_t end) {
    size_t n = 0;
    const char *text = writer->counts_spaces ? vocab_text(&m->tokens, id, &n) : NULL;
    return token_write(writer, id, begin, end, text, n);
}

static graft_status write_failed(graft_error *err) {
    return error_memory(err, 0, "the tokens of a text");
}

static graft_status write_symbols(const model *m, token_writer *writer, size_t begin,
                                  size_t n_symbols, graft_error *err) {
    const bpe_symbol *symbols = writer->w->symbols;
    if (n_symbols == SIZE_MAX)
        return no_symbols_memory(err);
    for (size_t i = 0, at = begin; i < n_symbols; at += symbols[i++].length)
        if (!write_symbol(m, writer, symbols[i].id, at, at + symbols[i].length))
            return write_failed(err);
    return GRAFT_OK;
}

static graft_status write_known(const model *m, token_writer *writer, size_t begin,
                                const cached_word *known, graft_error *err) {
    for (size_t i = 0, at = begin; i < known->n_tokens; at += known->lengths[i++])
        if (!write_symbol(m, writer, known->ids[i], at, at + known->lengths[i]))
            return write_failed(err);
    return GRAFT_OK;
}

static void remember(const token_writer *writer, uint32_t hash, const char *word, size_t n,
                     size_t n_symbols) {
    workspace *w = writer->w;
    word_cache *cache = &w->caches[writer->is_plain];
    cached_word *entry =
        n_symbols <= CACHED_WORD_TOKENS ? word_cache_add(cache, hash, word, n) : NULL;
    if (!entry)
        return;
    entry->n_tokens = (uint8_t)n_symbols;
    for (size_t i = 0; i < n_symbols; i++) {
        entry->ids[i] = w->symbols[i].id;
        entry->lengths[i] = (uint8_t)w->symbols[i].length;
    }
}

/* Bytes [begin, begin + n) of the piece, merged by themselves. */
static graft_status tokenize_word(const model *m, token_writer *writer, size_t begin, size_t n,
                                  graft_error *err) {
    const char *word = writer->piece.bytes + begin;
    workspace *w = writer->w;
    uint32_t hash = 0;
    size_t n_symbols = 0;
    if (n <= CACHED_WORD_BYTES) {
        const cached_word *known = word_cache_find(&w->caches[writer->is_plain], word, n, &hash);
        if (known)
            return write_known(m, writer, begin, known, err);
    }
    graft_status status = m->bpe.reads_bytes
                              ? bytes_to_symbols(&m->bpe, w, word, n, &n_symbols, err)
                              : characters_to_symbols(m, w, word, n, &n_symbols, err);
    if (status != GRAFT_OK)
        return status;
    n_symbols = merge(m, writer, n_symbols);
    if (n <= CACHED_WORD_BYTES)
        remember(writer, hash, word, n, n_symbols);
    return write_symbols(m, writer, begin, n_symbols, err);
}

/* The piece in the byte alphabet, for a word with bytes that are no token: what becomes of those,
 * and of the offsets after them, is told by characters. Not cached: the alphabet's characters are
 * not the text's. */
static graft_status tokenize_rewritten(const model *m, token_writer *writer, graft_error *err) {
    aligned_text *text = &writer->w->steps[0];
    text_view word = writer->piece;
    size_t n_symbols = 0;
    aligned_text_clear(text);
    for (size_t i = 0; i < word.n; i++)
        aligned_text_add_character(text, byte_to_character((unsigned char)word.bytes[i]),
                                   text_view_source(&word, i));
    graft_status status = aligned_text_status(text, err);
    if (status != GRAFT_OK)
        return status;
    writer->piece = aligned_text_view(text);
    status = characters_to_symbols(m, writer->w, text->bytes, text->n, &n_symbols, err);
    if (status != GRAFT_OK)
        return status;
    return write_symbols(m, writer, 0, merge(m, writer, n_symbols), err);
}

/* The id of the whole piece, when it is a token as it stands; else -1. */
static graft_status whole_token(int32_t *id, const model *m, workspace *w, const text_view *word,
                                graft_error *err) {
    *id = -1;
    if (word->n > m->bpe.token_bytes_max)
        return GRAFT_OK;
    if (!m->bpe.reads_bytes) {
        *id = vocab_find(&m->tokens, word->bytes, word->n);
        return GRAFT_OK;
    }
    strbuf_clear(&w->scratch);
    for (size_t i = 0; i < word->n; i++) {
        char character[4];
        strbuf_add(&w->scratch, character,
                   utf8_encode(character, byte_to_character((unsigned char)word->bytes[i])));
    }
    if (w->scratch.failed)
        return error_memory(err, word->n, "a word");
    *id = vocab_find(&m->tokens, strbuf_text(&w->scratch), w->scratch.length);
    return GRAFT_OK;
}

/* The next place after `at` where the piece may be cut; its end when there is none. */
static size_t next_cut(const bpe_model *bpe, const text_view *text, size_t at) {
    for (size_t i = at + 1; i < text->n; i++) {
        const char *found = memchr(text->bytes + i, meta_space[0], text->n - i);
        if (!found)
            break;
        i = (size_t)(found - text->bytes);
        if (text->n - i >= META_SPACE_BYTES && memcmp(found, meta_space, META_SPACE_BYTES) == 0 &&
            !bpe->inside[(unsigned char)found[-1]])
            return i;
    }
    return text->n;
}

graft_status bpe_tokenize(const model *m, token_writer *writer, graft_error *err) {
    const bpe_model *bpe = &m->bpe;
    const text_view *text = &writer->piece;
    if (bpe->ignore_merges) {
        int32_t id;
        graft_status status = whole_token(&id, m, writer->w, text, err);
        if (status != GRAFT_OK)
            return status;
        if (id >= 0 && model_allows(m, writer, id))
            return write_symbol(m, writer, id, 0, text->n) ? GRAFT_OK : write_failed(err);
    }
    if (bpe->reads_bytes && !bpe->has_all_bytes && !has_all(bpe, text->bytes, text->n))
        return tokenize_rewritten(m, writer, err);
    for (size_t at = 0, stop; at < text->n; at = stop) {
        stop = bpe->cuts_before_space ? next_cut(bpe, text, at) : text->n;
        graft_status status = tokenize_word(m, writer, at, stop - at, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}
