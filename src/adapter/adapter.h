/* Adapters: small trained parts on a frozen base. A method says its tensors and their PEFT names
 * (shape), their first values (init), and where they act (bind); shape needs a spec and a config
 * only, so that plans need no weights. Full fine-tuning is a method too: its tensors are the base's
 * own.
 *
 * The life of an adapter:
 *     create -> layout -> bind -> init or load -> prepare
 *     -> [ steps: forward, backward of every micro-batch -> chain -> optimizer -> updated ->
 * prepare ]
 *     -> save */
#ifndef GRAFT_ADAPTER_ADAPTER_H
#define GRAFT_ADAPTER_ADAPTER_H

#include "adapter/config.h"
#include "base/rng.h"
#include "model/weights.h"

struct adapter_method;

typedef enum tensor_role {
    ROLE_LORA_A,
    ROLE_LORA_B, /* LoRA+ trains these faster */
    ROLE_LORA_EMBEDDING_A,
    ROLE_LORA_EMBEDDING_B, /* LoRA+ too, as PEFT's optimizer groups them */
    ROLE_LORA_BIAS,
    ROLE_FREED, /* a base parameter: full fine-tuning, modules_to_save, bias */
    ROLE_OTHER
} tensor_role;

enum { ADAPTER_TENSOR_RANK_MAX = 4, MODULE_NONE = -1 };

/* One tensor of an adapter. Keys are the adapter file's
 * ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"), or the checkpoint's own names
 * in full fine-tuning. */
typedef struct adapter_tensor {
    char key[192];
    tensor_role role;
    int32_t rank; /* of the shape */
    int64_t shape[ADAPTER_TENSOR_RANK_MAX];
    int64_t count;
    size_t module;   /* index into adapter.modules; (size_t)MODULE_NONE: shared by several */
    bool is_fixed;   /* never trained: a projection or a position that belongs to the method */
    bool is_unsaved; /* trained, and no tensor of PEFT's file: an encoder of virtual tokens, which
                        is kept in a file of its own */
    bool is_rebuilt; /* in no file but checkpoints: made again at load, from the base, from a seed,
                        or from what the file has instead */
    dtype stored;    /* in the file: DTYPE_F32, or an integer type */
    int64_t
        *integers; /* of an integer tensor (which is fixed), on the host: [count]; no value then */
    bool is_bias;  /* freed: the module's bias, else its weight */
    device_array *value, *gradient, *moment1,
        *moment2; /* the last three NULL unless laid out for training */
} adapter_tensor;

/* A tensor of the adapter file that no one trains: the base's own weight beside a LoRA on the
 * embedding (PEFT's save_embedding_layers="auto"), or a trained tensor again under a tied module's
 * name. */
typedef struct saved_copy {
    char key[192];
    int32_t rank;
    int64_t shape[ADAPTER_TENSOR_RANK_MAX];
    bool is_base;
    bool is_written;     /* false: allowed in a file, not written */
    char base_name[128]; /* is_base: the base's tensor by its name on disk */
    size_t tensor;       /* else: index into adapter.tensors */
} saved_copy;

/* What a method derives from its tensors in prepare, in device memory: the rotations of OFT, the
 * factors that VB-LoRA mixes. Backward adds to the gradient, and chain passes it on. */
typedef struct derived_array {
    int64_t count;
    bool has_gradient;
    device_array *value, *gradient; /* gradient only when laid out for training */
} derived_array;

/* Where a low-rank term of derived factors acts: see derived_terms.h. */
typedef struct derived_term {
    size_t module;
    int32_t rank;
    int64_t in, out;
    size_t a_index, b_index; /* in adapter.derived; SIZE_MAX: the factor is a tensor itself */
} derived_term;

typedef struct adapter {
    const struct adapter_method *method;
    adapter_config config;  /* resolved: target_modules as matched */
    const model_spec *spec; /* borrowed */
    model_module *modules;  /* of the spec */
    size_t n_modules;
    struct module_target *targets; /* [n_modules] as resolved; NULL: the method has none */
    adapter_tensor *tensors;       /* sorted by key, but of full fine-tuning */
    size_t n_tensors, tensors_room;
    derived_array *derived;
    size_t n_derived, derived_room;
    low_rank_term *terms;      /* filled by bind; their addresses are stable */
    derived_term *term_places; /* [n_terms], of methods with derived factors */
    size_t n_terms;
    int32_t job;
    bool is_portable;   /* saved so that every loader reads it, where the base was changed at the
                           start */
    saved_copy *copies; /* what the file holds beside the tensors */
    size_t n_copies;
    int32_t *start_ids; /* [n_start_ids] of method->start_text, for init; owned */
    size_t n_start_ids;
    bool lacks_unsaved;     /* the file that was loaded had no values for unsaved tensors */
    int64_t optimizer_room; /* elements that the optimizer works in */
    device_array *optimizer_scratch; /* when laid out for training */
    size_t element_bytes;            /* of what is laid out; 0 before */
    void *state;                     /* the method's own, freed by its destroy */
} adapter;

/* Resolves targets against the model's modules and lists the tensors. Refuses what it does not
 * support by name, targets that match nothing, layers out of range, ranks that make no sense. */
graft_status adapter_create(adapter **, const adapter_config *, const model_spec *, int32_t job,
                            const message_sink *, graft_error *);
void adapter_destroy(adapter **);
int64_t adapter_trained_count(const adapter *); /* elements */

/* Counts or assigns values (component ADAPTER, or WEIGHTS for freed parameters), with training
 * gradients and moments, and what the method derives from them. */
void adapter_layout(adapter *, layout *, size_t element_bytes, bool training);
/* Puts the adapter into the hooks (shapes only when nothing is laid out). */
void adapter_bind(adapter *, model_hooks *);
/* First values as PEFT draws them (kaiming uniform A, zero B; gaussian; random; freed parameters:
 * the base's values). */
graft_status adapter_init(adapter *, backend *, const weight_source *, rng *, graft_error *);

/* What derives from the values (rotations, norms, generated factors) is made anew: after init and
 * load, and after every update. */
graft_status adapter_prepare(adapter *, backend *, weight_source *, graft_error *);
/* Clears all gradients: before a step. */
void adapter_zero_gradients(adapter *, backend *);
/* After the backward of all micro-batches of a step: gradients of what was derived become the
 * tensors' own, and the method's own part of the loss (AdaLoRA's orthogonality), which is returned,
 * adds its gradients. */
double adapter_chain(adapter *, backend *);
/* Where a run stands, for methods whose budget moves. */
typedef struct adapter_progress {
    int64_t step, total_steps; /* finished optimizer steps before this one; 0-based */
    double gradient_scale;     /* what clipping multiplied the gradients by */
} adapter_progress;
/* After the optimizer's update, before gradients are cleared. */
graft_status adapter_updated(adapter *, backend *, adapter_progress, graft_error *);

/* w [rows, cols], a dense copy of the module's base weight, becomes what the adapter makes of it;
 * bias [rows] likewise (NULL: the module has none). scratch: adapter_merge_scratch elements.
 * GRAFT_E_UNSUPPORTED, with the reason, where the adapter cannot be merged. */
graft_status adapter_merge(adapter *, backend *, size_t module, device_array *w, device_array *bias,
                           device_array *scratch, graft_error *);
int64_t adapter_merge_scratch(const adapter *, size_t module);
/* GRAFT_E_UNSUPPORTED, with the reason, before anything is read. */
graft_status adapter_check_merge(const adapter *, graft_error *);

/* PEFT directories. Loading is strict: every tensor must be there with its shape, and nothing else;
 * each refusal names key and file. weights serve to tell copies of base tensors in the file from
 * changed ones (NULL: their shapes only), and give a save what it copies from the base. */
graft_status adapter_load(adapter *, backend *, const weight_source *, const char *folder,
                          graft_error *);
graft_status adapter_save(const adapter *, backend *, const weight_source *, const char *folder,
                          const char *base_name, graft_error *);
/* GRAFT_E_UNSUPPORTED, with the reason, where an adapter that was loaded cannot be trained on. */
graft_status adapter_check_training(const adapter *, graft_error *);
/* Gradients under the same keys, f32: for `eval --gradients`. */
graft_status adapter_save_gradients(const adapter *, backend *, const char *path, graft_error *);

enum {
    TARGET_LINEAR = 1,
    TARGET_EMBEDDING = 2,
    TARGET_NORM = 4,
    TARGET_EXPERT = 8 /* an expert's linear layer, which has terms but no form */
};

/* A method: LoRA etc. Adding one is one file and one line in adapter/methods.c. Functions that may
 * be NULL say so. */
typedef struct adapter_method {
    const char *peft_type; /* "LORA"; "FULL" for full fine-tuning, which PEFT has not */
    const char *name;      /* of --method: "lora" */
    const char *summary;   /* one line for `graft methods` */
    const char *family;    /* "low rank", "scales", "virtual tokens", ... for the same list */
    const char *paper;     /* "Hu et al. 2021, arXiv:2106.09685" */
    bool needs_plain_base; /* its base cannot be quantised: it trains the base's weights */
    unsigned target_kinds; /* what target_modules may name; 0: the method has no targets */
    bool keeps_ties;       /* what it does to the embedding, it does to a tied head */
    const struct config_key *keys; /* of adapter_config.json, beside those of every method; ends
                                      with a key without a name. NULL: there is no such file */
    /* Modules PEFT targets when the config names none, NULL-terminated; NULL: as LoRA. Returns NULL
     * for a model_type that PEFT has no default for. */
    const char *const *(*default_targets)(const char *model_type);
    graft_status (*shape)(adapter *, const message_sink *,
                          graft_error *); /* fills tensors and terms */
    void (*destroy)(adapter *);           /* frees state; may be NULL */
    /* Text that the first values are made of (adapter.start_ids); returns NULL without. May be
     * NULL. */
    const char *(*start_text)(const adapter *);
    graft_status (*init)(adapter *, backend *, const weight_source *, rng *, graft_error *);
    void (*bind)(adapter *, model_hooks *);
    graft_status (*prepare)(adapter *, backend *, weight_source *, graft_error *); /* may be NULL */
    double (*chain)(adapter *, backend *);                                         /* may be NULL */
    graft_status (*updated)(adapter *, backend *, adapter_progress,
                            graft_error *); /* may be NULL */
    graft_status (*merge)(adapter *, backend *, size_t module, device_array *w, device_array *bias,
                          device_array *scratch, graft_error *); /* NULL: cannot be merged */
    int64_t (*merge_scratch)(const adapter *, size_t module);    /* NULL: 0 */
    /* Why this adapter (with its config) cannot be merged; NULL: it can. May be NULL with merge. */
    const char *(*merge_obstacle)(const adapter *);
    /* Why its file cannot be trained on; NULL: it can. May be NULL. */
    const char *(*training_obstacle)(const adapter *);
    graft_status (*load)(adapter *, backend *, const weight_source *, const char *folder,
                         graft_error *);
    graft_status (*save)(const adapter *, backend *, const weight_source *, const char *folder,
                         const char *base_name, graft_error *);
} adapter_method;

const adapter_method *adapter_method_find(const char *name_or_peft_type); /* case-insensitive */
const adapter_method *adapter_method_of_type(const char *peft_type); /* of a file: exactly so */
const adapter_method *adapter_method_at(size_t i);                   /* NULL past the end */

#endif
