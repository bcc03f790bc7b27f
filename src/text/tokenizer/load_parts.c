#include "base/memory.h"
#include "text/tokenizer/parts.h"

#include <string.h>

graft_status check_id_gaps(int64_t highest_id, size_t count, const char *place, graft_error *err) {
    if (highest_id >= VOCAB_IDS_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: id %lld; expected ids below %d", place,
                         (long long)highest_id, VOCAB_IDS_MAX);
    if (highest_id >= 0 && (size_t)highest_id >= count + VOCAB_GAPS_MAX)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: id %lld among %zu tokens; at most %d ids may be without a token",
                         place, (long long)highest_id, count, VOCAB_GAPS_MAX);
    return GRAFT_OK;
}

static graft_status check_vocab_ids(const json_t *json, const char *place, graft_error *err) {
    const char *token;
    json_t *id;
    int64_t highest = -1;
    json_object_foreach((json_t *)(uintptr_t)json, token, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: the id of \"%.64s\": expected an integer from 0 on, found %s",
                             place, token,
                             json_is_integer(id) ? "a negative one" : json_type_name(id));
        if (json_integer_value(id) > highest)
            highest = json_integer_value(id);
    }
    return check_id_gaps(highest, json_object_size(json), place, err);
}

graft_status load_vocab_object(vocab *v, const json_t *json, const char *place, graft_error *err) {
    if (!json_is_object(json))
        return error_set(err, GRAFT_E_INPUT, "%s: expected an object of tokens and ids, found %s",
                         place, json ? json_type_name(json) : "nothing");
    graft_status status = check_vocab_ids(json, place, err);
    if (status != GRAFT_OK)
        return status;
    const char *token;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)json, token, id) {
        int32_t value = (int32_t)json_integer_value(id);
        vocab_result result = vocab_add(v, token, strlen(token), value);
        if (result == VOCAB_NO_MEMORY)
            return error_memory(err, v->n_bytes, "the vocabulary");
        size_t n;
        if (result != VOCAB_ADDED)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: id %d belongs to both \"%.64s\" and \"%.64s\"; ids must differ",
                             place, value, vocab_text(v, value, &n), token);
    }
    return GRAFT_OK;
}

static graft_status merge_refused(const char *place, size_t n, const char *what, const char *text,
                                  size_t n_text, graft_error *err) {
    return error_set(err, GRAFT_E_INPUT,
                     "%s: merge %zu: %s \"%.*s\" is not in the vocabulary; the file's merges and "
                     "vocabulary do not belong together",
                     place, n, what, (int)(n_text < 64 ? n_text : 64), text);
}

graft_status load_merge(model *m, const char *left, size_t n_left, const char *right,
                        size_t n_right, size_t n, const char *place, graft_error *err) {
    int32_t left_id = vocab_find(&m->tokens, left, n_left);
    int32_t right_id = vocab_find(&m->tokens, right, n_right);
    if (left_id < 0)
        return merge_refused(place, n, "its left token", left, n_left, err);
    if (right_id < 0)
        return merge_refused(place, n, "its right token", right, n_right, err);
    size_t skipped = m->bpe.prefix ? strlen(m->bpe.prefix) : 0;
    if (skipped > n_right)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: merge %zu: its right token \"%.*s\" is shorter than the subword "
                         "prefix \"%s\"",
                         place, n, (int)(n_right < 64 ? n_right : 64), right, m->bpe.prefix);
    strbuf merged = {0};
    strbuf_add(&merged, left, n_left);
    strbuf_add(&merged, right + skipped, n_right - skipped);
    int32_t id = vocab_find(&m->tokens, strbuf_text(&merged), merged.length);
    graft_status status =
        merged.failed ? error_memory(err, n_left + n_right, "a merge")
        : id < 0      ? merge_refused(place, n, "its result", merged.data, merged.length, err)
                      : bpe_add_pair(&m->bpe, left_id, right_id, (uint32_t)n, id, err);
    strbuf_free(&merged);
    return status;
}

/* ---- Added tokens ---- */

graft_status read_added_token(added_token *token, const json_t *json, const char *content,
                              const char *place, graft_error *err) {
    *token = (added_token){.content = (char *)(uintptr_t)content, .content_bytes = strlen(content)};
    graft_status status = json_get_bool(&token->special, json, "special", false, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&token->single_word, json, "single_word", false, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&token->lstrip, json, "lstrip", false, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&token->rstrip, json, "rstrip", false, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&token->normalized, json, "normalized", !token->special, place, err);
    return status;
}

static graft_status id_taken(const tokenizer *t, const added_token *token, const char *place,
                             graft_error *err) {
    return error_set(err, GRAFT_E_INPUT,
                     "%s: the added token \"%.64s\" would get id %d, which is \"%.64s\" already; "
                     "the vocabulary's ids must have no gaps where added tokens go",
                     place, token->content, token->id, tokenizer_token_text(t, token->id));
}

/* Gives a token that the vocabulary does not have its id. */
static graft_status add_new_name(tokenizer *t, added_token *token, int64_t wanted_id, bool exact,
                                 const char *place, graft_error *err) {
    if (t->added_names.n_tokens == 0)
        t->next_added_id = (int32_t)t->model.tokens.n_tokens;
    int64_t id = exact ? wanted_id : t->next_added_id;
    graft_status status =
        check_id_gaps(id, t->model.tokens.n_tokens + t->added_names.n_tokens, place, err);
    if (status != GRAFT_OK)
        return status;
    token->id = (int32_t)id;
    if (tokenizer_token_text(t, token->id))
        return id_taken(t, token, place, err);
    if (t->added.n >= ADDED_TOKENS_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: more than %d added tokens", place,
                         ADDED_TOKENS_MAX);
    if (vocab_add(&t->added_names, token->content, token->content_bytes, token->id) != VOCAB_ADDED)
        return error_memory(err, token->content_bytes, "an added token");
    t->next_added_id = token->id + 1;
    return GRAFT_OK;
}

graft_status load_added_token(tokenizer *t, const added_token *token, int64_t wanted_id, bool exact,
                              const char *place, const message_sink *sink, graft_error *err) {
    added_token added = *token;
    if (added.content_bytes == 0)
        return GRAFT_OK;
    if (added.content_bytes > ADDED_TOKEN_BYTES_MAX)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: an added token of %zu bytes; at most %d are accepted", place,
                         added.content_bytes, ADDED_TOKEN_BYTES_MAX);
    added.id = vocab_find(&t->added_names, added.content, added.content_bytes);
    if (added.id < 0)
        added.id = vocab_find(&t->model.tokens, added.content, added.content_bytes);
    if (added.id < 0) {
        graft_status status =
            add_new_name(t, &added, wanted_id, exact && wanted_id >= 0, place, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (wanted_id >= 0 && wanted_id != added.id)
        message_emit(sink, MESSAGE_WARNING,
                     "%s: the added token \"%s\" says id %lld and has id %d, as in Hugging Face's "
                     "tokenizers",
                     place, added.content, (long long)wanted_id, added.id);
    return added_tokens_add(&t->added, &added, err);
}

graft_status add_split(tokenizer *t, const char *pattern, const char *place, graft_error *err) {
    pretokenizer *step = pretokenizer_list_add(&t->pretokenizers);
    if (!step)
        return error_memory(err, sizeof *step, "a pre-tokenizer");
    step->kind = PRETOKENIZER_SPLIT;
    step->behavior = SPLIT_ISOLATED;
    return text_pattern_regex(&step->pattern, pattern, strlen(pattern), place, err);
}

graft_status add_byte_level(tokenizer *t, bool add_prefix_space, bool use_regex, graft_error *err) {
    pretokenizer *step = pretokenizer_list_add(&t->pretokenizers);
    if (!step)
        return error_memory(err, sizeof *step, "a pre-tokenizer");
    step->kind = PRETOKENIZER_BYTE_LEVEL;
    step->add_prefix_space = add_prefix_space;
    step->use_regex = use_regex;
    return add_decoder(t, DECODER_BYTE_LEVEL, err);
}

graft_status add_decoder(tokenizer *t, decoder_kind kind, graft_error *err) {
    decoder *step = decoder_list_add(&t->decoders);
    if (!step)
        return error_memory(err, sizeof *step, "a decoder");
    step->kind = kind;
    return GRAFT_OK;
}
