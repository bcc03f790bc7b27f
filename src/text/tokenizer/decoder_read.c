#include "text/tokenizer/component.h"
#include "text/tokenizer/decoder.h"

#include <stdio.h>
#include <string.h>

static graft_status read_content(decoder *step, const json_t *json, const char *key,
                                 const char *place, graft_error *err) {
    size_t n;
    return component_text(&step->content, &n, json, key, place, err);
}

static graft_status refuse_empty(const char *text, const char *key, const char *place,
                                 graft_error *err) {
    return *text ? GRAFT_OK
                 : error_set(err, GRAFT_E_INPUT, "%s.%s: is empty; expected some text", place, key);
}

static graft_status read_bpe(decoder *step, const json_t *json, const char *place,
                             graft_error *err) {
    graft_status status = read_content(step, json, "suffix", place, err);
    return status == GRAFT_OK ? refuse_empty(step->content, "suffix", place, err) : status;
}

static graft_status read_wordpiece(decoder *step, const json_t *json, const char *place,
                                   graft_error *err) {
    graft_status status = read_content(step, json, "prefix", place, err);
    return status == GRAFT_OK ? json_get_bool(&step->cleanup, json, "cleanup", true, place, err)
                              : status;
}

static graft_status read_metaspace(decoder *step, const json_t *json, const char *place,
                                   graft_error *err) {
    bool add_prefix_space;
    const char *scheme;
    graft_status status =
        json_get_bool(&add_prefix_space, json, "add_prefix_space", true, place, err);
    if (status == GRAFT_OK)
        status = json_get_string(&scheme, json, "prepend_scheme",
                                 add_prefix_space ? "always" : "never", place, err);
    if (status != GRAFT_OK)
        return status;
    step->drops_first = strcmp(scheme, "never") != 0;
    return component_character(&step->character, json, "replacement", place, err);
}

static graft_status read_ctc(decoder *step, const json_t *json, const char *place,
                             graft_error *err) {
    size_t n;
    graft_status status = read_content(step, json, "pad_token", place, err);
    if (status == GRAFT_OK)
        status = component_text(&step->delimiter, &n, json, "word_delimiter_token", place, err);
    if (status == GRAFT_OK)
        status = refuse_empty(step->delimiter, "word_delimiter_token", place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&step->cleanup, json, "cleanup", true, place, err);
    return status;
}

static graft_status read_replace(decoder *step, const json_t *json, const char *place,
                                 graft_error *err) {
    char inner[PLACE_BYTES];
    snprintf(inner, sizeof inner, "%s.pattern", place);
    graft_status status =
        text_pattern_read(&step->pattern, json_object_get(json, "pattern"), inner, err);
    return status == GRAFT_OK ? read_content(step, json, "content", place, err) : status;
}

static graft_status read_strip(decoder *step, const json_t *json, const char *place,
                               graft_error *err) {
    graft_status status = component_character(&step->character, json, "content", place, err);
    if (status == GRAFT_OK)
        status = component_size(&step->start, json, "start", 0, 0, place, err);
    if (status == GRAFT_OK)
        status = component_size(&step->stop, json, "stop", 0, 0, place, err);
    return status;
}

static graft_status read_one(void *pipeline, const char *type, const json_t *json,
                             const char *place, graft_error *err) {
    static const struct {
        const char *name;
        decoder_kind kind;
        graft_status (*read)(decoder *, const json_t *, const char *, graft_error *);
    } table[] = {
        {"ByteLevel", DECODER_BYTE_LEVEL, NULL},
        {"BPEDecoder", DECODER_BPE, read_bpe},
        {"WordPiece", DECODER_WORDPIECE, read_wordpiece},
        {"Metaspace", DECODER_METASPACE, read_metaspace},
        {"CTC", DECODER_CTC, read_ctc},
        {"Replace", DECODER_REPLACE, read_replace},
        {"Fuse", DECODER_FUSE, NULL},
        {"Strip", DECODER_STRIP, read_strip},
        {"ByteFallback", DECODER_BYTE_FALLBACK, NULL},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(type, table[i].name) != 0)
            continue;
        decoder *step = decoder_list_add(pipeline);
        if (!step)
            return error_memory(err, sizeof *step, "a decoder");
        step->kind = table[i].kind;
        return table[i].read ? table[i].read(step, json, place, err) : GRAFT_OK;
    }
    return component_unknown(type,
                             "ByteLevel, BPEDecoder, WordPiece, Metaspace, CTC, Replace, Fuse, "
                             "Strip, ByteFallback",
                             place, err);
}

graft_status decoder_list_read(decoder_list *list, const json_t *json, const char *place,
                               graft_error *err) {
    graft_status status = components_read(list, read_one, "decoders", json, place, err);
    if (status != GRAFT_OK || (json && !json_is_null(json)))
        return status;
    decoder *join = decoder_list_add(list);
    if (!join)
        return error_memory(err, sizeof *join, "a decoder");
    join->kind = DECODER_JOIN;
    return GRAFT_OK;
}
