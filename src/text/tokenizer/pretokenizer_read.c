#include "text/tokenizer/component.h"
#include "text/tokenizer/pretokenizer.h"

#include <stdio.h>
#include <string.h>

static graft_status read_behavior(split_behavior *out, const json_t *json, const char *place,
                                  graft_error *err) {
    static const char *const names[] = {
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *name;
    graft_status status = json_get_string(&name, json, "behavior", "Isolated", place, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (split_behavior)i;
            return GRAFT_OK;
        }
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s.behavior: \"%.64s\" is unknown; expected Removed, Isolated, "
                     "MergedWithPrevious, MergedWithNext or Contiguous",
                     place, name);
}

static graft_status read_byte_level(pretokenizer *step, const json_t *json, const char *place,
                                    graft_error *err) {
    graft_status status =
        json_get_bool(&step->add_prefix_space, json, "add_prefix_space", true, place, err);
    return status != GRAFT_OK
               ? status
               : json_get_bool(&step->use_regex, json, "use_regex", true, place, err);
}

/* Older files say add_prefix_space, newer ones prepend_scheme. */
static graft_status read_metaspace(pretokenizer *step, const json_t *json, const char *place,
                                   graft_error *err) {
    bool add_prefix_space;
    const char *scheme;
    graft_status status =
        json_get_bool(&add_prefix_space, json, "add_prefix_space", true, place, err);
    if (status == GRAFT_OK)
        status = json_get_string(&scheme, json, "prepend_scheme",
                                 add_prefix_space ? "always" : "never", place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&step->split, json, "split", true, place, err);
    if (status == GRAFT_OK)
        status = component_character(&step->character, json, "replacement", place, err);
    if (status != GRAFT_OK)
        return status;
    if (strcmp(scheme, "always") == 0)
        step->prepend = PREPEND_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        step->prepend = PREPEND_FIRST;
    else if (strcmp(scheme, "never") == 0)
        step->prepend = PREPEND_NEVER;
    else
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s.prepend_scheme: \"%.64s\" is unknown; expected always, first or never",
                         place, scheme);
    if (!add_prefix_space && step->prepend != PREPEND_NEVER)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: add_prefix_space is false, and prepend_scheme is \"%s\"; they "
                         "contradict each other",
                         place, scheme);
    return GRAFT_OK;
}

static graft_status read_delimiter(pretokenizer *step, const json_t *json, const char *place,
                                   graft_error *err) {
    return component_character(&step->character, json, "delimiter", place, err);
}

static graft_status read_split(pretokenizer *step, const json_t *json, const char *place,
                               graft_error *err) {
    char inner[PLACE_BYTES];
    snprintf(inner, sizeof inner, "%s.pattern", place);
    graft_status status =
        text_pattern_read(&step->pattern, json_object_get(json, "pattern"), inner, err);
    if (status == GRAFT_OK)
        status = read_behavior(&step->behavior, json, place, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&step->invert, json, "invert", false, place, err);
    return status;
}

static graft_status read_punctuation(pretokenizer *step, const json_t *json, const char *place,
                                     graft_error *err) {
    return read_behavior(&step->behavior, json, place, err);
}

static graft_status read_digits(pretokenizer *step, const json_t *json, const char *place,
                                graft_error *err) {
    return json_get_bool(&step->individual_digits, json, "individual_digits", false, place, err);
}

static graft_status read_fixed_length(pretokenizer *step, const json_t *json, const char *place,
                                      graft_error *err) {
    return component_size(&step->length, json, "length", 1, 5, place, err);
}

static graft_status read_scripts(pretokenizer *step, const json_t *json, const char *place,
                                 graft_error *err) {
    (void)step;
    (void)json;
    (void)place;
    (void)err;
    scripts_initialize();
    return GRAFT_OK;
}

static graft_status read_one(void *pipeline, const char *type, const json_t *json,
                             const char *place, graft_error *err) {
    static const struct {
        const char *name;
        pretokenizer_kind kind;
        graft_status (*read)(pretokenizer *, const json_t *, const char *, graft_error *);
    } table[] = {
        {"ByteLevel", PRETOKENIZER_BYTE_LEVEL, read_byte_level},
        {"BertPreTokenizer", PRETOKENIZER_BERT, NULL},
        {"CharDelimiterSplit", PRETOKENIZER_DELIMITER, read_delimiter},
        {"Metaspace", PRETOKENIZER_METASPACE, read_metaspace},
        {"Whitespace", PRETOKENIZER_WHITESPACE, NULL},
        {"WhitespaceSplit", PRETOKENIZER_WHITESPACE_SPLIT, NULL},
        {"Split", PRETOKENIZER_SPLIT, read_split},
        {"Punctuation", PRETOKENIZER_PUNCTUATION, read_punctuation},
        {"Digits", PRETOKENIZER_DIGITS, read_digits},
        {"UnicodeScripts", PRETOKENIZER_UNICODE_SCRIPTS, read_scripts},
        {"FixedLength", PRETOKENIZER_FIXED_LENGTH, read_fixed_length},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(type, table[i].name) != 0)
            continue;
        pretokenizer *step = pretokenizer_list_add(pipeline);
        if (!step)
            return error_memory(err, sizeof *step, "a pre-tokenizer");
        step->kind = table[i].kind;
        return table[i].read ? table[i].read(step, json, place, err) : GRAFT_OK;
    }
    return component_unknown(type,
                             "ByteLevel, BertPreTokenizer, CharDelimiterSplit, Metaspace, "
                             "Whitespace, WhitespaceSplit, Split, Punctuation, Digits, "
                             "UnicodeScripts, FixedLength",
                             place, err);
}

graft_status pretokenizer_list_read(pretokenizer_list *list, const json_t *json, const char *place,
                                    graft_error *err) {
    return components_read(list, read_one, "pretokenizers", json, place, err);
}
