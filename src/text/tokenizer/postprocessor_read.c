#include "text/tokenizer/component.h"
#include "text/tokenizer/postprocessor.h"

#include <stdio.h>
#include <string.h>

static graft_status begin_template(postprocessor *p, const char *place, graft_error *err) {
    if (p->has_template)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: a second post-processor that adds tokens; only one is accepted",
                         place);
    p->has_template = true;
    return GRAFT_OK;
}

static graft_status add_trim(postprocessor *p, const json_t *json, const char *place,
                             graft_error *err) {
    bool trims, keeps;
    graft_status status = json_get_bool(&trims, json, "trim_offsets", true, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&keeps, json, "add_prefix_space", true, place, err);
    if (status != GRAFT_OK || !trims)
        return status;
    if (p->n_trims == TRIMS_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: more than %d post-processors that trim offsets",
                         place, TRIMS_MAX);
    p->trim_keeps_prefix_space[p->n_trims++] = keeps;
    return GRAFT_OK;
}

static graft_status read_byte_level(postprocessor *p, const json_t *json, const char *place,
                                    graft_error *err) {
    return add_trim(p, json, place, err);
}

/* ["</s>", 2]: only the id counts, as in Hugging Face's tokenizers. */
static graft_status read_pair(postprocessor *p, const json_t *json, const char *key,
                              const char *place, graft_error *err) {
    const json_t *pair = json_object_get(json, key);
    const json_t *id = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= VOCAB_IDS_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s.%s: expected [token, id], found %s", place, key,
                         pair ? json_type_name(pair) : "nothing");
    return postprocessor_add_id(p, (int32_t)json_integer_value(id), place, err);
}

static graft_status read_bert(postprocessor *p, const json_t *json, const char *place,
                              graft_error *err) {
    graft_status status = begin_template(p, place, err);
    if (status == GRAFT_OK)
        status = read_pair(p, json, "cls", place, err);
    if (status == GRAFT_OK)
        status = postprocessor_add_id(p, TEMPLATE_TEXT, place, err);
    if (status == GRAFT_OK)
        status = read_pair(p, json, "sep", place, err);
    return status;
}

static graft_status read_roberta(postprocessor *p, const json_t *json, const char *place,
                                 graft_error *err) {
    graft_status status = add_trim(p, json, place, err);
    return status == GRAFT_OK ? read_bert(p, json, place, err) : status;
}

/* {"SpecialToken": {"id": "[CLS]"}}: the ids are in special_tokens under that name. */
static graft_status read_special(postprocessor *p, const json_t *special_tokens, const char *name,
                                 const char *place, graft_error *err) {
    const json_t *token = json_object_get(special_tokens, name);
    const json_t *ids = json_object_get(token, "ids");
    if (!json_is_array(ids))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: the special token \"%.64s\" is missing in special_tokens; add it "
                         "there with its ids",
                         place, name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= VOCAB_IDS_MAX)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: id %zu of the special token \"%.64s\": expected an integer from "
                             "0 to %d, found %s",
                             place, i, name, VOCAB_IDS_MAX - 1, json_type_name(id));
        graft_status status = postprocessor_add_id(p, (int32_t)json_integer_value(id), place, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static graft_status read_template_piece(postprocessor *p, const json_t *piece,
                                        const json_t *special_tokens, const char *place,
                                        graft_error *err) {
    const json_t *special = json_object_get(piece, "SpecialToken");
    const json_t *sequence = json_object_get(piece, "Sequence");
    const char *name = json_string_value(json_object_get(special ? special : sequence, "id"));
    if (!name)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected {\"SpecialToken\": {\"id\"}} or {\"Sequence\": {\"id\"}}, "
                         "found %s",
                         place, json_type_name(piece));
    if (special)
        return read_special(p, special_tokens, name, place, err);
    if (strcmp(name, "A") != 0)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: the sequence \"%.64s\" cannot stand in a template for one text; "
                         "expected A",
                         place, name);
    return postprocessor_add_id(p, TEMPLATE_TEXT, place, err);
}

static graft_status read_template(postprocessor *p, const json_t *json, const char *place,
                                  graft_error *err) {
    const json_t *single = json_object_get(json, "single");
    const json_t *special_tokens = json_object_get(json, "special_tokens");
    graft_status status = begin_template(p, place, err);
    if (status != GRAFT_OK)
        return status;
    if (!json_is_array(single))
        return error_set(err, GRAFT_E_INPUT, "%s.single: expected an array, found %s", place,
                         single ? json_type_name(single) : "nothing");
    for (size_t i = 0; i < json_array_size(single) && status == GRAFT_OK; i++) {
        char inner[PLACE_BYTES];
        snprintf(inner, sizeof inner, "%s.single[%zu]", place, i);
        status = read_template_piece(p, json_array_get(single, i), special_tokens, inner, err);
    }
    return status;
}

static graft_status read_one(void *pipeline, const char *type, const json_t *json,
                             const char *place, graft_error *err) {
    static const struct {
        const char *name;
        graft_status (*read)(postprocessor *, const json_t *, const char *, graft_error *);
    } table[] = {
        {"ByteLevel", read_byte_level},
        {"BertProcessing", read_bert},
        {"RobertaProcessing", read_roberta},
        {"TemplateProcessing", read_template},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(type, table[i].name) == 0)
            return table[i].read(pipeline, json, place, err);
    return component_unknown(
        type, "ByteLevel, BertProcessing, RobertaProcessing, TemplateProcessing", place, err);
}

graft_status postprocessor_read(postprocessor *p, const json_t *json, const char *place,
                                graft_error *err) {
    return components_read(p, read_one, "processors", json, place, err);
}
