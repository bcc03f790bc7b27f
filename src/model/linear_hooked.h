/* A linear layer as the ops want it: the stored weight, or the freed one, with what hooks add.
 * Inside model/ only. */
#ifndef GRAFT_MODEL_LINEAR_HOOKED_H
#define GRAFT_MODEL_LINEAR_HOOKED_H

#include "model/transformer.h"

linear_call linear_hooked(const backend *, const weight_ref *, const device_array *bias,
                          const linear_hook *);
/* Whether backward has something to add up for this call. */
bool linear_is_trained(const linear_call *);
/* Whether linear_bwd reads x. */
bool linear_needs_input(const linear_call *, const token_rows *);

static inline const device_array *norm_hooked(const device_array *weight,
                                              const freed_parameter *freed) {
    return freed->is_freed ? freed->value : weight;
}

#endif
