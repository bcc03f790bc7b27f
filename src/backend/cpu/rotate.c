#include "backend/cpu/cpu_backend.h"

typedef struct rotate_context {
    float *y;
    const float *x;
    int64_t cols, group;
    bool inverse;
    pieces pieces; /* of rows */
} rotate_context;

static void rotate_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const rotate_context *c = context;
    int64_t half = c->group / 2;
    for (int64_t at = piece_begin(&c->pieces, i) * c->cols; at < piece_end(&c->pieces, i) * c->cols;
         at += c->group) {
        float *first = c->y + at, *second = first + half;
        const float *a = c->x + at, *b = a + half;
        for (int64_t j = 0; j < half; j++) {
            first[j] = c->inverse ? b[j] : -b[j];
            second[j] = c->inverse ? -a[j] : a[j];
        }
    }
}

void cpu_rotate_halves(backend *dev, device_array *y, const device_array *x, int64_t rows,
                       int64_t cols, int64_t group, bool inverse) {
    rotate_context c = {.y = cpu_array(y),
                        .x = cpu_array_const(x),
                        .cols = cols,
                        .group = group,
                        .inverse = inverse,
                        .pieces = pieces_of_rows(rows, cols)};
    cpu_run_tasks(cpu_of(dev), c.pieces.count, rotate_task, &c);
}
