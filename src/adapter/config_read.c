#include "adapter/adapter.h"
#include "adapter/config_fields.h"
#include "adapter/config_keys.h"
#include "adapter/lora_start.h"
#include "base/atomic_file.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 16 << 20 };

static graft_status refuse(const char *origin, const char *key, const char *expected,
                           const json_t *found, graft_error *err) {
    return error_set(err, GRAFT_E_INPUT, "%s: \"%s\": expected %s, found %s", origin, key, expected,
                     json_type_name(found));
}

/* ---- Keys that ask for what Graft lacks ---- */

static bool is_empty(const json_t *value) {
    return json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && !json_string_length(value)) ||
           (json_is_array(value) && !json_array_size(value)) ||
           (json_is_object(value) && !json_object_size(value));
}

static bool is_default(const config_key *key, const json_t *value) {
    json_t *fallback = json_loads(key->fallback, JSON_DECODE_ANY, NULL);
    bool same = json_is_number(value) && json_is_number(fallback)
                    ? json_number_value(value) == json_number_value(fallback)
                    : json_equal(value, fallback);
    json_decref(fallback);
    return same;
}

static graft_status check_keys(const adapter_method *method, const json_t *config,
                               const char *origin, graft_error *err) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)config, name, value) {
        const config_key *key = config_key_find(method, name);
        if (is_empty(value) || (key && (key->kind != KEY_LACKED || is_default(key, value))))
            continue;
        if (key)
            return error_set(err, GRAFT_E_UNSUPPORTED,
                             "%s: \"%s\" asks for %s, which is not supported; an adapter with it "
                             "cannot be used as plain %s",
                             origin, name, key->lacks, method->peft_type);
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: \"%s\" is set, and is not supported: it is no key that PEFT %s "
                         "writes for %s; remove it if the adapter does not need it",
                         origin, name, PEFT_FORMAT_VERSION, method->peft_type);
    }
    return GRAFT_OK;
}

/* "LORA, IA3, ..." of the methods that PEFT knows. */
static const char *supported_types(strbuf *text) {
    for (size_t i = 0; adapter_method_at(i); i++)
        if (adapter_method_at(i)->keys)
            strbuf_printf(text, "%s%s", text->length ? ", " : "", adapter_method_at(i)->peft_type);
    return strbuf_text(text);
}

static graft_status check_type(const adapter_method **method, const json_t *config,
                               const char *origin, graft_error *err) {
    const json_t *type = json_object_get(config, "peft_type");
    if (!json_is_string(type))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"peft_type\": expected a string such as \"LORA\", found %s; this is "
                         "not the adapter_config.json of a PEFT adapter",
                         origin, json_type_name(type));
    *method = adapter_method_of_type(json_string_value(type));
    if (!*method) {
        strbuf known = {0};
        graft_status refused = error_set(err, GRAFT_E_UNSUPPORTED,
                                         "%s: peft_type \"%s\" is not supported; supported: %s",
                                         origin, json_string_value(type), supported_types(&known));
        strbuf_free(&known);
        return refused;
    }
    const char *task;
    graft_status status = json_get_string(&task, config, "task_type", "CAUSAL_LM", origin, err);
    if (status == GRAFT_OK && strcmp(task, "CAUSAL_LM"))
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: task_type \"%s\" is not supported; supported: CAUSAL_LM", origin,
                         task);
    return status;
}

/* ---- Fields ---- */

static graft_status keep_text(char **out, const char *text, const char *origin, const char *key,
                              graft_error *err) {
    if (!text)
        return GRAFT_OK;
    if (strlen(text) > ADAPTER_PATTERN_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: \"%s\" is longer than %d bytes", origin, key,
                         ADAPTER_PATTERN_MAX);
    *out = mem_text(text, strlen(text));
    return *out ? GRAFT_OK : error_memory(err, strlen(text) + 1, key);
}

static graft_status read_names(text_list *names, const json_t *array, const char *origin,
                               const char *key, graft_error *err) {
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        if (!json_is_string(item))
            return refuse(origin, key, "a list of strings", item, err);
        const char *text = json_string_value(item);
        if (!*text || strlen(text) > ADAPTER_PATTERN_MAX)
            return error_set(err, GRAFT_E_INPUT, "%s: \"%s\": entry %zu is %s", origin, key, i,
                             *text ? "too long" : "empty");
        graft_status status = text_list_add(names, text, err);
        if (status != GRAFT_OK) {
            error_prefix(err, "%s: \"%s\"", origin, key);
            return status;
        }
    }
    return GRAFT_OK;
}

/* A list of names, or (where regex is given) one regular expression. */
static graft_status read_choice(text_list *names, char **regex, const json_t *config,
                                const char *key, const char *origin, graft_error *err) {
    const json_t *value = json_object_get(config, key);
    if (!value || json_is_null(value))
        return GRAFT_OK;
    if (regex && json_is_string(value))
        return json_string_length(value)
                   ? keep_text(regex, json_string_value(value), origin, key, err)
                   : GRAFT_OK;
    if (!json_is_array(value))
        return refuse(origin, key, regex ? "a list of strings or a string" : "a list of strings",
                      value, err);
    return read_names(names, value, origin, key, err);
}

static graft_status read_patterns(pattern_value **out, size_t *n, const json_t *config,
                                  const char *key, const char *origin, graft_error *err) {
    json_t *object = json_object_get(config, key);
    if (!object || json_is_null(object))
        return GRAFT_OK;
    if (!json_is_object(object) || json_object_size(object) > ADAPTER_NAMES_MAX)
        return refuse(origin, key, "an object of a few patterns", object, err);
    if (!(*out = mem_array(json_object_size(object), sizeof **out)))
        return error_memory(err, json_object_size(object) * sizeof **out, key);
    const char *pattern;
    json_t *value;
    json_object_foreach(object, pattern, value) {
        graft_status status = keep_text(&(*out)[*n].pattern, pattern, origin, key, err);
        if (status != GRAFT_OK)
            return status;
        double *number = &(*out)[(*n)++].value;
        status = json_need_double(number, object, pattern, origin, err);
        if (status != GRAFT_OK) {
            error_prefix(err, "%s", key);
            return status;
        }
    }
    return GRAFT_OK;
}

static graft_status read_layers(adapter_config *out, const json_t *config, const char *origin,
                                graft_error *err) {
    static const char key[] = "layers_to_transform";
    const json_t *value = json_object_get(config, key);
    if (!value || json_is_null(value))
        return GRAFT_OK;
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (n > ADAPTER_NAMES_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: \"%s\" has more than %d entries", origin, key,
                         ADAPTER_NAMES_MAX);
    if (!(out->layers_to_transform = mem_array(n, sizeof *out->layers_to_transform)))
        return error_memory(err, n * sizeof *out->layers_to_transform, key);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_integer(item))
            return refuse(origin, key, "layer numbers", item, err);
        json_int_t layer = json_integer_value(item);
        if (layer < 0 || layer >= MODEL_LAYERS_MAX)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: \"%s\": expected layer numbers from 0 to %d, found "
                             "%" JSON_INTEGER_FORMAT,
                             origin, key, MODEL_LAYERS_MAX - 1, layer);
        out->layers_to_transform[i] = (int32_t)layer;
        out->n_layers_to_transform = i + 1;
    }
    return GRAFT_OK;
}

static graft_status read_init(adapter_config *out, const json_t *config, const char *origin,
                              graft_error *err) {
    const json_t *value = json_object_get(config, "init_lora_weights");
    if (!value || json_is_true(value))
        return GRAFT_OK;
    if (json_is_false(value) || json_is_null(value)) {
        out->init = LORA_INIT_RANDOM;
        return GRAFT_OK;
    }
    if (!json_is_string(value))
        return refuse(origin, "init_lora_weights", "true, false or a name", value, err);
    const char *name = json_string_value(value);
    if (lora_start_find(name)) {
        out->init = LORA_INIT_START;
        snprintf(out->init_name, sizeof out->init_name, "%s", name);
        return GRAFT_OK;
    }
    if (strcmp(name, "gaussian"))
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: init_lora_weights \"%s\" is not supported; supported: true, false, "
                         "gaussian, %s. An "
                         "adapter whose start changed the base can be saved as plain LoRA by PEFT: "
                         "save_pretrained(..., path_initial_model_for_weight_conversion=...)",
                         origin, name, lora_start_names());
    out->init = LORA_INIT_GAUSSIAN;
    return GRAFT_OK;
}

static graft_status read_bias(adapter_config *out, const adapter_method *method,
                              const json_t *config, const char *origin, graft_error *err) {
    char only[48];
    const char *bias;
    snprintf(only, sizeof only, "%s_only", method->name);
    graft_status status = json_get_string(&bias, config, "bias", "none", origin, err);
    if (status != GRAFT_OK)
        return status;
    if (strcmp(bias, "none") && strcmp(bias, "all") && strcmp(bias, only))
        return error_set(err, GRAFT_E_INPUT, "%s: \"bias\": expected none, all or %s, found \"%s\"",
                         origin, only, bias);
    out->bias = !strcmp(bias, "all")    ? BIAS_ALL
                : !strcmp(bias, "none") ? BIAS_NONE
                                        : BIAS_LORA_ONLY;
    return GRAFT_OK;
}

/* Whether the method's key of that name is the common field. */
static bool is_ours(const adapter_method *method, const char *name) {
    const config_key *key = config_key_find(method, name);
    return key && key->kind == KEY_OURS;
}

/* A number with the default of the method's table; a method without the key keeps *out. */
static graft_status read_number(double *out, const adapter_method *method, const json_t *config,
                                const char *name, const char *origin, graft_error *err) {
    const config_key *key = config_key_find(method, name);
    if (!key || key->kind != KEY_OURS)
        return GRAFT_OK;
    return json_get_double(out, config, name, strtod(key->fallback, NULL), origin, err);
}

static graft_status read_rank(adapter_config *out, const adapter_method *method,
                              const json_t *config, const char *origin, graft_error *err) {
    const config_key *key = config_key_find(method, "r");
    int64_t r = 0;
    if (!key || key->kind != KEY_OURS)
        return GRAFT_OK;
    graft_status status = json_get_i64(&r, config, "r", 1, LORA_RANK_MAX,
                                       strtol(key->fallback, NULL, 10), origin, err);
    out->r = (int32_t)r;
    return status;
}

static graft_status read_scalars(adapter_config *out, const adapter_method *method,
                                 const json_t *config, const char *origin, graft_error *err) {
    const char *base = NULL, *revision = NULL;
    graft_status status = read_rank(out, method, config, origin, err);
    if (status == GRAFT_OK)
        status = read_number(&out->lora_alpha, method, config, "lora_alpha", origin, err);
    if (status == GRAFT_OK)
        status = read_number(&out->lora_alpha, method, config, "alpha", origin, err);
    if (status == GRAFT_OK)
        status = read_number(&out->lora_dropout, method, config, "lora_dropout", origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&out->use_rslora, config, "use_rslora", false, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&out->lora_bias, config, "lora_bias", false, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&out->ensure_weight_tying, config, "ensure_weight_tying", false,
                               origin, err);
    if (status == GRAFT_OK)
        status = json_get_string(&base, config, "base_model_name_or_path", NULL, origin, err);
    if (status == GRAFT_OK)
        status = keep_text(&out->base_model, base, origin, "base_model_name_or_path", err);
    if (status == GRAFT_OK)
        status = json_get_string(&revision, config, "revision", NULL, origin, err);
    if (status == GRAFT_OK)
        status = keep_text(&out->revision, revision, origin, "revision", err);
    return status;
}

/* layers_pattern is a list, or one pattern as text. */
static graft_status read_layers_pattern(adapter_config *out, const json_t *config,
                                        const char *origin, graft_error *err) {
    char *single = NULL;
    graft_status status =
        read_choice(&out->layers_pattern, &single, config, "layers_pattern", origin, err);
    if (status == GRAFT_OK && single)
        status = text_list_add(&out->layers_pattern, single, err);
    free(single);
    return status;
}

static graft_status read_fields(adapter_config *out, const adapter_method *method,
                                const json_t *config, const char *origin, graft_error *err) {
    graft_status status = read_scalars(out, method, config, origin, err);
    if (status == GRAFT_OK)
        status = read_init(out, config, origin, err);
    if (status == GRAFT_OK)
        status = read_bias(out, method, config, origin, err);
    if (status == GRAFT_OK)
        status = read_choice(&out->target_modules, &out->target_regex, config, "target_modules",
                             origin, err);
    if (status == GRAFT_OK)
        status = read_choice(&out->exclude_modules, &out->exclude_regex, config, "exclude_modules",
                             origin, err);
    if (status == GRAFT_OK)
        status = read_choice(&out->modules_to_save, NULL, config, "modules_to_save", origin, err);
    if (status == GRAFT_OK)
        status = read_layers(out, config, origin, err);
    if (status == GRAFT_OK)
        status = read_layers_pattern(out, config, origin, err);
    if (status == GRAFT_OK && is_ours(method, "rank_pattern"))
        status = read_patterns(&out->rank_pattern, &out->n_rank_pattern, config, "rank_pattern",
                               origin, err);
    if (status == GRAFT_OK && is_ours(method, "alpha_pattern"))
        status = read_patterns(&out->alpha_pattern, &out->n_alpha_pattern, config, "alpha_pattern",
                               origin, err);
    if (status == GRAFT_OK)
        status = config_fields_read(&out->fields, method, config, origin, err);
    return status;
}

/* ---- The file ---- */

static graft_status find_file(char **file, const char *path, graft_error *err) {
    *file = path_is_folder(path) ? path_join(path, "adapter_config.json")
                                 : mem_text(path, strlen(path));
    if (!*file)
        return error_memory(err, strlen(path) + 32, "a path");
    if (path_exists(*file))
        return GRAFT_OK;
    char *model = path_join(path, "config.json");
    bool is_model = model && path_exists(model);
    free(model);
    return error_set(err, GRAFT_E_INPUT, "%s: there is no such file%s", *file,
                     is_model ? "; its folder holds a whole model: give that as --model" : "");
}

graft_status adapter_config_parse(adapter_config *out, const json_t *config, const char *origin,
                                  const message_sink *sink, graft_error *err) {
    const adapter_method *method = NULL;
    *out = (adapter_config){0};
    graft_status status = GRAFT_OK;
    if (!json_is_object(config))
        status = error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", origin,
                           json_type_name(config));
    if (status == GRAFT_OK)
        status = check_type(&method, config, origin, err);
    if (status == GRAFT_OK)
        status = adapter_config_default(out, method->name, err);
    if (status == GRAFT_OK)
        status = check_keys(method, config, origin, err);
    if (status == GRAFT_OK) {
        json_decref(out->fields);
        out->fields = NULL;
        status = read_fields(out, method, config, origin, err);
    }
    if (status == GRAFT_OK)
        status = adapter_config_check(out, origin, err);
    if (status == GRAFT_OK && json_is_object(json_object_get(config, "auto_mapping")))
        message_emit(sink, MESSAGE_INFO, "%s: auto_mapping names Python classes and is ignored",
                     origin);
    if (status != GRAFT_OK)
        adapter_config_free(out);
    return status;
}

graft_status adapter_config_read(adapter_config *out, const char *path, const message_sink *sink,
                                 graft_error *err) {
    json_t *config = NULL;
    char *file = NULL;
    *out = (adapter_config){0};
    graft_status status = find_file(&file, path, err);
    if (status == GRAFT_OK)
        status = json_read_file(&config, file, CONFIG_BYTES_MAX, err);
    if (status == GRAFT_OK)
        status = adapter_config_parse(out, config, file, sink, err);
    json_decref(config);
    free(file);
    return status;
}
