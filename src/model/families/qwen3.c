/* Qwen3, dense (Transformers' configuration_qwen3.py): RMS norms over each head of q and k, a head
 * size of its own. */
#include "model/families/families.h"

static graft_status qwen3_parse(model_spec *spec, const json_t *config, const char *origin,
                                const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 151936,
                                             .intermediate = 22016,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 32768,
                                             .bos_id = -1,
                                             .eos_id = -1,
                                             .pad_id = -1,
                                             .n_kv_heads = 32,
                                             .head_dim = 128};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    return status == GRAFT_OK ? config_read_qwen_windows(spec, config, origin, err) : status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_qwen3 = {
    .model_type = "qwen3",
    .parse = qwen3_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES, [NORM_Q] = "self_attn.q_norm", [NORM_K] = "self_attn.k_norm"},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
