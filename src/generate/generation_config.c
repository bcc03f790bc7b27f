#include "generate/generation_config.h"

#include "base/atomic_file.h"
#include "formats/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 20 };

/* An id or a list of ids; left out: config.json's. */
static graft_status read_eos(generation_config *out, const json_t *config, const char *origin,
                             graft_error *err) {
    const json_t *value = json_object_get(config, "eos_token_id");
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (!value || json_is_null(value))
        return GRAFT_OK;
    if (n > EOS_IDS_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: \"eos_token_id\" has %zu ids; at most %d", origin,
                         n, EOS_IDS_MAX);
    out->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_integer(item) || json_integer_value(item) < 0 ||
            json_integer_value(item) > INT32_MAX)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: \"eos_token_id\": expected token ids, found %s", origin,
                             json_type_name(item));
        out->eos[out->n_eos++] = (int32_t)json_integer_value(item);
    }
    return GRAFT_OK;
}

static graft_status read_number(double *out, const json_t *config, const char *key, double low,
                                double high, double fallback, const char *origin,
                                graft_error *err) {
    graft_status status = json_get_double(out, config, key, fallback, origin, err);
    if (status == GRAFT_OK && !(*out >= low && *out <= high))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"%s\": expected a number from %g to %g, found %g", origin, key, low,
                         high, *out);
    return status;
}

/* With do_sample, left-out keys mean Transformers' defaults: temperature 1, top_k 50. */
static graft_status read_sampling(generation_config *out, const json_t *config, const char *origin,
                                  graft_error *err) {
    sampling_options *s = &out->sampling;
    bool samples;
    graft_status status = json_get_bool(&samples, config, "do_sample", false, origin, err);
    if (status == GRAFT_OK)
        status = read_number(&s->temperature, config, "temperature", 0, 100, 1, origin, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&s->top_k, config, "top_k", 0, INT32_MAX, 50, origin, err);
    if (status == GRAFT_OK)
        status = read_number(&s->top_p, config, "top_p", 0, 1, 1, origin, err);
    if (status == GRAFT_OK)
        status = read_number(&s->min_p, config, "min_p", 0, 1, 0, origin, err);
    if (status == GRAFT_OK)
        status = read_number(&s->repetition_penalty, config, "repetition_penalty", 1e-3, 1e3, 1,
                             origin, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&out->max_new_tokens, config, "max_new_tokens", 0, INT32_MAX, 0,
                              origin, err);
    if (status == GRAFT_OK && !samples)
        s->temperature = 0;
    return status;
}

graft_status generation_config_read(generation_config *out, const char *folder,
                                    const model_spec *spec, graft_error *err) {
    json_t *config = NULL;
    graft_status status = GRAFT_OK;
    char *path = path_join(folder, "generation_config.json");
    *out = (generation_config){.sampling = {.top_p = 1, .repetition_penalty = 1}};
    for (int32_t i = 0; i < spec->n_eos; i++)
        out->eos[out->n_eos++] = spec->eos_ids[i];
    if (!path)
        return error_memory(err, strlen(folder), "a path");
    if (path_exists(path)) {
        status = json_read_file(&config, path, FILE_BYTES_MAX, err);
        if (status == GRAFT_OK && !json_is_object(config))
            status = error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", path,
                               json_type_name(config));
        if (status == GRAFT_OK)
            status = read_sampling(out, config, path, err);
        if (status == GRAFT_OK)
            status = read_eos(out, config, path, err);
    }
    json_decref(config);
    free(path);
    return status;
}
