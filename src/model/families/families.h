/* What family files share: the reader of config.json's common keys, and the tables that spec.c
 * lists. */
#ifndef GRAFT_MODEL_FAMILIES_H
#define GRAFT_MODEL_FAMILIES_H

#include "model/spec.h"

/* What a family's configuration class takes for a key that config.json leaves out. The same in all
 * families so far: RMS epsilon 1e-6, rope_theta 10000, an untied head, silu. */
typedef struct config_defaults {
    int32_t vocab, intermediate, n_layers, n_heads, max_positions;
    int32_t n_kv_heads;     /* 0: as n_heads */
    int32_t head_dim;       /* 0: hidden / n_heads */
    int32_t bos_id, eos_id; /* -1: none */
} config_defaults;

/* Sizes, epsilon, rotary embedding, head, special tokens. Leaves windows, biases and q/k norms,
 * which families differ in. */
graft_status config_read_common(model_spec *, const json_t *config, const config_defaults *,
                                const char *origin, const message_sink *, graft_error *);
graft_status config_read_rope(model_spec *, const json_t *config, const char *origin,
                              const message_sink *, graft_error *);

/* Biases of q, k, v, o when `key` is true in the config (default false). */
graft_status config_read_attention_bias(model_spec *, const json_t *config, const char *key,
                                        const char *origin, graft_error *);
/* *window: sliding_window; `fallback` when it is left out, 0 when it is null. */
graft_status config_read_window(int32_t *window, const json_t *config, int32_t fallback,
                                const char *origin, graft_error *);
/* Qwen's windows: use_sliding_window with layer_types, or with max_window_layers (layers from it on
 * slide). */
graft_status config_read_qwen_windows(model_spec *, const json_t *config, const char *origin,
                                      graft_error *);

extern const model_family family_llama, family_mistral, family_qwen2, family_qwen3;

#endif
