/* StableLM (Transformers' configuration_stablelm.py): Llama with layer norms, a quarter of each
 * head rotates; some have norms for each head of q and k, some both branches under one norm. */
#include "model/families/families.h"

static graft_status stablelm_parse(model_spec *spec, const json_t *config, const char *origin,
                                   const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 50304,
                                             .intermediate = 6912,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 4096,
                                             .bos_id = 0,
                                             .eos_id = 0,
                                             .pad_id = -1,
                                             .n_kv_heads = 32,
                                             .norm_eps = 1e-5,
                                             .partial_rotary_factor = 0.25,
                                             .keys = {.norm_eps = "layer_norm_eps"}};
    bool has_bias, has_qk_norm;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&has_bias, config, "use_qkv_bias", false, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&has_qk_norm, config, "qk_layernorm", false, origin, err);
    if (status == GRAFT_OK)
        status =
            json_get_bool(&spec->is_parallel, config, "use_parallel_residual", false, origin, err);
    if (status != GRAFT_OK)
        return status;
    config_use_layer_norms(spec);
    spec->has_bias[LINEAR_Q] = spec->has_bias[LINEAR_K] = spec->has_bias[LINEAR_V] = has_bias;
    spec->has_norm[NORM_Q] = spec->has_norm[NORM_K] = has_qk_norm;
    spec->has_norm[NORM_MLP] = !spec->is_parallel;
    spec->qk_norm = QK_NORM_SPLIT;
    return GRAFT_OK;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_stablelm = {
    .model_type = "stablelm",
    .parse = stablelm_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names =
        {LLAMA_NORM_NAMES, [NORM_Q] = "self_attn.q_layernorm", [NORM_K] = "self_attn.k_layernorm"},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
