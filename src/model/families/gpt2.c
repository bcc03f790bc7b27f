/* GPT-2 (Transformers' configuration_gpt2.py): learned positions, weights stored [in, out], q, k
 * and v fused. */
#include "model/families/families.h"

static graft_status gpt2_parse(model_spec *spec, const json_t *config, const char *origin,
                               const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 50257,
                                             .n_layers = 12,
                                             .n_heads = 12,
                                             .max_positions = 1024,
                                             .bos_id = 50256,
                                             .eos_id = 50256,
                                             .pad_id = -1,
                                             .intermediate_of_hidden = 4,
                                             .norm_eps = 1e-5,
                                             .activation = "gelu_new",
                                             .is_head_tied = true,
                                             .has_no_rope = true,
                                             .keys = {.hidden = "n_embd",
                                                      .intermediate = "n_inner",
                                                      .n_layers = "n_layer",
                                                      .n_heads = "n_head",
                                                      .max_positions = "n_positions",
                                                      .norm_eps = "layer_norm_epsilon",
                                                      .activation = "activation_function"}};
    bool scales;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    config_use_layer_norms(spec);
    config_set_biases(spec, true);
    spec->is_transposed = true;
    spec->n_positions = spec->max_positions;
    if (status == GRAFT_OK)
        status = config_refuse(config, "add_cross_attention", false, origin, err);
    if (status == GRAFT_OK)
        status = config_refuse(config, "scale_attn_by_inverse_layer_idx", false, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&scales, config, "scale_attn_weights", true, origin, err);
    if (status == GRAFT_OK && !scales)
        spec->attention_scale = 1;
    return status;
}

static const char *const lora_targets[] = {"c_attn", NULL};

const model_family family_gpt2 = {
    .model_type = "gpt2",
    .parse = gpt2_parse,
    .linear_names = {[LINEAR_QKV] = "attn.c_attn",
                     [LINEAR_O] = "attn.c_proj",
                     [LINEAR_UP] = "mlp.c_fc",
                     [LINEAR_DOWN] = "mlp.c_proj"},
    .norm_names = {[NORM_ATTENTION] = "ln_1", [NORM_MLP] = "ln_2"},
    .layers_path = "transformer.h",
    .embedding_name = "transformer.wte",
    .positions_name = "transformer.wpe",
    .head_name = "lm_head",
    .outer_norm_names = {[OUTER_NORM_FINAL] = "transformer.ln_f"},
    .trains_padding = true,
    .lora_default_targets = lora_targets,
};
