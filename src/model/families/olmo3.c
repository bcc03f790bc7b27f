/* OLMo 3 (Transformers' configuration_olmo3.py): OLMo 2 with three of four layers sliding; rope
 * scaling is the full layers' alone. */
#include "model/families/families.h"

static graft_status olmo3_parse(model_spec *spec, const json_t *config, const char *origin,
                                const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 50304,
                                             .intermediate = 11008,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 2048,
                                             .bos_id = -1,
                                             .eos_id = 50279,
                                             .pad_id = 1,
                                             .norm_eps = 1e-5,
                                             .rope_theta = 500000,
                                             .has_layered_rope = true};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    spec->qk_norm = QK_NORM_WHOLE;
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status = config_read_window_pattern(spec, config, 4, 4096, origin, err);
    if (status == GRAFT_OK)
        status = config_read_layered_rope(spec, config, &defaults, "rope_theta", 500000, origin,
                                          sink, err);
    return status;
}

const model_family family_olmo3 = {
    .model_type = "olmo3",
    .parse = olmo3_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {[NORM_ATTENTION_OUT] = "post_attention_layernorm",
                   [NORM_MLP_OUT] = "post_feedforward_layernorm",
                   [NORM_Q] = "self_attn.q_norm",
                   [NORM_K] = "self_attn.k_norm"},
    LLAMA_OUTER_NAMES,
};
