#include "generate/kv_cache.h"

#include "base/memory.h"

#include <assert.h>
#include <stdlib.h>

/* cache NULL: only counts. */
static void cache_layout(kv_cache *cache, layout *l, const model_spec *spec, int32_t capacity,
                         size_t element_bytes) {
    size_t width = (size_t)spec->n_kv_heads * (size_t)spec->head_dim;
    size_t value_width = (size_t)spec->n_kv_heads * (size_t)spec->value_dim;
    for (int32_t layer = 0; layer < spec->n_layers; layer++) {
        void *k = layout_take(l, COMPONENT_ACTIVATIONS, (size_t)capacity * width, element_bytes);
        void *v =
            layout_take(l, COMPONENT_ACTIVATIONS, (size_t)capacity * value_width, element_bytes);
        if (cache) {
            cache->k[layer] = k;
            cache->v[layer] = v;
        }
    }
}

size_t kv_cache_bytes(const model_spec *spec, int32_t capacity, size_t element_bytes) {
    layout l = layout_counting();
    cache_layout(NULL, &l, spec, capacity, element_bytes);
    return l.high_water;
}

graft_status kv_cache_create(kv_cache *cache, backend *dev, const model_spec *spec,
                             int32_t capacity, void *memory, graft_error *err) {
    size_t layers = (size_t)spec->n_layers;
    *cache = (kv_cache){.n_layers = spec->n_layers,
                        .capacity = capacity,
                        .width = (int64_t)spec->n_kv_heads * spec->head_dim,
                        .value_width = (int64_t)spec->n_kv_heads * spec->value_dim,
                        .k = mem_array(layers, sizeof(device_array *)),
                        .v = mem_array(layers, sizeof(device_array *)),
                        .views = mem_array(layers, sizeof(kv_view))};
    if (!cache->k || !cache->v || !cache->views) {
        kv_cache_free(cache);
        return error_memory(err, layers * sizeof(kv_view), "the KV cache");
    }
    layout l = layout_over(memory, kv_cache_bytes(spec, capacity, dev->element_bytes));
    cache_layout(cache, &l, spec, capacity, dev->element_bytes);
    kv_cache_advance(cache, 0);
    return GRAFT_OK;
}

void kv_cache_free(kv_cache *cache) {
    free(cache->k);
    free(cache->v);
    free(cache->views);
    *cache = (kv_cache){0};
}

void kv_cache_append(kv_cache *cache, backend *dev, int32_t layer, const device_array *k,
                     const device_array *v, int32_t n) {
    assert(n <= cache->capacity - cache->length);
    dev->ops->copy(dev, array_at(dev, cache->k[layer], cache->length * cache->width), k,
                   n * cache->width);
    dev->ops->copy(dev, array_at(dev, cache->v[layer], cache->length * cache->value_width), v,
                   n * cache->value_width);
}

void kv_cache_advance(kv_cache *cache, int32_t n) {
    cache->length += n;
    assert(cache->length >= 0 && cache->length <= cache->capacity);
    for (int32_t layer = 0; layer < cache->n_layers; layer++)
        cache->views[layer] =
            (kv_view){.k = cache->k[layer], .v = cache->v[layer], .length = cache->length};
}
