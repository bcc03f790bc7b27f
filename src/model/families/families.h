/* What family files share: the reader of config.json's common keys, and the tables that spec.c
 * lists. */
#ifndef GRAFT_MODEL_FAMILIES_H
#define GRAFT_MODEL_FAMILIES_H

#include "model/spec.h"

/* What a family calls common keys in config.json; NULL: as most do. */
typedef struct config_keys {
    const char *hidden, *intermediate, *n_layers, *n_heads, *n_kv_heads, *max_positions;
    const char *norm_eps;   /* rms_norm_eps */
    const char *activation; /* hidden_act */
    const char *rope_theta, *partial_rotary_factor;
} config_keys;

/* What a family's configuration class takes for a key that config.json leaves out. */
typedef struct config_defaults {
    int32_t vocab, intermediate, n_layers, n_heads, max_positions;
    int32_t intermediate_of_hidden; /* not 0: times hidden, where the key is left out or null */
    int32_t n_kv_heads;             /* 0: as n_heads */
    int32_t head_dim;               /* 0: hidden / n_heads */
    int32_t bos_id, eos_id, pad_id; /* -1: none */
    double norm_eps;                /* 0: 1e-6 */
    double rope_theta;              /* 0: 10000 */
    double partial_rotary_factor;   /* 0: 1, and no other */
    const char *activation;         /* NULL: silu */
    bool is_head_tied;
    bool has_no_rope;
    bool has_layered_rope; /* the family reads its ropes itself */
    config_keys keys;
} config_defaults;

/* Sizes, epsilon, activation, rotary embedding, head, special tokens. Leaves windows, biases and
 * everything else that families differ in. */
graft_status config_read_common(model_spec *, const json_t *config, const config_defaults *,
                                const char *origin, const message_sink *, graft_error *);
graft_status config_read_rope(model_spec *, const json_t *config, const config_defaults *,
                              const char *origin, const message_sink *, graft_error *);
/* Full layers' rope and sliding layers', each with its own parameters (Gemma 3, OLMo 3):
 * Transformers 5 keeps a dictionary for each in rope_parameters, Transformers 4 has rope_theta and
 * rope_scaling for the full ones and `sliding_key` (NULL: none) for the theta of the others. */
graft_status config_read_layered_rope(model_spec *, const json_t *config, const config_defaults *,
                                      const char *sliding_key, double sliding_theta,
                                      const char *origin, const message_sink *, graft_error *);

/* Refuses a switch that is not as supported. */
graft_status config_refuse(const json_t *config, const char *key, bool supported,
                           const char *origin, graft_error *);
/* A number above 0. */
graft_status config_read_multiplier(double *out, const json_t *config, const char *key,
                                    double fallback, const char *origin, graft_error *);
/* The same, but 0 for null; fallback 0: none when it is left out. */
graft_status config_read_limit(double *out, const json_t *config, const char *key, double fallback,
                               const char *origin, graft_error *);

void config_use_layer_norms(model_spec *); /* means and biases */
void config_set_biases(model_spec *, bool has_bias);
/* Biases of q, k, v, o when `key` is true in the config (default false). */
graft_status config_read_attention_bias(model_spec *, const json_t *config, const char *key,
                                        const char *origin, graft_error *);
/* The same for the MLP's linear layers. */
graft_status config_read_mlp_bias(model_spec *, const json_t *config, const char *key,
                                  const char *origin, graft_error *);

/* What a family calls the keys of its experts, and what they are when left out. */
typedef struct expert_keys {
    const char *n_experts, *n_experts_other; /* other: a second name */
    const char *intermediate;                /* NULL: intermediate_size */
    const char *shared_intermediate;         /* NULL: none is shared, or it is read elsewhere */
    int32_t n_experts_default, n_chosen_default, intermediate_default, shared_default;
    route_call router; /* kind, and whether it normalises when norm_topk_prob is left out */
} expert_keys;
/* Experts in every layer. Refuses output_router_logits, which adds a loss in training. */
graft_status config_read_experts(model_spec *, const json_t *config, const expert_keys *,
                                 const char *origin, graft_error *);
/* Qwen's plain layers: mlp_only_layers, and all but every decoder_sparse_step-th. */
graft_status config_read_sparse_layers(model_spec *, const json_t *config, const char *origin,
                                       graft_error *);
graft_status config_refuse_nonzero(const json_t *config, const char *key, const char *origin,
                                   graft_error *);
/* DeepSeek's scores are scaled by yarn's mscale_all_dim, squared; 1 without yarn. */
double config_yarn_scale(const model_spec *, const json_t *config);

/* ALiBi's slopes for any number of heads: 2^(-8 (h + 1) / n) for powers of two; for others the
 * models differ. */
typedef enum alibi_slopes { ALIBI_BLOOM, ALIBI_MPT } alibi_slopes;
graft_status config_set_slopes(model_spec *, alibi_slopes, const char *origin, graft_error *);

/* *window: sliding_window; `fallback` when it is left out, 0 when it is null. */
graft_status config_read_window(int32_t *window, const json_t *config, int32_t fallback,
                                const char *origin, graft_error *);
/* With sliding_window every layer slides. */
graft_status config_read_uniform_window(model_spec *, const json_t *config, int32_t fallback,
                                        const char *origin, graft_error *);
/* layer_types, or else all layers slide but every `period`th. */
graft_status config_read_window_pattern(model_spec *, const json_t *config, int32_t period,
                                        int32_t window, const char *origin, graft_error *);
/* Qwen's windows: use_sliding_window with layer_types, or with max_window_layers (layers from it on
 * slide). */
graft_status config_read_qwen_windows(model_spec *, const json_t *config, const char *origin,
                                      graft_error *);

/* Names that many families share with Llama, as parts of a model_family. */
#define LLAMA_ATTENTION_NAMES                                                                      \
    [LINEAR_Q] = "self_attn.q_proj", [LINEAR_K] = "self_attn.k_proj",                              \
    [LINEAR_V] = "self_attn.v_proj", [LINEAR_O] = "self_attn.o_proj"
#define LLAMA_LINEAR_NAMES                                                                         \
    LLAMA_ATTENTION_NAMES, [LINEAR_GATE] = "mlp.gate_proj", [LINEAR_UP] = "mlp.up_proj",           \
                           [LINEAR_DOWN] = "mlp.down_proj"
#define LLAMA_NORM_NAMES                                                                           \
    [NORM_ATTENTION] = "input_layernorm", [NORM_MLP] = "post_attention_layernorm"
#define LLAMA_OUTER_NAMES                                                                          \
    .layers_path = "model.layers", .embedding_name = "model.embed_tokens", .head_name = "lm_head", \
    .outer_norm_names = {[OUTER_NORM_FINAL] = "model.norm"}

extern const model_family family_llama, family_mistral, family_qwen2, family_qwen3, family_gemma,
    family_gemma2, family_gemma3_text, family_phi, family_phi3, family_gpt2, family_gpt_neox,
    family_opt, family_falcon, family_stablelm, family_starcoder2, family_olmo, family_olmo2,
    family_olmo3, family_cohere, family_cohere2, family_granite, family_glm4, family_smollm3,
    family_bloom, family_mpt, family_mixtral, family_qwen2_moe, family_qwen3_moe, family_gpt_oss,
    family_deepseek_v3;

#endif
