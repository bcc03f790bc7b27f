/* A device that holds arrays and runs ops on them.
 *
 * Upper layers name memory by handles and never read it: a handle points to elements of the
 * backend's own type (float on the CPU, double in the reference backend, device memory on a GPU),
 * and only uploads and downloads cross over. Ops are enqueued in order; a download waits for them.
 *
 * Two backends are here: cpu (f32, fast, threads) and reference (f64, one thread, written to be
 * read). The same model code runs on both, so that whole models are checked against finite
 * differences in double precision.
 */
#ifndef GRAFT_BACKEND_BACKEND_H
#define GRAFT_BACKEND_BACKEND_H

#include "base/cpu_features.h"
#include "base/status.h"
#include "tensor/dtype.h"

typedef struct device_array device_array; /* a handle to elements; never defined */
struct op_table;

/* What the linear ops multiply activations by frozen weights in. Adapters, norms, attention,
 * losses, optimizers and weights that train are f32 always. */
typedef enum compute_type {
    COMPUTE_F32,  /* exact: what parity means */
    COMPUTE_BF16, /* both rounded to bf16, sums in f32 */
    COMPUTE_INT8, /* both rounded to int8 by blocks of 64 along the sum: backend/quantize.h */
    N_COMPUTE_TYPES
} compute_type;

typedef struct backend {
    const struct op_table *ops;
    const char *name; /* "cpu", "reference" */
    dtype element;    /* DTYPE_F32 or DTYPE_F64 */
    size_t element_bytes;
    int32_t n_threads;
    size_t workspace_bytes; /* fixed memory of its own, counted as workspace */
    compute_type compute;   /* set by backend_set_compute; F32 at first */
} backend;

/* n_threads 0: one a core. `features` limits the instruction sets (see cpu_features_mask). */
graft_status backend_create_cpu(backend **, int32_t n_threads, const cpu_features *features,
                                graft_error *);
graft_status backend_create_reference(backend **, graft_error *);
void backend_destroy(backend **);

/* Sets dev->compute, which takes no memory. On the CPU the type's kernels are chosen by `features`;
 * where the best of them gain too little over f32, GRAFT_E_USAGE says what the processor has,
 * unless `force`. The reference backend takes every type. */
graft_status backend_set_compute(backend *dev, compute_type, const cpu_features *features,
                                 bool force, graft_error *);
const char *compute_type_name(compute_type); /* "f32", "bf16", "int8" */
/* The kernels that a CPU backend with these features would multiply in this type with; whether they
 * gain enough over its f32 kernels. */
const char *backend_cpu_compute_kernels(bool *gains, compute_type, const cpu_features *);

/* The kernels a CPU backend runs with these features, for people: "avx2". */
const char *backend_cpu_kernels(const cpu_features *);
/* Fixed workspace that a CPU backend of so many threads will hold, without making one. */
size_t backend_cpu_workspace_bytes(int32_t n_threads);

/* The handle of element `offset` of an array. */
static inline device_array *array_at(const backend *dev, device_array *array, int64_t offset) {
    return (device_array *)((unsigned char *)array + offset * (int64_t)dev->element_bytes);
}
static inline const device_array *array_at_const(const backend *dev, const device_array *array,
                                                 int64_t offset) {
    return (const device_array *)((const unsigned char *)array +
                                  offset * (int64_t)dev->element_bytes);
}

#endif
