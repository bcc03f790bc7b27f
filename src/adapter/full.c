/* Full fine-tuning: every base tensor trains, as a master in the backend's element type. A tied
 * embedding is one. */
#include "adapter/freed.h"
#include "adapter/methods.h"
#include "adapter/model_folder.h"
#include "base/memory.h"

#include <stdio.h>

static void add(adapter *a, size_t module, bool is_bias) {
    adapter_tensor *t = &a->tensors[a->n_tensors++];
    freed_tensor(t, a, module, is_bias);
    freed_base_name(t->key, sizeof t->key, a, module, is_bias);
}

static graft_status full_shape(adapter *a, const message_sink *sink, graft_error *err) {
    a->tensors = mem_array(2 * a->n_modules, sizeof *a->tensors);
    if (!a->tensors)
        return error_memory(err, 2 * a->n_modules * sizeof *a->tensors, "the model's tensors");
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->modules[i].is_tied)
            add(a, i, false);
        if (a->modules[i].has_bias)
            add(a, i, true);
    }
    if (a->spec->is_head_tied)
        message_emit(sink, MESSAGE_INFO, "%s and %s are tied: one weight trains for both",
                     a->spec->family->embedding_name, a->spec->family->head_name);
    return GRAFT_OK;
}

static graft_status full_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    (void)random;
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++)
        status = freed_init(a, &a->tensors[i], dev, weights, err);
    return status;
}

static void full_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_tensors; i++)
        freed_bind(a, &a->tensors[i], hooks);
    /* The embedding is the first module, its weight the first tensor. */
    if (a->spec->is_head_tied)
        freed_bind_tied_head(a, &a->tensors[0], hooks);
}

static graft_status full_load(adapter *a, backend *dev, const weight_source *weights,
                              const char *folder, graft_error *err) {
    (void)weights;
    return model_folder_load(a, dev, folder, err);
}

static graft_status full_save(const adapter *a, backend *dev, const weight_source *weights,
                              const char *folder, const char *base_name, graft_error *err) {
    (void)base_name;
    return model_folder_save(a, dev, weights, folder, MODEL_SHARD_BYTES_MAX, err);
}

const adapter_method full_method = {
    .peft_type = "FULL",
    .name = "full",
    .summary = "every weight of the base trains (full fine-tuning)",
    .family = "whole weights",
    .needs_plain_base = true,
    .shape = full_shape,
    .init = full_init,
    .bind = full_bind,
    .load = full_load,
    .save = full_save,
};
