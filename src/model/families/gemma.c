/* Gemma (Transformers' configuration_gemma.py): norms' weights are stored less one, embedded tokens
 * are scaled by the root of their width. "gelu" in its first configs means the approximation. */
#include "model/families/families.h"

#include <math.h>

static graft_status gemma_parse(model_spec *spec, const json_t *config, const char *origin,
                                const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 256000,
                                             .intermediate = 24576,
                                             .n_layers = 28,
                                             .n_heads = 16,
                                             .max_positions = 8192,
                                             .bos_id = 2,
                                             .eos_id = 1,
                                             .pad_id = 0,
                                             .n_kv_heads = 16,
                                             .head_dim = 256,
                                             .is_head_tied = true,
                                             .activation = "gelu_pytorch_tanh"};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    spec->norms_add_one = true;
    spec->embedding_scale = sqrt((double)spec->hidden);
    if (spec->activation == ACTIVATION_GELU)
        spec->activation = ACTIVATION_GELU_TANH;
    if (status == GRAFT_OK)
        status = config_refuse(config, "use_bidirectional_attention", false, origin, err);
    if (status == GRAFT_OK)
        status = config_read_attention_bias(spec, config, "attention_bias", origin, err);
    return status;
}

static const char *const lora_targets[] = {"q_proj", "v_proj", NULL};

const model_family family_gemma = {
    .model_type = "gemma",
    .parse = gemma_parse,
    .linear_names = {LLAMA_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
    .lora_default_targets = lora_targets,
};
