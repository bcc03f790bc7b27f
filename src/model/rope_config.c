#include "model/families/families.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Transformers 5 writes one dictionary, rope_parameters; Transformers 4 rope_theta and rope_scaling
 * (null or a dictionary, older ones with "type" for "rope_type"). Where both are there rope_scaling
 * wins, unless it is empty. */
static graft_status find_parameters(const json_t **out, const char **key, const json_t *config,
                                    const char *origin, graft_error *err) {
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    *out = NULL;
    *key = keys[1];
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(config, keys[i]);
        if (!value || json_is_null(value))
            continue;
        if (!json_is_object(value))
            return error_set(err, GRAFT_E_INPUT, "%s: \"%s\": expected an object, found %s", origin,
                             keys[i], json_type_name(value));
        if (json_object_size(value) == 0)
            continue;
        *out = value;
        *key = keys[i];
        return GRAFT_OK;
    }
    return GRAFT_OK;
}

static graft_status read_kind(rope_kind *out, const json_t *parameters, const char *where,
                              graft_error *err) {
    static const char *const names[] = {
        [ROPE_DEFAULT] = "default", [ROPE_LINEAR] = "linear", [ROPE_DYNAMIC] = "dynamic",
        [ROPE_YARN] = "yarn",       [ROPE_LLAMA3] = "llama3", [ROPE_LONGROPE] = "longrope"};
    const char *old, *name;
    graft_status status = json_get_string(&old, parameters, "type", "default", where, err);
    if (status == GRAFT_OK)
        status = json_get_string(&name, parameters, "rope_type", old, where, err);
    if (status != GRAFT_OK)
        return status;
    if (json_object_get(parameters, "full_attention") ||
        json_object_get(parameters, "sliding_attention"))
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: rotary parameters for each kind of layer are not supported in this "
                         "family",
                         where);
    if (strcmp(name, "su") == 0) /* Phi-3's first name for it */
        name = "longrope";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (rope_kind)i;
            return GRAFT_OK;
        }
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s: rope type \"%.40s\" is not supported; supported are default, linear, "
                     "dynamic, yarn, llama3, longrope",
                     where, name);
}

static graft_status need_positive(double *out, const json_t *parameters, const char *key,
                                  const char *where, graft_error *err) {
    graft_status status = json_need_double(out, parameters, key, where, err);
    if (status == GRAFT_OK && !(*out > 0 && isfinite(*out)))
        return error_set(err, GRAFT_E_INPUT, "%s: \"%s\": expected a number above 0, found %g",
                         where, key, *out);
    return status;
}

/* The length the model was first trained for: a key of config.json wins over one among the
 * parameters. */
static graft_status read_original(rope_spec *rope, const json_t *config, const json_t *parameters,
                                  int32_t max_positions, const char *where, graft_error *err) {
    static const char key[] = "original_max_position_embeddings";
    int64_t inner, value;
    graft_status status =
        json_get_i64(&inner, parameters, key, 1, INT32_MAX, max_positions, where, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&value, config, key, 1, INT32_MAX, inner, where, err);
    if (status == GRAFT_OK)
        rope->original_max_positions = (int32_t)value;
    return status;
}

static double mscale_of(double scale, double mscale) {
    return scale <= 1 ? 1.0 : 0.1 * mscale * log(scale) + 1.0;
}

static graft_status read_yarn(rope_spec *rope, const json_t *parameters, int32_t max_positions,
                              const char *where, graft_error *err) {
    double mscale, mscale_all;
    const json_t *factor = json_object_get(parameters, "factor");
    graft_status status = GRAFT_OK;
    if (factor && json_is_null(factor))
        rope->factor = (double)max_positions / rope->original_max_positions;
    else
        status = need_positive(&rope->factor, parameters, "factor", where, err);
    if (status == GRAFT_OK)
        status = json_get_double(&mscale, parameters, "mscale", 0, where, err);
    if (status == GRAFT_OK)
        status = json_get_double(&mscale_all, parameters, "mscale_all_dim", 0, where, err);
    if (status == GRAFT_OK)
        status = json_get_double(&rope->beta_fast, parameters, "beta_fast", 0, where, err);
    if (status == GRAFT_OK)
        status = json_get_double(&rope->beta_slow, parameters, "beta_slow", 0, where, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&rope->truncate, parameters, "truncate", true, where, err);
    if (status != GRAFT_OK)
        return status;
    /* 0 counts as left out, as Transformers' `or` has it. */
    if (rope->beta_fast == 0)
        rope->beta_fast = 32;
    if (rope->beta_slow == 0)
        rope->beta_slow = 1;
    double inferred = mscale != 0 && mscale_all != 0
                          ? mscale_of(rope->factor, mscale) / mscale_of(rope->factor, mscale_all)
                          : mscale_of(rope->factor, 1);
    status = json_get_double(&rope->attention_factor, parameters, "attention_factor", inferred,
                             where, err);
    if (status != GRAFT_OK)
        return status;
    if (!(rope->attention_factor > 0) || !(rope->beta_fast > 0) || !(rope->beta_slow > 0) ||
        !(rope->theta > 1))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: yarn needs attention_factor, beta_fast and beta_slow above 0 and a "
                         "rope_theta above 1",
                         where);
    return GRAFT_OK;
}

static graft_status read_factors(float **out, const json_t *parameters, const char *key, int32_t n,
                                 const char *where, graft_error *err) {
    const json_t *list = json_object_get(parameters, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)n)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"%s\": expected a list of %d numbers, found %s of %zu", where, key,
                         n, json_type_name(list), json_array_size(list));
    *out = mem_array((size_t)n, sizeof **out);
    if (!*out)
        return error_memory(err, (size_t)n * sizeof **out, where);
    for (int32_t i = 0; i < n; i++) {
        double factor = json_number_value(json_array_get(list, (size_t)i));
        if (!(factor > 0 && isfinite(factor)))
            return error_set(err, GRAFT_E_INPUT, "%s: \"%s\"[%d]: expected a number above 0", where,
                             key, i);
        (*out)[i] = (float)factor;
    }
    return GRAFT_OK;
}

static graft_status read_longrope(rope_spec *rope, const json_t *parameters, int32_t max_positions,
                                  const char *where, graft_error *err) {
    double ratio = (double)max_positions / rope->original_max_positions, inferred = 1;
    graft_status status =
        read_factors(&rope->long_factors, parameters, "long_factor", rope->dim / 2, where, err);
    if (status == GRAFT_OK)
        status = read_factors(&rope->short_factors, parameters, "short_factor", rope->dim / 2,
                              where, err);
    if (status == GRAFT_OK)
        status = json_get_double(&rope->factor, parameters, "factor", ratio, where, err);
    if (status != GRAFT_OK)
        return status;
    if (rope->factor > 1)
        inferred = sqrt(1 + log(rope->factor) / log(rope->original_max_positions));
    status = json_get_double(&rope->attention_factor, parameters, "attention_factor", inferred,
                             where, err);
    if (status == GRAFT_OK && !(rope->attention_factor > 0 && isfinite(rope->attention_factor)))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: longrope needs an attention_factor above 0, and an original length "
                         "above 1",
                         where);
    return status;
}

static graft_status read_llama3(rope_spec *rope, const json_t *parameters, const char *where,
                                graft_error *err) {
    graft_status status = need_positive(&rope->factor, parameters, "factor", where, err);
    if (status == GRAFT_OK)
        status = need_positive(&rope->low_freq_factor, parameters, "low_freq_factor", where, err);
    if (status == GRAFT_OK)
        status = need_positive(&rope->high_freq_factor, parameters, "high_freq_factor", where, err);
    if (status == GRAFT_OK && rope->high_freq_factor <= rope->low_freq_factor)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"high_freq_factor\" %g must be above \"low_freq_factor\" %g", where,
                         rope->high_freq_factor, rope->low_freq_factor);
    return status;
}

static void warn_unknown(const json_t *parameters, const char *where, const message_sink *sink) {
    static const char *const known[] = {"rope_type",
                                        "type",
                                        "rope_theta",
                                        "factor",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "attention_factor",
                                        "beta_fast",
                                        "beta_slow",
                                        "mscale",
                                        "mscale_all_dim",
                                        "truncate",
                                        "partial_rotary_factor",
                                        "long_factor",
                                        "short_factor",
                                        "original_max_position_embeddings"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)parameters, key, value) {
        bool is_known = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            is_known = is_known || strcmp(key, known[i]) == 0;
        if (!is_known)
            message_emit(sink, MESSAGE_WARNING, "%s: \"%.60s\" is not used", where, key);
    }
}

static graft_status read_scaling(rope_spec *rope, const model_spec *spec, const json_t *config,
                                 const json_t *parameters, const char *where, graft_error *err) {
    graft_status status = GRAFT_OK;
    switch (rope->kind) {
    case ROPE_DEFAULT:
        return GRAFT_OK;
    case ROPE_LINEAR:
        return need_positive(&rope->factor, parameters, "factor", where, err);
    case ROPE_DYNAMIC:
        rope->original_max_positions = spec->max_positions;
        if (rope->dim <= 2)
            return error_set(err, GRAFT_E_INPUT, "%s: dynamic needs more than 2 elements to rotate",
                             where);
        return need_positive(&rope->factor, parameters, "factor", where, err);
    case ROPE_YARN:
    case ROPE_LLAMA3:
    case ROPE_LONGROPE:
        status = read_original(rope, config, parameters, spec->max_positions, where, err);
        if (status != GRAFT_OK)
            return status;
        if (rope->kind == ROPE_LONGROPE)
            return read_longrope(rope, parameters, spec->max_positions, where, err);
        return rope->kind == ROPE_YARN
                   ? read_yarn(rope, parameters, spec->max_positions, where, err)
                   : read_llama3(rope, parameters, where, err);
    }
    return status;
}

/* The share of each head that rotates. `parameters` wins over config, as theta's does. */
static graft_status read_dim(rope_spec *rope, const model_spec *spec, const json_t *config,
                             const json_t *parameters, const config_defaults *defaults,
                             const char *where, graft_error *err) {
    const char *key = defaults->keys.partial_rotary_factor;
    double share = defaults->partial_rotary_factor > 0 ? defaults->partial_rotary_factor : 1;
    graft_status status = GRAFT_OK;
    if (config)
        status =
            json_get_double(&share, config, key ? key : "partial_rotary_factor", share, where, err);
    if (status == GRAFT_OK && parameters)
        status = json_get_double(&share, parameters, "partial_rotary_factor", share, where, err);
    if (status != GRAFT_OK)
        return status;
    if (defaults->partial_rotary_factor == 0 && share != 1)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: \"partial_rotary_factor\" %g is not supported in a %s model (only 1)",
                         where, share, spec->model_type);
    rope->dim = share > 0 && share <= 1 ? (int32_t)((double)spec->head_dim * share) : 0;
    if (rope->dim < 2 || rope->dim % 2 != 0)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"partial_rotary_factor\" %g of heads of size %d: expected an even "
                         "number of elements to rotate",
                         where, share, spec->head_dim);
    return GRAFT_OK;
}

/* One rope. config (NULL: none) gives what `parameters` (NULL: none) leave out. */
static graft_status read_rope(rope_spec *out, model_spec *spec, const json_t *config,
                              const json_t *parameters, double theta,
                              const config_defaults *defaults, const char *where,
                              const message_sink *sink, graft_error *err) {
    const char *theta_key = defaults->keys.rope_theta ? defaults->keys.rope_theta : "rope_theta";
    graft_status status = GRAFT_OK;
    *out = (rope_spec){.kind = ROPE_DEFAULT, .theta = theta};
    if (config)
        status = json_get_double(&out->theta, config, theta_key, theta, where, err);
    if (status == GRAFT_OK && parameters)
        status = read_kind(&out->kind, parameters, where, err);
    if (status == GRAFT_OK && parameters)
        status = json_get_double(&out->theta, parameters, "rope_theta", out->theta, where, err);
    if (status == GRAFT_OK)
        status = read_dim(out, spec, config, parameters, defaults, where, err);
    if (status != GRAFT_OK)
        return status;
    if (!(out->theta > 0 && isfinite(out->theta)))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"rope_theta\": expected a number above 0, found %g", where,
                         out->theta);
    if (!parameters)
        return GRAFT_OK;
    warn_unknown(parameters, where, sink);
    return read_scaling(out, spec, config, parameters, where, err);
}

static double default_theta(const config_defaults *defaults) {
    return defaults->rope_theta > 0 ? defaults->rope_theta : 10000;
}

graft_status config_read_rope(model_spec *spec, const json_t *config,
                              const config_defaults *defaults, const char *origin,
                              const message_sink *sink, graft_error *err) {
    const json_t *parameters;
    const char *key;
    char where[512];
    graft_status status = find_parameters(&parameters, &key, config, origin, err);
    if (status != GRAFT_OK)
        return status;
    snprintf(where, sizeof where, parameters ? "%.400s: %s" : "%.400s", origin, key);
    return read_rope(&spec->rope, spec, config, parameters, default_theta(defaults), defaults,
                     where, sink, err);
}

graft_status config_read_layered_rope(model_spec *spec, const json_t *config,
                                      const config_defaults *defaults, const char *sliding_key,
                                      double sliding_theta, const char *origin,
                                      const message_sink *sink, graft_error *err) {
    const json_t *parameters, *full, *sliding;
    const char *key;
    char where[512];
    graft_status status = find_parameters(&parameters, &key, config, origin, err);
    if (status != GRAFT_OK)
        return status;
    full = json_object_get(parameters, "full_attention");
    sliding = json_object_get(parameters, "sliding_attention");
    bool is_layered = full || sliding;
    if (is_layered)
        parameters = full;
    if (!is_layered && sliding_key)
        status = json_get_double(&sliding_theta, config, sliding_key, sliding_theta, origin, err);
    snprintf(where, sizeof where, is_layered ? "%.400s: %s: full_attention" : "%.400s: %s", origin,
             key);
    if (status == GRAFT_OK)
        status = read_rope(&spec->rope, spec, config, parameters, default_theta(defaults), defaults,
                           where, sink, err);
    snprintf(where, sizeof where, "%.400s: %s: sliding_attention", origin, key);
    if (status == GRAFT_OK)
        status = read_rope(&spec->rope_sliding, spec, NULL, sliding, sliding_theta, defaults, where,
                           sink, err);
    for (int32_t i = 0; status == GRAFT_OK && i < spec->n_layers; i++)
        if (spec->layer_slides[i])
            spec->layer_rope[i] = LAYER_ROPE_SLIDING;
    return status;
}
