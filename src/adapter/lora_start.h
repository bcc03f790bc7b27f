/* First values of A and B that come from the base's weight, by init_lora_weights. Made on the host,
 * layer by layer, once. */
#ifndef GRAFT_ADAPTER_LORA_START_H
#define GRAFT_ADAPTER_LORA_START_H

#include "base/rng.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* One layer's: w [out, in] (may be overwritten) -> a [rank, in], b [out, rank]. */
typedef struct start_values {
    double *w, *a, *b;
    int64_t out, in;
    int32_t rank;
    double scale;
    int32_t iterations; /* of pissa_niter_N; 0: exact */
    rng *random;
} start_values;

typedef struct lora_start {
    const char *name;  /* as init_lora_weights has it, or its beginning: "pissa_niter_" */
    bool has_number;   /* a number follows the name */
    bool changes_base; /* scale b a is taken out of the base */
    bool freezes_b;
    bool needs_rank; /* of the weight: rank may not exceed its smaller side */
    graft_status (*make)(start_values *, graft_error *);
} lora_start;

/* NULL: there is no such start. */
const lora_start *lora_start_find(const char *name);
/* What follows the name. */
int32_t lora_start_iterations(const lora_start *, const char *name);
/* "pissa, olora, ..." for messages. */
const char *lora_start_names(void);

/* u [out, k], s [k], vt [k, in] of w; caller frees each. k = min(out, in). */
graft_status start_svd(double **u, double **s, double **vt, const start_values *, graft_error *);

#endif
