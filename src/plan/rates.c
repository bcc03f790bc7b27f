#include "plan/rates.h"

#include "backend/meter/op_cost.h"
#include "base/clock.h"
#include "base/layout.h"
#include "base/memory.h"
#include "base/rng.h"

#include <stdlib.h>

/* Arrays of one measurement. */
typedef struct arrays {
    backend *dev;
    void *memory;
    layout layout;
} arrays;

static bool arrays_open(arrays *a, backend *dev, const int64_t *counts, size_t n,
                        device_array **out) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += (size_t)counts[i] * dev->element_bytes + LAYOUT_ALIGNMENT;
    *a = (arrays){.dev = dev, .memory = dev->ops->alloc(dev, bytes)};
    if (!a->memory)
        return false;
    a->layout = layout_over(a->memory, bytes);
    for (size_t i = 0; i < n; i++) {
        out[i] =
            layout_take(&a->layout, COMPONENT_WORKSPACE, (size_t)counts[i], dev->element_bytes);
        dev->ops->fill(dev, out[i], 0.1 + 0.01 * (double)i, counts[i]);
    }
    return true;
}

static void arrays_close(arrays *a) {
    a->dev->ops->release(a->dev, a->memory);
}

/* One call of what is measured. */
typedef struct measured {
    backend *dev;
    void (*once)(const void *context, backend *);
    const void *context;
    device_array *result;
} measured;

/* Calls a second. */
static double frequency(const measured *m, double seconds) {
    float first;
    m->once(m->context, m->dev); /* pages and caches */
    double began = clock_seconds(), elapsed;
    int64_t calls = 0;
    do {
        m->once(m->context, m->dev);
        m->dev->ops->download(m->dev, &first, m->result, 1); /* waits */
        calls++;
        elapsed = clock_seconds() - began;
    } while (elapsed < seconds);
    return (double)calls / elapsed;
}

/* ---- Products ---- */

typedef struct product {
    linear_call call;
    token_rows rows;
    device_array *x, *y;
    bool backward;
} product;

static void product_once(const void *context, backend *dev) {
    const product *p = context;
    if (p->backward)
        dev->ops->linear_bwd(dev, p->x, p->y, NULL, NULL, &p->call, false, NULL, &p->rows);
    else
        dev->ops->linear_fwd(dev, p->y, NULL, p->x, &p->call, false, NULL, &p->rows);
}

/* Random weights: zeros are multiplied faster on some processors. */
static void *stored_weight(const product_shape *shape) {
    size_t n = (size_t)(shape->in * shape->out);
    char *weight = mem_array(n, dtype_bytes(shape->type));
    rng random = rng_create(1, 0);
    for (size_t i = 0; weight && i < n; i++) {
        float value = (float)rng_uniform(&random) - 0.5f;
        dtype_store_f32(weight + i * dtype_bytes(shape->type), &value, shape->type, 1);
    }
    return weight;
}

double rate_product(backend *dev, const product_shape *shape, bool backward, double seconds) {
    const int64_t counts[] = {shape->tokens * shape->in, shape->tokens * shape->out};
    const int32_t grid[] = {0, shape->tokens};
    device_array *array[2];
    arrays memory;
    void *weight = stored_weight(shape);
    if (!weight || !arrays_open(&memory, dev, counts, 2, array)) {
        free(weight);
        return 0;
    }
    const product p = {
        .call = {.weight = {.data = weight,
                            .type = shape->type,
                            .rows = shape->out,
                            .cols = shape->in,
                            .row_stride = shape->in}},
        .rows = {.n = shape->tokens, .grid = grid, .n_grid = 1, .job_begin = grid, .n_jobs = 1},
        .x = array[0],
        .y = array[1],
        .backward = backward,
    };
    const measured m = {dev, product_once, &p, backward ? p.x : p.y};
    double rate =
        frequency(&m, seconds) * 2 * shape->tokens * (double)shape->in * (double)shape->out;
    arrays_close(&memory);
    free(weight);
    return rate;
}

/* ---- Attention ---- */

typedef struct attention {
    attention_call call;
    batch batch;
    device_array *q, *k, *v, *o, *lse, *dq, *dk, *dv, *d_o, *scratch;
    bool backward;
} attention;

static void attention_once(const void *context, backend *dev) {
    const attention *a = context;
    if (a->backward)
        dev->ops->attention_bwd(dev, a->dq, a->dk, a->dv, a->d_o, a->o, a->lse, a->q, a->k, a->v,
                                &a->call, a->scratch, &a->batch, 0);
    else
        dev->ops->attention_fwd(dev, a->o, a->lse, a->q, a->k, a->v, &a->call, &a->batch, 0);
}

double rate_attention(backend *dev, const attention_call *call, int32_t tokens, bool backward,
                      double seconds) {
    int64_t n = tokens, q = n * call->n_heads * call->head_dim,
            kv = n * call->n_kv_heads * call->head_dim, heads = n * call->n_heads;
    const int64_t counts[] = {q, kv, kv, q, heads, q, kv, kv, q, heads};
    const int32_t grid[] = {0, tokens};
    const segment row = {.token_end = tokens};
    device_array *array[10];
    arrays memory;
    if (!arrays_open(&memory, dev, counts, 10, array))
        return 0;
    attention a = {
        .call = *call,
        .batch =
            {.tokens = {.n = tokens, .grid = grid, .n_grid = 1, .job_begin = grid, .n_jobs = 1},
             .segments = &row,
             .n_segments = 1},
        .q = array[0],
        .k = array[1],
        .v = array[2],
        .o = array[3],
        .lse = array[4],
        .dq = array[5],
        .dk = array[6],
        .dv = array[7],
        .d_o = array[8],
        .scratch = array[9],
    };
    attention_once(&a, dev); /* backward wants o and lse as forward makes them */
    a.backward = backward;
    const measured m = {dev, attention_once, &a, backward ? a.dq : a.o};
    double flops = attention_cost(call, &a.batch, 0, dev->element_bytes, backward).flops;
    double rate = frequency(&m, seconds) * flops;
    arrays_close(&memory);
    return rate;
}

/* ---- Copying ---- */

enum { COPY_ELEMENTS = 8 << 20 };

typedef struct copying {
    device_array *to, *from;
} copying;

static void copy_once(const void *context, backend *dev) {
    const copying *c = context;
    dev->ops->copy(dev, c->to, c->from, COPY_ELEMENTS);
}

double rate_copy(backend *dev, double seconds) {
    const int64_t counts[] = {COPY_ELEMENTS, COPY_ELEMENTS};
    device_array *array[2];
    arrays memory;
    if (!arrays_open(&memory, dev, counts, 2, array))
        return 0;
    const copying c = {array[0], array[1]};
    const measured m = {dev, copy_once, &c, c.to};
    double rate = frequency(&m, seconds) * 2 * COPY_ELEMENTS * (double)dev->element_bytes;
    arrays_close(&memory);
    return rate;
}
