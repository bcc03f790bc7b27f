/* Mixtral (Transformers' configuration_mixtral.py): Mistral with experts in every layer, two of
 * eight for each token. */
#include "model/families/families.h"

static graft_status mixtral_parse(model_spec *spec, const json_t *config, const char *origin,
                                  const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 32000,
                                             .intermediate = 14336,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 131072,
                                             .bos_id = 1,
                                             .eos_id = 2,
                                             .pad_id = -1,
                                             .n_kv_heads = 8,
                                             .norm_eps = 1e-5,
                                             .rope_theta = 1e6};
    static const expert_keys keys = {.n_experts = "num_local_experts",
                                     .n_experts_default = 8,
                                     .n_chosen_default = 2,
                                     .router = {ROUTER_SOFTMAX, .normalises = true}};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_experts(spec, config, &keys, origin, err);
    if (status == GRAFT_OK)
        status = config_refuse_nonzero(config, "router_jitter_noise", origin, err);
    return status == GRAFT_OK ? config_read_uniform_window(spec, config, 0, origin, err) : status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_mixtral = {
    .model_type = "mixtral",
    .parse = mixtral_parse,
    .linear_names = {LLAMA_ATTENTION_NAMES, [LINEAR_ROUTER] = "mlp.gate"},
    .norm_names = {LLAMA_NORM_NAMES},
    .linear_disk_names = {[LINEAR_ROUTER] = "block_sparse_moe.gate"},
    .experts_path = "block_sparse_moe.experts",
    .expert_names = {[EXPERT_GATE] = "w1", [EXPERT_UP] = "w3", [EXPERT_DOWN] = "w2"},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
