/* Granite (Transformers' configuration_granite.py): Llama with multipliers on embedded tokens,
 * scores, branches and logits. */
#include "model/families/families.h"

static graft_status granite_parse(model_spec *spec, const json_t *config, const char *origin,
                                  const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 32000,
                                             .intermediate = 11008,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 2048,
                                             .bos_id = 1,
                                             .eos_id = 2,
                                             .pad_id = -1};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status = config_read_mlp_bias(spec, config, "mlp_bias", origin, err);
    if (status == GRAFT_OK)
        status = config_read_multiplier(&spec->input_scale, config, "embedding_multiplier", 1,
                                        origin, err);
    if (status == GRAFT_OK)
        status = config_read_multiplier(&spec->attention_scale, config, "attention_multiplier", 1,
                                        origin, err);
    if (status == GRAFT_OK)
        status = config_read_multiplier(&spec->residual_scale, config, "residual_multiplier", 1,
                                        origin, err);
    if (status == GRAFT_OK)
        status =
            config_read_multiplier(&spec->logit_scale, config, "logits_scaling", 1, origin, err);
    spec->logit_scale = status == GRAFT_OK ? 1 / spec->logit_scale : 1;
    return status;
}

const model_family family_granite = {
    .model_type = "granite",
    .parse = granite_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
};
