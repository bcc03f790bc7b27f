/* OPT (Transformers' configuration_opt.py): learned positions from row 2 on, a plain MLP; the 350M
 * model has its norms behind the additions, and an embedding narrower than its blocks. */
#include "model/families/families.h"

static graft_status opt_parse(model_spec *spec, const json_t *config, const char *origin,
                              const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 50272,
                                             .intermediate = 3072,
                                             .n_layers = 12,
                                             .n_heads = 12,
                                             .max_positions = 2048,
                                             .bos_id = 2,
                                             .eos_id = 2,
                                             .pad_id = 1,
                                             .norm_eps = 1e-5,
                                             .activation = "relu",
                                             .is_head_tied = true,
                                             .has_no_rope = true,
                                             .keys = {.intermediate = "ffn_dim",
                                                      .activation = "activation_function",
                                                      .norm_eps = "(fixed)"}};
    bool is_before, has_bias, has_weights, lacks_final;
    int64_t embedding_dim;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&is_before, config, "do_layer_norm_before", true, origin, err);
    if (status == GRAFT_OK)
        status =
            json_get_bool(&lacks_final, config, "_remove_final_layer_norm", false, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&has_bias, config, "enable_bias", true, origin, err);
    if (status == GRAFT_OK)
        status =
            json_get_bool(&has_weights, config, "layer_norm_elementwise_affine", true, origin, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&embedding_dim, config, "word_embed_proj_dim", 1, spec->hidden,
                              spec->hidden, origin, err);
    if (status != GRAFT_OK)
        return status;
    config_use_layer_norms(spec);
    config_set_biases(spec, has_bias);
    spec->norms_have_bias = has_weights;
    spec->norms_lack_weights = !has_weights;
    spec->has_norm[NORM_ATTENTION] = spec->has_norm[NORM_MLP] = is_before;
    spec->has_norm[NORM_ATTENTION_SUM] = spec->has_norm[NORM_MLP_SUM] = !is_before;
    spec->has_final_norm = is_before && !lacks_final;
    spec->embedding_dim = (int32_t)embedding_dim;
    spec->position_offset = 2;
    spec->n_positions = spec->max_positions + spec->position_offset;
    return GRAFT_OK;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_opt = {
    .model_type = "opt",
    .parse = opt_parse,
    .linear_names = {[LINEAR_Q] = "self_attn.q_proj",
                     [LINEAR_K] = "self_attn.k_proj",
                     [LINEAR_V] = "self_attn.v_proj",
                     [LINEAR_O] = "self_attn.out_proj",
                     [LINEAR_UP] = "fc1",
                     [LINEAR_DOWN] = "fc2"},
    .norm_names = {[NORM_ATTENTION] = "self_attn_layer_norm",
                   [NORM_MLP] = "final_layer_norm",
                   [NORM_ATTENTION_SUM] = "self_attn_layer_norm",
                   [NORM_MLP_SUM] = "final_layer_norm"},
    .layers_path = "model.decoder.layers",
    .embedding_name = "model.decoder.embed_tokens",
    .positions_name = "model.decoder.embed_positions",
    .head_name = "lm_head",
    .outer_norm_names = {[OUTER_NORM_FINAL] = "model.decoder.final_layer_norm"},
    .outer_linear_names = {[OUTER_PROJECT_IN] = "model.decoder.project_in",
                           [OUTER_PROJECT_OUT] = "model.decoder.project_out"},
    .lora_default_targets = lora_targets,
};
