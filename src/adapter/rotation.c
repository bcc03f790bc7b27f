#include "adapter/rotation.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* ---- Memory: identity, Q, the polynomial's steps from the second, two gradients, that of Q ----
 */

static int32_t highest_power(const rotation_rule *rule) {
    if (rule->is_exact || rule->terms <= 1)
        return 0;
    return rule->terms == 2 ? 1 : rule->terms <= 4 ? 3 : rule->terms - 1;
}

static double coefficient(const rotation_rule *rule, int32_t power) {
    if (power == 0)
        return 1;
    return power >= 3 && power == highest_power(rule) ? 1 : 2;
}

enum { PART_IDENTITY, PART_Q, PART_D_Q, PART_D_STEP, PART_D_NEXT, PART_STEPS };

graft_status rotation_work_create(rotation_work *w, adapter *a, rotation_rule rule, int64_t largest,
                                  graft_error *err) {
    *w = (rotation_work){.rule = rule, .largest = largest};
    int64_t parts = PART_STEPS + highest_power(&rule);
    if (!(w->q = mem_array((size_t)largest, sizeof *w->q)))
        return error_memory(err, (size_t)largest * sizeof *w->q, "the adapter's rotations");
    w->arrays = shape_derived(a, parts * largest, false, err);
    return w->arrays == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
}

void rotation_work_free(rotation_work *w) {
    free(w->q);
    w->q = NULL;
}

typedef struct rotating { /* one call */
    const rotation_work *work;
    backend *dev;
    device_array *arrays;
    int64_t blocks, size, count;
} rotating;

static rotating rotating_of(const rotation_work *w, const adapter *a, backend *dev, int64_t blocks,
                            int64_t size) {
    return (rotating){.work = w,
                      .dev = dev,
                      .arrays = a->derived[w->arrays].value,
                      .blocks = blocks,
                      .size = size,
                      .count = blocks * size * size};
}

static device_array *part(const rotating *r, int64_t i) {
    return array_at(r->dev, r->arrays, i * r->work->largest);
}

/* c (+)= scale a b in every block */
static void multiply(const rotating *r, device_array *c, const device_array *a, bool a_transposed,
                     const device_array *b, bool b_transposed, double scale, bool add) {
    int64_t step = r->size * r->size;
    r->dev->ops->matmul(r->dev, &(matmul_call){.c = c,
                                               .c_stride = r->size,
                                               .rows = r->size,
                                               .cols = r->size,
                                               .k = r->size,
                                               .a = {a, r->size, a_transposed},
                                               .b = {b, r->size, b_transposed},
                                               .scale = scale,
                                               .add = add,
                                               .batch = r->blocks,
                                               .c_step = step,
                                               .a_step = step,
                                               .b_step = step});
}

/* ---- Polynomial, by Horner's rule: H_k = Q H_(k+1) + c_k I, R = H_0 ---- */

static void upload_identity(const rotating *r) {
    double *eye = r->work->q; /* its contents are on the device by now, and come back after */
    memset(eye, 0, (size_t)r->count * sizeof *eye);
    for (int64_t b = 0; b < r->blocks; b++)
        for (int64_t i = 0; i < r->size; i++)
            eye[(b * r->size + i) * r->size + i] = 1;
    r->dev->ops->upload(r->dev, part(r, PART_IDENTITY), eye, DTYPE_F64, r->count);
}

static void upload_skew(const rotating *r) {
    r->dev->ops->upload(r->dev, part(r, PART_Q), r->work->q, DTYPE_F64, r->count);
    upload_identity(r);
}

static device_array *step_at(const rotating *r, device_array *first, int32_t k) {
    return k == 0 ? first : part(r, PART_STEPS + k);
}

/* Steps down to `lowest`; the first goes to `first`. */
static void polynomial_steps(const rotating *r, device_array *first, int32_t lowest) {
    const rotation_rule *rule = &r->work->rule;
    const op_table *ops = r->dev->ops;
    int32_t p = highest_power(rule);
    for (int32_t k = p > 0 ? p - 1 : 0; k >= lowest; k--) {
        device_array *h = step_at(r, first, k);
        ops->fill(r->dev, h, 0, r->count);
        ops->add_scaled(r->dev, h, part(r, PART_IDENTITY), coefficient(rule, k), r->count);
        if (p > 0 && k == p - 1)
            ops->add_scaled(r->dev, h, part(r, PART_Q), coefficient(rule, p), r->count);
        else if (p > 0)
            multiply(r, h, part(r, PART_Q), false, step_at(r, first, k + 1), false, 1, true);
    }
}

static void polynomial_chain(const rotating *r, const device_array *dr) {
    const op_table *ops = r->dev->ops;
    int32_t p = highest_power(&r->work->rule);
    device_array *d_q = part(r, PART_D_Q), *d_step = part(r, PART_D_STEP),
                 *d_next = part(r, PART_D_NEXT);
    polynomial_steps(r, NULL, 1);
    ops->fill(r->dev, d_q, 0, r->count);
    ops->copy(r->dev, d_step, dr, r->count);
    for (int32_t k = 0; k < p - 1; k++) {
        multiply(r, d_q, d_step, false, step_at(r, NULL, k + 1), true, 1, true);
        multiply(r, d_next, part(r, PART_Q), true, d_step, false, 1, false);
        device_array *kept = d_step;
        d_step = d_next;
        d_next = kept;
    }
    if (p > 0)
        ops->add_scaled(r->dev, d_q, d_step, coefficient(&r->work->rule, p), r->count);
}

/* ---- Exact: with S = (I - sign Q)^-1, R = 2 S - I ---- */

/* m [n, n], whose symmetric part is the identity, becomes its inverse: Gauss-Jordan needs no
 * pivots. */
static void invert(double *m, int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        double inverse = 1 / m[k * n + k];
        m[k * n + k] = 1;
        for (int64_t j = 0; j < n; j++)
            m[k * n + j] *= inverse;
        for (int64_t i = 0; i < n; i++) {
            double factor = m[i * n + k];
            if (i == k || factor == 0)
                continue;
            m[i * n + k] = 0;
            for (int64_t j = 0; j < n; j++)
                m[i * n + j] -= factor * m[k * n + j];
        }
    }
}

static void exact_make(const rotating *r, device_array *out) {
    int64_t n = r->size;
    for (int64_t b = 0; b < r->blocks; b++) {
        double *m = r->work->q + b * n * n;
        for (int64_t i = 0; i < n * n; i++)
            m[i] *= -r->work->rule.sign;
        for (int64_t i = 0; i < n; i++)
            m[i * n + i] += 1;
        invert(m, n);
        for (int64_t i = 0; i < n * n; i++)
            m[i] *= 2;
        for (int64_t i = 0; i < n; i++)
            m[i * n + i] -= 1;
    }
    r->dev->ops->upload(r->dev, out, r->work->q, DTYPE_F64, r->count);
}

/* dQ = sign S^T (2 dR) S^T with S = (R + I) / 2 */
static void exact_chain(const rotating *r, const device_array *rotation, const device_array *dr) {
    const op_table *ops = r->dev->ops;
    device_array *s = part(r, PART_Q);
    upload_identity(r);
    ops->copy(r->dev, s, rotation, r->count);
    ops->add(r->dev, s, part(r, PART_IDENTITY), r->count);
    multiply(r, part(r, PART_D_STEP), s, true, dr, false, 0.5, false);
    multiply(r, part(r, PART_D_Q), part(r, PART_D_STEP), false, s, true, r->work->rule.sign, false);
}

/* ---- Either ---- */

void rotation_make(const rotation_work *w, const adapter *a, backend *dev, device_array *out,
                   int64_t blocks, int64_t size) {
    rotating r = rotating_of(w, a, dev, blocks, size);
    if (w->rule.is_exact) {
        exact_make(&r, out);
        return;
    }
    upload_skew(&r);
    polynomial_steps(&r, out, 0);
}

void rotation_chain(const rotation_work *w, const adapter *a, backend *dev,
                    const device_array *rotation, const device_array *dr, int64_t blocks,
                    int64_t size) {
    rotating r = rotating_of(w, a, dev, blocks, size);
    if (w->rule.is_exact) {
        exact_chain(&r, rotation, dr);
    } else {
        upload_skew(&r);
        polynomial_chain(&r, dr);
    }
    dev->ops->download_f64(dev, w->q, part(&r, PART_D_Q), r.count);
}

void rotation_skew_of(double *q, const double *upper, int64_t blocks, int64_t size) {
    for (int64_t b = 0; b < blocks; b++, q += size * size)
        for (int64_t i = 0; i < size; i++) {
            q[i * size + i] = 0;
            for (int64_t j = i + 1; j < size; j++) {
                q[i * size + j] = *upper;
                q[j * size + i] = -*upper++;
            }
        }
}

void rotation_skew_chain(double *d_upper, const double *dq, int64_t blocks, int64_t size) {
    for (int64_t b = 0; b < blocks; b++, dq += size * size)
        for (int64_t i = 0; i < size; i++)
            for (int64_t j = i + 1; j < size; j++)
                *d_upper++ = dq[i * size + j] - dq[j * size + i];
}

void rotation_add_gradient(const adapter_tensor *t, backend *dev, const double *values,
                           double *room) {
    dev->ops->download_f64(dev, room, t->gradient, t->count);
    for (int64_t i = 0; i < t->count; i++)
        room[i] += values[i];
    dev->ops->upload(dev, t->gradient, room, DTYPE_F64, t->count);
}
