/* Latent attention (DeepSeek's MLA): q, and k and v, come from narrow latents with norms of their
 * own; the rotated part of k is one for all heads. Inside model/ only. */
#ifndef GRAFT_MODEL_LATENT_H
#define GRAFT_MODEL_LATENT_H

#include "model/block_pass.h"

/* q, k, v of the block before rotation, from the input of attention. */
void latent_forward(const block_pass *, const device_array *input);
bool latent_trains(const block_pass *);
bool latent_needs_input(const block_pass *);
/* From scratch.dq, dk, dv; d_input (+)= ... (NULL: nobody needs it). */
void latent_backward(const block_pass *, device_array *d_input, bool add,
                     const device_array *input);

#endif
