/* Says what is wrong with the keys and shapes of an adapter file, in words that lead to the remedy.
 */
#ifndef GRAFT_ADAPTER_PEFT_KEYS_H
#define GRAFT_ADAPTER_PEFT_KEYS_H

#include "adapter/adapter.h"

#define PEFT_KEY_PREFIX "base_model.model."

/* A key of the file that the adapter does not have. */
graft_status peft_refuse_key(const adapter *, const char *key, const char *path, graft_error *);
/* A tensor of the adapter that the file does not have. */
graft_status peft_refuse_missing(const adapter_tensor *, const safetensors *, const char *path,
                                 graft_error *);
/* A tensor with another shape. */
graft_status peft_refuse_shape(const adapter *, const adapter_tensor *, const tensor_view *,
                               const char *path, graft_error *);

#endif
