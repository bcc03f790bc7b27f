/* Mistral (Transformers' configuration_mistral.py): Llama without biases; with sliding_window every
 * layer slides. */
#include "model/families/families.h"

#include <string.h>

static graft_status mistral_parse(model_spec *spec, const json_t *config, const char *origin,
                                  const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 32000,
                                             .intermediate = 14336,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .n_kv_heads = 8,
                                             .max_positions = 131072,
                                             .bos_id = 1,
                                             .eos_id = 2};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_window(&spec->window, config, 4096, origin, err);
    if (status == GRAFT_OK && spec->window > 0)
        memset(spec->layer_slides, 1, (size_t)spec->n_layers);
    return status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_mistral = {
    .model_type = "mistral",
    .parse = mistral_parse,
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
