/* Gemma 3, text (Transformers' configuration_gemma3.py): Gemma 2 without caps, with norms over each
 * head of q and k; sliding layers have a rope of their own. */
#include "model/families/families.h"

#include <math.h>

static graft_status gemma3_text_parse(model_spec *spec, const json_t *config, const char *origin,
                                      const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 262208,
                                             .intermediate = 9216,
                                             .n_layers = 26,
                                             .n_heads = 8,
                                             .max_positions = 131072,
                                             .bos_id = 2,
                                             .eos_id = 1,
                                             .pad_id = 0,
                                             .n_kv_heads = 4,
                                             .head_dim = 256,
                                             .is_head_tied = true,
                                             .activation = "gelu_pytorch_tanh",
                                             .keys = {.activation = "hidden_activation"},
                                             .rope_theta = 1e6,
                                             .has_layered_rope = true};
    double scalar;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    spec->norms_add_one = true;
    spec->embedding_scale = sqrt((double)spec->hidden);
    if (status == GRAFT_OK)
        status = config_refuse(config, "use_bidirectional_attention", false, origin, err);
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status = config_read_multiplier(&scalar, config, "query_pre_attn_scalar", 256, origin, err);
    if (status == GRAFT_OK)
        spec->attention_scale = 1 / sqrt(scalar);
    if (status == GRAFT_OK)
        status = config_read_limit(&spec->attention_cap, config, "attn_logit_softcapping", 0,
                                   origin, err);
    if (status == GRAFT_OK)
        status =
            config_read_limit(&spec->logit_cap, config, "final_logit_softcapping", 0, origin, err);
    if (status == GRAFT_OK)
        status = config_read_window_pattern(spec, config, 6, 4096, origin, err);
    if (status == GRAFT_OK)
        status = config_read_layered_rope(spec, config, &defaults, "rope_local_base_freq", 10000,
                                          origin, sink, err);
    return status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_gemma3_text = {
    .model_type = "gemma3_text",
    .parse = gemma3_text_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {[NORM_ATTENTION] = "input_layernorm",
                   [NORM_MLP] = "pre_feedforward_layernorm",
                   [NORM_ATTENTION_OUT] = "post_attention_layernorm",
                   [NORM_MLP_OUT] = "post_feedforward_layernorm",
                   [NORM_Q] = "self_attn.q_norm",
                   [NORM_K] = "self_attn.k_norm"},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
