/* tokenizer.json, Hugging Face's own format: the whole pipeline. Its padding and truncation are not
 * the tokenizer's business and are passed over, as Transformers does. */
#include "base/memory.h"
#include "text/tokenizer/parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static graft_status read_version(const json_t *json, const char *path, graft_error *err) {
    const char *version;
    graft_status status = json_get_string(&version, json, "version", "1.0", path, err);
    if (status == GRAFT_OK && strcmp(version, "1.0") != 0)
        return error_set(err, GRAFT_E_UNSUPPORTED, "%s: version \"%.32s\"; expected \"1.0\"", path,
                         version);
    return status;
}

/* "a b" or ["a", "b"] */
static graft_status read_merge(model *m, const json_t *merge, size_t n, const char *place,
                               graft_error *err) {
    const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right))
        return load_merge(m, json_string_value(left), json_string_length(left),
                          json_string_value(right), json_string_length(right), n, place, err);
    const char *text = json_string_value(merge);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: merge %zu: expected two tokens, as \"a b\" or [\"a\", \"b\"], found "
                         "%s%.64s",
                         place, n, text ? "" : json_type_name(merge), text ? text : "");
    return load_merge(m, text, (size_t)(space - text), space + 1, strlen(space + 1), n, place, err);
}

static graft_status read_merges(model *m, const json_t *merges, const char *place,
                                graft_error *err) {
    if (!json_is_array(merges))
        return error_set(err, GRAFT_E_INPUT, "%s: expected an array, found %s", place,
                         merges ? json_type_name(merges) : "nothing");
    graft_status status = GRAFT_OK;
    for (size_t i = 0, n = 0; i < json_array_size(merges) && status == GRAFT_OK; i++) {
        const json_t *merge = json_array_get(merges, i);
        const char *text = json_string_value(merge);
        if (!text || strncmp(text, "#version", 8) != 0)
            status = read_merge(m, merge, n++, place, err);
    }
    return status;
}

/* A prefix or suffix of tokens; an empty one is none. */
static graft_status read_affix(char **out, const json_t *json, const char *key, const char *place,
                               graft_error *err) {
    const char *text;
    graft_status status = json_get_string(&text, json, key, "", place, err);
    if (status != GRAFT_OK || !*text)
        return status;
    if (strlen(text) > AFFIX_BYTES_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s.%s: %zu bytes; at most %d are accepted", place,
                         key, strlen(text), AFFIX_BYTES_MAX);
    *out = mem_text(text, strlen(text));
    return *out ? GRAFT_OK : error_memory(err, strlen(text), key);
}

static graft_status read_unk_token(model *m, const json_t *json, const char *fallback,
                                   const char *place, graft_error *err) {
    const char *token;
    graft_status status = json_get_string(&token, json, "unk_token", fallback, place, err);
    return status == GRAFT_OK ? model_set_unk(m, token, err) : status;
}

static graft_status read_bpe(model *m, const json_t *json, const char *place, graft_error *err) {
    bpe_model *bpe = &m->bpe;
    double dropout;
    char inner[PLACE_BYTES];
    graft_status status = json_get_double(&dropout, json, "dropout", 0.0, place, err);
    if (status == GRAFT_OK && dropout != 0.0)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s.dropout: %g; Graft has no BPE dropout; set it to null", place,
                         dropout);
    if (status == GRAFT_OK)
        status = json_get_bool(&bpe->fuse_unk, json, "fuse_unk", false, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&bpe->byte_fallback, json, "byte_fallback", false, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&bpe->ignore_merges, json, "ignore_merges", false, place, err);
    if (status == GRAFT_OK)
        status = read_affix(&bpe->prefix, json, "continuing_subword_prefix", place, err);
    if (status == GRAFT_OK)
        status = read_affix(&bpe->suffix, json, "end_of_word_suffix", place, err);
    snprintf(inner, sizeof inner, "%s.vocab", place);
    if (status == GRAFT_OK)
        status = load_vocab_object(&m->tokens, json_object_get(json, "vocab"), inner, err);
    snprintf(inner, sizeof inner, "%s.merges", place);
    if (status == GRAFT_OK)
        status = read_merges(m, json_object_get(json, "merges"), inner, err);
    return status == GRAFT_OK ? read_unk_token(m, json, NULL, place, err) : status;
}

static graft_status add_scored(model *m, const json_t *entry, size_t i, const char *place,
                               graft_error *err) {
    const json_t *token = json_array_get(entry, 0), *score = json_array_get(entry, 1);
    if (json_array_size(entry) != 2 || !json_is_string(token) || !json_is_number(score))
        return error_set(err, GRAFT_E_INPUT, "%s.vocab[%zu]: expected [token, score], found %s",
                         place, i, json_type_name(entry));
    double value = json_number_value(score);
    if (!isfinite(value))
        return error_set(err, GRAFT_E_INPUT, "%s.vocab[%zu]: its score is not finite", place, i);
    m->unigram.scores[i] = value;
    vocab_result result =
        vocab_add(&m->tokens, json_string_value(token), json_string_length(token), (int32_t)i);
    if (result == VOCAB_NO_MEMORY)
        return error_memory(err, m->tokens.n_bytes, "the vocabulary");
    if (result != VOCAB_ADDED)
        return error_set(err, GRAFT_E_INPUT,
                         "%s.vocab[%zu]: \"%.64s\" is in the vocabulary before; tokens must differ",
                         place, i, json_string_value(token));
    return GRAFT_OK;
}

static graft_status read_unigram(model *m, const json_t *json, const char *place,
                                 graft_error *err) {
    const json_t *list = json_object_get(json, "vocab");
    size_t n = json_array_size(list);
    int64_t unk_id;
    if (!json_is_array(list))
        return error_set(err, GRAFT_E_INPUT, "%s.vocab: expected an array, found %s", place,
                         list ? json_type_name(list) : "nothing");
    graft_status status = check_id_gaps((int64_t)n - 1, n, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&m->unigram.byte_fallback, json, "byte_fallback", false, place, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&unk_id, json, "unk_id", 0, (int64_t)n - 1, UNK_NONE, place, err);
    if (status != GRAFT_OK)
        return status;
    m->unigram.scores = mem_array(n, sizeof *m->unigram.scores);
    if (!m->unigram.scores)
        return error_memory(err, n * sizeof *m->unigram.scores, "the vocabulary's scores");
    for (size_t i = 0; i < n && status == GRAFT_OK; i++)
        status = add_scored(m, json_array_get(list, i), i, place, err);
    m->unk_id = (int32_t)unk_id;
    return status;
}

static graft_status read_wordpiece(model *m, const json_t *json, const char *place,
                                   graft_error *err) {
    const char *prefix;
    char inner[PLACE_BYTES];
    graft_status status = component_size(&m->wordpiece.characters_max, json,
                                         "max_input_chars_per_word", 0, 100, place, err);
    if (status == GRAFT_OK)
        status = json_get_string(&prefix, json, "continuing_subword_prefix", "##", place, err);
    if (status != GRAFT_OK)
        return status;
    m->wordpiece.prefix = mem_text(prefix, strlen(prefix));
    if (!m->wordpiece.prefix)
        return error_memory(err, strlen(prefix), "a tokenizer's text");
    snprintf(inner, sizeof inner, "%s.vocab", place);
    status = load_vocab_object(&m->tokens, json_object_get(json, "vocab"), inner, err);
    return status == GRAFT_OK ? read_unk_token(m, json, "[UNK]", place, err) : status;
}

static graft_status read_wordlevel(model *m, const json_t *json, const char *place,
                                   graft_error *err) {
    char inner[PLACE_BYTES];
    snprintf(inner, sizeof inner, "%s.vocab", place);
    graft_status status = load_vocab_object(&m->tokens, json_object_get(json, "vocab"), inner, err);
    return status == GRAFT_OK ? read_unk_token(m, json, "<unk>", place, err) : status;
}

/* Files from before the type was written are told by their members. */
static const char *guess_model_type(const json_t *json) {
    if (json_object_get(json, "merges"))
        return "BPE";
    if (json_is_array(json_object_get(json, "vocab")))
        return "Unigram";
    return json_object_get(json, "max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

static graft_status read_model(model *m, const json_t *json, const char *place, graft_error *err) {
    static const struct {
        const char *name;
        model_kind kind;
        graft_status (*read)(model *, const json_t *, const char *, graft_error *);
    } table[] = {
        {"BPE", MODEL_BPE, read_bpe},
        {"Unigram", MODEL_UNIGRAM, read_unigram},
        {"WordPiece", MODEL_WORDPIECE, read_wordpiece},
        {"WordLevel", MODEL_WORDLEVEL, read_wordlevel},
    };
    const char *type;
    if (!json_is_object(json))
        return error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", place,
                         json ? json_type_name(json) : "nothing");
    graft_status status = json_get_string(&type, json, "type", NULL, place, err);
    if (status != GRAFT_OK)
        return status;
    if (!type)
        type = guess_model_type(json);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(type, table[i].name) != 0)
            continue;
        m->kind = table[i].kind;
        return table[i].read(m, json, place, err);
    }
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s.type: \"%.64s\" is not among those that Graft has: BPE, Unigram, "
                     "WordPiece, WordLevel",
                     place, type);
}

static graft_status read_added_tokens(tokenizer *t, const json_t *list, const char *path,
                                      const message_sink *sink, graft_error *err) {
    if (list && !json_is_null(list) && !json_is_array(list))
        return error_set(err, GRAFT_E_INPUT, "%s: added_tokens: expected an array, found %s", path,
                         json_type_name(list));
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < json_array_size(list) && status == GRAFT_OK; i++) {
        char place[PLACE_BYTES];
        const json_t *json = json_array_get(list, i);
        added_token token;
        int64_t id;
        snprintf(place, sizeof place, "%s: added_tokens[%zu]", path, i);
        const char *content = json_string_value(json_object_get(json, "content"));
        if (!content)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: expected an object with \"id\" and \"content\", found %s", place,
                             json_type_name(json));
        status = json_need_i64(&id, json, "id", 0, VOCAB_IDS_MAX - 1, place, err);
        if (status == GRAFT_OK)
            status = read_added_token(&token, json, content, place, err);
        if (status == GRAFT_OK)
            status = load_added_token(t, &token, id, false, place, sink, err);
    }
    return status;
}

graft_status load_tokenizer_json(tokenizer *t, const char *path, const message_sink *sink,
                                 graft_error *err) {
    json_t *json = NULL;
    char place[PLACE_BYTES];
    graft_status status = json_read_file(&json, path, TOKENIZER_FILE_BYTES_MAX, err);
    if (status != GRAFT_OK)
        return status;
    if (!json_is_object(json))
        status = error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", path,
                           json_type_name(json));
    if (status == GRAFT_OK)
        status = read_version(json, path, err);
    snprintf(place, sizeof place, "%s: normalizer", path);
    if (status == GRAFT_OK)
        status =
            normalizer_list_read(&t->normalizers, json_object_get(json, "normalizer"), place, err);
    snprintf(place, sizeof place, "%s: pre_tokenizer", path);
    if (status == GRAFT_OK)
        status = pretokenizer_list_read(&t->pretokenizers, json_object_get(json, "pre_tokenizer"),
                                        place, err);
    snprintf(place, sizeof place, "%s: post_processor", path);
    if (status == GRAFT_OK)
        status = postprocessor_read(&t->postprocessor, json_object_get(json, "post_processor"),
                                    place, err);
    snprintf(place, sizeof place, "%s: decoder", path);
    if (status == GRAFT_OK)
        status = decoder_list_read(&t->decoders, json_object_get(json, "decoder"), place, err);
    snprintf(place, sizeof place, "%s: model", path);
    if (status == GRAFT_OK)
        status = read_model(&t->model, json_object_get(json, "model"), place, err);
    if (status == GRAFT_OK)
        status = read_added_tokens(t, json_object_get(json, "added_tokens"), path, sink, err);
    json_decref(json);
    return status;
}
