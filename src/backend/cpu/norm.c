#include "backend/cpu/cpu_backend.h"

typedef struct norm_context {
    cpu_backend *cpu;
    float *y, *rstd;
    const float *x, *w;
    float eps;
    int64_t cols;
    pieces rows;
} norm_context;

static void norm_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const norm_context *c = context;
    for (int64_t r = piece_begin(&c->rows, i); r < piece_end(&c->rows, i); r++)
        c->rstd[r] = c->cpu->rows->rmsnorm_fwd(c->y + r * c->cols, c->x + r * c->cols, c->w, c->eps,
                                               c->cols);
}

void cpu_rmsnorm_fwd(backend *dev, device_array *y, device_array *rstd, const device_array *x,
                     const device_array *w, float eps, int64_t rows, int64_t cols) {
    norm_context context = {.cpu = cpu_of(dev),
                            .y = cpu_array(y),
                            .rstd = cpu_array(rstd),
                            .x = cpu_array_const(x),
                            .w = cpu_array_const(w),
                            .eps = eps,
                            .cols = cols,
                            .rows = pieces_of_rows(rows, cols)};
    cpu_run_tasks(context.cpu, context.rows.count, norm_task, &context);
}

typedef struct norm_bwd_context {
    cpu_backend *cpu;
    float *dx, *dw;
    const float *dy, *x, *rstd, *w;
    int64_t cols;
    int32_t per_token;
    bool add;
    const token_rows *tokens;
    pieces pieces; /* of rows for dx, of columns for dw */
} norm_bwd_context;

static void norm_dx_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const norm_bwd_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++)
        c->cpu->rows->rmsnorm_bwd(c->dx + r * c->cols, c->dy + r * c->cols, c->x + r * c->cols,
                                  c->w, c->rstd[r], c->cols, c->add);
}

enum { COLUMNS = 256 }; /* of one task */

static void norm_dw_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const norm_bwd_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    for (int32_t g = 0; g < c->tokens->n_grid; g++) {
        float sums[COLUMNS] = {0};
        int64_t last = (int64_t)c->tokens->grid[g + 1] * c->per_token;
        for (int64_t r = (int64_t)c->tokens->grid[g] * c->per_token; r < last; r++)
            c->cpu->rows->rmsnorm_weight_bwd(sums, c->dy + r * c->cols + begin,
                                             c->x + r * c->cols + begin, c->rstd[r], n);
        c->cpu->rows->add(c->dw + begin, sums, n);
    }
}

void cpu_rmsnorm_bwd(backend *dev, device_array *dx, device_array *dw, const device_array *dy,
                     const device_array *x, const device_array *rstd, const device_array *w,
                     int32_t per_token, int64_t cols, bool add, const token_rows *tokens) {
    norm_bwd_context context = {.cpu = cpu_of(dev),
                                .dx = cpu_array(dx),
                                .dw = cpu_array(dw),
                                .dy = cpu_array_const(dy),
                                .x = cpu_array_const(x),
                                .rstd = cpu_array_const(rstd),
                                .w = cpu_array_const(w),
                                .cols = cols,
                                .per_token = per_token,
                                .add = add,
                                .tokens = tokens,
                                .pieces = pieces_of(cols, COLUMNS)};
    if (dw) /* before dx, which may take dy's place */
        cpu_run_tasks(context.cpu, context.pieces.count, norm_dw_task, &context);
    context.pieces = pieces_of_rows((int64_t)tokens->n * per_token, cols);
    cpu_run_tasks(context.cpu, context.pieces.count, norm_dx_task, &context);
}
