#include "base/layout.h"

#include "base/memory.h"

#include <assert.h>
#include <string.h>

const char *component_name(component what) {
    static const char *const names[N_COMPONENTS] = {
        [COMPONENT_WEIGHTS] = "weights",     [COMPONENT_ADAPTER] = "adapter",
        [COMPONENT_GRADIENTS] = "gradients", [COMPONENT_OPTIMIZER] = "optimizer",
        [COMPONENT_ACTIVATIONS] = "activations", [COMPONENT_WORKSPACE] = "workspace",
    };
    return names[what];
}

layout layout_counting(void) {
    return (layout){0};
}

layout layout_over(void *memory, size_t capacity) {
    assert(memory && (uintptr_t)memory % LAYOUT_ALIGNMENT == 0);
    return (layout){.base = memory, .capacity = capacity};
}

void *layout_take(layout *l, component what, size_t count, size_t element_bytes) {
    size_t bytes, end;
    if (!size_mul(&bytes, count, element_bytes) || !size_add(&bytes, bytes, LAYOUT_ALIGNMENT - 1) ||
        !size_add(&end, l->used, bytes & ~(size_t)(LAYOUT_ALIGNMENT - 1))) {
        l->overflow = true;
        return NULL;
    }
    bytes &= ~(size_t)(LAYOUT_ALIGNMENT - 1);
    void *place = l->base ? l->base + l->used : NULL;
    l->used = end;
    l->now[what] += bytes;
    if (end > l->high_water) {
        l->high_water = end;
        memcpy(l->at_high_water, l->now, sizeof l->now);
    }
    assert(!l->base || end <= l->capacity);
    return place;
}

layout_place layout_mark(const layout *l) {
    layout_place place = {.used = l->used};
    memcpy(place.now, l->now, sizeof place.now);
    return place;
}

void layout_release(layout *l, layout_place place) {
    assert(place.used <= l->used);
    l->used = place.used;
    memcpy(l->now, place.now, sizeof l->now);
}
