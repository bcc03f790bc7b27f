/* A borrowed tensor: where its elements lie, their type and shape. Row-major, contiguous. */
#ifndef GRAFT_TENSOR_VIEW_H
#define GRAFT_TENSOR_VIEW_H

#include "tensor/dtype.h"

enum { TENSOR_RANK_MAX = 8 };

typedef struct tensor_view {
    const void *data;
    dtype type;
    int32_t rank;
    int64_t shape[TENSOR_RANK_MAX];
} tensor_view;

size_t tensor_count(const tensor_view *); /* elements; 1 for rank 0 */
size_t tensor_bytes(const tensor_view *);
bool tensor_has_shape(const tensor_view *, int32_t rank, const int64_t *shape);
/* "[2, 3]" into text; returns text. */
const char *tensor_shape_text(const tensor_view *, char *text, size_t capacity);

#endif
