/* Writes a whole model as a Hugging Face directory: weights in shards, and what stands beside them.
 */
#ifndef GRAFT_ADAPTER_MODEL_WRITER_H
#define GRAFT_ADAPTER_MODEL_WRITER_H

#include "adapter/tensor_file.h"

/* Above this, the weights are sharded (Transformers 5's max_shard_size). */
#define MODEL_SHARD_BYTES_MAX ((size_t)50 * 1000 * 1000 * 1000)

/* Tensors as tensor_file_write takes them; reordered within shards. */
graft_status model_writer_weights(backend *, named_tensor *, size_t n, const char *folder,
                                  size_t shard_bytes_max, graft_error *);
/* Copies config.json, generation_config.json, tokenizer files and chat templates from the base's
 * folder. */
graft_status model_writer_companions(const weight_source *, const char *folder, graft_error *);

#endif
