#include "formats/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *json_type_name(const json_t *value) {
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something unknown";
}

/* "the string "4096"", "32.5", "an object": what a message shows of a value. */
static const char *show(const json_t *value, char *text, size_t capacity) {
    strbuf number = {0};
    if (json_is_string(value)) {
        snprintf(text, capacity, "the string \"%.60s\"", json_string_value(value));
    } else if (json_is_integer(value)) {
        snprintf(text, capacity, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_real(value)) {
        json_write_double(&number, json_real_value(value));
        snprintf(text, capacity, "%s", strbuf_text(&number));
    } else if (json_is_boolean(value)) {
        snprintf(text, capacity, "%s", json_is_true(value) ? "true" : "false");
    } else if (json_is_object(value) && json_is_string(json_object_get(value, "__float__"))) {
        snprintf(text, capacity, "%s", json_string_value(json_object_get(value, "__float__")));
    } else {
        snprintf(text, capacity, "%s", json_type_name(value));
    }
    strbuf_free(&number);
    return text;
}

static graft_status refuse(const char *origin, const char *key, const char *expected,
                           const json_t *found, graft_error *err) {
    char text[128];
    return error_set(err, GRAFT_E_INPUT, "%s: \"%s\": expected %s, found %s", origin, key, expected,
                     show(found, text, sizeof text));
}

static bool is_absent(const json_t *value) {
    return !value || json_is_null(value);
}

/* Integers, and reals that are whole: writers that know only doubles print 4096.0. */
static bool as_i64(int64_t *out, const json_t *value) {
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (!json_is_real(value))
        return false;
    double real = json_real_value(value);
    if (!(real >= -0x1p63 && real < 0x1p63) || real != floor(real))
        return false;
    *out = (int64_t)real;
    return true;
}

static graft_status read_i64(int64_t *out, const json_t *value, const char *key, int64_t low,
                             int64_t high, const char *origin, graft_error *err) {
    int64_t number;
    if (as_i64(&number, value) && number >= low && number <= high) {
        *out = number;
        return GRAFT_OK;
    }
    char expected[96];
    if (high == INT64_MAX)
        snprintf(expected, sizeof expected, "an integer of at least %lld", (long long)low);
    else
        snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)low,
                 (long long)high);
    return refuse(origin, key, low == INT64_MIN && high == INT64_MAX ? "an integer" : expected,
                  value, err);
}

graft_status json_get_i64(int64_t *out, const json_t *object, const char *key, int64_t low,
                          int64_t high, int64_t fallback, const char *origin, graft_error *err) {
    const json_t *value = json_object_get(object, key);
    if (!is_absent(value))
        return read_i64(out, value, key, low, high, origin, err);
    *out = fallback;
    return GRAFT_OK;
}

graft_status json_need_i64(int64_t *out, const json_t *object, const char *key, int64_t low,
                           int64_t high, const char *origin, graft_error *err) {
    return read_i64(out, json_object_get(object, key), key, low, high, origin, err);
}

static graft_status read_double(double *out, const json_t *value, const char *key,
                                const char *origin, graft_error *err) {
    if (!json_is_number(value))
        return refuse(origin, key, "a number", value, err);
    *out = json_number_value(value);
    return GRAFT_OK;
}

graft_status json_get_double(double *out, const json_t *object, const char *key, double fallback,
                             const char *origin, graft_error *err) {
    const json_t *value = json_object_get(object, key);
    if (!is_absent(value))
        return read_double(out, value, key, origin, err);
    *out = fallback;
    return GRAFT_OK;
}

graft_status json_need_double(double *out, const json_t *object, const char *key,
                              const char *origin, graft_error *err) {
    return read_double(out, json_object_get(object, key), key, origin, err);
}

graft_status json_get_bool(bool *out, const json_t *object, const char *key, bool fallback,
                           const char *origin, graft_error *err) {
    const json_t *value = json_object_get(object, key);
    if (!is_absent(value) && !json_is_boolean(value))
        return refuse(origin, key, "true or false", value, err);
    *out = is_absent(value) ? fallback : json_is_true(value);
    return GRAFT_OK;
}

graft_status json_get_string(const char **out, const json_t *object, const char *key,
                             const char *fallback, const char *origin, graft_error *err) {
    const json_t *value = json_object_get(object, key);
    if (!is_absent(value) && !json_is_string(value))
        return refuse(origin, key, "a string", value, err);
    if (json_is_string(value) && strlen(json_string_value(value)) != json_string_length(value))
        return refuse(origin, key, "a string without NUL", value, err);
    *out = is_absent(value) ? fallback : json_string_value(value);
    return GRAFT_OK;
}
