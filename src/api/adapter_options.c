#include "api/adapter_options.h"

#include "adapter/adapter.h"
#include "adapter/config_keys.h"
#include "api/report.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Options that say what an adapter is, and the keys of adapter_config.json they stand for. Beside a
 * file that says it they would be a second opinion. */
typedef enum option_form {
    AS_TEXT,
    AS_NUMBER,
    AS_FLAG,
    AS_FLAG_OR_TEXT,
    AS_NAMES,
    AS_LAYERS,
    AS_PATTERNS
} option_form;

static const struct described {
    const char *option, *key;
    option_form form;
} described[] = {
    {"lora_r", "r", AS_NUMBER},
    {"lora_alpha", "lora_alpha", AS_NUMBER},
    {"lora_dropout", "lora_dropout", AS_NUMBER},
    {"target_modules", "target_modules", AS_NAMES},
    {"exclude_modules", "exclude_modules", AS_NAMES},
    {"use_rslora", "use_rslora", AS_FLAG},
    {"rank_pattern", "rank_pattern", AS_PATTERNS},
    {"alpha_pattern", "alpha_pattern", AS_PATTERNS},
    {"layers_to_transform", "layers_to_transform", AS_LAYERS},
    {"modules_to_save", "modules_to_save", AS_NAMES},
    {"bias", "bias", AS_TEXT},
    {"lora_bias", "lora_bias", AS_FLAG},
    {"use_dora", "use_dora", AS_FLAG},
    {"init_lora_weights", "init_lora_weights", AS_FLAG_OR_TEXT},
    {"num_virtual_tokens", "num_virtual_tokens", AS_NUMBER},
    {"adapter_set", NULL, AS_TEXT}, /* KEY=VALUE, any key */
};

enum { N_DESCRIBED = sizeof described / sizeof *described };

/* The option whose value is the adapter's description; NULL: the options are. */
static const char *describing_option(const graft_recipe *recipe) {
    return recipe_text(recipe, "adapter_config") ? "adapter_config"
           : recipe_text(recipe, "init_adapter") ? "init_adapter"
                                                 : NULL;
}

/* Options of the adapter beside `owner`: refused, unless they only stand in a recipe that a flag
 * overrules. */
static graft_status refuse_described(const graft_recipe *recipe, const char *owner,
                                     graft_error *err) {
    for (size_t i = 0; i < N_DESCRIBED; i++)
        if (recipe_has(recipe, described[i].option) &&
            recipe_level_of(recipe, described[i].option) >= recipe_level_of(recipe, owner))
            return error_set(err, GRAFT_E_USAGE,
                             "%s: %s \"%s\" already says what is trained; leave out one of them",
                             described[i].option, owner, recipe_text(recipe, owner));
    return GRAFT_OK;
}

static bool same_patterns(const pattern_value *a, size_t n_a, const pattern_value *b, size_t n_b) {
    bool same = n_a == n_b;
    for (size_t i = 0; same && i < n_a; i++)
        same = !strcmp(a[i].pattern, b[i].pattern) && a[i].value == b[i].value;
    return same;
}

/* --init-adapter beside --adapter-config gives the first values alone. Tensors that do not fit are
 * refused when they are loaded; another scale would fit, and make another adapter of them. */
static graft_status check_init_adapter(const adapter_config *config, const graft_recipe *recipe,
                                       const message_sink *messages, graft_error *err) {
    const char *folder = recipe_text(recipe, "init_adapter");
    adapter_config own = {0};
    graft_status status = adapter_config_read(&own, folder, messages, err);
    if (status == GRAFT_OK && strcmp(own.method, config->method))
        status = error_set(err, GRAFT_E_USAGE,
                           "init_adapter %s is of method %s, adapter_config of method %s", folder,
                           own.method, config->method);
    else if (status == GRAFT_OK &&
             (own.lora_alpha != config->lora_alpha || own.use_rslora != config->use_rslora))
        status = error_set(err, GRAFT_E_USAGE,
                           "init_adapter %s has lora_alpha %g%s, adapter_config %g%s: the same "
                           "tensors would be another "
                           "adapter; make them equal, or leave out adapter_config",
                           folder, own.lora_alpha, own.use_rslora ? " with use_rslora" : "",
                           config->lora_alpha, config->use_rslora ? " with use_rslora" : "");
    else if (status == GRAFT_OK && !same_patterns(own.alpha_pattern, own.n_alpha_pattern,
                                                  config->alpha_pattern, config->n_alpha_pattern))
        status =
            error_set(err, GRAFT_E_USAGE,
                      "init_adapter %s and adapter_config have different alpha_pattern", folder);
    adapter_config_free(&own);
    return status;
}

static graft_status config_from_file(adapter_config *out, const char *owner,
                                     const graft_recipe *recipe, const message_sink *messages,
                                     graft_error *err) {
    const char *path = recipe_text(recipe, owner);
    graft_status status = refuse_described(recipe, owner, err);
    if (status == GRAFT_OK)
        status = adapter_config_read(out, path, messages, err);
    if (status == GRAFT_OK && !strcmp(owner, "adapter_config") &&
        recipe_text(recipe, "init_adapter"))
        status = check_init_adapter(out, recipe, messages, err);
    if (status == GRAFT_OK && recipe_has(recipe, "method") &&
        strcmp(out->method, recipe_text(recipe, "method")))
        status = error_set(err, GRAFT_E_USAGE, "%s is of method %s, --method says %s", path,
                           out->method, recipe_text(recipe, "method"));
    return status;
}

/* The method's name for what an option says; NULL: it has no such key. */
static const char *method_key(const adapter_method *method, const struct described *d) {
    if (config_key_find(method, d->key))
        return d->key;
    return !strcmp(d->key, "lora_alpha") && config_key_find(method, "alpha") ? "alpha" : NULL;
}

static bool has_key(const adapter_method *method, const struct described *d) {
    return method->keys && (!d->key || method_key(method, d));
}

static json_t *number_json(double value) {
    return value == floor(value) && fabs(value) < 9007199254740992.0
               ? json_integer((json_int_t)value)
               : json_real(value);
}

void adapter_options_omit(graft_recipe *recipe) {
    bool has_file = describing_option(recipe) != NULL;
    const adapter_method *method =
        has_file ? NULL : adapter_method_find(recipe_text(recipe, "method"));
    for (size_t i = 0; i < N_DESCRIBED; i++)
        if (!method || !has_key(method, &described[i]))
            recipe_omit(recipe, described[i].option);
    if (has_file)
        recipe_omit(recipe, "method");
}

static bool is_regex(const char *text) {
    return strpbrk(text, "()[]{}*+^$\\?|") != NULL;
}

/* A list of module names, or one regular expression (or "all-linear"). */
static json_t *names_json(const graft_recipe *recipe, const char *option) {
    size_t n = recipe_list_count(recipe, option);
    if (n == 1 && (is_regex(recipe_list_item(recipe, option, 0)) ||
                   !strcmp(recipe_list_item(recipe, option, 0), "all-linear")))
        return json_string(recipe_list_item(recipe, option, 0));
    json_t *names = json_array();
    for (size_t i = 0; i < n; i++)
        report_add(&names, json_string(recipe_list_item(recipe, option, i)));
    return names;
}

static graft_status patterns_json(json_t **out, const graft_recipe *recipe, const char *option,
                                  graft_error *err) {
    *out = json_object();
    for (size_t i = 0; i < recipe_list_count(recipe, option); i++) {
        const char *text = recipe_list_item(recipe, option, i), *equals = strrchr(text, '=');
        char *end = NULL;
        double value = equals ? strtod(equals + 1, &end) : 0;
        if (!equals || end == equals + 1 || *end)
            return error_set(err, GRAFT_E_USAGE, "%s: expected PATTERN=NUMBER, found \"%s\"",
                             option, text);
        char *pattern = mem_text(text, (size_t)(equals - text));
        if (!pattern)
            return error_memory(err, strlen(text), option);
        report_set(out, pattern, number_json(value));
        free(pattern);
    }
    return *out ? GRAFT_OK : error_memory(err, 64, option);
}

static graft_status layers_json(json_t **out, const graft_recipe *recipe, graft_error *err) {
    const char option[] = "layers_to_transform";
    *out = json_array();
    for (size_t i = 0; i < recipe_list_count(recipe, option); i++) {
        const char *text = recipe_list_item(recipe, option, i);
        char *end;
        long value = strtol(text, &end, 10);
        if (end == text || *end || value < 0 || value > INT32_MAX)
            return error_set(err, GRAFT_E_USAGE,
                             "layers_to_transform: expected layer numbers, found \"%s\"", text);
        report_add(out, json_integer(value));
    }
    return *out ? GRAFT_OK : error_memory(err, 64, option);
}

static graft_status option_json(json_t **out, const graft_recipe *recipe, const struct described *d,
                                graft_error *err) {
    *out = NULL;
    const char *text = NULL;
    switch (d->form) {
    case AS_NUMBER:
        *out = number_json(recipe_number(recipe, d->option));
        break;
    case AS_FLAG:
        *out = json_boolean(recipe_flag(recipe, d->option));
        break;
    case AS_NAMES:
        *out = names_json(recipe, d->option);
        break;
    case AS_LAYERS:
        return layers_json(out, recipe, err);
    case AS_PATTERNS:
        return patterns_json(out, recipe, d->option, err);
    default:
        text = recipe_text(recipe, d->option);
        *out = d->form == AS_TEXT                                ? json_string(text)
               : !strcmp(text, "true") || !strcmp(text, "false") ? json_boolean(*text == 't')
                                                                 : json_string(text);
    }
    return *out ? GRAFT_OK : error_memory(err, 64, d->option);
}

/* KEY=VALUE, the value as JSON where it is that, else as text. */
static graft_status set_key(json_t *config, const adapter_method *method, const char *text,
                            graft_error *err) {
    const char *equals = strchr(text, '=');
    char *key = equals ? mem_text(text, (size_t)(equals - text)) : NULL;
    if (!equals)
        return error_set(err, GRAFT_E_USAGE, "adapter_set: expected KEY=VALUE, found \"%s\"", text);
    if (!key)
        return error_memory(err, strlen(text), "adapter_set");
    if (!config_key_find(method, key)) {
        graft_status refused = error_set(
            err, GRAFT_E_USAGE, "adapter_set: \"%s\" is no key of %s's adapter_config.json", key,
            method->peft_type);
        free(key);
        return refused;
    }
    json_t *value = NULL;
    graft_error no_json = {0};
    graft_status status =
        json_parse(&value, equals + 1, strlen(equals + 1), "adapter_set", &no_json);
    if (status == GRAFT_E_INPUT)
        value = json_string(equals + 1);
    status = status != GRAFT_E_MEMORY && json_object_set_new(config, key, value) == 0
                 ? GRAFT_OK
                 : error_memory(err, strlen(text), "adapter_set");
    free(key);
    return status;
}

/* What a person set goes into the config; what they did not has PEFT's default for the method. */
static graft_status describe(json_t *config, const adapter_method *method,
                             const graft_recipe *recipe, graft_error *err) {
    if (json_object_set_new(config, "peft_type", json_string(method->peft_type)) != 0)
        return error_memory(err, 64, "the adapter's settings");
    for (size_t i = 0; i < N_DESCRIBED; i++) {
        const struct described *d = &described[i];
        json_t *value;
        if (!recipe_has(recipe, d->option))
            continue;
        if (!d->key) {
            for (size_t s = 0; s < recipe_list_count(recipe, d->option); s++) {
                graft_status status =
                    set_key(config, method, recipe_list_item(recipe, d->option, s), err);
                if (status != GRAFT_OK)
                    return status;
            }
            continue;
        }
        const char *key = method_key(method, d);
        if (!key)
            return error_set(err, GRAFT_E_USAGE,
                             "%s: method %s has no such setting; leave it out (graft methods lists "
                             "the methods, --adapter-set KEY=VALUE sets any key of theirs)",
                             d->option, method->name);
        graft_status status = option_json(&value, recipe, d, err);
        if (status != GRAFT_OK) {
            json_decref(value);
            return status;
        }
        if (json_object_set_new(config, key, value) != 0)
            return error_memory(err, 64, d->option);
    }
    return GRAFT_OK;
}

static graft_status config_from_options(adapter_config *out, const graft_recipe *recipe,
                                        const message_sink *messages, graft_error *err) {
    graft_status status = adapter_config_default(out, recipe_text(recipe, "method"), err);
    if (status != GRAFT_OK)
        return status;
    const adapter_method *method = adapter_method_find(out->method);
    if (!method->keys)
        return refuse_described(recipe, "method", err);
    adapter_config_free(out);
    json_t *config = json_object();
    status = config ? describe(config, method, recipe, err)
                    : error_memory(err, 64, "the adapter's settings");
    if (status == GRAFT_OK)
        status = adapter_config_parse(out, config, "the adapter's options", messages, err);
    json_decref(config);
    return status;
}

graft_status adapter_config_from_recipe(adapter_config *out, const graft_recipe *recipe,
                                        const message_sink *messages, graft_error *err) {
    *out = (adapter_config){0};
    const char *owner = describing_option(recipe);
    graft_status status = owner ? config_from_file(out, owner, recipe, messages, err)
                                : config_from_options(out, recipe, messages, err);
    if (status != GRAFT_OK)
        adapter_config_free(out);
    return status;
}
