/* SmolLM3 (Transformers' configuration_smollm3.py): Llama where every fourth layer has no
 * positions. */
#include "model/families/families.h"

/* no_rope_layers: 1 where a layer rotates; else every no_rope_layer_interval-th does not. */
static graft_status read_no_rope(model_spec *spec, const json_t *config, const char *origin,
                                 graft_error *err) {
    const json_t *list = json_object_get(config, "no_rope_layers");
    bool is_list = list && !json_is_null(list);
    int64_t interval;
    graft_status status =
        json_get_i64(&interval, config, "no_rope_layer_interval", 1, INT32_MAX, 4, origin, err);
    if (status != GRAFT_OK)
        return status;
    if (is_list && (!json_is_array(list) || json_array_size(list) != (size_t)spec->n_layers))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"no_rope_layers\": expected a list of %d (\"num_hidden_layers\"), "
                         "found %s of %zu",
                         origin, spec->n_layers, json_type_name(list), json_array_size(list));
    for (int32_t i = 0; i < spec->n_layers; i++) {
        bool rotates = is_list ? json_integer_value(json_array_get(list, (size_t)i)) != 0
                               : (i + 1) % interval != 0;
        spec->layer_rope[i] = rotates ? LAYER_ROPE_MAIN : LAYER_ROPE_NONE;
    }
    return GRAFT_OK;
}

/* With use_sliding_window the layers without positions slide, unless layer_types say which. */
static graft_status read_windows(model_spec *spec, const json_t *config, const char *origin,
                                 graft_error *err) {
    bool slides;
    const json_t *types = json_object_get(config, "layer_types");
    graft_status status = json_get_bool(&slides, config, "use_sliding_window", false, origin, err);
    if (status != GRAFT_OK)
        return status;
    if (types && !json_is_null(types))
        return config_read_window_pattern(spec, config, 1, 0, origin, err);
    if (slides)
        status = config_read_window(&spec->window, config, 0, origin, err);
    for (int32_t i = 0; status == GRAFT_OK && spec->window > 0 && i < spec->n_layers; i++)
        spec->layer_slides[i] = spec->layer_rope[i] == LAYER_ROPE_NONE;
    return status;
}

static graft_status smollm3_parse(model_spec *spec, const json_t *config, const char *origin,
                                  const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 128256,
                                             .intermediate = 11008,
                                             .n_layers = 36,
                                             .n_heads = 16,
                                             .max_positions = 32768,
                                             .bos_id = 128000,
                                             .eos_id = 128001,
                                             .pad_id = 128004,
                                             .n_kv_heads = 4,
                                             .rope_theta = 2e6,
                                             .is_head_tied = true};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status = config_read_mlp_bias(spec, config, "mlp_bias", origin, err);
    if (status == GRAFT_OK)
        status = read_no_rope(spec, config, origin, err);
    return status == GRAFT_OK ? read_windows(spec, config, origin, err) : status;
}

const model_family family_smollm3 = {
    .model_type = "smollm3",
    .parse = smollm3_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
};
