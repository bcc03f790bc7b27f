/* Methods that make a layer's whole weight for the moment: W' = f(W, tensors). The layer then is
 * one product with W', and backward makes dW' by one more; no more than one layer's weight exists
 * at a time. A method gives f, its backward, and the names of its tensors. */
#ifndef GRAFT_ADAPTER_DENSE_WEIGHT_H
#define GRAFT_ADAPTER_DENSE_WEIGHT_H

#include "adapter/shape.h"

enum { DENSE_TENSORS_MAX = 8 };

typedef struct dense_weight { /* of one module */
    const struct dense_method *method;
    adapter *adapter;
    size_t module;
    int64_t rows, cols;
    double scale;                               /* free for the method's use */
    void *own;                                  /* likewise; the method frees it */
    adapter_tensor *tensors[DENSE_TENSORS_MAX]; /* by method->suffixes; NULL: the module has none */
} dense_weight;

typedef struct dense_method {
    const char *suffixes[DENSE_TENSORS_MAX + 1];       /* "hada_w1_a", ...; ends with NULL */
    bool needs_base;                                   /* backward reads the base's weight */
    int64_t (*scratch_elements)(const dense_weight *); /* NULL: none */
    double (*scale)(const adapter *, size_t module);   /* fills dense_weight.scale; NULL: 1 */
    /* w [rows, cols] holds the base's weight, and becomes the adapted one. */
    void (*apply)(const dense_weight *, backend *, device_array *w, device_array *scratch);
    /* The same for the weight that gives the input's gradient, where PEFT's differs from the true
     * one (C3A); NULL: apply's. */
    void (*apply_for_input)(const dense_weight *, backend *, device_array *w,
                            device_array *scratch);
    /* d_w [rows, cols] is the gradient of the adapted weight, and may be changed; base is NULL
     * unless needs_base. Gradients of the tensors are added to. */
    void (*apply_bwd)(const dense_weight *, backend *, device_array *d_w, const device_array *base,
                      device_array *scratch);
    /* The same for a layer's bias [rows], where it has one; w holds the base's weight. NULL: the
     * bias stays. */
    void (*apply_bias)(const dense_weight *, backend *, device_array *bias, const device_array *w,
                       device_array *scratch);
    void (*apply_bias_bwd)(const dense_weight *, backend *, const device_array *d_bias,
                           const device_array *base_bias, const device_array *w,
                           device_array *scratch);
} dense_method;

/* m [rows, cols] (+)= scale a b of two tensors, a [rows, k], b [k, cols]; and their gradients from
 * scale dm. */
void factors_product(backend *, device_array *m, const adapter_tensor *a, const adapter_tensor *b,
                     double scale, bool add);
void factors_product_bwd(backend *, const device_array *dm, const adapter_tensor *a,
                         const adapter_tensor *b, double scale);

/* A method's bind: puts a form into the hook of every target. Makes a->state on the first call
 * (GRAFT_E_MEMORY is impossible later); call dense_create at the end of shape. */
graft_status dense_create(adapter *, const dense_method *, graft_error *);
dense_weight *dense_weight_at(const adapter *, size_t module);
void dense_bind(adapter *, model_hooks *);
void dense_destroy(adapter *);
graft_status dense_merge(adapter *, backend *, size_t module, device_array *w, device_array *bias,
                         device_array *scratch, graft_error *);
int64_t dense_merge_scratch(const adapter *, size_t module);

#endif
