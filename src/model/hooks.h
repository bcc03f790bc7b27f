/* Where an adapter touches the model. A method fills this description once, when it is bound; the
 * ops carry it out, so that products can be fused, batched over adapters, and run on any device.
 * What a description cannot say is a form, made of ops. With shapes only (handles NULL) it is
 * enough to lay out a step's memory. */
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

/* ---- Forms: what low-rank terms cannot say. A form is made of ops only, too. ---- */

/* One micro-batch through one hooked place. */
typedef struct form_pass {
    backend *dev;
    const token_rows *tokens;
    const batch *batch;    /* tokens of a head's chunk are rows of this batch, not its tokens */
    device_array *kept;    /* kept_elements of the form, from forward to backward; NULL: 0 */
    device_array *scratch; /* scratch_elements of the form; contents do not outlive a call */
} form_pass;

/* What a form works in, for n tokens. */
typedef struct form_memory {
    int64_t (*kept_elements)(const void *self, int64_t n); /* NULL: none */
    int64_t (*scratch_elements)(const void *self, int64_t n);
} form_memory;

/* The base's linear layer with its low-rank terms, for a form to call. */
typedef struct base_linear {
    const linear_call *call;
    device_array *xa, *scratch; /* as linear_fwd and linear_bwd take them */
} base_linear;

/* A linear layer carried out a method's own way: scaled or turned inputs and outputs (IA3, OFT,
 * RoAd, DoRA), a weight made for the moment (LoHa, FourierFT), or anything else of x. */
typedef struct linear_form {
    form_memory memory;
    /* y [n, out] (+)= the layer of x [n, in]. */
    void (*fwd)(const void *self, const form_pass *, const base_linear *, device_array *y,
                const device_array *x, bool add);
    /* dx [n, in] (+)= ... (NULL: nobody needs it), and the form's gradients are added to. x is what
     * forward had. */
    void (*bwd)(const void *self, const form_pass *, const base_linear *, device_array *dx,
                const device_array *dy, const device_array *x, bool add);
} linear_form;

/* Between a branch (attention or MLP, after its last linear layer) and the residual stream that it
 * is added to: bottleneck adapters, LoReFT. */
typedef struct branch_form {
    form_memory memory;
    /* x [n, hidden], the residual, becomes the stream behind the branch (without a form: x + y). y,
     * the branch's output, may be overwritten. */
    void (*fwd)(const void *self, const form_pass *, device_array *x, device_array *y);
    /* dx, the gradient behind the branch, becomes the residual's; dy [n, hidden] is set to that of
     * the branch's output. x is the residual that forward had. */
    void (*bwd)(const void *self, const form_pass *, device_array *dx, device_array *dy,
                const device_array *x);
} branch_form;

/* The embedding's rows, after lookup and low-rank terms: y [n, hidden], dy likewise (which may be
 * changed: what remains goes to the embedding's own gradients). Rows of virtual tokens are replaced
 * afterwards, and their dy is 0. The pass keeps nothing. */
typedef struct embedding_form {
    int64_t (*scratch_elements)(const void *self, int64_t n); /* NULL: none */
    void (*fwd)(const void *self, const form_pass *, device_array *y, const weight_ref *table);
    void (*bwd)(const void *self, const form_pass *, device_array *dy, const weight_ref *table);
} embedding_form;

typedef struct linear_hook {
    const low_rank_term *terms;
    int32_t n_terms;
    freed_parameter weight, bias;
    const linear_form *form; /* NULL: none */
    const void *form_self;
} linear_hook;

typedef struct embedding_hook {
    const embedding_form *form; /* NULL: none */
    const void *self;
} embedding_hook;

typedef enum branch_slot { BRANCH_ATTENTION, BRANCH_MLP, N_BRANCH_SLOTS } branch_slot;

typedef struct branch_hook {
    const branch_form *form; /* NULL: none */
    const void *self;
} branch_hook;

typedef struct layer_hooks {
    linear_hook linear[N_LINEAR_SLOTS];
    freed_parameter norm[N_NORM_SLOTS], norm_bias[N_NORM_SLOTS];
    freed_parameter *split_norm[2]; /* QK_NORM_SPLIT: [heads] of NORM_Q and NORM_K; else NULL */
    branch_hook branch[N_BRANCH_SLOTS];
    linear_hook *experts; /* [n_experts][N_EXPERT_SLOTS]; NULL: the layer has none */
    freed_parameter expert_stack[N_EXPERT_SLOTS], expert_stack_bias[N_EXPERT_SLOTS];
    freed_parameter sinks;
} layer_hooks;

/* What stands before every row's first token. Batches are built with it (batch_builder.h). */
typedef struct sequence_hook {
    int32_t n_virtual;                /* virtual tokens, which pass every block; 0: none */
    int32_t n_tasks;                  /* tables of virtual tokens: a row's task picks one */
    const device_array *virtual_rows; /* [n_tasks, n_virtual, hidden] */
    device_array *d_virtual_rows;     /* added to; NULL: frozen */
    /* Labels of virtual tokens, in training: targets [n_virtual], shifted as a batch's are, and
     * what their loss is weighted with; NULL: none has a label. */
    const int32_t *virtual_targets;
    const float *virtual_weights;
    int32_t n_labelled;
    const kv_view *past; /* [n_layers] keys and values, which only attention sees; NULL: none */
    int32_t past_length;
} sequence_hook;

typedef struct model_hooks {
    layer_hooks *layers;          /* [n_layers] */
    linear_hook *experts;         /* what layers' experts point into */
    freed_parameter *split_norms; /* what layers' split_norm point into */
    linear_hook embedding, head;
    linear_hook outer_linear[N_OUTER_LINEARS];
    embedding_hook embedding_rows;
    freed_parameter positions;
    freed_parameter outer_norm[N_OUTER_NORMS], outer_norm_bias[N_OUTER_NORMS];
    sequence_hook sequence;
    int32_t n_tasks; /* what rows may name as their task; 0: it means nothing to the adapter */
    /* Set by model_hooks_finish, so that backward stops as early as it may: the lowest block with a
     * hook (n_layers: none has; a trained past is every block's) and whether the embedding, or what
     * stands beside it, has one. Frozen hooks count too: with shapes only nobody can tell, and the
     * layout must not differ. */
    int32_t lowest_trained_layer;
    bool embedding_trains;
} model_hooks;

graft_status model_hooks_create(model_hooks *, const model_spec *, graft_error *);
void model_hooks_finish(model_hooks *, const model_spec *);
void model_hooks_free(model_hooks *);

/* The hook of a linear layer, the embedding or the head. */
linear_hook *model_hooks_linear(model_hooks *, const model_module *);
/* Where a module's weight or bias is set free. */
freed_parameter *model_hooks_parameter(model_hooks *, const model_module *, bool is_bias);

int32_t linear_hook_ranks(const linear_hook *); /* sum over terms */
/* The most that one expert's slot has. */
int32_t layer_expert_ranks(const layer_hooks *, const model_spec *, expert_slot);

#endif
