#include "adapter/adapter.h"
#include "adapter/config_keys.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The container if it got all n members, else NULL: jansson reports a failed allocation, or text
 * that is no UTF-8, by nothing else. */
static json_t *complete(json_t *container, size_t n) {
    if (json_array_size(container) + json_object_size(container) == n)
        return container;
    json_decref(container);
    return NULL;
}

static json_t *names_json(const text_list *names) {
    json_t *array = json_array();
    for (size_t i = 0; i < names->n; i++)
        json_array_append_new(array, json_string(names->items[i]));
    return complete(array, names->n);
}

/* A regular expression as text, names as a list, nothing as null. */
static json_t *choice_json(const char *regex, const text_list *names) {
    if (regex)
        return json_string(regex);
    return names->n ? names_json(names) : json_null();
}

/* PEFT keeps the type a user gave; whole numbers are what they give for ranks and alphas. */
static json_t *number_json(double value) {
    if (value == floor(value) && fabs(value) < 9007199254740992.0)
        return json_integer((json_int_t)value);
    return json_real(value);
}

static json_t *patterns_json(const pattern_value *patterns, size_t n) {
    json_t *object = json_object();
    for (size_t i = 0; i < n; i++)
        json_object_set_new(object, patterns[i].pattern, number_json(patterns[i].value));
    return complete(object, n);
}

static json_t *layers_json(const adapter_config *config) {
    if (!config->n_layers_to_transform)
        return json_null();
    json_t *array = json_array();
    for (size_t i = 0; i < config->n_layers_to_transform; i++)
        json_array_append_new(array, json_integer(config->layers_to_transform[i]));
    return complete(array, config->n_layers_to_transform);
}

static json_t *text_json(const char *text) {
    return text ? json_string(text) : json_null();
}

static json_t *init_json(const adapter_config *config) {
    if (config->init == LORA_INIT_START)
        return json_string(config->init_name);
    if (config->init == LORA_INIT_GAUSSIAN)
        return json_string("gaussian");
    return json_boolean(config->init == LORA_INIT_DEFAULT);
}

static json_t *bias_json(bias_kind bias, const adapter_method *method) {
    char only[48];
    snprintf(only, sizeof only, "%s_only", method->name);
    return json_string(bias == BIAS_ALL ? "all" : bias == BIAS_LORA_ONLY ? only : "none");
}

static void set_ours(json_t *object, const adapter_config *config, const adapter_method *method,
                     const char *base_name) {
    struct {
        const char *name;
        json_t *value;
    } ours[] = {
        {"alpha", number_json(config->lora_alpha)},
        {"alpha_pattern", patterns_json(config->alpha_pattern, config->n_alpha_pattern)},
        {"base_model_name_or_path", text_json(base_name)},
        {"bias", bias_json(config->bias, method)},
        {"ensure_weight_tying", json_boolean(config->ensure_weight_tying)},
        {"exclude_modules", choice_json(config->exclude_regex, &config->exclude_modules)},
        {"init_lora_weights", init_json(config)},
        {"layers_pattern",
         choice_json(config->layers_pattern.n == 1 ? config->layers_pattern.items[0] : NULL,
                     &config->layers_pattern)},
        {"layers_to_transform", layers_json(config)},
        {"lora_alpha", number_json(config->lora_alpha)},
        {"lora_bias", json_boolean(config->lora_bias)},
        {"lora_dropout", json_real(config->lora_dropout)},
        {"modules_to_save", choice_json(NULL, &config->modules_to_save)},
        {"peft_type", json_string(method->peft_type)},
        {"r", json_integer(config->r)},
        {"rank_pattern", patterns_json(config->rank_pattern, config->n_rank_pattern)},
        {"revision", text_json(config->revision)},
        {"target_modules", choice_json(config->target_regex, &config->target_modules)},
        {"task_type", json_string("CAUSAL_LM")},
        {"use_rslora", json_boolean(config->use_rslora)},
    };
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        json_object_set_new(object, ours[i].name, ours[i].value);
}

static int by_name(const void *left, const void *right) {
    return strcmp((*(const config_key *const *)left)->name,
                  (*(const config_key *const *)right)->name);
}

static json_t *value_json(const config_key *key, const adapter_config *config, json_t *ours) {
    if (key->kind == KEY_STATED || key->kind == KEY_LACKED)
        return json_loads(key->fallback, JSON_DECODE_ANY, NULL);
    json_t *value = json_object_get(key->kind == KEY_OURS ? ours : config->fields, key->name);
    return json_incref(value);
}

enum { CONFIG_KEYS_MAX = 96 };

/* Keys are sorted as PEFT sorts them, but those of rank_pattern and alpha_pattern stay in their
 * order, which counts: the first match does. */
static json_t *config_json(const adapter_config *config, const char *base_name) {
    const adapter_method *method = adapter_method_find(config->method);
    const config_key *written[CONFIG_KEYS_MAX];
    size_t n = 0;
    for (size_t i = 0; config_key_at(method, i); i++)
        if (!config_key_at(method, i)->is_old) {
            assert(n < CONFIG_KEYS_MAX);
            written[n++] = config_key_at(method, i);
        }
    qsort(written, n, sizeof *written, by_name);
    json_t *ours = json_object(), *all = json_object();
    set_ours(ours, config, method, base_name);
    for (size_t i = 0; i < n; i++)
        json_object_set_new(all, written[i]->name, value_json(written[i], config, ours));
    json_decref(ours);
    return complete(all, n);
}

graft_status adapter_config_write(strbuf *out, const adapter_config *config, const char *base_name,
                                  graft_error *err) {
    json_t *object = config_json(config, base_name);
    if (object)
        json_write(out, object, JSON_INDENT_2, false);
    json_decref(object);
    if (!object || out->failed)
        return error_memory(err, 4096, "adapter_config.json");
    return GRAFT_OK;
}
