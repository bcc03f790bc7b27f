#include "model/step_arena.h"

#include "base/memory.h"

#include <stdlib.h>

static graft_status describe(step_arena *a, layout *device, layout *host, const model_run *run,
                             const step_limits *limits, graft_error *err) {
    const sequence_hook *sequence = &run->hooks->sequence;
    step_limits whole = *limits;
    whole.max_tokens += sequence->n_virtual;
    whole.max_labelled += limits->training ? sequence->n_virtual : 0;
    batch_builder_layout(&a->builder, host, whole.max_tokens, whole.max_segments, whole.max_jobs,
                         sequence);
    return step_layout(&a->step, a->saved, device, host, run->spec, run->hooks, &whole,
                       run->dev->element_bytes, err);
}

static graft_status allocate(step_arena *a, const model_run *run, const step_limits *limits,
                             const char *what, graft_error *err) {
    a->saved = mem_array((size_t)run->spec->n_layers, sizeof *a->saved);
    if (!a->saved)
        return error_memory(err, (size_t)run->spec->n_layers * sizeof *a->saved, what);
    layout device = layout_counting(), host = layout_counting();
    graft_status status = describe(a, &device, &host, run, limits, err);
    if (status != GRAFT_OK)
        return status;
    a->device_memory = a->dev->ops->alloc(a->dev, device.high_water);
    a->host_memory =
        aligned_alloc(LAYOUT_ALIGNMENT, host.high_water ? host.high_water : LAYOUT_ALIGNMENT);
    if (!a->device_memory || !a->host_memory)
        return error_memory(err, device.high_water + host.high_water, what);
    device = layout_over(a->device_memory, device.high_water);
    host = layout_over(a->host_memory, host.high_water);
    return describe(a, &device, &host, run, limits, err);
}

graft_status step_arena_create(step_arena *a, const model_run *run, const step_limits *limits,
                               const char *what, graft_error *err) {
    *a = (step_arena){.dev = run->dev};
    graft_status status = allocate(a, run, limits, what, err);
    if (status != GRAFT_OK)
        step_arena_free(a);
    return status;
}

void step_arena_free(step_arena *a) {
    if (a->device_memory)
        a->dev->ops->release(a->dev, a->device_memory);
    free(a->host_memory);
    free(a->saved);
    *a = (step_arena){0};
}
