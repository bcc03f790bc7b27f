/* Gemma 2 (Transformers' configuration_gemma2.py): Gemma with norms on what attention and the MLP
 * add, soft caps on scores and logits, every second layer sliding. */
#include "model/families/families.h"

#include <math.h>

static graft_status gemma2_parse(model_spec *spec, const json_t *config, const char *origin,
                                 const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 256000,
                                             .intermediate = 9216,
                                             .n_layers = 26,
                                             .n_heads = 8,
                                             .max_positions = 8192,
                                             .bos_id = 2,
                                             .eos_id = 1,
                                             .pad_id = 0,
                                             .n_kv_heads = 4,
                                             .head_dim = 256,
                                             .is_head_tied = true,
                                             .activation = "gelu_pytorch_tanh",
                                             .keys = {.activation = "hidden_activation"}};
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
        status = config_read_limit(&spec->attention_cap, config, "attn_logit_softcapping", 50,
                                   origin, err);
    if (status == GRAFT_OK)
        status =
            config_read_limit(&spec->logit_cap, config, "final_logit_softcapping", 30, origin, err);
    if (status == GRAFT_OK)
        status = config_read_window_pattern(spec, config, 2, 4096, origin, err);
    return status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_gemma2 = {
    .model_type = "gemma2",
    .parse = gemma2_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {[NORM_ATTENTION] = "input_layernorm",
                   [NORM_MLP] = "pre_feedforward_layernorm",
                   [NORM_ATTENTION_OUT] = "post_attention_layernorm",
                   [NORM_MLP_OUT] = "post_feedforward_layernorm"},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
