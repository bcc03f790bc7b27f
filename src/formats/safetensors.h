/* safetensors files: 8 bytes little-endian header length n, n bytes of JSON
 * {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ..., "__metadata__": {string:
 * string}}, then the tensors' bytes. Everything in a header is checked before a pointer is made:
 * docs/bad-input.md. */
#ifndef GRAFT_FORMATS_SAFETENSORS_H
#define GRAFT_FORMATS_SAFETENSORS_H

#include "base/file_map.h"
#include "base/message.h"
#include "tensor/view.h"

typedef struct safetensors safetensors;

/* Maps one file, or a sharded checkpoint through its index ("model.safetensors.index.json"): shards
 * are opened as files of the index's folder (names are checked: no '/', "..", backslash, NUL), each
 * once. */
graft_status safetensors_open(safetensors **, const char *path, graft_error *);
graft_status safetensors_open_index(safetensors **, const char *index_path, graft_error *);
/* DIR/model.safetensors if there is one (it wins over an index, as in Transformers), else the
 * index; names the remedy when there is only a pytorch_model.bin. Warnings (total_size that
 * differs) go to the sink. */
graft_status safetensors_open_model(safetensors **, const char *folder, const message_sink *,
                                    graft_error *);
void safetensors_close(safetensors **);

size_t safetensors_count(const safetensors *);
const char *safetensors_name(const safetensors *, size_t i); /* sorted by name */
/* Borrowed until close. False when there is no such tensor. data is NULL for a tensor of no
 * elements. */
bool safetensors_find(tensor_view *out, const safetensors *, const char *name);
tensor_view safetensors_at(const safetensors *, size_t i);
const char *safetensors_file_of(const safetensors *, size_t i);         /* path, for messages */
const char *safetensors_metadata(const safetensors *, const char *key); /* NULL when absent */
size_t safetensors_bytes(const safetensors *);                          /* of all mapped files */
/* GRAFT_E_INPUT when a mapped file was replaced or cut since it was opened. */
graft_status safetensors_verify_unchanged(const safetensors *, graft_error *);

/* Writing, with metadata {"format": "pt"}, atomically. Bytes equal those of the safetensors
 * library. */
typedef struct named_tensor {
    const char *name;
    tensor_view view;
} named_tensor;
/* Sorts as the safetensors library orders a file: wide types first (so every tensor lies aligned),
 * then by name. */
void safetensors_order(named_tensor *tensors, size_t n);
/* In that order, whatever order they are given in; data is taken from the views. */
graft_status safetensors_write(const char *path, const named_tensor *tensors, size_t n,
                               graft_error *);

/* Streaming form, for a model too large to gather: names, dtypes and shapes first, then each
 * tensor's bytes, in the order given (safetensors_order() them first). Adding less or more than the
 * shapes say is GRAFT_E_INTERNAL. */
typedef struct safetensors_writer safetensors_writer;
graft_status safetensors_writer_open(safetensors_writer **, const char *path,
                                     const named_tensor *shapes, size_t n, graft_error *);
graft_status safetensors_writer_add(safetensors_writer *, const void *bytes, size_t n,
                                    graft_error *);
graft_status safetensors_writer_commit(safetensors_writer **, graft_error *);
void safetensors_writer_abandon(safetensors_writer **);

#endif
