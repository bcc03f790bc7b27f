/* OLMo (Transformers' configuration_olmo.py): Llama with layer norms that have no weights; q, k and
 * v may be clipped. */
#include "model/families/families.h"

static graft_status olmo_parse(model_spec *spec, const json_t *config, const char *origin,
                               const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 50304,
                                             .intermediate = 11008,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 2048,
                                             .bos_id = -1,
                                             .eos_id = 50279,
                                             .pad_id = 1,
                                             .norm_eps = 1e-5,
                                             .keys = {.norm_eps = "(fixed)"}};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    spec->norms_are_centred = spec->norms_lack_weights = true;
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    if (status == GRAFT_OK)
        status = config_read_limit(&spec->qkv_clip, config, "clip_qkv", 0, origin, err);
    return status;
}

const model_family family_olmo = {
    .model_type = "olmo",
    .parse = olmo_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
};
