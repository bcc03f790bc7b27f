#include "backend/cpu/cpu_backend.h"

typedef struct norm_context {
    cpu_backend *cpu;
    const norm_call *call;
    float *y, *rstd; /* forward */
    float *dx;       /* backward */
    const float *dy, *x, *rstd_in;
    int64_t cols;
    int32_t per_token;
    bool add;
    const token_rows *tokens;
    pieces pieces; /* of rows, or of columns for the weights' gradients */
} norm_context;

static int64_t group_of(const norm_call *call, int64_t r) {
    return call->groups > 1 ? r % call->groups : 0;
}

/* The weights that row r takes. */
static norm_row norm_row_of(const norm_context *c, int64_t r) {
    const norm_call *call = c->call;
    int64_t offset = group_of(call, r) * c->cols;
    return (norm_row){.weight = call->weight ? cpu_array_const(call->weight) + offset : NULL,
                      .bias = call->bias ? cpu_array_const(call->bias) + offset : NULL,
                      .eps = call->eps,
                      .offset = call->adds_one ? 1.0f : 0.0f,
                      .is_centred = call->is_centred};
}

static void norm_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const norm_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++) {
        norm_row row = norm_row_of(c, r);
        c->rstd[r] = c->cpu->rows->norm_fwd(c->y + r * c->cols, c->x + r * c->cols, &row, c->cols);
    }
}

void cpu_norm_fwd(backend *dev, device_array *y, device_array *rstd, const device_array *x,
                  const norm_call *call, int64_t rows, int64_t cols) {
    norm_context context = {.cpu = cpu_of(dev),
                            .call = call,
                            .y = cpu_array(y),
                            .rstd = cpu_array(rstd),
                            .x = cpu_array_const(x),
                            .cols = cols,
                            .pieces = pieces_of_rows(rows, cols)};
    cpu_run_tasks(context.cpu, context.pieces.count, norm_task, &context);
}

static void norm_dx_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const norm_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++) {
        norm_row row = norm_row_of(c, r);
        c->cpu->rows->norm_bwd(c->dx + r * c->cols, c->dy + r * c->cols, c->x + r * c->cols, &row,
                               c->rstd_in[r], c->cols, c->add);
    }
}

enum { COLUMNS = 256 }; /* of one task */

/* Columns [begin, begin + n) of one group's weight gradient. */
static void add_weight_gradient(const norm_context *c, int64_t group, int64_t begin, int64_t n) {
    const row_kernels *rows = c->cpu->rows;
    int64_t groups = c->call->groups > 1 ? c->call->groups : 1;
    for (int32_t g = 0; g < c->tokens->n_grid; g++) {
        float sums[COLUMNS] = {0};
        int64_t last = (int64_t)c->tokens->grid[g + 1] * c->per_token;
        for (int64_t r = (int64_t)c->tokens->grid[g] * c->per_token + group; r < last;
             r += groups) {
            const float *x = c->x + r * c->cols;
            float mean = c->call->is_centred ? rows->mean(x, c->cols) : 0.0f;
            rows->norm_weight_bwd(sums, c->dy + r * c->cols + begin, x + begin, mean, c->rstd_in[r],
                                  n);
        }
        rows->add(cpu_array(c->call->d_weight) + group * c->cols + begin, sums, n);
    }
}

static void add_bias_gradient(const norm_context *c, int64_t group, int64_t begin, int64_t n) {
    int64_t groups = c->call->groups > 1 ? c->call->groups : 1;
    for (int32_t g = 0; g < c->tokens->n_grid; g++) {
        float sums[COLUMNS] = {0};
        int64_t last = (int64_t)c->tokens->grid[g + 1] * c->per_token;
        for (int64_t r = (int64_t)c->tokens->grid[g] * c->per_token + group; r < last; r += groups)
            c->cpu->rows->add(sums, c->dy + r * c->cols + begin, n);
        c->cpu->rows->add(cpu_array(c->call->d_bias) + group * c->cols + begin, sums, n);
    }
}

static void norm_gradient_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const norm_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    for (int64_t group = 0; group == 0 || group < c->call->groups; group++) {
        if (c->call->d_weight)
            add_weight_gradient(c, group, begin, n);
        if (c->call->d_bias)
            add_bias_gradient(c, group, begin, n);
    }
}

void cpu_norm_bwd(backend *dev, device_array *dx, const device_array *dy, const device_array *x,
                  const device_array *rstd, const norm_call *call, int32_t per_token, int64_t cols,
                  bool add, const token_rows *tokens) {
    norm_context context = {.cpu = cpu_of(dev),
                            .call = call,
                            .dx = cpu_array(dx),
                            .dy = cpu_array_const(dy),
                            .x = cpu_array_const(x),
                            .rstd_in = cpu_array_const(rstd),
                            .cols = cols,
                            .per_token = per_token,
                            .add = add,
                            .tokens = tokens,
                            .pieces = pieces_of(cols, COLUMNS)};
    if (call->d_weight || call->d_bias) /* before dx, which may take dy's place */
        cpu_run_tasks(context.cpu, context.pieces.count, norm_gradient_task, &context);
    context.pieces = pieces_of_rows((int64_t)tokens->n * per_token, cols);
    cpu_run_tasks(context.cpu, context.pieces.count, norm_dx_task, &context);
}
