/* Which modules an adapter acts on: PEFT's matching of names, over the module tree that
 * Transformers would build. */
#ifndef GRAFT_ADAPTER_TARGETS_H
#define GRAFT_ADAPTER_TARGETS_H

#include "adapter/adapter.h"

/* What is done to one module. */
typedef struct module_target {
    bool is_target; /* the method acts on it */
    int32_t rank;   /* by r and rank_pattern, where the method has them */
    double alpha;
    bool frees_weight, frees_bias;
    bool trains_rows;      /* some of its rows train (see trained_tokens.h) */
    bool ties_rows;        /* a tied head that uses the embedding's */
    bool shares_embedding; /* a tied head that trains as the embedding's second name
                              (ensure_weight_tying) */
} module_target;

/* Fills targets [n] from config, whose target_modules become what was matched with: the model's
 * defaults and "all-linear" are written out. Refuses what PEFT refuses (containers, norms, nothing
 * matched), and names in modules_to_save that no module has. */
graft_status targets_resolve(module_target *targets, adapter_config *config, const adapter_method *,
                             const model_spec *, const model_module *, size_t n,
                             const message_sink *, graft_error *);

/* Whether PEFT writes the base's embedding and head weights beside their LoRA:
 * save_embedding_layers="auto". */
graft_status targets_save_embeddings(bool *out, const adapter_config *, const model_module *,
                                     size_t n, graft_error *);

#endif
