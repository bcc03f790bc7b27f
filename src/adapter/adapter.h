/* Adapters: small trained parts on a frozen base. A method says its tensors and their PEFT names
 * (shape), their first values (init), and where they act (bind); shape needs a spec and a config
 * only, so that plans need no weights. Full fine-tuning is a method too: its tensors are the base's
 * own. */
#ifndef GRAFT_ADAPTER_ADAPTER_H
#define GRAFT_ADAPTER_ADAPTER_H

#include "adapter/config.h"
#include "base/rng.h"
#include "model/weights.h"

typedef enum tensor_role {
    ROLE_LORA_A,
    ROLE_LORA_B, /* LoRA+ trains these faster */
    ROLE_LORA_EMBEDDING_A,
    ROLE_LORA_EMBEDDING_B, /* LoRA+ too, as PEFT's optimizer groups them */
    ROLE_LORA_BIAS,
    ROLE_FREED /* a base parameter: full fine-tuning, modules_to_save, bias */
} tensor_role;

/* One trained tensor. Keys are the adapter file's
 * ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"), or the checkpoint's own names
 * in full fine-tuning. */
typedef struct adapter_tensor {
    char key[192];
    tensor_role role;
    int32_t rank; /* of the shape: 1 or 2 */
    int64_t shape[2];
    int64_t count;
    size_t module; /* index into adapter.modules */
    device_array *value, *gradient, *moment1,
        *moment2; /* the last three NULL unless laid out for training */
} adapter_tensor;

/* A tensor of the adapter file that no one trains: the base's own weight beside a LoRA on the
 * embedding (PEFT's save_embedding_layers="auto"), or a trained tensor again under a tied module's
 * name. */
typedef struct saved_copy {
    char key[192];
    int64_t shape[2];
    bool is_base;
    bool is_written;     /* false: allowed in a file, not written */
    char base_name[128]; /* is_base: the base's tensor by its name on disk */
    size_t tensor;       /* else: index into adapter.tensors */
} saved_copy;

typedef struct adapter {
    const struct adapter_method *method;
    adapter_config config;  /* resolved: target_modules as matched */
    const model_spec *spec; /* borrowed */
    model_module *modules;  /* of the spec */
    size_t n_modules;
    adapter_tensor *tensors; /* in file order */
    size_t n_tensors;
    low_rank_term *terms; /* filled by bind; their addresses are stable */
    size_t n_terms;
    int32_t job;
    saved_copy *copies; /* what the file holds beside the tensors */
    size_t n_copies;
} adapter;

/* Resolves targets against the model's modules and lists the tensors. Refuses what it does not
 * support by name, targets that match nothing, layers out of range, ranks that make no sense. */
graft_status adapter_create(adapter **, const adapter_config *, const model_spec *, int32_t job,
                            const message_sink *, graft_error *);
void adapter_destroy(adapter **);
int64_t adapter_trained_count(const adapter *); /* elements */

/* Counts or assigns values (component ADAPTER, or WEIGHTS for freed parameters), and with training
 * gradients and moments. */
void adapter_layout(adapter *, layout *, size_t element_bytes, bool training);
/* Puts the adapter into the hooks (shapes only when nothing is laid out). */
void adapter_bind(adapter *, model_hooks *);
/* First values as PEFT draws them (kaiming uniform A, zero B; gaussian; random; freed parameters:
 * the base's values). */
graft_status adapter_init(adapter *, backend *, const weight_source *, rng *, graft_error *);

/* PEFT directories. Loading is strict: every tensor must be there with its shape, and nothing else;
 * each refusal names key and file. weights serve to tell copies of base tensors in the file from
 * changed ones (NULL: their shapes only), and give a save what it copies from the base. */
graft_status adapter_load(adapter *, backend *, const weight_source *, const char *folder,
                          graft_error *);
graft_status adapter_save(const adapter *, backend *, const weight_source *, const char *folder,
                          const char *base_name, graft_error *);
/* Gradients under the same keys, f32: for `eval --gradients`. */
graft_status adapter_save_gradients(const adapter *, backend *, const char *path, graft_error *);

/* A LoRA method etc. Adding one is one file and one line in adapter/methods.c. */
typedef struct adapter_method {
    const char *peft_type; /* "LORA"; "FULL" for full fine-tuning, which PEFT has not */
    const char *name;      /* of --method: "lora" */
    const char *summary;   /* one line for `graft methods` */
    graft_status (*shape)(adapter *, const message_sink *,
                          graft_error *); /* fills tensors and terms */
    graft_status (*init)(adapter *, backend *, const weight_source *, rng *, graft_error *);
    void (*bind)(adapter *, model_hooks *);
    graft_status (*load)(adapter *, backend *, const weight_source *, const char *folder,
                         graft_error *);
    graft_status (*save)(const adapter *, backend *, const weight_source *, const char *folder,
                         const char *base_name, graft_error *);
} adapter_method;

const adapter_method *adapter_method_find(const char *name_or_peft_type); /* case-insensitive */
const adapter_method *adapter_method_at(size_t i);                        /* NULL past the end */

#endif
