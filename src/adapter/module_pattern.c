#include "adapter/module_pattern.h"

#include "adapter/pattern.h"

#include <math.h>

graft_status module_pattern_integer(int64_t *out, const adapter *a, const char *key,
                                    const char *module, int64_t fallback, graft_error *err) {
    const json_t *given = config_value(&a->config, key);
    const char *ending;
    json_t *value;
    *out = fallback;
    if (json_is_null(given))
        return GRAFT_OK;
    if (!json_is_object(given))
        return error_set(err, GRAFT_E_INPUT, "%s: expected an object of numbers, found %s", key,
                         json_type_name(given));
    json_object_foreach((json_t *)given, ending, value) {
        pattern *compiled = NULL;
        bool matches = false;
        double number = json_number_value(value);
        if (!json_is_number(value) || number != floor(number) || fabs(number) > 1e15)
            return error_set(err, GRAFT_E_INPUT, "%s: \"%s\": expected a whole number, found %s",
                             key, ending, json_type_name(value));
        graft_status status = pattern_create(&compiled, ending, PATTERN_END, key, err);
        if (status == GRAFT_OK)
            status = pattern_match(&matches, compiled, module, err);
        pattern_destroy(&compiled);
        if (status != GRAFT_OK)
            return status;
        if (matches) {
            *out = (int64_t)number;
            return GRAFT_OK;
        }
    }
    return GRAFT_OK;
}
