/* Trained tensors in and out of safetensors files, through a small buffer: no tensor is held twice.
 */
#ifndef GRAFT_ADAPTER_TENSOR_FILE_H
#define GRAFT_ADAPTER_TENSOR_FILE_H

#include "adapter/adapter.h"

/* Where the bytes of one tensor of a file come from. */
typedef struct tensor_source {
    /* Makes the elements when their turn comes, in memory that lasts until the next; NULL: */
    graft_status (*make)(const struct tensor_source *, backend *, const device_array **out,
                         graft_error *);
    void *context;
    size_t module;              /* for make */
    const device_array *device; /* elements, written in the file's type; NULL: */
    const int64_t *integers;    /* written in the file's type; NULL: */
    const void *stored;         /* bytes as they are written */
} tensor_source;

/* Writes the tensors in the library's order; view.data of each points to its tensor_source.
 * Reorders `tensors`. */
graft_status tensor_file_write(const char *path, backend *, named_tensor *tensors, size_t n,
                               graft_error *);

/* The source of a tensor's value. */
tensor_source tensor_source_of(const adapter_tensor *);

/* An integer tensor's values, from any integer type, each within [0, INT32_MAX]. */
graft_status tensor_load_integers(const adapter_tensor *, const tensor_view *, const char *path,
                                  graft_error *);
/* Refuses integers, NaN and infinity. `key` and `path` are for the message. */
graft_status tensor_check_values(const tensor_view *, const char *key, const char *path,
                                 graft_error *);
/* "[8, 64]" of a trained tensor. */
const char *tensor_expected_shape(const adapter_tensor *, char *text, size_t capacity);
/* The view of a trained tensor in a file: type, shape and source. */
void tensor_named(named_tensor *, const adapter_tensor *, dtype, const tensor_source *);

#endif
