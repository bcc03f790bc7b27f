/* BLOOM (Transformers' configuration_bloom.py): ALiBi, a norm behind the embedding, q, k and v
 * fused head by head. */
#include "model/families/families.h"

static graft_status bloom_parse(model_spec *spec, const json_t *config, const char *origin,
                                const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 250880,
                                             .n_layers = 2,
                                             .n_heads = 8,
                                             .max_positions = 2048,
                                             .bos_id = 1,
                                             .eos_id = 2,
                                             .pad_id = -1,
                                             .intermediate_of_hidden = 4,
                                             .norm_eps = 1e-5,
                                             .activation = "gelu_new",
                                             .is_head_tied = true,
                                             .has_no_rope = true,
                                             .keys = {.intermediate = "(fixed)",
                                                      .n_layers = "n_layer",
                                                      .n_heads = "n_head",
                                                      .max_positions = "seq_length",
                                                      .norm_eps = "layer_norm_epsilon",
                                                      .activation = "(fixed)"}};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    config_use_layer_norms(spec);
    config_set_biases(spec, true);
    spec->qkv_groups = spec->n_heads;
    if (status == GRAFT_OK)
        status =
            config_refuse(config, "apply_residual_connection_post_layernorm", false, origin, err);
    return status == GRAFT_OK ? config_set_slopes(spec, ALIBI_BLOOM, origin, err) : status;
}

static const char *const lora_targets[] = {"query_key_value", NULL};

const model_family family_bloom = {
    .model_type = "bloom",
    .parse = bloom_parse,
    .linear_names = {[LINEAR_QKV] = "self_attention.query_key_value",
                     [LINEAR_O] = "self_attention.dense",
                     [LINEAR_UP] = "mlp.dense_h_to_4h",
                     [LINEAR_DOWN] = "mlp.dense_4h_to_h"},
    .norm_names = {LLAMA_NORM_NAMES},
    .layers_path = "transformer.h",
    .embedding_name = "transformer.word_embeddings",
    .head_name = "lm_head",
    .outer_norm_names = {[OUTER_NORM_FINAL] = "transformer.ln_f",
                         [OUTER_NORM_EMBEDDING] = "transformer.word_embeddings_layernorm"},
    .trains_padding = true,
    .lora_default_targets = lora_targets,
};
