/* One block, forward and backward, and what stands around the blocks. No memory is allocated here:
 * buffers come from step layouts; weights and hooks from above.
 *
 *     embed -> block 0 .. L-1 -> final norm -> head and cross-entropy in chunks of labelled rows
 *
 * What a step keeps for backward is in block_saved; every input of a linear that is a norm's or
 * silu's output is made again from it. A block may keep less (layer_keep); what belongs to the down
 * projection it keeps always, so that making the rest again needs none. Blocks below the lowest
 * trained one keep nothing.
 *
 * Nothing looks at the last block's output for a row without a label: with labelled_only its output
 * projection and MLP run over the labelled rows alone. */
#ifndef GRAFT_MODEL_TRANSFORMER_H
#define GRAFT_MODEL_TRANSFORMER_H

#include "model/weights.h"

/* What a block keeps of its forward pass; the rest is made again before its backward. Gradients
 * have the same bits either way. */
typedef enum layer_keep {
    KEEP_ALL,
    KEEP_ATTENTION, /* all but gate and up: two products are made again */
    KEEP_INPUT      /* x_in alone: all but the down projection is made again */
} layer_keep;

/* What backward needs of one block. q and k are rotated (and normed); q_raw and k_raw exist with
 * q/k norms and clipping, gate with a gate, attention_out, mlp_out and x_out with norms there. xa
 * holds x A^T of the slot's terms. Where no backward follows x_in, x_mid, the raw ones and the
 * inputs of those norms are NULL, and blocks share the rest: k and v of a block stand until the
 * next block is run. */
typedef struct block_saved {
    device_array *x_in, *x_mid;              /* [n, hidden] */
    device_array *attention_out, *mlp_out;   /* [n, hidden] what the branches' norms take */
    device_array *x_out;                     /* [n, hidden] what the norm behind the block takes */
    device_array *q_raw, *k_raw, *q, *k, *v; /* [n, heads * head_dim], [n, kv_heads * head_dim] */
    device_array *o, *lse;                   /* [n, heads * head_dim], [n, heads] */
    device_array *gate, *up;                 /* [n, intermediate] */
    device_array *q_latent, *kv_latent;      /* [n, latents] before their norms */
    /* Layers with experts; rows are tokens times experts chosen. */
    device_array *router_logits, *route_weights; /* [n, experts], [n, chosen] */
    device_array *expert_gate, *expert_up;       /* [rows, expert_intermediate] */
    device_array *expert_xa[N_EXPERT_SLOTS];     /* [rows, ranks] */
    device_array *shared_gate, *shared_up;       /* [n, shared_intermediate] */
    device_array *shared_scale;                  /* [n] */
    int32_t *choice;                             /* host, [n, chosen] */
    device_array *rstd[N_NORM_SLOTS];            /* [n]; of q and k [n, heads], [n, kv_heads] */
    device_array *xa[N_LINEAR_SLOTS];            /* [n, ranks] */
    device_array *kept[N_LINEAR_SLOTS];          /* what the slots' forms keep */
    device_array *branch[N_BRANCH_SLOTS];        /* what the branches' forms keep */
    layer_keep keep;
} block_saved;

typedef struct step_limits {
    int32_t max_tokens;   /* of one micro-batch */
    int32_t max_labelled; /* rows of a micro-batch with a label; <= max_tokens */
    int32_t max_segments;
    int32_t max_jobs; /* 0: 1 */
    bool training;    /* backward follows. In laid-out buffers it may be cleared for an evaluation
                         between steps. */
    /* Of the blocks that backward passes, from the lowest up: so many keep only their input
     * (KEEP_INPUT), and so many above them all but gate and up (KEEP_ATTENTION). */
    int32_t layers_from_input, layers_without_mlp;
    bool labelled_only; /* after the last block only rows with a label are asked for */
    int32_t head_chunk; /* labelled rows whose logits exist at a time; 0: chosen from the
                         * vocabulary. Gradients of the head and final norm add blocks of
                         * min(GRID_TOKENS, head_chunk) rows. */
} step_limits;

/* Rows of tokens by expert; host. */
typedef struct expert_grouping {
    int32_t *begin, *next;       /* [experts + 1], [experts] */
    int32_t *token, *assignment; /* [rows] index of the token, and in [n, chosen] */
    int32_t *grid, *job_begin;   /* [rows + 1], [max_jobs + 1] of the expert under way */
    uint64_t *dropout_counter;   /* [rows] */
} expert_grouping;

/* Scratch of one block; contents do not outlive a call. d_o, dq, dk, dv lie over h and dh. */
typedef struct block_scratch {
    device_array *normed, *d_normed; /* [n, hidden] a linear's input and its gradient */
    device_array *d_mlp_normed;      /* [n, hidden] the MLP's own, where it runs beside attention */
    device_array *fused;             /* rows of the widest fused linear */
    device_array *split_norm, *d_split_norm; /* [heads, head_dim] weights freed head by head */
    device_array *h, *dh;             /* [n, intermediate] act(gate) * up; without training NULL */
    device_array *d_o, *dq, *dk, *dv; /* like o, q, k, v */
    device_array *attention;          /* [n, n_heads] */
    device_array *latent, *d_latent;  /* [n, wider latent] */
    expert_grouping grouping;
    device_array *expert_rows, *d_expert_rows; /* [rows, hidden] */
    device_array *expert_h, *expert_dh;        /* [rows, expert_intermediate] */
    device_array *expert_fused;                /* [rows, 2 * expert_intermediate] */
    device_array *row_weights, *d_row_weights; /* [rows] */
    device_array *d_route_weights, *d_router_logits;
    device_array *shared_h, *shared_dh;          /* [n, shared_intermediate] */
    device_array *shared_share, *d_shared_scale; /* [n] */
    device_array *linear;                        /* of the largest group of linear layers */
    device_array *form;                          /* scratch of the form that needs most */
} block_scratch;

/* What the head works in; it lies over the blocks' scratch. */
typedef struct head_buffers {
    int32_t chunk;                 /* rows at a time, by the limits */
    int32_t rows;                  /* min(chunk, max_labelled): what there is room for */
    device_array *x, *normed, *dx; /* [rows, hidden] */
    device_array *projected, *d_projected, *projected_xa, *projected_kept; /* [rows, embedding_dim],
                                      where the embedding is narrower than the blocks; its hook's */
    device_array *rstd;                                                    /* [rows] */
    device_array *logits;                                                  /* [rows, vocab] */
    device_array *xa, *linear; /* [rows, ranks]; scratch */
    device_array *kept, *form; /* of the head's form */
    int32_t *targets;          /* host, [rows] */
    float *weights;            /* [rows] */
    uint64_t *dropout_counter; /* [rows] */
    int32_t *grid, *job_begin; /* [rows + 1], [max_jobs + 1] */
} head_buffers;

/* Between the embedding's table and block 0, where a family has something there. */
typedef struct input_buffers {
    device_array *embedded;        /* [n, embedding_dim] before it is projected in */
    device_array *d_embedded;      /* likewise; with something trained there */
    device_array *xa, *kept;       /* of the projection's hook */
    device_array *unnormed, *rstd; /* [n, hidden], [n] what the embedding's norm takes */
    int32_t *positions;            /* host, [n] rows of the learned positions */
} input_buffers;

/* The labelled rows of a micro-batch as tokens of their own, for the end of the last block. */
typedef struct labelled_rows {
    token_rows tokens;         /* n: how many; sums over them start anew with each segment */
    int32_t *index;            /* host, [max_labelled] ascending rows of the batch */
    int32_t *grid, *job_begin; /* [max_labelled + 1], [max_jobs + 1] */
    uint64_t *dropout_counter; /* [max_labelled] */
    device_array *x, *dx, *o;  /* [n, hidden], [n, hidden], [n, heads * head_dim]; with
                                * labelled_only, in the blocks' scratch */
} labelled_rows;

/* Everything one micro-batch needs, laid out once for the largest. */
typedef struct step_buffers {
    step_limits limits;
    block_saved *saved;   /* [n_layers] */
    device_array *x, *dx; /* [n, hidden] the running hidden state and its gradient; dx only with
                           * something trained below the head */
    device_array *rope_cos[2], *rope_sin[2]; /* [n, rope.dim / 2] by layer_rope */
    input_buffers input;
    device_array *loss; /* [max_labelled] */
    block_scratch scratch;
    head_buffers head;
    labelled_rows labelled; /* filled by step_embed where the batch has targets */
    float *rope_host;       /* host staging of one rope's tables */
    float *loss_host;       /* [max_labelled] */
} step_buffers;

/* Counts or assigns (see base/layout.h). Device arrays go to `device`, host staging to `host`.
 * hooks may have shapes only; saved is caller storage of n_layers entries. GRAFT_E_INPUT when a
 * size does not fit the machine's words. */
graft_status step_layout(step_buffers *, block_saved *saved, layout *device, layout *host,
                         const model_spec *, const model_hooks *, const step_limits *,
                         size_t element_bytes, graft_error *);

typedef struct model_run { /* what every call needs, gathered */
    backend *dev;
    const model_spec *spec;
    weight_source *weights;
    const model_hooks *hooks;
} model_run;

/* Embeds and passes every block; buffers->x then holds the last hidden state (before the final
 * norm) of every token, with labelled_only of those that have a label. */
graft_status step_forward(const model_run *, step_buffers *, const batch *, graft_error *);
/* Final norm, head and cross-entropy over the labelled rows, in chunks: token_loss [labelled]
 * (unweighted, in token order) lands in buffers->loss_host; buffers->labelled has the rows,
 * *n_labelled is their number. With training, dx is set to the gradient of sum(weights * loss), and
 * the head's and final norm's gradients are added. Rows without labels cost nothing. */
graft_status step_loss(int32_t *n_labelled, const model_run *, step_buffers *, const batch *,
                       graft_error *);
/* From dx down to the lowest trained part; gradients are added to the hooks' arrays. */
graft_status step_backward(const model_run *, step_buffers *, const batch *, graft_error *);
/* Logits of the given rows (ascending indices into the batch), downloaded: out [n, vocab]. */
graft_status step_logits(float *out, const model_run *, step_buffers *, const batch *,
                         const int32_t *rows, int32_t n, graft_error *);

/* The parts of step_forward and step_backward, for schedules that go layer by layer (a KV cache
 * takes k and v after each block; streamed weights pass several micro-batches through one layer).
 *
 * step_embed fills the rotary tables, finds the labelled rows and sets x. GRAFT_E_INPUT for an id
 * outside the embedding, and for a row longer than the learned positions. */
graft_status step_embed(const model_run *, step_buffers *, const batch *, graft_error *);
/* x [n, hidden] is replaced by the block's output; what backward needs goes to saved. */
void block_fwd(const model_run *, int32_t layer, const layer_weights *, const batch *,
               step_buffers *, const block_saved *);
/* Replaces dx [n, hidden] by the gradient at the block's input; with needs_dx false only what the
 * block's own gradients need is computed, and dx is undefined after. What the block did not keep is
 * computed first (x is used for it). */
void block_bwd(const model_run *, int32_t layer, const layer_weights *, const batch *,
               step_buffers *, const block_saved *, bool needs_dx);

/* cos and sin of every token (host, [n, rope.dim / 2] each), f32 as Transformers computes them. */
void rope_fill(float *cos, float *sin, const rope_spec *, const batch *);

#endif
