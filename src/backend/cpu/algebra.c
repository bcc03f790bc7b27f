/* Plain algebra on arrays, for adapter methods: products go through the one gemm driver, the rest
 * is divided into tasks over rows or columns. */
#include "backend/cpu/gemm.h"

#include <string.h>

/* ---- Products ---- */

static gemm_operand operand_of(const matrix *m, int64_t step, bool is_right) {
    return (gemm_operand){.data = cpu_array_const(m->data) + step,
                          .type = DTYPE_F32,
                          .stride = m->stride,
                          .is_k_major = m->is_transposed != is_right};
}

void cpu_matmul(backend *dev, const matmul_call *call) {
    int64_t times = call->batch > 0 ? call->batch : 1;
    bool add = call->add || call->tokens;
    if (call->rows == 0 || call->cols == 0)
        return;
    /* A sum of nothing: the driver wants at least one element. */
    if (call->k == 0) {
        for (int64_t i = 0; i < times * call->rows && !add; i++)
            cpu_of(dev)->rows->fill(cpu_array(call->c) + i / call->rows * call->c_step +
                                        i % call->rows * call->c_stride,
                                    0, call->cols);
        return;
    }
    for (int64_t g = 0; g < times; g++) {
        gemm_product product = {
            .c = cpu_array(call->c) + g * call->c_step,
            .c_stride = call->c_stride,
            .rows = call->rows,
            .cols = call->cols,
            .a = {.a = operand_of(&call->a, g * call->a_step, false), .k = call->k},
            .b = operand_of(&call->b, g * call->b_step, true),
            .scale = (float)call->scale,
            .add = add};
        if (call->tokens) {
            product.a.cuts = call->tokens->grid;
            product.a.n_cuts = call->tokens->n_grid;
        }
        gemm_product_run(cpu_of(dev), &product);
    }
}

/* ---- Rows ---- */

typedef struct algebra_context {
    cpu_backend *cpu;
    float *y;
    const float *a, *b, *v;
    const weight_ref *weight;
    const int32_t *index;
    const token_rows *tokens;
    float factor;
    int64_t rows, cols;
    bool add;
    pieces pieces; /* of elements, rows or columns */
} algebra_context;

static void run(algebra_context *c, backend *dev, pieces of, thread_task *task) {
    c->cpu = cpu_of(dev);
    c->pieces = of;
    cpu_run_tasks(c->cpu, of.count, task, c);
}

/* Rows [begin, end), element by element: they lie apart. */
static void load_transposed(const algebra_context *c, int64_t begin, int64_t end) {
    const weight_ref *w = c->weight;
    for (int64_t r = begin; r < end; r++)
        for (int64_t j = 0; j < w->cols; j++)
            c->cpu->rows->load(c->y + r * w->cols + j,
                               (const char *)w->data +
                                   (j * w->row_stride + r) * (int64_t)dtype_bytes(w->type),
                               w->type, 1);
}

static void weight_load_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    const weight_ref *w = c->weight;
    if (w->is_transposed) {
        load_transposed(c, piece_begin(&c->pieces, i), piece_end(&c->pieces, i));
        return;
    }
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++)
        c->cpu->rows->load(c->y + r * w->cols,
                           (const char *)w->data +
                               r * w->row_stride * (int64_t)dtype_bytes(w->type),
                           w->type, w->cols);
}

void cpu_weight_load(backend *dev, device_array *y, const weight_ref *w) {
    algebra_context c = {.y = cpu_array(y), .weight = w};
    run(&c, dev, pieces_of_rows(w->rows, w->cols), weight_load_task);
}

static void add_scaled_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i);
    c->cpu->rows->add_scaled(c->y + begin, c->a + begin, c->factor,
                             piece_end(&c->pieces, i) - begin);
}

void cpu_add_scaled(backend *dev, device_array *y, const device_array *x, double factor,
                    int64_t n) {
    algebra_context c = {.y = cpu_array(y), .a = cpu_array_const(x), .factor = (float)factor};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), add_scaled_task);
}

static void mul_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    for (int64_t j = piece_begin(&c->pieces, i); j < piece_end(&c->pieces, i); j++)
        c->y[j] = c->add ? c->y[j] + c->a[j] * c->b[j] : c->a[j] * c->b[j];
}

void cpu_mul(backend *dev, device_array *y, const device_array *a, const device_array *b, int64_t n,
             bool add) {
    algebra_context c = {
        .y = cpu_array(y), .a = cpu_array_const(a), .b = cpu_array_const(b), .add = add};
    run(&c, dev, pieces_of(n, CPU_TASK_ELEMENTS), mul_task);
}

static void scale_cols_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++) {
        float *y = c->y + r * c->cols;
        const float *x = c->a + r * c->cols;
        for (int64_t j = 0; j < c->cols; j++)
            y[j] = c->add ? y[j] + x[j] * c->v[j] : x[j] * c->v[j];
    }
}

void cpu_scale_cols(backend *dev, device_array *y, const device_array *x, const device_array *v,
                    int64_t rows, int64_t cols, bool add) {
    algebra_context c = {.y = cpu_array(y),
                         .a = cpu_array_const(x),
                         .v = cpu_array_const(v),
                         .cols = cols,
                         .add = add};
    run(&c, dev, pieces_of_rows(rows, cols), scale_cols_task);
}

static void scale_rows_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++) {
        float *y = c->y + r * c->cols;
        const float *x = c->a + r * c->cols;
        for (int64_t j = 0; j < c->cols; j++)
            y[j] = c->add ? y[j] + x[j] * c->v[r] : x[j] * c->v[r];
    }
}

void cpu_scale_rows(backend *dev, device_array *y, const device_array *x, const device_array *v,
                    int64_t rows, int64_t cols, bool add) {
    algebra_context c = {.y = cpu_array(y),
                         .a = cpu_array_const(x),
                         .v = cpu_array_const(v),
                         .cols = cols,
                         .add = add};
    run(&c, dev, pieces_of_rows(rows, cols), scale_rows_task);
}

static void add_rows_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++)
        c->cpu->rows->add(c->y + r * c->cols, c->v, c->cols);
}

void cpu_add_rows(backend *dev, device_array *y, const device_array *v, int64_t rows,
                  int64_t cols) {
    algebra_context c = {.y = cpu_array(y), .v = cpu_array_const(v), .cols = cols};
    run(&c, dev, pieces_of_rows(rows, cols), add_rows_task);
}

static void sum_rows_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    for (int64_t r = piece_begin(&c->pieces, i); r < piece_end(&c->pieces, i); r++) {
        const float *a = c->a + r * c->cols;
        float sum = 0;
        if (c->b)
            sum = c->cpu->rows->dot(a, c->b + r * c->cols, c->cols);
        else
            for (int64_t j = 0; j < c->cols; j++)
                sum += a[j];
        c->y[r] = c->add ? c->y[r] + sum : sum;
    }
}

void cpu_sum_rows_of(backend *dev, device_array *s, const device_array *a, const device_array *b,
                     int64_t rows, int64_t cols, bool add) {
    algebra_context c = {.y = cpu_array(s),
                         .a = cpu_array_const(a),
                         .b = b ? cpu_array_const(b) : NULL,
                         .cols = cols,
                         .add = add};
    run(&c, dev, pieces_of_rows(rows, cols), sum_rows_task);
}

/* ---- Columns: a task has some of them, and passes all rows ---- */

enum { COLUMNS_A_TASK = 64 };

static void sum_block(const algebra_context *c, int64_t col, int64_t cols, int64_t row_begin,
                      int64_t row_end) {
    float sum[COLUMNS_A_TASK] = {0};
    for (int64_t r = row_begin; r < row_end; r++) {
        const float *a = c->a + r * c->cols + col;
        const float *b = c->b ? c->b + r * c->cols + col : NULL;
        for (int64_t j = 0; j < cols; j++)
            sum[j] += b ? a[j] * b[j] : a[j];
    }
    for (int64_t j = 0; j < cols; j++)
        c->y[col + j] += sum[j];
}

static void sum_cols_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), cols = piece_end(&c->pieces, i) - begin;
    if (!c->tokens) {
        sum_block(c, begin, cols, 0, c->rows);
        return;
    }
    for (int32_t g = 0; g < c->tokens->n_grid; g++)
        sum_block(c, begin, cols, c->tokens->grid[g], c->tokens->grid[g + 1]);
}

void cpu_sum_cols(backend *dev, device_array *s, const device_array *a, const device_array *b,
                  int64_t rows, int64_t cols, const token_rows *tokens) {
    algebra_context c = {.y = cpu_array(s),
                         .a = cpu_array_const(a),
                         .b = b ? cpu_array_const(b) : NULL,
                         .rows = rows,
                         .cols = cols,
                         .tokens = tokens};
    run(&c, dev, pieces_of(cols, COLUMNS_A_TASK), sum_cols_task);
}

static void scatter_add_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const algebra_context *c = context;
    int64_t begin = piece_begin(&c->pieces, i), n = piece_end(&c->pieces, i) - begin;
    for (int64_t r = 0; r < c->rows; r++)
        c->cpu->rows->add(c->y + c->index[r] * c->cols + begin, c->a + r * c->cols + begin, n);
}

void cpu_scatter_add_rows(backend *dev, device_array *y, const device_array *x,
                          const int32_t *index, int64_t n, int64_t cols) {
    algebra_context c = {
        .y = cpu_array(y), .a = cpu_array_const(x), .index = index, .rows = n, .cols = cols};
    run(&c, dev, pieces_of(cols, COLUMNS_A_TASK), scatter_add_task);
}
