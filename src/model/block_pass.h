/* What forward and backward of a block share. Inside model/ only. */
#ifndef GRAFT_MODEL_BLOCK_PASS_H
#define GRAFT_MODEL_BLOCK_PASS_H

#include "model/linear_hooked.h"

/* One pass over one block: what every line of it needs. */
typedef struct block_pass {
    backend *dev;
    const op_table *ops;
    const model_spec *spec;
    const layer_weights *weights;
    const layer_hooks *hooks;
    const batch *batch;
    const token_rows *tokens;
    const step_buffers *buffers;
    const block_scratch *scratch;
    const block_saved *saved;
    device_array *x, *dx,
        *o; /* of the buffers; at the end of the last block of its labelled rows */
    int32_t layer;
    int64_t n; /* tokens */
} block_pass;

/* How q, k and v, or gate and up, lie in the rows of a fused linear layer: in each of `groups`
 * groups the columns of one part after those of the other. */
typedef struct fused_part {
    device_array *array; /* [n, groups * cols] */
    int64_t cols;        /* of one group */
    int64_t first;       /* in a group of the fused rows */
} fused_part;

typedef struct fused_parts {
    fused_part part[3];
    int32_t n_parts;
    int64_t groups, group_cols; /* of the fused rows */
} fused_parts;

hooked_linear block_linear(const block_pass *, linear_slot);
form_pass block_branch_pass(const block_pass *, branch_slot);
norm_call block_norm(const block_pass *, norm_slot);
attention_call block_attention(const block_pass *);

/* Rows and columns that the norms of q (or k) take, with `heads` heads. */
typedef struct head_rows {
    int32_t per_token;
    int64_t cols;
} head_rows;
head_rows block_head_rows(const block_pass *, int32_t heads);
/* The norm of q or k; a weight for each head that is freed apart from the others is gathered into
 * scratch, and block_qk_norm_end brings its gradient back. */
norm_call block_qk_norm(const block_pass *, norm_slot);
void block_qk_norm_end(const block_pass *, norm_slot);

void block_rotate(const block_pass *, device_array *x, int32_t heads, bool inverse);
/* The parts' arrays from the fused rows, or (is_merge) the other way. */
void block_split(const block_pass *, const fused_parts *, device_array *fused, bool is_merge);
fused_parts block_qkv_parts(const block_pass *, device_array *q, device_array *k, device_array *v);
fused_parts block_gate_up_parts(const block_pass *, device_array *gate, device_array *up);

/* What the first linear layers of a branch take: the norm of the stream (made again in
 * scratch.normed, or left there by the attention), or the stream itself. `stream` is what the block
 * was given, or what attention left. */
const device_array *block_attention_input(const block_pass *, const device_array *stream);
const device_array *block_mlp_input(const block_pass *, const device_array *stream);
static inline bool block_shares_norm(const model_spec *spec) {
    return spec->is_parallel && !spec->has_norm[NORM_MLP];
}
/* x [n, hidden] -> y; y may be x */
void block_norm_hidden(const block_pass *, norm_slot, device_array *y, const device_array *x);
gate_call block_gate(const block_pass *);

#endif
