/* LoRA inside: a layer, the variants that PEFT's LoraConfig asks for (one file each, at most one at
 * a time), and the starts of init_lora_weights. */
#ifndef GRAFT_ADAPTER_LORA_H
#define GRAFT_ADAPTER_LORA_H

#include "adapter/lora_start.h"
#include "adapter/shape.h"
#include "adapter/trained_tokens.h"

/* What LoRA does to one module. The first term trains; the second, frozen, takes out of the base
 * what the start put into the first (scale < 0). */
typedef struct lora_layer {
    adapter *adapter;
    size_t module;
    bool is_embedding;
    int32_t rank;
    double scale;
    int64_t in, out;        /* of the terms: A [rank, in], B [out, rank] */
    int64_t a_cols, b_cols; /* of the tensors A and B, where a variant stores less */
    low_rank_term terms[2];
    int32_t n_terms;
    adapter_tensor *a, *b, *bias;      /* bias NULL: none */
    adapter_tensor *start_a, *start_b; /* NULL: the base stays as it is */
    adapter_tensor *own;               /* the variant's */
    size_t derived;                    /* the variant's first derived array */
    bool is_new;                       /* the variant's own first values wait for prepare */
    const device_array *made_at;       /* where the variant has put what it makes once */
} lora_layer;

typedef struct lora_variant {
    const char *key; /* of adapter_config.json, which asks for it */
    bool goes_on_embedding;
    const char *obstacle; /* why it cannot be merged; NULL: it can */
    /* The layer's own tensors and derived arrays; may change a_cols and b_cols. */
    graft_status (*shape)(lora_layer *, graft_error *);
    /* After shape_finish; both may be NULL. */
    const char *own_suffix;
    /* First values of `own`, once A and B have theirs. */
    graft_status (*init)(lora_layer *, backend *, const weight_source *, rng *, graft_error *);
    /* What the base loses (start_a, start_b), after init and load; may be NULL. */
    graft_status (*rebuild)(lora_layer *, backend *, const weight_source *, graft_error *);
    /* Once the terms are bound: changes them, or puts a form into the hooks. */
    void (*bind)(lora_layer *, model_hooks *);
    graft_status (*prepare)(lora_layer *, backend *, weight_source *,
                            graft_error *); /* may be NULL */
    void (*chain)(lora_layer *, backend *); /* may be NULL */
    /* w holds the base with all terms; may be NULL. */
    void (*merge)(const lora_layer *, backend *, device_array *w);
} lora_variant;

extern const lora_variant lora_bdlora, lora_dora, lora_kasa;

/* A frozen second term of the layer's rank takes scale start_b start_a out of the base. */
graft_status lora_add_removed(lora_layer *, double scale, graft_error *);

/* The variant that the config asks for; NULL: plain. GRAFT_E_INPUT when it asks for two. */
graft_status lora_variant_of(const lora_variant **, const adapter_config *, graft_error *);

typedef struct lora_state {
    const lora_variant *variant;
    const lora_start *start; /* NULL: random values, see lora.c */
    lora_layer *layers;
    size_t n_layers;
    trained_tokens tokens[2]; /* of the embedding, of the head: trainable_token_indices */
    size_t n_tokens;
} lora_state;

static inline lora_state *lora_state_of(const adapter *a) {
    return a->state;
}

/* Saves plain LoRA of twice the rank. */
graft_status lora_save_portable(const adapter *, backend *, const weight_source *,
                                const char *folder, const char *base_name, graft_error *);

#endif
