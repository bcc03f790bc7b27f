/* Methods that turn a layer's input before its frozen product: y = s * (W M x) + b, where M is a
 * map that a method gives as ops on activations (rotations of OFT and BOFT, reflections of HRA),
 * and s is a trained scale of the outputs or 1. Nothing as large as a weight is made, but to merge:
 * W M comes of the same ops, with the weight's rows as the tokens. */
#ifndef GRAFT_ADAPTER_INPUT_MAP_H
#define GRAFT_ADAPTER_INPUT_MAP_H

#include "adapter/shape.h"

struct input_map;

typedef struct input_map_method {
    int64_t (*scratch_elements)(const struct input_map *, int64_t n); /* NULL: none */
    /* z [n, in] = x M^T, token by token */
    void (*fwd)(const struct input_map *, backend *, device_array *z, const device_array *x,
                int64_t n, device_array *scratch);
    /* dx [n, in] (+)= dz M. */
    void (*transposed)(const struct input_map *, backend *, device_array *dx,
                       const device_array *dz, bool add, int64_t n, device_array *scratch);
    /* Adds the map's gradients. */
    void (*gradients)(const struct input_map *, backend *, const device_array *dz,
                      const device_array *x, const token_rows *, device_array *scratch);
} input_map_method;

typedef struct input_map { /* of one module */
    const input_map_method *method;
    const adapter *adapter;
    size_t module;
    int64_t in, out;
    const char *scale_suffix;    /* NULL: outputs are not scaled */
    const adapter_tensor *scale; /* [out]; found by input_map_bind */
    int64_t blocks, size;        /* the rest is the method's */
    size_t first, second;        /* in adapter.derived */
} input_map;

/* a->state becomes [n_modules] maps, with everything but the method's own set, and own_bytes zeroed
 * for the method. */
graft_status input_map_create(adapter *, const input_map_method *, const char *scale_suffix,
                              size_t own_bytes, graft_error *);
input_map *input_map_at(const adapter *, size_t module);
void *input_map_own(const adapter *); /* NULL before create */
/* Parts of an adapter_method. */
void input_map_bind(adapter *, model_hooks *);
void input_map_destroy(adapter *); /* frees the state */
graft_status input_map_merge(adapter *, backend *, size_t module, device_array *w,
                             device_array *bias, device_array *scratch, graft_error *);
int64_t input_map_merge_scratch(const adapter *, size_t module);

/* The map of rotations `first` [blocks, size, size], or one [size, size] for all blocks: each block
 * of x is multiplied by its rotation from the right. */
extern const input_map_method input_map_rotations;

#endif
