/* The starts as PEFT's tuners/lora/layer.py has them. */
#include "adapter/lora_start.h"

#include "base/linear_algebra.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double *take(int64_t n, graft_error *err) {
    double *values = mem_array((size_t)n, sizeof *values);
    if (!values)
        error_memory(err, (size_t)n * sizeof *values, "first values from the base");
    return values;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

graft_status start_svd(double **u, double **s, double **vt, const start_values *v,
                       graft_error *err) {
    int64_t k = smaller(v->out, v->in);
    *u = take(v->out * k, err);
    *s = take(k, err);
    *vt = take(k * v->in, err);
    return *u && *s && *vt ? linear_svd(*u, *s, *vt, v->w, v->out, v->in, err) : GRAFT_E_MEMORY;
}

/* b = u sqrt(s / scale), a = sqrt(s / scale) vt, of the first `rank` directions; u has `stride`
 * columns. */
static void share(start_values *v, const double *u, int64_t stride, const double *s,
                  const double *vt) {
    for (int32_t r = 0; r < v->rank; r++) {
        double root = sqrt(s[r] / v->scale);
        for (int64_t o = 0; o < v->out; o++)
            v->b[o * v->rank + r] = u[o * stride + r] * root;
        for (int64_t i = 0; i < v->in; i++)
            v->a[r * v->in + i] = vt[r * v->in + i] * root;
    }
}

/* PiSSA (Meng et al., 2024): the principal directions train, the rest is the base. */
static graft_status pissa(start_values *v, graft_error *err) {
    double *u = NULL, *s = NULL, *vt = NULL;
    graft_status status = start_svd(&u, &s, &vt, v, err);
    if (status == GRAFT_OK)
        share(v, u, smaller(v->out, v->in), s, vt);
    free(u);
    free(s);
    free(vt);
    return status;
}

static void draw(double *values, int64_t n, rng *random) {
    for (int64_t i = 0; i < n; i++)
        values[i] = rng_normal(random);
}

/* q [rows, rank] becomes an orthonormal basis of its columns; r is scratch [rank, rank], copy
 * [rows, rank]. */
static graft_status orthonormalise(double *q, double *copy, double *r, int64_t rows, int32_t rank,
                                   graft_error *err) {
    memcpy(copy, q, (size_t)(rows * rank) * sizeof *q);
    return linear_qr(q, r, copy, rows, rank, err);
}

/* The range of w by subspace iteration (Halko et al., 2009), as torch.svd_lowrank: q [out, rank].
 */
static graft_status find_range(double *q, double *p, double *copy, double *r, start_values *v,
                               graft_error *err) {
    draw(p, v->in * v->rank, v->random);
    linear_matmul(q, v->w, false, p, false, v->out, v->rank, v->in, 1);
    graft_status status = orthonormalise(q, copy, r, v->out, v->rank, err);
    for (int32_t i = 0; i < v->iterations && status == GRAFT_OK; i++) {
        linear_matmul(p, v->w, true, q, false, v->in, v->rank, v->out, 1);
        status = orthonormalise(p, copy, r, v->in, v->rank, err);
        if (status != GRAFT_OK)
            break;
        linear_matmul(q, v->w, false, p, false, v->out, v->rank, v->in, 1);
        status = orthonormalise(q, copy, r, v->out, v->rank, err);
    }
    return status;
}

static graft_status pissa_niter(start_values *v, graft_error *err) {
    const int64_t rank = v->rank, longer = v->out > v->in ? v->out : v->in;
    double *q = take(v->out * rank, err), *p = take(v->in * rank, err),
           *copy = take(longer * rank, err);
    double *r = take(rank * rank, err), *s = take(rank, err), *inner = take(rank * rank, err);
    double *vt = take(rank * v->in, err), *u = take(v->out * rank, err);
    graft_status status = q && p && copy && r && s && inner && vt && u
                              ? find_range(q, p, copy, r, v, err)
                              : GRAFT_E_MEMORY;
    if (status == GRAFT_OK) {
        linear_matmul(copy, q, true, v->w, false, rank, v->in, v->out, 1);
        status = linear_svd(inner, s, vt, copy, rank, v->in, err);
    }
    if (status == GRAFT_OK) {
        linear_matmul(u, q, false, inner, false, v->out, rank, rank, 1);
        share(v, u, rank, s, vt);
    }
    free(q), free(p), free(copy), free(r), free(s), free(inner), free(vt), free(u);
    return status;
}

/* OLoRA (Buyukakyuz, 2024): w = q r, b the first columns of q, a the first rows of r. */
static graft_status olora(start_values *v, graft_error *err) {
    const int64_t k = smaller(v->out, v->in);
    double *q = take(v->out * k, err), *r = take(k * v->in, err);
    graft_status status = q && r ? linear_qr(q, r, v->w, v->out, v->in, err) : GRAFT_E_MEMORY;
    for (int64_t o = 0; o < v->out && status == GRAFT_OK; o++)
        memcpy(v->b + o * v->rank, q + o * k, (size_t)v->rank * sizeof *q);
    if (status == GRAFT_OK)
        memcpy(v->a, r, (size_t)(v->rank * v->in) * sizeof *r);
    free(q);
    free(r);
    return status;
}

/* MiCA (arXiv:2604.01694): b the least left singular vectors, which stay; a zero. */
static graft_status mica(start_values *v, graft_error *err) {
    const int64_t k = smaller(v->out, v->in);
    double *u = NULL, *s = NULL, *vt = NULL;
    graft_status status = start_svd(&u, &s, &vt, v, err);
    for (int64_t o = 0; o < v->out && status == GRAFT_OK; o++)
        memcpy(v->b + o * v->rank, u + o * k + (k - v->rank), (size_t)v->rank * sizeof *u);
    memset(v->a, 0, (size_t)(v->rank * v->in) * sizeof *v->a);
    free(u);
    free(s);
    free(vt);
    return status;
}

/* Neither is zero, and b a is: their rows come from the odd and the even rows of one orthogonal
 * matrix (datta0.github.io, "Rethinking LoRA initialisation"). */
static graft_status orthogonal(start_values *v, graft_error *err) {
    const int64_t rank = v->rank, half = rank / 2, longer = v->out > v->in ? v->out : v->in;
    if (rank % 2)
        return error_set(err, GRAFT_E_INPUT,
                         "init_lora_weights orthogonal wants an even rank, found %d", (int)rank);
    double *x = take(rank * rank, err), *q = take(rank * rank, err), *r = take(rank * rank, err);
    double *odd = take(half * rank, err), *even = take(half * rank, err),
           *wide = take(longer * half, err);
    graft_status status = x && q && r && odd && even && wide ? GRAFT_OK : GRAFT_E_MEMORY;
    if (status == GRAFT_OK) {
        draw(x, rank * rank, v->random);
        status = linear_qr(q, r, x, rank, rank, err);
    }
    if (status == GRAFT_OK) {
        for (int64_t i = 0; i < half; i++) {
            memcpy(odd + i * rank, q + 2 * i * rank, (size_t)rank * sizeof *q);
            memcpy(even + i * rank, q + (2 * i + 1) * rank, (size_t)rank * sizeof *q);
        }
        draw(wide, v->in * half, v->random);
        linear_matmul(v->a, odd, true, wide, true, rank, v->in, half, 0.1);
        draw(wide, half * v->out, v->random);
        linear_matmul(v->b, wide, true, even, false, v->out, rank, half, 0.1);
    }
    free(x), free(q), free(r), free(odd), free(even), free(wide);
    return status;
}

static const lora_start starts[] = {
    {.name = "pissa", .changes_base = true, .needs_rank = true, .make = pissa},
    {.name = "pissa_niter_",
     .has_number = true,
     .changes_base = true,
     .needs_rank = true,
     .make = pissa_niter},
    {.name = "olora", .changes_base = true, .needs_rank = true, .make = olora},
    {.name = "mica", .freezes_b = true, .needs_rank = true, .make = mica},
    {.name = "orthogonal", .make = orthogonal},
};

enum { N_STARTS = sizeof starts / sizeof *starts, ITERATIONS_MAX = 1000 };

static bool is_number(const char *text) {
    char *end;
    long value = strtol(text, &end, 10);
    return *text && !*end && value >= 0 && value <= ITERATIONS_MAX;
}

const lora_start *lora_start_find(const char *name) {
    for (size_t i = 0; i < N_STARTS; i++) {
        size_t n = strlen(starts[i].name);
        if (starts[i].has_number ? !strncmp(name, starts[i].name, n) && is_number(name + n)
                                 : !strcmp(name, starts[i].name))
            return &starts[i];
    }
    return NULL;
}

int32_t lora_start_iterations(const lora_start *start, const char *name) {
    return start->has_number ? (int32_t)strtol(name + strlen(start->name), NULL, 10) : 0;
}

const char *lora_start_names(void) {
    return "pissa, pissa_niter_N, olora, mica, orthogonal";
}
