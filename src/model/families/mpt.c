/* MPT (Transformers' configuration_mpt.py): ALiBi, layer norms without biases, q, k and v fused.
 * What Transformers' model ignores of attn_config is refused where it would change a number. */
#include "model/families/families.h"

#include <stdio.h>

static graft_status read_attention(model_spec *spec, const json_t *config, const char *origin,
                                   graft_error *err) {
    const json_t *attention = json_object_get(config, "attn_config");
    double logit_scale, bias_max;
    char where[512];
    if (!json_is_object(attention)) /* the class's defaults */
        attention = NULL;
    snprintf(where, sizeof where, "%.400s: attn_config", origin);
    graft_status status = json_get_double(&logit_scale, config, "logit_scale", 1, origin, err);
    if (status == GRAFT_OK)
        status = config_refuse(attention, "alibi", true, where, err);
    if (status == GRAFT_OK)
        status = config_refuse(attention, "qk_ln", false, where, err);
    if (status == GRAFT_OK)
        status = config_refuse(attention, "prefix_lm", false, where, err);
    if (status == GRAFT_OK)
        status = json_get_double(&bias_max, attention, "alibi_bias_max", 8, where, err);
    if (status == GRAFT_OK)
        status = config_read_limit(&spec->qkv_clip, attention, "clip_qkv", 0, where, err);
    if (status == GRAFT_OK)
        status = config_read_multiplier(&spec->attention_scale, attention, "softmax_scale",
                                        spec->attention_scale, where, err);
    if (status == GRAFT_OK && (logit_scale != 1 || bias_max != 8))
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: \"logit_scale\" other than 1 and \"alibi_bias_max\" other than 8 are "
                         "not supported",
                         where);
    return status;
}

static graft_status mpt_parse(model_spec *spec, const json_t *config, const char *origin,
                              const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 50368,
                                             .n_layers = 24,
                                             .n_heads = 16,
                                             .max_positions = 2048,
                                             .bos_id = -1,
                                             .eos_id = -1,
                                             .pad_id = -1,
                                             .intermediate_of_hidden = 4,
                                             .norm_eps = 1e-5,
                                             .activation = "gelu",
                                             .is_head_tied = true,
                                             .has_no_rope = true,
                                             .keys = {.hidden = "d_model",
                                                      .intermediate = "(fixed)",
                                                      .n_layers = "n_layers",
                                                      .n_heads = "n_heads",
                                                      .max_positions = "max_seq_len",
                                                      .norm_eps = "layer_norm_epsilon",
                                                      .activation = "(fixed)"}};
    int64_t ratio;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&ratio, config, "expansion_ratio", 1, 64, 4, origin, err);
    if (status == GRAFT_OK)
        status = config_refuse(config, "no_bias", true, origin, err);
    if (status == GRAFT_OK)
        status = read_attention(spec, config, origin, err);
    if (status != GRAFT_OK)
        return status;
    spec->intermediate = (int32_t)ratio * spec->hidden;
    spec->norms_are_centred = true;
    return config_set_slopes(spec, ALIBI_MPT, origin, err);
}

static const char *const lora_targets[] = {"Wqkv", NULL};

const model_family family_mpt = {
    .model_type = "mpt",
    .parse = mpt_parse,
    .linear_names = {[LINEAR_QKV] = "attn.Wqkv",
                     [LINEAR_O] = "attn.out_proj",
                     [LINEAR_UP] = "ffn.up_proj",
                     [LINEAR_DOWN] = "ffn.down_proj"},
    .norm_names = {[NORM_ATTENTION] = "norm_1", [NORM_MLP] = "norm_2"},
    .layers_path = "transformer.blocks",
    .embedding_name = "transformer.wte",
    .head_name = "lm_head",
    .outer_norm_names = {[OUTER_NORM_FINAL] = "transformer.norm_f"},
    .trains_padding = true,
    .lora_default_targets = lora_targets,
};
