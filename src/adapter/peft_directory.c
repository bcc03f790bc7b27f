/* A PEFT directory: adapter_model.safetensors and adapter_config.json. */
#include "adapter/methods.h"
#include "adapter/peft_keys.h"
#include "adapter/tensor_file.h"
#include "base/atomic_file.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static const char tensors_name[] = "adapter_model.safetensors";
/* Trained tensors that PEFT does not save. */
static const char unsaved_name[] = "prompt_encoder.safetensors";

/* ---- Reading ---- */

static graft_status find_tensors(char **path, const char *folder, graft_error *err) {
    char *pickle = path_join(folder, "adapter_model.bin");
    *path = path_join(folder, tensors_name);
    graft_status status = GRAFT_OK;
    if (!*path || !pickle)
        status = error_memory(err, strlen(folder) + sizeof tensors_name, "a path");
    else if (!path_exists(*path) && path_exists(pickle))
        status = error_set(err, GRAFT_E_UNSUPPORTED,
                           "%s: only a pickle is here, which can run code when it is read and is "
                           "not supported; load the adapter in PEFT and save it again: it then "
                           "writes %s",
                           pickle, tensors_name);
    else if (!path_exists(*path))
        status = error_set(err, GRAFT_E_INPUT, "%s: there is no such file", *path);
    free(pickle);
    return status;
}

static int compare_keys(const void *key, const void *tensor) {
    return strcmp(key, ((const adapter_tensor *)tensor)->key);
}

static bool has_key(const adapter *a, const char *key) {
    for (size_t i = 0; i < a->n_copies; i++)
        if (!strcmp(a->copies[i].key, key))
            return true;
    const adapter_tensor *found =
        bsearch(key, a->tensors, a->n_tensors, sizeof *a->tensors, compare_keys);
    return found && !found->is_unsaved && !found->is_rebuilt;
}

/* The tensors that PEFT's file holds, or those it does not. */
static graft_status check_own(const adapter *a, const safetensors *file, bool is_unsaved,
                              const char *path, graft_error *err) {
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        tensor_view view;
        if (t->is_unsaved != is_unsaved || t->is_rebuilt)
            continue;
        if (!safetensors_find(&view, file, t->key))
            return peft_refuse_missing(t, file, path, err);
        if (!tensor_has_shape(&view, t->rank, t->shape))
            return peft_refuse_shape(a, t, &view, path, err);
        graft_status status = t->integers ? tensor_load_integers(t, &view, path, err)
                                          : tensor_check_values(&view, t->key, path, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static graft_status check_tensors(const adapter *a, const safetensors *file, const char *path,
                                  graft_error *err) {
    for (size_t i = 0; i < safetensors_count(file); i++)
        if (!has_key(a, safetensors_name(file, i)))
            return peft_refuse_key(a, safetensors_name(file, i), path, err);
    return check_own(a, file, false, path, err);
}

static bool views_equal(const tensor_view *a, const tensor_view *b) {
    size_t count = tensor_count(a);
    if (a->type == b->type)
        return !memcmp(a->data, b->data, tensor_bytes(a));
    for (size_t i = 0; i < count; i++) {
        float left, right;
        dtype_load_f32(&left, (const unsigned char *)a->data + i * dtype_bytes(a->type), a->type,
                       1);
        dtype_load_f32(&right, (const unsigned char *)b->data + i * dtype_bytes(b->type), b->type,
                       1);
        if (left != right)
            return false;
    }
    return true;
}

/* Copies of base weights, where PEFT was told to save them or not to, must be the base's: PEFT
 * would overwrite the base with them. Copies of trained tensors must be equal to these. */
static graft_status check_copies(const adapter *a, const safetensors *file,
                                 const weight_source *weights, const char *path, graft_error *err) {
    for (size_t i = 0; i < a->n_copies; i++) {
        const saved_copy *copy = &a->copies[i];
        tensor_view view, of;
        if (!safetensors_find(&view, file, copy->key))
            continue;
        if (!tensor_has_shape(&view, copy->rank, copy->shape))
            return error_set(err, GRAFT_E_UNSUPPORTED,
                             "%s: %s has another shape than the base's: an adapter over a resized "
                             "vocabulary is not supported",
                             path, copy->key);
        graft_status status = tensor_check_values(&view, copy->key, path, err);
        if (status != GRAFT_OK)
            return status;
        bool is_there = copy->is_base
                            ? weights && weight_source_tensor(&of, weights, copy->base_name)
                            : safetensors_find(&of, file, a->tensors[copy->tensor].key);
        if (is_there && !views_equal(&view, &of))
            return error_set(err, GRAFT_E_UNSUPPORTED,
                             "%s: %s differs from %s: an adapter that brings its own version of "
                             "that weight is not supported",
                             path, copy->key,
                             copy->is_base ? "the base's" : a->tensors[copy->tensor].key);
    }
    return GRAFT_OK;
}

static void upload_tensors(const adapter *a, backend *dev, const safetensors *file,
                           bool is_unsaved) {
    for (size_t i = 0; i < a->n_tensors; i++) {
        tensor_view view;
        if (a->tensors[i].integers || a->tensors[i].is_rebuilt ||
            a->tensors[i].is_unsaved != is_unsaved)
            continue;
        safetensors_find(&view, file, a->tensors[i].key);
        dev->ops->upload(dev, a->tensors[i].value, view.data, view.type, a->tensors[i].count);
    }
}

static bool has_unsaved(const adapter *a) {
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].is_unsaved)
            return true;
    return false;
}

/* A folder that PEFT wrote has no such file. */
static graft_status load_unsaved(adapter *a, backend *dev, const char *folder, graft_error *err) {
    a->lacks_unsaved = false;
    if (!has_unsaved(a))
        return GRAFT_OK;
    char *path = path_join(folder, unsaved_name);
    safetensors *file = NULL;
    graft_status status = path ? GRAFT_OK : error_memory(err, strlen(folder), "a path");
    a->lacks_unsaved = path && !path_exists(path);
    if (status == GRAFT_OK && !a->lacks_unsaved)
        status = safetensors_open(&file, path, err);
    if (status == GRAFT_OK && file)
        status = check_own(a, file, true, path, err);
    if (status == GRAFT_OK && file)
        upload_tensors(a, dev, file, true);
    safetensors_close(&file);
    free(path);
    return status;
}

graft_status peft_load(adapter *a, backend *dev, const weight_source *weights, const char *folder,
                       graft_error *err) {
    char *path = NULL;
    safetensors *file = NULL;
    graft_status status = find_tensors(&path, folder, err);
    if (status == GRAFT_OK)
        status = safetensors_open(&file, path, err);
    if (status == GRAFT_OK)
        status = check_tensors(a, file, path, err);
    if (status == GRAFT_OK)
        status = check_copies(a, file, weights, path, err);
    if (status == GRAFT_OK)
        upload_tensors(a, dev, file, false);
    safetensors_close(&file);
    free(path);
    return status == GRAFT_OK ? load_unsaved(a, dev, folder, err) : status;
}

/* ---- Writing ---- */

static graft_status describe_copy(named_tensor *out, tensor_source *source, const adapter *a,
                                  const saved_copy *copy, const weight_source *weights,
                                  graft_error *err) {
    tensor_view stored;
    if (!copy->is_base) {
        source->device = a->tensors[copy->tensor].value;
        tensor_named(out, &a->tensors[copy->tensor], DTYPE_F32, source);
    } else if (weights && weight_source_tensor(&stored, weights, copy->base_name)) {
        source->stored = stored.data;
        out->view = stored;
        out->view.data = source;
    } else {
        return error_set(err, GRAFT_E_INTERNAL, "%s is a copy of the base's %s, which is not open",
                         copy->key, copy->base_name);
    }
    out->name = copy->key;
    return GRAFT_OK;
}

static graft_status write_tensors(const adapter *a, backend *dev, const weight_source *weights,
                                  const char *path, graft_error *err) {
    size_t n = a->n_tensors + a->n_copies;
    named_tensor *named = mem_array(n, sizeof *named);
    tensor_source *sources = mem_array(n, sizeof *sources);
    graft_status status = GRAFT_OK;
    if (!named || !sources)
        status = error_memory(err, n * sizeof *named, path);
    size_t used = 0;
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->is_unsaved || t->is_rebuilt)
            continue;
        sources[used] = tensor_source_of(t);
        tensor_named(&named[used], t, t->stored, &sources[used]);
        used++;
    }
    for (size_t i = 0; i < a->n_copies && status == GRAFT_OK; i++)
        if (a->copies[i].is_written) {
            status = describe_copy(&named[used], &sources[used], a, &a->copies[i], weights, err);
            used++;
        }
    if (status == GRAFT_OK)
        status = tensor_file_write(path, dev, named, used, err);
    free(named);
    free(sources);
    return status;
}

static graft_status write_unsaved(const adapter *a, backend *dev, const char *folder,
                                  graft_error *err) {
    if (!has_unsaved(a) || a->lacks_unsaved)
        return GRAFT_OK;
    char *path = path_join(folder, unsaved_name);
    named_tensor *named = mem_array(a->n_tensors, sizeof *named);
    tensor_source *sources = mem_array(a->n_tensors, sizeof *sources);
    graft_status status = path && named && sources
                              ? GRAFT_OK
                              : error_memory(err, a->n_tensors * sizeof *named, unsaved_name);
    size_t used = 0;
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++) {
        if (!a->tensors[i].is_unsaved)
            continue;
        sources[used] = tensor_source_of(&a->tensors[i]);
        tensor_named(&named[used], &a->tensors[i], DTYPE_F32, &sources[used]);
        used++;
    }
    if (status == GRAFT_OK)
        status = tensor_file_write(path, dev, named, used, err);
    free(named);
    free(sources);
    free(path);
    return status;
}

static graft_status write_config(const adapter *a, const char *path, const char *base_name,
                                 graft_error *err) {
    strbuf text = {0};
    graft_status status = adapter_config_write(&text, &a->config, base_name, err);
    if (status == GRAFT_OK)
        status = file_write_atomic(path, text.data, text.length, err);
    strbuf_free(&text);
    return status;
}

graft_status peft_save(const adapter *a, backend *dev, const weight_source *weights,
                       const char *folder, const char *base_name, graft_error *err) {
    char *tensors = path_join(folder, tensors_name);
    char *config = path_join(folder, "adapter_config.json");
    graft_status status = GRAFT_OK;
    if (!tensors || !config)
        status = error_memory(err, strlen(folder), "a path");
    if (status == GRAFT_OK)
        status = folder_create(folder, err);
    if (status == GRAFT_OK)
        status = write_tensors(a, dev, weights, tensors, err);
    if (status == GRAFT_OK)
        status = write_unsaved(a, dev, folder, err);
    if (status == GRAFT_OK)
        status = write_config(a, config, base_name, err);
    free(tensors);
    free(config);
    return status;
}

graft_status adapter_save_gradients(const adapter *a, backend *dev, const char *path,
                                    graft_error *err) {
    named_tensor *named = mem_array(a->n_tensors, sizeof *named);
    tensor_source *sources = mem_array(a->n_tensors, sizeof *sources);
    graft_status status = GRAFT_OK;
    if (!named || !sources)
        status = error_memory(err, a->n_tensors * sizeof *named, path);
    size_t used = 0;
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++) {
        if (a->tensors[i].is_fixed)
            continue;
        sources[used].device = a->tensors[i].gradient;
        tensor_named(&named[used], &a->tensors[i], DTYPE_F32, &sources[used]);
        used++;
    }
    if (status == GRAFT_OK)
        status = tensor_file_write(path, dev, named, used, err);
    free(named);
    free(sources);
    return status;
}
