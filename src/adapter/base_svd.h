/* Singular value decompositions of the base's weights, as torch.linalg.svd makes them. */
#ifndef GRAFT_ADAPTER_BASE_SVD_H
#define GRAFT_ADAPTER_BASE_SVD_H

#include "adapter/adapter.h"

typedef struct base_svd { /* W [rows, cols] = u [rows, k] diag(s [k]) vt [k, cols], s descending */
    double *u, *s, *vt;
    int64_t rows, cols, k;
} base_svd;

/* k = min(rows, cols). */
graft_status base_svd_full(base_svd *, const adapter *, size_t module, const weight_source *,
                           graft_error *);
/* torch.svd_lowrank(W, q, niter) right after torch.manual_seed(seed); k = q. */
graft_status base_svd_low_rank(base_svd *, const adapter *, size_t module, const weight_source *,
                               int64_t q, int64_t iterations, uint64_t seed, graft_error *);
void base_svd_free(base_svd *);

#endif
