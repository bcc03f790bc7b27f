/* A linear layer as the ops want it: the stored weight, or the freed one, with what hooks add.
 * Inside model/ only. */
#ifndef GRAFT_MODEL_LINEAR_HOOKED_H
#define GRAFT_MODEL_LINEAR_HOOKED_H

#include "model/transformer.h"

typedef struct hooked_linear {
    backend *dev;
    linear_call call;
    const linear_hook *hook;
    /* Memory, by step_layout. */
    device_array *xa, *scratch;        /* of the call */
    device_array *kept, *form_scratch; /* of the form */
} hooked_linear;

linear_call linear_hooked(const backend *, const weight_ref *, const device_array *bias,
                          const linear_hook *);
/* y (+)= the layer of x; backward as linear_bwd. */
void hooked_linear_fwd(const hooked_linear *, device_array *y, const device_array *x, bool add,
                       const token_rows *, const batch *);
void hooked_linear_bwd(const hooked_linear *, device_array *dx, const device_array *dy,
                       const device_array *x, bool add, const token_rows *, const batch *);
/* The same for n layers (LINEAR_BRANCHES_MAX at most) that share their input: y, dy [n] are theirs;
 * every y is overwritten; dx (+)= the sum over the layers. */
void hooked_linears_fwd(const hooked_linear *, int32_t n, device_array *const *y,
                        const device_array *x, const token_rows *, const batch *);
void hooked_linears_bwd(const hooked_linear *, int32_t n, device_array *dx, device_array *const *dy,
                        const device_array *x, bool add, const token_rows *, const batch *);
/* Whether backward has something to add up for this layer. */
bool hooked_linear_trains(const hooked_linear *);
/* Whether its backward reads x. */
bool hooked_linear_needs_input(const hooked_linear *, const token_rows *);
/* Elements that a form keeps of n tokens, and works in. 0 without a form. */
int64_t form_kept_elements(const form_memory *, const void *self, int64_t n);
int64_t form_scratch_elements(const form_memory *, const void *self, int64_t n);

/* A norm of the stream as the ops want it; weight and bias NULL where the model has none. */
norm_call norm_hooked(const model_spec *, const device_array *weight,
                      const freed_parameter *weight_freed, const device_array *bias,
                      const freed_parameter *bias_freed);

#endif
