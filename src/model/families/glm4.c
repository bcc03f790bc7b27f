/* GLM-4 (Transformers' configuration_glm4.py): norms before and behind attention and MLP, gate and
 * up fused, neighbours rotate in pairs in half of each head. */
#include "model/families/families.h"

static graft_status glm4_parse(model_spec *spec, const json_t *config, const char *origin,
                               const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 151552,
                                             .intermediate = 13696,
                                             .n_layers = 40,
                                             .n_heads = 32,
                                             .max_positions = 131072,
                                             .bos_id = -1,
                                             .eos_id = -1,
                                             .pad_id = 151329,
                                             .n_kv_heads = 2,
                                             .head_dim = 128,
                                             .norm_eps = 1.5625e-07,
                                             .partial_rotary_factor = 0.5};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    spec->rope_is_interleaved = true;
    if (status == GRAFT_OK)
        status =
            json_get_bool(&spec->has_bias[LINEAR_Q], config, "attention_bias", true, origin, err);
    spec->has_bias[LINEAR_K] = spec->has_bias[LINEAR_V] = spec->has_bias[LINEAR_Q];
    return status;
}

const model_family family_glm4 = {
    .model_type = "glm4",
    .parse = glm4_parse,
    .linear_names = {LLAMA_ATTENTION_NAMES, [LINEAR_GATE_UP] = "mlp.gate_up_proj",
                     [LINEAR_DOWN] = "mlp.down_proj"},
    .norm_names = {LLAMA_NORM_NAMES, [NORM_ATTENTION_OUT] = "post_self_attn_layernorm",
                   [NORM_MLP_OUT] = "post_mlp_layernorm"},
    LLAMA_OUTER_NAMES,
};
