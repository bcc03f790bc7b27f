/* A whole model as a Hugging Face directory, in and out: what full fine-tuning saves. */
#ifndef GRAFT_ADAPTER_MODEL_FOLDER_H
#define GRAFT_ADAPTER_MODEL_FOLDER_H

#include "adapter/model_writer.h"

graft_status model_folder_load(adapter *, backend *, const char *folder, graft_error *);
/* Weights in the base's types, tensor by tensor; config.json, generation_config.json, tokenizer
 * files and chat templates are copied from the base's folder. */
graft_status model_folder_save(const adapter *, backend *, const weight_source *,
                               const char *folder, size_t shard_bytes_max, graft_error *);

#endif
