/* The MLP of a layer with experts: a router sends each token to some of them. Rows of tokens are
 * gathered by expert, each expert's are one product, and a token's results are added in the
 * experts' order. A token's weight multiplies what the last product takes, so that the product's
 * terms and gradients need no weights. Inside model/ only. */
#ifndef GRAFT_MODEL_EXPERTS_H
#define GRAFT_MODEL_EXPERTS_H

#include "model/block_pass.h"

/* Everything before the last products. input [n, hidden]: the MLP's. */
void experts_front(const block_pass *, const device_array *input);
/* y [n, hidden] (+)= the mixture. */
void experts_down(const block_pass *, device_array *y, bool add);
/* Whether backward has something to add up here, and whether it reads the input. */
bool experts_train(const block_pass *);
bool experts_need_input(const block_pass *);
/* d_input [n, hidden] (+)= ... (NULL: nobody needs it); it may be dy [n, hidden]. */
void experts_backward(const block_pass *, device_array *d_input, bool add, const device_array *dy,
                      const device_array *input);

#endif
