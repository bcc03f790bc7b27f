/* Qwen3 with experts (Transformers' configuration_qwen3_moe.py). */
#include "model/families/families.h"

static graft_status qwen3_moe_parse(model_spec *spec, const json_t *config, const char *origin,
                                    const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 151936,
                                             .intermediate = 6144,
                                             .n_layers = 24,
                                             .n_heads = 32,
                                             .max_positions = 32768,
                                             .bos_id = -1,
                                             .eos_id = -1,
                                             .pad_id = -1,
                                             .n_kv_heads = 4};
    static const expert_keys keys = {.n_experts = "num_experts",
                                     .n_experts_other = "num_local_experts",
                                     .n_experts_default = 128,
                                     .n_chosen_default = 8,
                                     .intermediate = "moe_intermediate_size",
                                     .intermediate_default = 768,
                                     .router = {ROUTER_SOFTMAX}};
    bool slides;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status = config_read_experts(spec, config, &keys, origin, err);
    if (status == GRAFT_OK)
        status = config_read_sparse_layers(spec, config, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&slides, config, "use_sliding_window", false, origin, err);
    if (status == GRAFT_OK && slides)
        status = config_read_uniform_window(spec, config, 4096, origin, err);
    return status;
}

const model_family family_qwen3_moe = {
    .model_type = "qwen3_moe",
    .parse = qwen3_moe_parse,
    .linear_names = {LLAMA_LINEAR_NAMES, [LINEAR_ROUTER] = "mlp.gate"},
    .norm_names = {LLAMA_NORM_NAMES, [NORM_Q] = "self_attn.q_norm", [NORM_K] = "self_attn.k_norm"},
    .experts_path = "mlp.experts",
    .expert_names =
        {[EXPERT_GATE] = "gate_proj", [EXPERT_UP] = "up_proj", [EXPERT_DOWN] = "down_proj"},
    LLAMA_OUTER_NAMES,
};
