/* Qwen2 and Qwen2.5 (Transformers' configuration_qwen2.py): q, k and v always have biases; some
 * layers may slide. */
#include "model/families/families.h"

static graft_status qwen2_parse(model_spec *spec, const json_t *config, const char *origin,
                                const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 151936,
                                             .intermediate = 22016,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 32768,
                                             .bos_id = -1,
                                             .eos_id = -1,
                                             .pad_id = -1,
                                             .n_kv_heads = 32};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    spec->has_bias[LINEAR_Q] = spec->has_bias[LINEAR_K] = spec->has_bias[LINEAR_V] = true;
    return status == GRAFT_OK ? config_read_qwen_windows(spec, config, origin, err) : status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_qwen2 = {
    .model_type = "qwen2",
    .parse = qwen2_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
