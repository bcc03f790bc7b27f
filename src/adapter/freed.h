/* Base parameters that train: full fine-tuning, modules_to_save, biases. */
#ifndef GRAFT_ADAPTER_FREED_H
#define GRAFT_ADAPTER_FREED_H

#include "adapter/adapter.h"

/* Describes a module's weight or bias as a trained tensor; its key stays for the caller to write.
 */
void freed_tensor(adapter_tensor *, const adapter *, size_t module, bool is_bias);
/* The name on disk of the base's tensor that stands behind a weight (a tied head's is the
 * embedding's) or bias. */
void freed_base_name(char *out, size_t capacity, const adapter *, size_t module, bool is_bias);
/* The value becomes the base's. */
graft_status freed_init(const adapter *, const adapter_tensor *, backend *, const weight_source *,
                        graft_error *);
/* Puts value and gradient into the hook of the tensor's module. */
void freed_bind(const adapter *, const adapter_tensor *, model_hooks *);
/* The same for a tied head that trains as the embedding's second name. */
void freed_bind_tied_head(const adapter *, const adapter_tensor *embedding, model_hooks *);

#endif
