/* Methods that change a few entries of a weight: W' = W + the sum over trained values of value
 * times its entries. SHiRA and Super-Tuning have one entry for a value; WaveFT's values are wavelet
 * coefficients, which reach a small patch each. The change is added to the layer's weight where it
 * is made dense for the moment (dense_weight.h). */
#ifndef GRAFT_ADAPTER_SPARSE_WEIGHT_H
#define GRAFT_ADAPTER_SPARSE_WEIGHT_H

#include "adapter/dense_weight.h"

/* Where the values of a module act. Modules may share one. */
typedef struct sparse_entries {
    int64_t n;
    int32_t *place;          /* [n] in the weight, flat; places may repeat */
    int32_t *source;         /* [n] which value; NULL: entry i has value i */
    double *factor;          /* [n]; NULL: all 1 */
    size_t factor_on_device; /* derived: [n], where there are factors */
} sparse_entries;

/* Parts of a dense_method. */
int64_t sparse_scratch_elements(const dense_weight *);
/* Adds the entries of `values`. */
void sparse_apply(const dense_weight *, backend *, device_array *w, device_array *scratch);
void sparse_apply_bwd(const dense_weight *, backend *, device_array *d_w, const device_array *base,
                      device_array *scratch);

/* Allocates place, and source and factor when asked to. */
graft_status sparse_entries_create(sparse_entries **, adapter *, int64_t n, bool has_factors,
                                   graft_error *);
void sparse_entries_free(sparse_entries **);
/* The entries of a target, after dense_create. */
sparse_entries *sparse_entries_of(const adapter *, size_t module);
void sparse_entries_set(adapter *, size_t module, sparse_entries *);
/* A method's destroy and prepare: frees the entries with the weights; uploads factors. */
void sparse_destroy(adapter *);
graft_status sparse_prepare(adapter *, backend *, weight_source *, graft_error *);
/* torch.randperm(elements)[:n] of a generator with this seed; caller frees. */
graft_status random_places(int32_t **out, int64_t n, int64_t elements, uint64_t seed,
                           graft_error *);
/* GRAFT_E_UNSUPPORTED for a weight of more entries than places can number. */
graft_status sparse_check_size(const model_module *, const char *method, graft_error *);

#endif
