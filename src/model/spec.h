/* A decoder-only transformer as data. A family file turns config.json into this description;
 * forward and backward are written once, over it. What no family has yet is not here. */
#ifndef GRAFT_MODEL_SPEC_H
#define GRAFT_MODEL_SPEC_H

#include "base/message.h"
#include "formats/json.h"
#include "tensor/dtype.h"

typedef enum linear_slot {
    LINEAR_Q,
    LINEAR_K,
    LINEAR_V,
    LINEAR_O,
    LINEAR_GATE,
    LINEAR_UP,
    LINEAR_DOWN,
    N_LINEAR_SLOTS
} linear_slot;

typedef enum norm_slot {
    NORM_ATTENTION, /* before attention */
    NORM_MLP,       /* before the MLP */
    NORM_Q,         /* over each head of q, before rotation */
    NORM_K,
    N_NORM_SLOTS
} norm_slot;

typedef enum rope_kind {
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_DYNAMIC,
    ROPE_YARN,
    ROPE_LLAMA3
} rope_kind;

/* Rotary embedding (Transformers' modeling_rope_utils). Fields a kind does not use are 0. */
typedef struct rope_spec {
    rope_kind kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow,
        attention_factor;           /* yarn: attention_factor multiplies cos and sin */
    bool truncate;                  /* yarn: round the correction range outwards */
    int32_t original_max_positions; /* llama3, yarn; dynamic: max_position_embeddings */
} rope_spec;

enum { MODEL_LAYERS_MAX = 4096 };

typedef struct model_spec {
    const struct model_family *family;
    char model_type[32];
    int32_t n_layers, hidden, intermediate, vocab;
    int32_t n_heads, n_kv_heads, head_dim;
    int32_t max_positions;
    float norm_eps;
    bool has_bias[N_LINEAR_SLOTS];
    bool has_qk_norm;
    bool is_head_tied;
    rope_spec rope;
    int32_t window;        /* of sliding layers; 0: none slides */
    uint8_t *layer_slides; /* [n_layers] 1: this layer attends inside the window */
    dtype stored;          /* what config.json says the weights are; the file decides */
    int32_t bos_id, eos_ids[8], n_eos, pad_id; /* from config.json; bos, pad -1: none */
} model_spec;

/* Reads config.json of a model directory (or the file itself, when it is named), as Transformers 4 and 5 write it. Refuses by name what
 * would change a number and is not supported (model_type, activation, quantization_config,
 * attention dropout > 0 in training is only warned of). */
graft_status model_spec_read(model_spec *, const char *folder, const message_sink *, graft_error *);
graft_status model_spec_parse(model_spec *, const json_t *config, const char *origin,
                              const message_sink *, graft_error *);
void model_spec_free(model_spec *);

/* ---- Modules: every part that has weights, under Transformers' path ---- */

typedef enum module_kind { MODULE_EMBEDDING, MODULE_LINEAR, MODULE_NORM, MODULE_HEAD } module_kind;

typedef struct model_module {
    char
        name[96]; /* "model.layers.3.self_attn.q_proj"; its tensors are name.weight and name.bias */
    module_kind kind;
    int32_t layer; /* -1 outside the blocks */
    int32_t slot;  /* linear_slot or norm_slot; -1 for embedding, head and final norm */
    int64_t rows,
        cols; /* linear, head: [out, in]; embedding: [vocab, hidden]; norm: [size], cols 0 */
    bool has_bias;
    bool is_tied; /* the head, when it has no weight of its own: it uses the embedding's */
} model_module;

/* Shape of a block's linear layer, [out, in]. */
void model_linear_shape(int64_t *rows, int64_t *cols, const model_spec *, linear_slot);

/* All modules in the order of Transformers' named_modules(): embedding, blocks, final norm, head.
 * Caller frees. */
graft_status model_modules(model_module **out, size_t *n, const model_spec *, graft_error *);

/* Elements of all parameters; a tied head counts once. */
int64_t model_parameters(const model_spec *);

/* ---- Families ---- */

typedef struct model_family {
    const char *model_type; /* "llama" */
    graft_status (*parse)(model_spec *, const json_t *config, const char *origin,
                          const message_sink *, graft_error *);
    const char *linear_names[N_LINEAR_SLOTS]; /* "self_attn.q_proj" under model.layers.N. */
    const char *norm_names[N_NORM_SLOTS];
    const char *layers_path; /* "model.layers" */
    const char *embedding_name, *final_norm_name, *head_name;
    /* PEFT's default LoRA targets for this model_type (its utils/constants.py), NULL-terminated. */
    const char *const *lora_default_targets;
} model_family;

const model_family *model_family_find(const char *model_type);
const model_family *model_family_at(size_t i); /* NULL past the end */

#endif
