/* Keys and values of what a model has read so far, for every layer. */
#ifndef GRAFT_GENERATE_KV_CACHE_H
#define GRAFT_GENERATE_KV_CACHE_H

#include "model/transformer.h"

typedef struct kv_cache {
    int32_t n_layers, capacity; /* tokens */
    int32_t length;             /* tokens that every layer holds */
    int64_t width, value_width; /* of a token's keys and values */
    device_array **k, **v;      /* [n_layers] of [capacity, width], [capacity, value_width] */
    kv_view *views;             /* [n_layers] of the first `length` tokens: a segment's past */
} kv_cache;

/* Device memory for `capacity` tokens. */
size_t kv_cache_bytes(const model_spec *, int32_t capacity, size_t element_bytes);
/* Empty, over memory of that size, which it borrows. */
graft_status kv_cache_create(kv_cache *, backend *, const model_spec *, int32_t capacity,
                             void *memory, graft_error *);
void kv_cache_free(kv_cache *);
/* Copies one layer's keys and values of n tokens behind those that the cache holds. They count once
 * every layer has its own: kv_cache_advance. */
void kv_cache_append(kv_cache *, backend *, int32_t layer, const device_array *k,
                     const device_array *v, int32_t n);
/* n < 0 forgets the last -n tokens. */
void kv_cache_advance(kv_cache *, int32_t n);

#endif
