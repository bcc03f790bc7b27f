/* Cohere, Command R (Transformers' configuration_cohere.py): both branches under one layer norm
 * without bias, neighbours rotate in pairs, logits are scaled; R+ has norms for each head of q and
 * k. */
#include "model/families/families.h"

static graft_status cohere_parse(model_spec *spec, const json_t *config, const char *origin,
                                 const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 256000,
                                             .intermediate = 22528,
                                             .n_layers = 40,
                                             .n_heads = 64,
                                             .max_positions = 8192,
                                             .bos_id = 5,
                                             .eos_id = 255001,
                                             .pad_id = 0,
                                             .rope_theta = 500000,
                                             .norm_eps = 1e-5,
                                             .is_head_tied = true,
                                             .keys = {.norm_eps = "layer_norm_eps"}};
    bool has_qk_norm;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    spec->norms_are_centred = spec->is_parallel = spec->rope_is_interleaved = true;
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status =
            config_read_multiplier(&spec->logit_scale, config, "logit_scale", 0.0625, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&has_qk_norm, config, "use_qk_norm", false, origin, err);
    if (status == GRAFT_OK)
        spec->has_norm[NORM_Q] = spec->has_norm[NORM_K] = has_qk_norm;
    spec->qk_norm = QK_NORM_HEADS;
    return status;
}

const model_family family_cohere = {
    .model_type = "cohere",
    .parse = cohere_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {[NORM_ATTENTION] = "input_layernorm",
                   [NORM_Q] = "self_attn.q_norm",
                   [NORM_K] = "self_attn.k_norm"},
    LLAMA_OUTER_NAMES,
};
