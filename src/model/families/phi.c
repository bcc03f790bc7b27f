/* Phi-1, 1.5 and 2 (Transformers' configuration_phi.py): a plain MLP beside attention under one
 * layer norm, half of each head rotates, biases everywhere and on the head. */
#include "model/families/families.h"

static graft_status phi_parse(model_spec *spec, const json_t *config, const char *origin,
                              const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 51200,
                                             .intermediate = 8192,
                                             .n_layers = 24,
                                             .n_heads = 32,
                                             .max_positions = 2048,
                                             .bos_id = 1,
                                             .eos_id = 2,
                                             .pad_id = -1,
                                             .norm_eps = 1e-5,
                                             .partial_rotary_factor = 0.5,
                                             .activation = "gelu_new",
                                             .keys = {.norm_eps = "layer_norm_eps"}};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    config_use_layer_norms(spec);
    config_set_biases(spec, true);
    spec->is_parallel = spec->has_head_bias = true;
    if (status == GRAFT_OK)
        status = config_refuse(config, "qk_layernorm", false, origin, err);
    return status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", "fc1", "fc2", NULL};

const model_family family_phi = {
    .model_type = "phi",
    .parse = phi_parse,
    .linear_names = {[LINEAR_Q] = "self_attn.q_proj",
                     [LINEAR_K] = "self_attn.k_proj",
                     [LINEAR_V] = "self_attn.v_proj",
                     [LINEAR_O] = "self_attn.dense",
                     [LINEAR_UP] = "mlp.fc1",
                     [LINEAR_DOWN] = "mlp.fc2"},
    .norm_names = {[NORM_ATTENTION] = "input_layernorm"},
    .layers_path = "model.layers",
    .embedding_name = "model.embed_tokens",
    .head_name = "lm_head",
    .outer_norm_names = {[OUTER_NORM_FINAL] = "model.final_layernorm"},
    .lora_default_targets = lora_targets,
};
