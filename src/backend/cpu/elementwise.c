/* Ops whose elements or rows are independent: each is divided into tasks of a few thousand
 * elements. */
#include "backend/cpu/cpu_backend.h"

#include <string.h>

/* Arrays and numbers of one such op; each uses some. */
typedef struct element_context {
    cpu_backend *cpu;
    float *y;
    const float *x;
    float factor, limit;
    int64_t cols;
    const int32_t *index;
    pieces pieces; /* of elements, or of rows */
} element_context;

static void run(element_context *c, backend *dev, pieces of, thread_task *task) {
    c->cpu = cpu_of(dev);
    c->pieces = of;
    cpu_run_tasks(c->cpu, of.count, task, c);
}

typedef struct rope_context {
    cpu_backend *cpu;
    const rope_call *call;
    float *x;
    const float *cosines, *sines;
    bool inverse;
    pieces tokens;
} rope_context;

static void rope_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const rope_context *c = context;
    const row_kernels *rows = c->cpu->rows;
    int64_t half = c->call->n / 2;
    for (int64_t t = piece_begin(&c->tokens, i); t < piece_end(&c->tokens, i); t++)
        for (int32_t h = 0; h < c->call->heads; h++) {
            float *x = c->x + (t * c->call->heads + h) * c->call->head_dim + c->call->first;
            (c->call->is_interleaved ? rows->rope_interleaved : rows->rope)(
                x, c->cosines + t * half, c->sines + t * half, half, c->inverse);
        }
}

void cpu_rope(backend *dev, device_array *x, const device_array *cosines, const device_array *sines,
              const rope_call *call, int64_t n, bool inverse) {
    rope_context c = {.cpu = cpu_of(dev),
                      .call = call,
                      .x = cpu_array(x),
                      .cosines = cpu_array_const(cosines),
                      .sines = cpu_array_const(sines),
                      .inverse = inverse,
                      .tokens = pieces_of_rows(n, (int64_t)call->heads * call->head_dim)};
    cpu_run_tasks(c.cpu, c.tokens.count, rope_task, &c);
}

typedef struct gate_context {
    cpu_backend *cpu;
    const gate_call *call;
    float *h, *d_gate, *d_up;
    const float *gate, *up, *dh;
    pieces elements;
} gate_context;

/* NULL stays NULL. */
static float *part_of(float *x, int64_t begin) {
    return x ? x + begin : NULL;
}

static const float *part_of_const(const float *x, int64_t begin) {
    return x ? x + begin : NULL;
}

static void gated_fwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const gate_context *c = context;
    int64_t begin = piece_begin(&c->elements, i), n = piece_end(&c->elements, i) - begin;
    c->cpu->rows->gated_fwd(c->h + begin, c->gate + begin, part_of_const(c->up, begin), c->call, n);
}

void cpu_gated_fwd(backend *dev, device_array *h, const device_array *gate, const device_array *up,
                   const gate_call *call, int64_t n) {
    gate_context c = {.cpu = cpu_of(dev),
                      .call = call,
                      .h = cpu_array(h),
                      .gate = cpu_array_const(gate),
                      .up = cpu_array_const(up),
                      .elements = pieces_of(n, CPU_TASK_ELEMENTS)};
    cpu_run_tasks(c.cpu, c.elements.count, gated_fwd_task, &c);
}

static void gated_bwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const gate_context *c = context;
    int64_t begin = piece_begin(&c->elements, i), n = piece_end(&c->elements, i) - begin;
    c->cpu->rows->gated_bwd(c->d_gate + begin, part_of(c->d_up, begin), c->dh + begin,
                            c->gate + begin, part_of_const(c->up, begin), c->call, n);
}

void cpu_gated_bwd(backend *dev, device_array *d_gate, device_array *d_up, const device_array *dh,
                   const device_array *gate, const device_array *up, const gate_call *call,
                   int64_t n) {
    gate_context c = {.cpu = cpu_of(dev),
                      .call = call,
                      .d_gate = cpu_array(d_gate),
                      .d_up = cpu_array(d_up),
                      .gate = cpu_array_const(gate),
                      .up = cpu_array_const(up),
                      .dh = cpu_array_const(dh),
                      .elements = pieces_of(n, CPU_TASK_ELEMENTS)};
    cpu_run_tasks(c.cpu, c.elements.count, gated_bwd_task, &c);
}

static void soft_cap_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    c->cpu->rows->soft_cap(c->y + begin, c->factor, c->limit, n);
}

void cpu_soft_cap(backend *dev, device_array *y, double scale, double cap, int64_t n) {
    element_context c = {.y = cpu_array(y), .factor = (float)scale, .limit = (float)cap};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), soft_cap_task);
}

static void clamp_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    for (int64_t j = piece_begin(&c->pieces, i); j < piece_end(&c->pieces, i); j++)
        c->y[j] = c->y[j] > c->limit ? c->limit : c->y[j] < -c->limit ? -c->limit : c->y[j];
}

void cpu_clamp(backend *dev, device_array *y, double limit, int64_t n) {
    element_context c = {.y = cpu_array(y), .limit = (float)limit};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), clamp_task);
}

static void clamp_bwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    for (int64_t j = piece_begin(&c->pieces, i); j < piece_end(&c->pieces, i); j++)
        c->y[j] = c->x[j] >= c->limit || c->x[j] <= -c->limit ? 0 : c->y[j];
}

void cpu_clamp_bwd(backend *dev, device_array *dy, const device_array *y, double limit, int64_t n) {
    element_context c = {.y = cpu_array(dy), .x = cpu_array_const(y), .limit = (float)limit};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), clamp_bwd_task);
}

static void fill_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    c->cpu->rows->fill(c->y + begin, c->factor, n);
}

void cpu_fill(backend *dev, device_array *y, double value, int64_t n) {
    element_context c = {.y = cpu_array(y), .factor = (float)value};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), fill_task);
}

static void copy_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    memcpy(c->y + begin, c->x + begin, (size_t)n * sizeof *c->y);
}

void cpu_copy(backend *dev, device_array *y, const device_array *x, int64_t n) {
    element_context c = {.y = cpu_array(y), .x = cpu_array_const(x)};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), copy_task);
}

static void add_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    c->cpu->rows->add(c->y + begin, c->x + begin, n);
}

void cpu_add(backend *dev, device_array *y, const device_array *x, int64_t n) {
    element_context c = {.y = cpu_array(y), .x = cpu_array_const(x)};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), add_task);
}

static void scale_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    c->cpu->rows->scale(c->y + begin, c->factor, n);
}

void cpu_scale(backend *dev, device_array *y, double factor, int64_t n) {
    element_context c = {.y = cpu_array(y), .factor = (float)factor};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), scale_task);
}

typedef struct block_context {
    cpu_backend *cpu;
    float *y;
    const float *x;
    block_places to, from;
    int64_t blocks, cols;
    bool add;
    pieces rows;
} block_context;

static void copy_blocks_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const block_context *c = context;
    for (int64_t r = piece_begin(&c->rows, i); r < piece_end(&c->rows, i); r++)
        for (int64_t j = 0; j < c->blocks; j++) {
            float *y = c->y + r * c->to.row + j * c->to.step;
            const float *x = c->x + r * c->from.row + j * c->from.step;
            if (c->add)
                c->cpu->rows->add(y, x, c->cols);
            else
                memcpy(y, x, (size_t)c->cols * sizeof *y);
        }
}

void cpu_copy_blocks(backend *dev, device_array *y, block_places to, const device_array *x,
                     block_places from, int64_t n, int64_t blocks, int64_t cols, bool add) {
    block_context c = {.cpu = cpu_of(dev),
                       .y = cpu_array(y),
                       .x = cpu_array_const(x),
                       .to = to,
                       .from = from,
                       .blocks = blocks,
                       .cols = cols,
                       .add = add,
                       .rows = pieces_of_rows(n, blocks * cols)};
    cpu_run_tasks(c.cpu, c.rows.count, copy_blocks_task, &c);
}

static void gather_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++)
        memcpy(c->y + r * c->cols, c->x + c->index[r] * c->cols, (size_t)c->cols * sizeof *c->y);
}

void cpu_gather_rows(backend *dev, device_array *y, const device_array *x, const int32_t *index,
                     int64_t n, int64_t cols) {
    element_context c = {.y = cpu_array(y), .x = cpu_array_const(x), .index = index, .cols = cols};
    run(&c, dev, pieces_of_rows(n, cols), gather_task);
}

static void scatter_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++)
        memcpy(c->y + c->index[r] * c->cols, c->x + r * c->cols, (size_t)c->cols * sizeof *c->y);
}

void cpu_scatter_rows(backend *dev, device_array *y, const device_array *x, const int32_t *index,
                      int64_t n, int64_t cols) {
    element_context c = {.y = cpu_array(y), .x = cpu_array_const(x), .index = index, .cols = cols};
    run(&c, dev, pieces_of_rows(n, cols), scatter_task);
}
