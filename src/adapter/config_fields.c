#include "adapter/config_fields.h"

#include "adapter/config_keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_field(const config_key *key) {
    return key->kind >= KEY_INTEGER;
}

static bool is_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (const char *at = choices; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (!strncmp(at, text, n) && (at[n] == '|' || !at[n]))
            return true;
    }
    return false;
}

static graft_status refuse(const config_key *key, const json_t *value, const char *origin,
                           graft_error *err) {
    char expected[192], bounds[96] = "";
    if (key->min < key->max)
        snprintf(bounds, sizeof bounds, " from %g to %g", key->min, key->max);
    switch (key->kind) {
    case KEY_INTEGER:
        snprintf(expected, sizeof expected, "a whole number%s", bounds);
        break;
    case KEY_NUMBER:
        snprintf(expected, sizeof expected, "a finite number%s", bounds);
        break;
    case KEY_FLAG:
        snprintf(expected, sizeof expected, "true or false");
        break;
    default:
        snprintf(expected, sizeof expected, "one of %s", key->choices);
    }
    char *found = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    graft_status status =
        error_set(err, GRAFT_E_INPUT, "%s: \"%s\": expected %s, found %.100s", origin, key->name,
                  expected, found ? found : json_type_name(value));
    free(found);
    return status;
}

static bool is_null_allowed(const config_key *key) {
    return !strcmp(key->fallback, "null");
}

static bool is_valid(const config_key *key, const json_t *value) {
    double number = json_is_number(value) ? json_number_value(value) : (double)NAN;
    bool in_bounds = key->min >= key->max || (number >= key->min && number <= key->max);
    if (json_is_null(value))
        return is_null_allowed(key) || key->kind == KEY_ANY;
    switch (key->kind) {
    case KEY_INTEGER:
        return json_is_number(value) && number == floor(number) && in_bounds;
    case KEY_NUMBER:
        return json_is_number(value) && isfinite((float)number) && in_bounds;
    case KEY_FLAG:
        return json_is_boolean(value);
    case KEY_CHOICE:
        return json_is_string(value) && is_choice(key->choices, json_string_value(value));
    default:
        return true;
    }
}

graft_status config_fields_read(json_t **out, const adapter_method *method, const json_t *config,
                                const char *origin, graft_error *err) {
    json_t *fields = json_object();
    graft_status status = fields ? GRAFT_OK : error_memory(err, 1024, "an adapter's settings");
    for (const config_key *key = method->keys; key && key->name && status == GRAFT_OK; key++) {
        if (!is_field(key))
            continue;
        json_t *given = config ? json_object_get(config, key->name) : NULL;
        if (given && !is_valid(key, given)) {
            status = refuse(key, given, origin, err);
            break;
        }
        json_t *value =
            given ? json_incref(given) : json_loads(key->fallback, JSON_DECODE_ANY, NULL);
        if (json_object_set_new(fields, key->name, value) != 0)
            status = error_memory(err, 1024, "an adapter's settings");
    }
    if (status != GRAFT_OK) {
        json_decref(fields);
        fields = NULL;
    }
    *out = fields;
    return status;
}

const json_t *config_value(const adapter_config *config, const char *key) {
    return json_object_get(config->fields, key);
}

int64_t config_integer(const adapter_config *config, const char *key) {
    const json_t *value = config_value(config, key);
    return json_is_integer(value) ? json_integer_value(value) : (int64_t)json_number_value(value);
}

double config_number(const adapter_config *config, const char *key) {
    const json_t *value = config_value(config, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

bool config_flag(const adapter_config *config, const char *key) {
    return json_is_true(config_value(config, key));
}

const char *config_text(const adapter_config *config, const char *key) {
    return json_string_value(config_value(config, key));
}
