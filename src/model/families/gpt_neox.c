/* GPT-NeoX and Pythia (Transformers' configuration_gpt_neox.py): q, k and v fused head by head, a
 * part of each head rotates, attention and MLP side by side under norms of their own. */
#include "model/families/families.h"

static graft_status gpt_neox_parse(model_spec *spec, const json_t *config, const char *origin,
                                   const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 50432,
                                             .intermediate = 24576,
                                             .n_layers = 44,
                                             .n_heads = 64,
                                             .max_positions = 2048,
                                             .bos_id = 0,
                                             .eos_id = 2,
                                             .pad_id = -1,
                                             .norm_eps = 1e-5,
                                             .partial_rotary_factor = 0.25,
                                             .activation = "gelu",
                                             .keys = {.norm_eps = "layer_norm_eps",
                                                      .rope_theta = "rotary_emb_base",
                                                      .partial_rotary_factor = "rotary_pct"}};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    config_use_layer_norms(spec);
    config_set_biases(spec, true);
    spec->qkv_groups = spec->n_heads;
    spec->has_bias[LINEAR_QKV] = spec->has_bias[LINEAR_O] = false;
    if (status == GRAFT_OK)
        status =
            json_get_bool(&spec->is_parallel, config, "use_parallel_residual", true, origin, err);
    if (status == GRAFT_OK)
        status =
            json_get_bool(&spec->has_bias[LINEAR_QKV], config, "attention_bias", true, origin, err);
    spec->has_bias[LINEAR_O] = spec->has_bias[LINEAR_QKV];
    return status;
}

static const char *const lora_targets[] = {"query_key_value", NULL};

const model_family family_gpt_neox = {
    .model_type = "gpt_neox",
    .parse = gpt_neox_parse,
    .linear_names = {[LINEAR_QKV] = "attention.query_key_value",
                     [LINEAR_O] = "attention.dense",
                     [LINEAR_UP] = "mlp.dense_h_to_4h",
                     [LINEAR_DOWN] = "mlp.dense_4h_to_h"},
    .norm_names = {LLAMA_NORM_NAMES},
    .layers_path = "gpt_neox.layers",
    .embedding_name = "gpt_neox.embed_in",
    .head_name = "lm_head",
    .head_disk_name = "embed_out",
    .outer_norm_names = {[OUTER_NORM_FINAL] = "gpt_neox.final_layer_norm"},
    .trains_padding = true,
    .lora_default_targets = lora_targets,
};
