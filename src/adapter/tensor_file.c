#include "adapter/tensor_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK_ELEMENTS = 8192 };

static graft_status write_device(safetensors_writer *writer, backend *dev, const tensor_view *view,
                                 const device_array *from, graft_error *err) {
    float values[CHUNK_ELEMENTS];
    unsigned char stored[CHUNK_ELEMENTS * sizeof(float)];
    int64_t count = (int64_t)tensor_count(view);
    graft_status status = GRAFT_OK;
    for (int64_t done = 0; done < count && status == GRAFT_OK;) {
        int64_t n = count - done < CHUNK_ELEMENTS ? count - done : CHUNK_ELEMENTS;
        dev->ops->download(dev, values, array_at_const(dev, from, done), n);
        dtype_store_f32(stored, values, view->type, (size_t)n);
        status = safetensors_writer_add(writer, stored, (size_t)n * dtype_bytes(view->type), err);
        done += n;
    }
    return status;
}

/* ---- Integers ---- */

static graft_status write_integers(safetensors_writer *writer, const tensor_view *view,
                                   const int64_t *from, graft_error *err) {
    unsigned char stored[CHUNK_ELEMENTS * sizeof(int64_t)];
    const size_t count = tensor_count(view), size = dtype_bytes(view->type);
    graft_status status = GRAFT_OK;
    for (size_t done = 0; done < count && status == GRAFT_OK;) {
        size_t n = count - done < CHUNK_ELEMENTS ? count - done : CHUNK_ELEMENTS;
        for (size_t i = 0; i < n; i++) /* little-endian, as the format and the machine are */
            memcpy(stored + i * size, &from[done + i], size);
        status = safetensors_writer_add(writer, stored, n * size, err);
        done += n;
    }
    return status;
}

/* -1: no integer type. */
static int64_t integer_at(const tensor_view *view, size_t i) {
    const unsigned char *at = (const unsigned char *)view->data + i * dtype_bytes(view->type);
    int64_t wide = 0;
    int32_t narrow;
    int16_t short_one;
    switch (view->type) {
    case DTYPE_I64:
        memcpy(&wide, at, sizeof wide);
        return wide;
    case DTYPE_I32:
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    case DTYPE_I16:
        memcpy(&short_one, at, sizeof short_one);
        return short_one;
    case DTYPE_U8:
    case DTYPE_BOOL:
        return *at;
    default:
        return -1;
    }
}

graft_status tensor_load_integers(const adapter_tensor *t, const tensor_view *view,
                                  const char *path, graft_error *err) {
    for (int64_t i = 0; i < t->count; i++) {
        t->integers[i] = integer_at(view, (size_t)i);
        if (t->integers[i] < 0 || t->integers[i] > INT32_MAX)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: %s: element %lld: expected a whole number from 0 to %d (type "
                             "I64, I32, I16 or U8), found %lld in type %s",
                             path, t->key, (long long)i, INT32_MAX, (long long)t->integers[i],
                             dtype_name(view->type));
    }
    return GRAFT_OK;
}

tensor_source tensor_source_of(const adapter_tensor *t) {
    return (tensor_source){.device = t->value, .integers = t->integers};
}

/* ---- Files ---- */

graft_status tensor_file_write(const char *path, backend *dev, named_tensor *tensors, size_t n,
                               graft_error *err) {
    safetensors_writer *writer = NULL;
    safetensors_order(tensors, n);
    graft_status status = safetensors_writer_open(&writer, path, tensors, n, err);
    for (size_t i = 0; i < n && status == GRAFT_OK; i++) {
        const tensor_view *view = &tensors[i].view;
        const tensor_source *source = view->data;
        const device_array *made = source->device;
        if (source->make)
            status = source->make(source, dev, &made, err);
        if (status != GRAFT_OK)
            break;
        if (made)
            status = write_device(writer, dev, view, made, err);
        else if (source->integers)
            status = write_integers(writer, view, source->integers, err);
        else
            status = safetensors_writer_add(writer, source->stored, tensor_bytes(view), err);
    }
    if (status == GRAFT_OK)
        status = safetensors_writer_commit(&writer, err);
    safetensors_writer_abandon(&writer);
    return status;
}

void tensor_named(named_tensor *out, const adapter_tensor *t, dtype type,
                  const tensor_source *source) {
    out->name = t->key;
    out->view = (tensor_view){.data = source, .type = type, .rank = t->rank};
    memcpy(out->view.shape, t->shape, sizeof t->shape);
}

graft_status tensor_check_values(const tensor_view *view, const char *key, const char *path,
                                 graft_error *err) {
    float values[CHUNK_ELEMENTS];
    if (!dtype_is_weight(view->type) && view->type != DTYPE_F64)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s has type %s; expected weights in F32, BF16 or F16 (quantised or "
                         "integer adapters are not read)",
                         path, key, dtype_name(view->type));
    size_t count = tensor_count(view);
    for (size_t done = 0; done < count;) {
        size_t n = count - done < CHUNK_ELEMENTS ? count - done : CHUNK_ELEMENTS;
        const unsigned char *stored = view->data;
        dtype_load_f32(values, stored + done * dtype_bytes(view->type), view->type, n);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(values[i]))
                return error_set(err, GRAFT_E_INPUT,
                                 "%s: %s: element %zu is %s; such an adapter only gives NaN: take "
                                 "an earlier checkpoint",
                                 path, key, done + i, isnan(values[i]) ? "NaN" : "infinite");
        done += n;
    }
    return GRAFT_OK;
}

const char *tensor_expected_shape(const adapter_tensor *t, char *text, size_t capacity) {
    tensor_view view = {.rank = t->rank};
    memcpy(view.shape, t->shape, sizeof t->shape);
    return tensor_shape_text(&view, text, capacity);
}
