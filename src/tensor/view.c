#include "tensor/view.h"

#include <stdio.h>
#include <string.h>

size_t tensor_count(const tensor_view *t) {
    size_t count = 1;
    for (int i = 0; i < t->rank; i++)
        count *= (size_t)t->shape[i];
    return count;
}

size_t tensor_bytes(const tensor_view *t) {
    return tensor_count(t) * dtype_bytes(t->type);
}

bool tensor_has_shape(const tensor_view *view, int32_t rank, const int64_t *shape) {
    return view->rank == rank && !memcmp(view->shape, shape, (size_t)rank * sizeof *shape);
}

const char *tensor_shape_text(const tensor_view *t, char *text, size_t capacity) {
    size_t used = (size_t)snprintf(text, capacity, "[");
    for (int i = 0; i < t->rank && used < capacity; i++)
        used += (size_t)snprintf(text + used, capacity - used, "%s%lld", i ? ", " : "",
                                 (long long)t->shape[i]);
    if (used < capacity)
        snprintf(text + used, capacity - used, "]");
    return text;
}
