/* A decoder-only transformer as data. A family file turns config.json into this description;
 * forward and backward are written once, over it. What no family has yet is not here. */
#ifndef GRAFT_MODEL_SPEC_H
#define GRAFT_MODEL_SPEC_H

#include "backend/ops.h"
#include "base/message.h"
#include "formats/json.h"
#include "tensor/dtype.h"

/* A block's linear layers; a family has some. A fused one stands in place of its parts. */
typedef enum linear_slot {
    LINEAR_Q,
    LINEAR_K,
    LINEAR_V,
    LINEAR_QKV, /* q, k and v in one, see qkv_groups */
    LINEAR_Q_A, /* latent attention: to a latent of q and back */
    LINEAR_Q_B,
    LINEAR_KV_A, /* to the latent of k and v, and the rotated part of k that heads share */
    LINEAR_KV_B,
    LINEAR_O,
    LINEAR_GATE,
    LINEAR_UP,      /* without a gate: what the activation takes */
    LINEAR_GATE_UP, /* gate, then up */
    LINEAR_DOWN,
    LINEAR_ROUTER, /* layers with experts: their logits, and the expert that is always there */
    LINEAR_SHARED_GATE,
    LINEAR_SHARED_UP,
    LINEAR_SHARED_DOWN,
    LINEAR_SHARED_SCALE, /* one number a token: a sigmoid of it scales the shared expert */
    N_LINEAR_SLOTS
} linear_slot;

/* One expert's linear layers: gate and up, or both in one (rows of gate and up in turn). */
typedef enum expert_slot {
    EXPERT_GATE,
    EXPERT_UP,
    EXPERT_GATE_UP,
    EXPERT_DOWN,
    N_EXPERT_SLOTS
} expert_slot;

typedef enum norm_slot {
    NORM_ATTENTION, /* before attention */
    NORM_MLP,       /* before the MLP; a parallel block without one shares NORM_ATTENTION */
    NORM_Q,         /* of q and k, before rotation: see qk_norm */
    NORM_K,
    NORM_ATTENTION_OUT, /* on attention's output, before it is added to the stream */
    NORM_MLP_OUT,
    NORM_ATTENTION_SUM, /* on the stream, after attention was added (post-norm) */
    NORM_MLP_SUM,
    NORM_Q_A, /* on the latents */
    NORM_KV_A,
    N_NORM_SLOTS
} norm_slot;

/* Outside the blocks. */
typedef enum outer_norm { OUTER_NORM_FINAL, OUTER_NORM_EMBEDDING, N_OUTER_NORMS } outer_norm;
typedef enum outer_linear { OUTER_PROJECT_IN, OUTER_PROJECT_OUT, N_OUTER_LINEARS } outer_linear;

/* What norms of q and k take as one row. */
typedef enum qk_norm {
    QK_NORM_HEAD,  /* each head, all with one weight [head_dim] */
    QK_NORM_HEADS, /* each head with its own: [heads, head_dim], one tensor */
    QK_NORM_SPLIT, /* the same, a tensor for each head */
    QK_NORM_WHOLE  /* all heads together: [heads * head_dim] */
} qk_norm;

typedef enum rope_kind {
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_DYNAMIC,
    ROPE_YARN,
    ROPE_LLAMA3,
    ROPE_LONGROPE
} rope_kind;

/* Rotary embedding (Transformers' modeling_rope_utils). Fields a kind does not use are 0. */
typedef struct rope_spec {
    rope_kind kind;
    int32_t dim; /* elements of a head that rotate: the first ones */
    double theta, factor;
    double low_freq_factor, high_freq_factor;      /* llama3 */
    double beta_fast, beta_slow, attention_factor; /* yarn, longrope: multiplies cos and sin */
    bool truncate;                                 /* yarn: round the correction range outwards */
    int32_t original_max_positions; /* llama3, yarn, longrope; dynamic: max_position_embeddings */
    float *long_factors, *short_factors; /* longrope, [dim / 2]: rows beyond the original length,
                                            and within it */
} rope_spec;

/* How a layer knows positions. */
typedef enum layer_rope { LAYER_ROPE_MAIN, LAYER_ROPE_SLIDING, LAYER_ROPE_NONE } layer_rope;

enum { MODEL_LAYERS_MAX = 4096 };

typedef struct model_spec {
    const struct model_family *family;
    char model_type[32];
    int32_t n_layers, hidden, intermediate, vocab;
    int32_t n_heads, n_kv_heads, head_dim;
    int32_t value_dim;                       /* of a head's values */
    int32_t q_latent, kv_latent, head_plain; /* latent attention: widths of the latents, elements
                                                of a head before those that rotate */
    int32_t max_positions;
    bool has_linear[N_LINEAR_SLOTS], has_norm[N_NORM_SLOTS];

    /* Norms. Those of q and k have the same kind, never a bias. */
    float norm_eps;
    bool norms_are_centred; /* layer norms; else RMS norms */
    bool norms_add_one;     /* weights are stored less one */
    bool norms_lack_weights;
    bool norms_have_bias;
    bool has_final_norm, has_embedding_norm;
    qk_norm qk_norm;

    /* Linear layers. */
    bool has_bias[N_LINEAR_SLOTS];
    bool is_transposed; /* blocks' weights are stored [in, out] (Conv1D) */
    int32_t qkv_groups; /* rows of a fused q, k, v: so many groups of q heads, k heads, v heads */
    activation_kind activation; /* between the MLP's linear layers */
    bool is_parallel; /* attention and MLP read the same stream: x + attention(x) + mlp(x) */

    /* Experts, in the layers that are sparse. */
    uint8_t *layer_is_sparse; /* [n_layers]; NULL: none is */
    int32_t n_experts, expert_intermediate, shared_intermediate;
    route_call router; /* its correction is a weight, where has_router_correction */
    bool has_router_correction;
    float gate_alpha, gate_limit; /* of experts, see gate_call */
    bool has_sinks;

    /* Attention. */
    double attention_scale;       /* of scores */
    double attention_cap;         /* soft cap of scores; 0: none */
    double qkv_clip;              /* q, k and v are held within it; 0: no */
    rope_spec rope, rope_sliding; /* of sliding layers, where layer_rope says so */
    bool rope_is_interleaved;     /* pairs (2i, 2i + 1); else (i, i + dim / 2) */
    uint8_t *layer_rope;          /* [n_layers] */
    float *alibi_slopes;          /* [n_heads]; NULL: no ALiBi */
    double alibi_scale;           /* of slope times position */
    bool alibi_is_bf16;           /* slope times position is rounded to bfloat16 (Falcon) */
    int32_t window;               /* of sliding layers; 0: none slides */
    uint8_t *layer_slides;        /* [n_layers] 1: this layer attends inside the window */

    /* Ends. */
    int32_t embedding_dim;   /* of the embedding and the head; not hidden: projected in and out */
    int32_t n_positions;     /* rows of learned positions; 0: none */
    int32_t position_offset; /* position 0 takes this row */
    double embedding_scale;  /* of the embedding's rows */
    double input_scale;      /* of what enters the blocks, virtual tokens too */
    double residual_scale;   /* of what a branch adds */
    double logit_scale, logit_cap; /* soft cap of scaled logits; 0: none */
    bool is_head_tied, has_head_bias;

    dtype stored;       /* what config.json says the weights are; the file decides */
    int32_t padding_id; /* whose row of the embedding learns nothing; -1: none */
    int32_t bos_id, eos_ids[8], n_eos, pad_id; /* from config.json; bos, pad -1: none */
} model_spec;

/* Reads config.json of a model directory (or the file itself, when it is named), as Transformers 4
 * and 5 write it. Refuses by name what would change a number and is not supported (model_type,
 * activation, quantization_config, attention dropout > 0 in training is only warned of). */
graft_status model_spec_read(model_spec *, const char *folder, const message_sink *, graft_error *);
graft_status model_spec_parse(model_spec *, const json_t *config, const char *origin,
                              const message_sink *, graft_error *);
void model_spec_free(model_spec *);

/* ---- Modules: every part that has weights, under Transformers' path ---- */

typedef enum module_kind {
    MODULE_EMBEDDING,
    MODULE_POSITIONS, /* learned positions */
    MODULE_LINEAR,
    MODULE_NORM,
    MODULE_HEAD,
    /* Bare parameters in Transformers 5: no target of "all-linear". */
    MODULE_ROUTER,
    MODULE_EXPERT,  /* a linear layer of one expert, by its name on disk */
    MODULE_EXPERTS, /* the same of all experts in one tensor */
    MODULE_SINKS,
    MODULE_BUFFER /* the router's correction: never trained */
} module_kind;

typedef struct model_module {
    char name[96];      /* "model.layers.3.self_attn.q_proj" */
    char disk_name[96]; /* what checkpoints call it; the same but for a few families, whose modules
                           Transformers 5 has renamed: then Transformers 4's name, too */
    module_kind kind;
    int32_t layer; /* -1 outside the blocks */
    int32_t slot; /* linear_slot or norm_slot, outside the blocks outer_linear or outer_norm; -1 for
                     embedding, positions and head */
    int32_t part; /* of a norm that has a tensor for each head: which head; which expert */
    int32_t n_stacked;  /* experts in one tensor; else 0 */
    int64_t rows, cols; /* linear, head: [out, in]; embedding, positions: [rows, width]; norm:
                           [size], cols 0, or [heads, head_dim] */
    bool has_bias;
    bool is_transposed; /* stored [cols, rows] */
    bool is_tied;       /* the head, when it has no weight of its own: it uses the embedding's */
} model_module;

/* Rank and shape of a module's weight as it is stored. */
int32_t model_stored_shape(int64_t shape[3], const model_module *);
/* Elements of a module's weight, and of its bias. */
int64_t model_weight_count(const model_module *);
int64_t model_bias_count(const model_module *);
/* The name on disk of a module's weight or bias. */
void model_tensor_name(char *out, size_t capacity, const model_module *, bool is_bias);

/* Whether a layer has the slot: MLPs are in dense layers, experts in sparse ones. */
bool model_layer_has(const model_spec *, int32_t layer, linear_slot);
bool model_layer_is_sparse(const model_spec *, int32_t layer);
/* Shape of one expert's linear layer, [out, in]. */
void model_expert_shape(int64_t *rows, int64_t *cols, const model_spec *, expert_slot);
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
    /* "self_attn.q_proj" under model.layers.N.; NULL: the family has none. What a config leaves out
     * of these parse takes out of the spec's has_linear, has_norm and the like. */
    const char *linear_names[N_LINEAR_SLOTS];
    const char *linear_disk_names[N_LINEAR_SLOTS]; /* NULL: the same */
    const char *norm_names[N_NORM_SLOTS];
    /* "mlp.experts", "gate_proj": tensors of each expert are mlp.experts.N.gate_proj.weight;
     * stacked, they are one mlp.experts.gate_up_proj. */
    const char *experts_path, *expert_names[N_EXPERT_SLOTS];
    bool has_stacked_experts; /* stored [experts, in, out], with biases */
    const char *sinks_name, *router_correction_name;
    const char *layers_path; /* "model.layers" */
    const char *embedding_name, *positions_name, *head_name;
    const char *head_disk_name; /* NULL: the same */
    const char *outer_norm_names[N_OUTER_NORMS];
    const char *outer_linear_names[N_OUTER_LINEARS];
    bool trains_padding; /* Transformers gives the embedding no padding_idx */
    /* PEFT's default LoRA targets for this model_type (its utils/constants.py), NULL-terminated;
     * NULL: PEFT has none. */
    const char *const *lora_default_targets;
} model_family;

const model_family *model_family_find(const char *model_type);
const model_family *model_family_at(size_t i); /* NULL past the end */

#endif
