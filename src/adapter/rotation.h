/* Rotations R of skew-symmetric matrices Q, block by block: the Cayley map, or the polynomial that
 * its Neumann series gives, as OFT, BOFT and PSOFT use them. Made once an update; the products are
 * ops, the inverses are made on the host in double. */
#ifndef GRAFT_ADAPTER_ROTATION_H
#define GRAFT_ADAPTER_ROTATION_H

#include "adapter/shape.h"

typedef struct rotation_rule {
    bool is_exact; /* R = (I + sign Q) (I - sign Q)^-1 */
    int sign;
    int32_t terms; /* else PEFT's num_cayley_neumann_terms: I + 2 Q + 2 Q^2 + ... + Q^p with p = 1
                      (2 Q) for 2 terms, 3 for 3 and 4, terms - 1 above */
} rotation_rule;

/* What every rotation of an adapter is worked out in. */
typedef struct rotation_work {
    rotation_rule rule;
    int64_t largest; /* elements of the largest [blocks, size, size] */
    double *q;       /* [largest] on the host */
    size_t arrays;   /* derived */
} rotation_work;

graft_status rotation_work_create(rotation_work *, adapter *, rotation_rule, int64_t largest,
                                  graft_error *);
void rotation_work_free(rotation_work *);

/* r [blocks, size, size] = the rotations of work.q, which the caller has filled. */
void rotation_make(const rotation_work *, const adapter *, backend *, device_array *r,
                   int64_t blocks, int64_t size);
/* work.q, filled as it was, becomes the gradient of Q from dr; r as it was made. */
void rotation_chain(const rotation_work *, const adapter *, backend *, const device_array *r,
                    const device_array *dr, int64_t blocks, int64_t size);

/* PEFT's vectors [blocks, size (size - 1) / 2] hold the part above the diagonal by rows; Q is that
 * minus its transpose. */
void rotation_skew_of(double *q, const double *upper, int64_t blocks, int64_t size);
void rotation_skew_chain(double *d_upper, const double *dq, int64_t blocks, int64_t size);

/* t.gradient += values [t->count]; room [t->count] on the host. */
void rotation_add_gradient(const adapter_tensor *, backend *, const double *values, double *room);

#endif
