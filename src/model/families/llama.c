/* Llama (Transformers' configuration_llama.py): also what SmolLM, TinyLlama and most others use. */
#include "model/families/families.h"

static graft_status llama_parse(model_spec *spec, const json_t *config, const char *origin,
                                const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 32000,
                                             .intermediate = 11008,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 2048,
                                             .bos_id = 1,
                                             .eos_id = 2};
    bool mlp_bias;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&mlp_bias, config, "mlp_bias", false, origin, err);
    if (status == GRAFT_OK && mlp_bias)
        spec->has_bias[LINEAR_GATE] = spec->has_bias[LINEAR_UP] = spec->has_bias[LINEAR_DOWN] =
            true;
    return status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_llama = {
    .model_type = "llama",
    .parse = llama_parse,
    .linear_names = {[LINEAR_Q] = "self_attn.q_proj",
                     [LINEAR_K] = "self_attn.k_proj",
                     [LINEAR_V] = "self_attn.v_proj",
                     [LINEAR_O] = "self_attn.o_proj",
                     [LINEAR_GATE] = "mlp.gate_proj",
                     [LINEAR_UP] = "mlp.up_proj",
                     [LINEAR_DOWN] = "mlp.down_proj"},
    .norm_names = {[NORM_ATTENTION] = "input_layernorm", [NORM_MLP] = "post_attention_layernorm"},
    .layers_path = "model.layers",
    .embedding_name = "model.embed_tokens",
    .final_norm_name = "model.norm",
    .head_name = "lm_head",
    .lora_default_targets = lora_targets,
};
