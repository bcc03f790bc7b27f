/* Llama (Transformers' configuration_llama.py): also what SmolLM, TinyLlama and most others use. */
#include "model/families/families.h"

static graft_status llama_parse(model_spec *spec, const json_t *config, const char *origin,
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
    return status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_llama = {
    .model_type = "llama",
    .parse = llama_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
