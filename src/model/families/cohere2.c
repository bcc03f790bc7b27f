/* Cohere 2, Command R7B and A (Transformers' configuration_cohere2.py): Cohere with sliding layers;
 * the full ones have no positions. */
#include "model/families/families.h"

static graft_status cohere2_parse(model_spec *spec, const json_t *config, const char *origin,
                                  const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 256000,
                                             .intermediate = 22528,
                                             .n_layers = 40,
                                             .n_heads = 64,
                                             .max_positions = 8192,
                                             .bos_id = 5,
                                             .eos_id = 255001,
                                             .pad_id = 0,
                                             .norm_eps = 1e-5,
                                             .is_head_tied = true,
                                             .keys = {.norm_eps = "layer_norm_eps"}};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    spec->norms_are_centred = spec->is_parallel = spec->rope_is_interleaved = true;
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status =
            config_read_multiplier(&spec->logit_scale, config, "logit_scale", 0.0625, origin, err);
    if (status == GRAFT_OK)
        status = config_read_window_pattern(spec, config, 4, 4096, origin, err);
    for (int32_t i = 0; status == GRAFT_OK && i < spec->n_layers; i++)
        spec->layer_rope[i] = spec->layer_slides[i] ? LAYER_ROPE_MAIN : LAYER_ROPE_NONE;
    return status;
}

const model_family family_cohere2 = {
    .model_type = "cohere2",
    .parse = cohere2_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {[NORM_ATTENTION] = "input_layernorm"},
    LLAMA_OUTER_NAMES,
};
