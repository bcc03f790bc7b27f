#include "adapter/model_folder.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* ---- Reading ---- */

static bool has_key(const adapter *a, const char *key) {
    for (size_t i = 0; i < a->n_tensors; i++)
        if (!strcmp(a->tensors[i].key, key))
            return true;
    return false;
}

static graft_status check_tensor(const adapter_tensor *t, const safetensors *files,
                                 const char *folder, graft_error *err) {
    tensor_view view;
    char expected[64], found[128];
    if (!safetensors_find(&view, files, t->key))
        return error_set(err, GRAFT_E_INPUT, "%s: the model lacks %s", folder, t->key);
    if (!tensor_has_shape(&view, t->rank, t->shape))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s has shape %s, expected %s: it is another model", folder, t->key,
                         tensor_shape_text(&view, found, sizeof found),
                         tensor_expected_shape(t, expected, sizeof expected));
    return tensor_check_values(&view, t->key, folder, err);
}

graft_status model_folder_load(adapter *a, backend *dev, const char *folder, graft_error *err) {
    safetensors *files = NULL;
    graft_status status = safetensors_open_model(&files, folder, NULL, err);
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++)
        status = check_tensor(&a->tensors[i], files, folder, err);
    for (size_t i = 0; status == GRAFT_OK && i < safetensors_count(files); i++)
        if (!has_key(a, safetensors_name(files, i)))
            status = error_set(err, GRAFT_E_INPUT, "%s: %s is no tensor of this model", folder,
                               safetensors_name(files, i));
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++) {
        tensor_view view;
        safetensors_find(&view, files, a->tensors[i].key);
        dev->ops->upload(dev, a->tensors[i].value, view.data, view.type, a->tensors[i].count);
    }
    safetensors_close(&files);
    return status;
}

/* ---- Writing ---- */

static graft_status describe(named_tensor *named, tensor_source *sources, const adapter *a,
                             const weight_source *weights, graft_error *err) {
    for (size_t i = 0; i < a->n_tensors; i++) {
        tensor_view stored;
        if (!weights || !weight_source_tensor(&stored, weights, a->tensors[i].key))
            return error_set(err, GRAFT_E_INTERNAL, "the base's %s is not open", a->tensors[i].key);
        sources[i].device = a->tensors[i].value;
        tensor_named(&named[i], &a->tensors[i], stored.type, &sources[i]);
    }
    return GRAFT_OK;
}

graft_status model_folder_save(const adapter *a, backend *dev, const weight_source *weights,
                               const char *folder, size_t shard_bytes_max, graft_error *err) {
    named_tensor *named = mem_array(a->n_tensors, sizeof *named);
    tensor_source *sources = mem_array(a->n_tensors, sizeof *sources);
    graft_status status =
        named && sources ? describe(named, sources, a, weights, err)
                         : error_memory(err, a->n_tensors * sizeof *named, "the model's tensors");
    if (status == GRAFT_OK)
        status = model_writer_weights(dev, named, a->n_tensors, folder, shard_bytes_max, err);
    if (status == GRAFT_OK)
        status = model_writer_companions(weights, folder, err);
    free(named);
    free(sources);
    return status;
}
