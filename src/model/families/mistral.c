/* Mistral (Transformers' configuration_mistral.py): Llama without biases; with sliding_window every
 * layer slides. */
#include "model/families/families.h"

static graft_status mistral_parse(model_spec *spec, const json_t *config, const char *origin,
                                  const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 32000,
                                             .intermediate = 14336,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 131072,
                                             .bos_id = 1,
                                             .eos_id = 2,
                                             .pad_id = -1,
                                             .n_kv_heads = 8};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    return status == GRAFT_OK ? config_read_uniform_window(spec, config, 4096, origin, err)
                              : status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_mistral = {
    .model_type = "mistral",
    .parse = mistral_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
