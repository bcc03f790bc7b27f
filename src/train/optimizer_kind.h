/* The optimizers there are: a table behind --optim, a file each (or each set of kin). */
#ifndef GRAFT_TRAIN_OPTIMIZER_KIND_H
#define GRAFT_TRAIN_OPTIMIZER_KIND_H

#include "train/trainer.h"

/* One update of all tensors. */
typedef struct optimizer_step {
    const train_config *config;
    double schedule_factor; /* multiplies every group's rate */
    double gradient_scale;  /* clipping; 1: none */
    int64_t updates;        /* counts this one, from 1 */
} optimizer_step;

typedef struct optimizer_kind {
    const char *name; /* of --optim */
    const char *summary;
    double adam_epsilon; /* where none is given */
    /* Before the adapter is laid out: what does not train becomes fixed, adapter.optimizer_room is
     * set; refuses adapters that it is not made for. May run more than once. NULL: nothing to do.
     */
    graft_status (*shape)(adapter *, const train_config *, graft_error *);
    graft_status (*update)(const adapter *, backend *, const optimizer_step *, graft_error *);
} optimizer_kind;

extern const optimizer_kind optimizer_adamw, optimizer_lora_fa, optimizer_riemannian;

const optimizer_kind *optimizer_find(const char *name);
const optimizer_kind *optimizer_at(size_t i); /* NULL past the end */
/* The config's; AdamW when it names none. */
const optimizer_kind *optimizer_of(const train_config *);

/* AdamW's update of one tensor, at the rate and decay of its group. */
void adamw_update(const adapter_tensor *, backend *, const optimizer_step *);

#endif
