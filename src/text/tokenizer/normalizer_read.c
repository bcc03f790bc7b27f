#include "text/tokenizer/component.h"
#include "text/tokenizer/normalizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static graft_status no_memory(graft_error *err) {
    return error_memory(err, sizeof(normalizer), "a normalizer");
}

static graft_status add_kind(normalizer_list *list, normalizer_kind kind, graft_error *err) {
    normalizer *step = normalizer_list_add(list);
    if (!step)
        return no_memory(err);
    step->kind = kind;
    return GRAFT_OK;
}

static graft_status read_strip(normalizer_list *list, const json_t *json, const char *place,
                               graft_error *err) {
    normalizer *step = normalizer_list_add(list);
    if (!step)
        return no_memory(err);
    step->kind = NORMALIZER_STRIP;
    graft_status status = json_get_bool(&step->left, json, "strip_left", true, place, err);
    return status != GRAFT_OK ? status
                              : json_get_bool(&step->right, json, "strip_right", true, place, err);
}

static graft_status read_replace(normalizer_list *list, const json_t *json, const char *place,
                                 graft_error *err) {
    char inner[PLACE_BYTES];
    normalizer *step = normalizer_list_add(list);
    if (!step)
        return no_memory(err);
    step->kind = NORMALIZER_REPLACE;
    snprintf(inner, sizeof inner, "%s.pattern", place);
    graft_status status =
        text_pattern_read(&step->pattern, json_object_get(json, "pattern"), inner, err);
    return status != GRAFT_OK
               ? status
               : component_text(&step->content, &step->content_bytes, json, "content", place, err);
}

static graft_status read_prepend(normalizer_list *list, const json_t *json, const char *place,
                                 graft_error *err) {
    normalizer *step = normalizer_list_add(list);
    if (!step)
        return no_memory(err);
    step->kind = NORMALIZER_PREPEND;
    return component_text(&step->content, &step->content_bytes, json, "prepend", place, err);
}

static graft_status read_precompiled(normalizer_list *list, const json_t *json, const char *place,
                                     graft_error *err) {
    normalizer *step = normalizer_list_add(list);
    const char *text;
    unsigned char *blob = NULL;
    size_t n = 0;
    if (!step)
        return no_memory(err);
    step->kind = NORMALIZER_PRECOMPILED;
    graft_status status = json_get_string(&text, json, "precompiled_charsmap", "", place, err);
    if (status != GRAFT_OK)
        return status;
    char inner[PLACE_BYTES];
    snprintf(inner, sizeof inner, "%s.precompiled_charsmap", place);
    status = base64_decode(&blob, &n, text, strlen(text), inner, err);
    if (status == GRAFT_OK)
        status = charsmap_read(&step->map, blob, n, inner, err);
    free(blob);
    return status;
}

/* Its four steps one after the other; accents are stripped with lower case unless said otherwise.
 */
static graft_status read_bert(normalizer_list *list, const json_t *json, const char *place,
                              graft_error *err) {
    bool clean, chinese, accents, lowercase;
    graft_status status = json_get_bool(&clean, json, "clean_text", true, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&chinese, json, "handle_chinese_chars", true, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&lowercase, json, "lowercase", true, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&accents, json, "strip_accents", lowercase, place, err);
    if (status == GRAFT_OK && clean)
        status = add_kind(list, NORMALIZER_BERT_CLEAN, err);
    if (status == GRAFT_OK && chinese)
        status = add_kind(list, NORMALIZER_BERT_CHINESE, err);
    if (status == GRAFT_OK && accents)
        status = add_kind(list, NORMALIZER_NFD, err);
    if (status == GRAFT_OK && accents)
        status = add_kind(list, NORMALIZER_STRIP_NONSPACING, err);
    if (status == GRAFT_OK && lowercase)
        status = add_kind(list, NORMALIZER_LOWERCASE, err);
    return status;
}

static graft_status read_one(void *pipeline, const char *type, const json_t *json,
                             const char *place, graft_error *err) {
    static const struct {
        const char *name;
        normalizer_kind kind;
    } plain[] = {
        {"NFC", NORMALIZER_NFC},
        {"NFD", NORMALIZER_NFD},
        {"NFKC", NORMALIZER_NFKC},
        {"NFKD", NORMALIZER_NFKD},
        {"Lowercase", NORMALIZER_LOWERCASE},
        {"StripAccents", NORMALIZER_STRIP_ACCENTS},
        {"Nmt", NORMALIZER_NMT},
        {"ByteLevel", NORMALIZER_BYTE_LEVEL},
    };
    static const struct {
        const char *name;
        graft_status (*read)(normalizer_list *, const json_t *, const char *, graft_error *);
    } others[] = {
        {"Strip", read_strip},         {"Replace", read_replace},
        {"Prepend", read_prepend},     {"Precompiled", read_precompiled},
        {"BertNormalizer", read_bert},
    };
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strcmp(type, plain[i].name) == 0)
            return add_kind(pipeline, plain[i].kind, err);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(type, others[i].name) == 0)
            return others[i].read(pipeline, json, place, err);
    return component_unknown(type,
                             "NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Replace, "
                             "Prepend, Nmt, ByteLevel, BertNormalizer, Precompiled",
                             place, err);
}

graft_status normalizer_list_read(normalizer_list *list, const json_t *json, const char *place,
                                  graft_error *err) {
    return components_read(list, read_one, "normalizers", json, place, err);
}
