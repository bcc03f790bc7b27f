/* gpt-oss (Transformers' configuration_gpt_oss.py): attention with sinks, every second layer
 * sliding, clamped experts with biases in stacked tensors. */
#include "model/families/families.h"

static graft_status gpt_oss_parse(model_spec *spec, const json_t *config, const char *origin,
                                  const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 201088,
                                             .intermediate = 2880,
                                             .n_layers = 36,
                                             .n_heads = 64,
                                             .max_positions = 131072,
                                             .bos_id = -1,
                                             .eos_id = -1,
                                             .pad_id = -1,
                                             .n_kv_heads = 8,
                                             .head_dim = 64,
                                             .norm_eps = 1e-5,
                                             .rope_theta = 150000};
    static const expert_keys keys = {.n_experts = "num_local_experts",
                                     .n_experts_default = 128,
                                     .n_chosen_default = 4,
                                     .router = {.kind = ROUTER_SOFTMAX_CHOSEN}};
    double alpha, limit;
    bool has_bias;
    if (!json_object_get(config, "rope_scaling") && !json_object_get(config, "rope_parameters"))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: neither \"rope_scaling\" nor \"rope_parameters\" is there: gpt-oss "
                         "needs its yarn written out",
                         origin);
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_experts(spec, config, &keys, origin, err);
    if (status == GRAFT_OK)
        status = config_read_multiplier(&alpha, config, "swiglu_alpha", 1.702, origin, err);
    if (status == GRAFT_OK)
        status = config_read_multiplier(&limit, config, "swiglu_limit", 7, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&has_bias, config, "attention_bias", true, origin, err);
    if (status != GRAFT_OK)
        return status;
    config_set_biases(spec, has_bias);
    spec->has_bias[LINEAR_ROUTER] = spec->has_sinks = true;
    spec->gate_alpha = (float)alpha;
    spec->gate_limit = (float)limit;
    return config_read_window_pattern(spec, config, 2, 128, origin, err);
}

const model_family family_gpt_oss = {
    .model_type = "gpt_oss",
    .parse = gpt_oss_parse,
    .linear_names = {LLAMA_ATTENTION_NAMES, [LINEAR_ROUTER] = "mlp.router"},
    .norm_names = {LLAMA_NORM_NAMES},
    .experts_path = "mlp.experts",
    .expert_names = {[EXPERT_GATE_UP] = "gate_up_proj", [EXPERT_DOWN] = "down_proj"},
    .has_stacked_experts = true,
    .sinks_name = "self_attn.sinks",
    LLAMA_OUTER_NAMES,
};
