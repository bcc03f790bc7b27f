/* Qwen1.5 and Qwen2 with experts (Transformers' configuration_qwen2_moe.py): one expert is always
 * there, scaled by a gate of its own; some layers may have a plain MLP. */
#include "model/families/families.h"

static graft_status qwen2_moe_parse(model_spec *spec, const json_t *config, const char *origin,
                                    const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 151936,
                                             .intermediate = 5632,
                                             .n_layers = 24,
                                             .n_heads = 16,
                                             .max_positions = 32768,
                                             .bos_id = -1,
                                             .eos_id = -1,
                                             .pad_id = -1,
                                             .n_kv_heads = 16};
    static const expert_keys keys = {.n_experts = "num_experts",
                                     .n_experts_default = 60,
                                     .n_chosen_default = 4,
                                     .intermediate = "moe_intermediate_size",
                                     .intermediate_default = 1408,
                                     .shared_intermediate = "shared_expert_intermediate_size",
                                     .shared_default = 5632,
                                     .router = {ROUTER_SOFTMAX}};
    bool has_bias;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&has_bias, config, "qkv_bias", true, origin, err);
    if (status == GRAFT_OK)
        status = config_read_experts(spec, config, &keys, origin, err);
    if (status == GRAFT_OK)
        status = config_read_sparse_layers(spec, config, origin, err);
    if (status != GRAFT_OK)
        return status;
    spec->has_bias[LINEAR_Q] = spec->has_bias[LINEAR_K] = spec->has_bias[LINEAR_V] = has_bias;
    return config_read_qwen_windows(spec, config, origin, err);
}

const model_family family_qwen2_moe = {
    .model_type = "qwen2_moe",
    .parse = qwen2_moe_parse,
    .linear_names = {LLAMA_LINEAR_NAMES, [LINEAR_ROUTER] = "mlp.gate",
                     [LINEAR_SHARED_GATE] = "mlp.shared_expert.gate_proj",
                     [LINEAR_SHARED_UP] = "mlp.shared_expert.up_proj",
                     [LINEAR_SHARED_DOWN] = "mlp.shared_expert.down_proj",
                     [LINEAR_SHARED_SCALE] = "mlp.shared_expert_gate"},
    .norm_names = {LLAMA_NORM_NAMES},
    .experts_path = "mlp.experts",
    .expert_names =
        {[EXPERT_GATE] = "gate_proj", [EXPERT_UP] = "up_proj", [EXPERT_DOWN] = "down_proj"},
    LLAMA_OUTER_NAMES,
};
