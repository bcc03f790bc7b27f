/* Where an adapter touches the model. A method fills this description once, when it is bound; the
 * ops carry it out, so that products can be fused, batched over adapters, and run on any device.
 * With shapes only (handles NULL) it is enough to lay out a step's memory. */
#ifndef GRAFT_MODEL_HOOKS_H
#define GRAFT_MODEL_HOOKS_H

#include "backend/ops.h"
#include "model/spec.h"

/* A base parameter that trains: its f32 (element type of the backend) master takes the stored
 * weight's place. */
typedef struct freed_parameter {
    device_array *value, *gradient; /* gradient NULL: replaced but not trained (evaluation) */
    bool is_freed;
} freed_parameter;

typedef struct linear_hook {
    const low_rank_term *terms;
    int32_t n_terms;
    freed_parameter weight, bias;
} linear_hook;

typedef struct layer_hooks {
    linear_hook linear[N_LINEAR_SLOTS];
    freed_parameter norm[N_NORM_SLOTS];
} layer_hooks;

typedef struct model_hooks {
    layer_hooks *layers; /* [n_layers] */
    linear_hook embedding, head;
    freed_parameter final_norm;
    /* Set by model_hooks_finish, so that backward stops as early as it may: the lowest block with a
     * hook (n_layers: none has) and whether the embedding has one. Frozen hooks count too: with
     * shapes only nobody can tell, and the layout must not differ. Whoever trains a segment's past
     * lowers lowest_trained_layer afterwards. */
    int32_t lowest_trained_layer;
    bool embedding_trains;
} model_hooks;

graft_status model_hooks_create(model_hooks *, const model_spec *, graft_error *);
void model_hooks_finish(model_hooks *, const model_spec *);
void model_hooks_free(model_hooks *);

/* The hook of a module; norms have only a freed parameter. */
linear_hook *model_hooks_linear(model_hooks *, const model_module *);
freed_parameter *model_hooks_norm(model_hooks *, const model_module *);

int32_t linear_hook_ranks(const linear_hook *); /* sum over terms */

#endif
