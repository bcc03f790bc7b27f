#include "backend/cpu/gemm.h"

#include <assert.h>
#include <string.h>

/* A call with its arrays, and where its terms' columns of xa and scratch begin. */
typedef struct linear_run {
    cpu_backend *cpu;
    const linear_call *call;
    const token_rows *tokens;
    int64_t n, in, out, ranks;
} linear_run;

/* A product under way: parts are gathered and run together, so that each tile of c is visited once
 * for all of them. */
enum { PARTS_MAX = 32 };
typedef struct product {
    cpu_backend *cpu;
    float *c; /* [rows, cols] */
    int64_t rows, cols;
    bool add;
    gemm_part parts[PARTS_MAX];
    int32_t n_parts;
} product;

static linear_run linear_run_of(backend *dev, const linear_call *call, const token_rows *tokens) {
    linear_run run = {.cpu = cpu_of(dev),
                      .call = call,
                      .tokens = tokens,
                      .n = tokens->n,
                      .in = call->weight.cols,
                      .out = call->weight.rows};
    for (int32_t i = 0; i < call->n_terms; i++)
        run.ranks += call->terms[i].rank;
    return run;
}

/* The part of scratch behind the terms' columns; without terms there may be no scratch at all. */
static float *dropped_rows(const linear_run *run, device_array *scratch) {
    return scratch ? cpu_array(scratch) + 2 * run->n * run->ranks : NULL;
}

static bool is_dropping(const low_rank_term *term, const token_rows *tokens) {
    return tokens->training && term->dropout > 0;
}

static gemm_operand rows_operand(const float *x, int64_t stride) {
    return (gemm_operand){.data = x, .type = DTYPE_F32, .stride = stride};
}

static gemm_operand k_major_operand(const float *x, int64_t stride) {
    return (gemm_operand){.data = x, .type = DTYPE_F32, .stride = stride, .is_k_major = true};
}

/* The weight as the B operand of a product over its columns, or over its rows. */
static gemm_operand weight_operand(const weight_ref *w, bool is_over_rows) {
    return (gemm_operand){.data = w->data,
                          .type = w->type,
                          .stride = w->row_stride,
                          .is_k_major = is_over_rows != w->is_transposed};
}

/* ---- bias ---- */

typedef struct bias_context {
    cpu_backend *cpu;
    float *y;
    const linear_run *run;
    bool add;
    pieces rows;
} bias_context;

static void bias_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const bias_context *c = context;
    const linear_call *call = c->run->call;
    const row_kernels *rows = c->cpu->rows;
    int64_t out = c->run->out;
    for (int64_t t = piece_begin(&c->rows, i); t < piece_end(&c->rows, i); t++) {
        float *y = c->y + t * out;
        if (!c->add)
            rows->fill(y, 0, out);
        if (call->bias)
            rows->add(y, cpu_array_const(call->bias), out);
        for (int32_t j = 0; j < call->n_terms; j++) {
            const low_rank_term *term = &call->terms[j];
            int32_t begin, end;
            cpu_term_rows(&begin, &end, term, c->run->tokens);
            if (term->bias && t >= begin && t < end)
                rows->add_scaled(y, cpu_array_const(term->bias), term->scale, out);
        }
    }
}

/* y (+)= every bias; false when there is none and y was left alone. */
static bool add_biases(const linear_run *run, float *y, bool add) {
    bool has_bias = run->call->bias != NULL;
    for (int32_t i = 0; i < run->call->n_terms; i++)
        has_bias = has_bias || run->call->terms[i].bias;
    if (!has_bias)
        return false;
    bias_context context = {
        .cpu = run->cpu, .y = y, .run = run, .add = add, .rows = pieces_of_rows(run->n, run->out)};
    cpu_run_tasks(run->cpu, context.rows.count, bias_task, &context);
    return true;
}

/* ---- dropout ---- */

typedef struct dropout_context {
    cpu_backend *cpu;
    float *y;
    const float *x;
    const low_rank_term *term;
    const token_rows *tokens;
    int64_t width;
    int32_t row_begin;
    bool add;
    pieces rows;
} dropout_context;

static void dropout_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const dropout_context *c = context;
    for (int64_t j = piece_begin(&c->rows, i); j < piece_end(&c->rows, i); j++) {
        int64_t t = c->row_begin + j;
        dropout_row row = {.key = c->tokens->dropout_key,
                           .token_counter = c->tokens->dropout_counter[t],
                           .stream = c->term->dropout_stream,
                           .threshold = dropout_threshold(c->term->dropout),
                           .factor = (float)(1 / (1 - (double)c->term->dropout))};
        c->cpu->rows->dropout(c->y + t * c->width, c->x + t * c->width, &row, c->width, c->add);
    }
}

/* y (+)= dropped x, for the term's rows. */
static void run_dropout(const linear_run *run, float *y, const float *x, const low_rank_term *term,
                        bool add) {
    int32_t begin, end;
    cpu_term_rows(&begin, &end, term, run->tokens);
    dropout_context context = {.cpu = run->cpu,
                               .y = y,
                               .x = x,
                               .term = term,
                               .tokens = run->tokens,
                               .width = run->in,
                               .row_begin = begin,
                               .add = add,
                               .rows = pieces_of_rows(end - begin, run->in)};
    cpu_run_tasks(run->cpu, context.rows.count, dropout_task, &context);
}

/* ---- forward ---- */

/* One term's part of a product with a [n, k] from row `begin` and b. */
static gemm_part term_part(const low_rank_term *term, const token_rows *tokens, gemm_operand a,
                           gemm_operand b, int64_t k, float scale) {
    int32_t begin, end;
    cpu_term_rows(&begin, &end, term, tokens);
    a.data = (const float *)a.data + begin * a.stride;
    return (gemm_part){.a = a, .b = b, .k = k, .row_begin = begin, .row_end = end, .scale = scale};
}

static void product_run(product *p) {
    gemm_call call = {.c = p->c,
                      .c_stride = p->cols,
                      .rows = p->rows,
                      .cols = p->cols,
                      .parts = p->parts,
                      .n_parts = p->n_parts,
                      .add = p->add};
    if (p->n_parts)
        gemm_run(p->cpu, &call);
    p->n_parts = 0;
    p->add = true;
}

static void product_add(product *p, const gemm_part *part) {
    if (p->n_parts == PARTS_MAX)
        product_run(p);
    p->parts[p->n_parts++] = *part;
}

/* c [the term's rows, rank], every `ranks` elements a row, = scale x b; other rows are zero. */
static void run_thin(const linear_run *run, float *c, const low_rank_term *term, gemm_operand x,
                     gemm_operand b, int64_t k, float scale) {
    int32_t begin, end;
    cpu_term_rows(&begin, &end, term, run->tokens);
    for (int64_t t = 0; t < run->n; t++)
        if (t < begin || t >= end)
            memset(c + t * run->ranks, 0, (size_t)term->rank * sizeof *c);
    gemm_part part = term_part(term, run->tokens, x, b, k, scale);
    part.row_end -= part.row_begin;
    part.row_begin = 0;
    gemm_call call = {.c = c + begin * run->ranks,
                      .c_stride = run->ranks,
                      .rows = part.row_end,
                      .cols = term->rank,
                      .parts = &part,
                      .n_parts = 1};
    gemm_run(run->cpu, &call);
}

void cpu_linear_fwd(backend *dev, device_array *y, device_array *xa_, const device_array *x_,
                    const linear_call *call, bool add, device_array *scratch,
                    const token_rows *tokens) {
    linear_run run = linear_run_of(dev, call, tokens);
    float *xa = cpu_array(xa_), *dropped = dropped_rows(&run, scratch);
    const float *x = cpu_array_const(x_);
    product p = {.cpu = run.cpu, .c = cpu_array(y), .rows = run.n, .cols = run.out};
    p.add = add_biases(&run, p.c, add) || add;
    gemm_part base = {.a = rows_operand(x, run.in),
                      .b = weight_operand(&call->weight, false),
                      .k = run.in,
                      .row_end = run.n,
                      .scale = 1};
    product_add(&p, &base);
    for (int32_t i = 0; i < call->n_terms; i++) {
        const low_rank_term *term = &call->terms[i];
        bool drops = is_dropping(term, tokens);
        if (drops)
            run_dropout(&run, dropped, x, term, false);
        run_thin(&run, xa, term, rows_operand(drops ? dropped : x, run.in),
                 rows_operand(cpu_array_const(term->a), run.in), run.in, 1);
        gemm_part part =
            term_part(term, tokens, rows_operand(xa, run.ranks),
                      rows_operand(cpu_array_const(term->b), term->rank), term->rank, term->scale);
        product_add(&p, &part);
        xa += term->rank;
    }
    product_run(&p);
}

/* ---- backward ---- */

/* c [rows, cols] += scale a^T b, summed over tokens begin .. end on the grid; a [n, rows], b [n,
 * cols] by stride. */
static void run_gradient(const linear_run *run, float *c, int64_t rows, int64_t cols,
                         const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                         int32_t begin, int32_t end, float scale) {
    int32_t first, last;
    cpu_grid_of(&first, &last, run->tokens, begin, end);
    if (first == last)
        return;
    gemm_part part = {.a = k_major_operand(a + begin * a_stride, a_stride),
                      .b = k_major_operand(b + begin * b_stride, b_stride),
                      .k = end - begin,
                      .cuts = run->tokens->grid + first,
                      .n_cuts = last - first,
                      .row_end = rows,
                      .scale = scale};
    product p = {.cpu = run->cpu, .c = c, .rows = rows, .cols = cols, .add = true};
    product_add(&p, &part);
    product_run(&p);
}

/* Gradients of one term's own tensors; input [n, in], d_xa [n, rank] by run->ranks. */
static void term_gradients(const linear_run *run, const low_rank_term *term, const float *dy,
                           const float *input, const float *xa, const float *d_xa) {
    int32_t begin, end;
    cpu_term_rows(&begin, &end, term, run->tokens);
    if (term->db)
        run_gradient(run, cpu_array(term->db), run->out, term->rank, dy, run->out, xa, run->ranks,
                     begin, end, term->scale);
    if (term->da)
        run_gradient(run, cpu_array(term->da), term->rank, run->in, d_xa, run->ranks, input,
                     run->in, begin, end, 1);
    if (term->dbias)
        cpu_sum_rows(run->cpu, cpu_array(term->dbias), dy, run->out, term->scale, run->tokens,
                     begin, end);
}

/* The part d_xa A of dx. */
static gemm_part dx_part(const linear_run *run, const low_rank_term *term, const float *d_xa) {
    return term_part(term, run->tokens, rows_operand(d_xa, run->ranks),
                     k_major_operand(cpu_array_const(term->a), run->in), term->rank, 1);
}

/* dx += mask (d_xa A), for a term whose input was dropped; made aside, in `dropped`, first. */
static void add_dropped_dx(const linear_run *run, float *dx, float *dropped,
                           const low_rank_term *term, const float *d_xa) {
    gemm_part part = dx_part(run, term, d_xa);
    product p = {.cpu = run->cpu,
                 .c = dropped + part.row_begin * run->in,
                 .rows = part.row_end - part.row_begin,
                 .cols = run->in};
    part.row_begin = 0;
    part.row_end = p.rows;
    product_add(&p, &part);
    product_run(&p);
    run_dropout(run, dx, dropped, term, true);
}

/* dx (+)= dy W and the terms that nothing was dropped from, in one product. */
static void base_dx(const linear_run *run, float *dx, const float *dy, const float *d_xa,
                    bool add) {
    const linear_call *call = run->call;
    product p = {.cpu = run->cpu, .c = dx, .rows = run->n, .cols = run->in, .add = add};
    gemm_part base = {.a = rows_operand(dy, run->out),
                      .b = weight_operand(&call->weight, true),
                      .k = run->out,
                      .row_end = run->n,
                      .scale = 1};
    product_add(&p, &base);
    for (int32_t i = 0; i < call->n_terms; i++) {
        gemm_part part = dx_part(run, &call->terms[i], d_xa);
        if (!is_dropping(&call->terms[i], run->tokens))
            product_add(&p, &part);
        d_xa += call->terms[i].rank;
    }
    product_run(&p);
}

/* d_xa [n, rank] of every term = scale dy B. */
static void all_d_xa(const linear_run *run, float *d_xa, const float *dy, bool needs_dx) {
    for (int32_t i = 0; i < run->call->n_terms; i++) {
        const low_rank_term *term = &run->call->terms[i];
        if (needs_dx || term->da)
            run_thin(run, d_xa, term, rows_operand(dy, run->out),
                     k_major_operand(cpu_array_const(term->b), term->rank), run->out, term->scale);
        d_xa += term->rank;
    }
}

void cpu_linear_bwd(backend *dev, device_array *dx_, const device_array *dy_,
                    const device_array *x_, const device_array *xa_, const linear_call *call,
                    bool add, device_array *scratch, const token_rows *tokens) {
    linear_run run = linear_run_of(dev, call, tokens);
    float *dx = cpu_array(dx_), *d_xa = cpu_array(scratch);
    const float *dy = cpu_array_const(dy_), *x = cpu_array_const(x_), *xa = cpu_array_const(xa_);
    float *dropped = dropped_rows(&run, scratch);
    all_d_xa(&run, d_xa, dy, dx != NULL);
    if (dx)
        base_dx(&run, dx, dy, d_xa, add);
    int64_t before = 0; /* ranks of the terms before */
    for (int32_t i = 0; i < call->n_terms; i++) {
        const low_rank_term *term = &call->terms[i];
        bool drops = is_dropping(term, tokens);
        if (drops && term->da)
            run_dropout(&run, dropped, x, term, false);
        term_gradients(&run, term, dy, drops ? dropped : x, xa ? xa + before : NULL, d_xa + before);
        if (drops && dx)
            add_dropped_dx(&run, dx, dropped, term, d_xa + before);
        before += term->rank;
    }
    if (call->d_weight && call->weight.is_transposed)
        run_gradient(&run, cpu_array(call->d_weight), run.in, run.out, x, run.in, dy, run.out, 0,
                     tokens->n, 1);
    else if (call->d_weight)
        run_gradient(&run, cpu_array(call->d_weight), run.out, run.in, dy, run.out, x, run.in, 0,
                     tokens->n, 1);
    if (call->d_bias)
        cpu_sum_rows(run.cpu, cpu_array(call->d_bias), dy, run.out, 1, tokens, 0, tokens->n);
}
