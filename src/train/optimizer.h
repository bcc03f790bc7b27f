/* The optimizer over an adapter's tensors, with PEFT's LoRA+ groups. */
#ifndef GRAFT_TRAIN_OPTIMIZER_H
#define GRAFT_TRAIN_OPTIMIZER_H

#include "train/trainer.h"

/* What one tensor is trained with. Without LoRA+ every tensor has the config's rate and decay. With
 * it, as in peft.optimizers.create_loraplus_optimizer: LoRA B and every vector at ratio times the
 * rate, biases without decay, an embedding's factors at LORAPLUS_EMBEDDING_RATE. */
typedef struct parameter_group {
    double learning_rate, weight_decay;
} parameter_group;

extern const double LORAPLUS_EMBEDDING_RATE; /* loraplus_lr_embedding's default */

parameter_group parameter_group_of(const adapter_tensor *, const train_config *);

/* Global L2 norm of all gradients; not finite when one of them is not. */
double optimizer_gradient_norm(const adapter *, backend *);
/* What gradients are multiplied with so that their norm does not pass max_norm
 * (torch.nn.utils.clip_grad_norm_); max_norm 0: 1. */
double optimizer_clip_scale(double norm, double max_norm);
/* What the config's optimizer wants of the adapter, before it is laid out: see optimizer_kind.h. */
graft_status optimizer_shape(adapter *, const train_config *, graft_error *);
/* One update. `updates` counts this one, from 1; schedule_factor multiplies every group's rate. */
graft_status optimizer_update(const adapter *, backend *, const train_config *,
                              double schedule_factor, double gradient_scale, int64_t updates,
                              graft_error *);

/* Key of the first tensor with a value that is not finite; NULL: all are. */
const char *optimizer_bad_value(const adapter *, backend *);

#endif
