#include "backend/cpu/cpu_backend.h"

enum { SUM_BLOCK = 4096 }; /* elements of one partial sum */

typedef struct sum_context {
    cpu_backend *cpu;
    const float *x;
    pieces blocks;
} sum_context;

static void sum_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const sum_context *c = context;
    int64_t begin = piece_begin(&c->blocks, i), n = piece_end(&c->blocks, i) - begin;
    c->cpu->partial_sums[i] = c->cpu->rows->sum_squares(c->x + begin, n);
}

double cpu_sum_squares(backend *dev, const device_array *x, int64_t n) {
    cpu_backend *cpu = cpu_of(dev);
    const int64_t at_once = (int64_t)SUM_BLOCK * CPU_PARTIAL_SUMS;
    double sum = 0;
    for (int64_t begin = 0; begin < n; begin += at_once) {
        int64_t left = n - begin;
        sum_context context = {.cpu = cpu,
                               .x = cpu_array_const(x) + begin,
                               .blocks = pieces_of(left < at_once ? left : at_once, SUM_BLOCK)};
        cpu_run_tasks(cpu, context.blocks.count, sum_task, &context);
        for (int64_t i = 0; i < context.blocks.count; i++)
            sum += cpu->partial_sums[i];
    }
    return sum;
}

typedef struct adamw_context {
    cpu_backend *cpu;
    float *p, *m, *v;
    const float *g;
    const adamw_step *step;
    pieces elements;
} adamw_context;

static void adamw_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const adamw_context *c = context;
    int64_t begin = piece_begin(&c->elements, i), n = piece_end(&c->elements, i) - begin;
    c->cpu->rows->adamw(c->p + begin, c->g + begin, c->m + begin, c->v + begin, n, c->step);
}

void cpu_adamw(backend *dev, device_array *p, const device_array *g, device_array *m,
               device_array *v, int64_t n, const adamw_step *step) {
    adamw_context context = {.cpu = cpu_of(dev),
                             .p = cpu_array(p),
                             .m = cpu_array(m),
                             .v = cpu_array(v),
                             .g = cpu_array_const(g),
                             .step = step,
                             .elements = pieces_of(n, CPU_TASK_ELEMENTS)};
    cpu_run_tasks(context.cpu, context.elements.count, adamw_task, &context);
}
