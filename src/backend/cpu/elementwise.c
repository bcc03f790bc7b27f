/* Ops whose elements or rows are independent: each is divided into tasks of a few thousand
 * elements. */
#include "backend/cpu/cpu_backend.h"

#include <string.h>

/* Arrays and numbers of one such op; each uses some. */
typedef struct element_context {
    cpu_backend *cpu;
    float *y, *y2;
    const float *x, *x2, *x3;
    float factor;
    int64_t cols;
    int32_t heads;
    bool inverse;
    const int32_t *index;
    pieces pieces; /* of elements, or of rows */
} element_context;

static void run(element_context *c, backend *dev, pieces of, thread_task *task) {
    c->cpu = cpu_of(dev);
    c->pieces = of;
    cpu_run_tasks(c->cpu, of.count, task, c);
}

static void rope_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    int64_t half = c->cols / 2;
    for (int64_t t = piece_begin(&c->pieces, i); t < piece_end(&c->pieces, i); t++)
        for (int32_t h = 0; h < c->heads; h++)
            c->cpu->rows->rope(c->y + (t * c->heads + h) * c->cols, c->x + t * half,
                               c->x2 + t * half, half, c->inverse);
}

void cpu_rope(backend *dev, device_array *x, const device_array *cosines, const device_array *sines,
              int64_t n, int32_t heads, int32_t head_dim, bool inverse) {
    element_context c = {.y = cpu_array(x),
                         .x = cpu_array_const(cosines),
                         .x2 = cpu_array_const(sines),
                         .cols = head_dim,
                         .heads = heads,
                         .inverse = inverse};
    run(&c, dev, pieces_of_rows(n, (int64_t)heads * head_dim), rope_task);
}

static void swiglu_fwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    c->cpu->rows->swiglu_fwd(c->y + begin, c->x + begin, c->x2 + begin, n);
}

void cpu_swiglu_fwd(backend *dev, device_array *h, const device_array *gate, const device_array *up,
                    int64_t n) {
    element_context c = {.y = cpu_array(h), .x = cpu_array_const(gate), .x2 = cpu_array_const(up)};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), swiglu_fwd_task);
}

static void swiglu_bwd_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const element_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    c->cpu->rows->swiglu_bwd(c->y + begin, c->y2 + begin, c->x3 + begin, c->x + begin,
                             c->x2 + begin, n);
}

void cpu_swiglu_bwd(backend *dev, device_array *d_gate, device_array *d_up, const device_array *dh,
                    const device_array *gate, const device_array *up, int64_t n) {
    element_context c = {.y = cpu_array(d_gate),
                         .y2 = cpu_array(d_up),
                         .x = cpu_array_const(gate),
                         .x2 = cpu_array_const(up),
                         .x3 = cpu_array_const(dh)};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), swiglu_bwd_task);
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
