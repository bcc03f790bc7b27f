#include "backend/cpu/gemm_narrow.h"

#include <assert.h>
#include <string.h>

/* Layers with one input, carried out together: how wide their terms' xa are, and where the parts of
 * scratch lie: d_xa of every branch [n, its ranks], then dropped [n, in]. */
typedef struct linear_run {
    cpu_backend *cpu;
    const linear_branch *branches;
    int32_t n_branches, n_terms;
    const token_rows *tokens;
    int64_t n, in, ranks;
} linear_run;

static int64_t ranks_of(const linear_call *call) {
    int64_t ranks = 0;
    for (int32_t i = 0; i < call->n_terms; i++)
        ranks += call->terms[i].rank;
    return ranks;
}

static linear_run linear_run_of(backend *dev, const linear_branch *branches, int32_t n_branches,
                                const token_rows *tokens) {
    assert(n_branches > 0 && n_branches <= LINEAR_BRANCHES_MAX);
    linear_run run = {.cpu = cpu_of(dev),
                      .branches = branches,
                      .n_branches = n_branches,
                      .tokens = tokens,
                      .n = tokens->n,
                      .in = branches[0].call->weight.cols};
    for (int32_t j = 0; j < n_branches; j++) {
        assert(branches[j].call->weight.cols == run.in);
        run.n_terms += branches[j].call->n_terms;
        run.ranks += ranks_of(branches[j].call);
    }
    assert(run.n_terms <= LINEAR_TERMS_MAX);
    return run;
}

/* Without terms there may be no scratch at all. */
static float *dropped_rows(const linear_run *run, device_array *scratch) {
    return scratch ? cpu_array(scratch) + run->n * run->ranks : NULL;
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

/* ---- frozen weights in fewer bits ---- */

static bool is_narrow(const linear_run *run) {
    return run->cpu->narrow && !run->branches[0].call->is_exact;
}

/* c [rows, cols] (+)= a [rows, k] times the weight. */
static void run_narrow(const linear_run *run, const gemm_target *target,
                       const gemm_source *source) {
    narrow_call call = {.c = target->c,
                        .a = source->a.data,
                        .b = target->b[0],
                        .rows = run->n,
                        .cols = target->cols,
                        .k = source->k,
                        .add = target->add};
    narrow_run(run->cpu, &call);
}

/* One source and one target: the product with the weight in fewer bits, then in f32 the terms of
 * `call`, which has no target of its own. */
static void run_beside_narrow(const linear_run *run, gemm_call *call, const gemm_target *target) {
    gemm_low_rank thin[LINEAR_TERMS_MAX];
    if (target)
        run_narrow(run, target, call->sources);
    if (call->n_low_rank == 0)
        return;
    const gemm_low_rank *terms = call->low_rank;
    for (int32_t i = 0; i < call->n_low_rank; i++) {
        thin[i] = terms[i];
        thin[i].target = -1;
    }
    call->low_rank = thin;
    gemm_run(run->cpu, call);
    for (const gemm_low_rank *term = terms; term < terms + call->n_low_rank; term++) {
        gemm_operand xa =
            rows_operand(term->xa + term->row_begin * term->xa_stride, term->xa_stride);
        if (term->target < 0)
            continue;
        gemm_product product = {.c = target->c + term->row_begin * target->c_stride,
                                .c_stride = target->c_stride,
                                .rows = term->row_end - term->row_begin,
                                .cols = target->cols,
                                .a = {.a = xa, .k = term->rank},
                                .b = term->b,
                                .scale = term->scale,
                                .add = true};
        gemm_product_run(run->cpu, &product);
    }
}

/* ---- bias ---- */

typedef struct bias_context {
    cpu_backend *cpu;
    float *y;
    const linear_call *call;
    const token_rows *tokens;
    bool add;
    pieces rows;
} bias_context;

static void bias_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const bias_context *c = context;
    const row_kernels *rows = c->cpu->rows;
    int64_t out = c->call->weight.rows;
    for (int64_t t = piece_begin(&c->rows, i); t < piece_end(&c->rows, i); t++) {
        float *y = c->y + t * out;
        if (!c->add)
            rows->fill(y, 0, out);
        if (c->call->bias)
            rows->add(y, cpu_array_const(c->call->bias), out);
        for (int32_t j = 0; j < c->call->n_terms; j++) {
            const low_rank_term *term = &c->call->terms[j];
            int32_t begin, end;
            cpu_term_rows(&begin, &end, term, c->tokens);
            if (term->bias && t >= begin && t < end)
                rows->add_scaled(y, cpu_array_const(term->bias), term->scale, out);
        }
    }
}

/* y (+)= every bias; false when there is none and y was left alone. */
static bool add_biases(const linear_run *run, float *y, const linear_call *call, bool add) {
    bool has_bias = call->bias != NULL;
    for (int32_t i = 0; i < call->n_terms; i++)
        has_bias = has_bias || call->terms[i].bias;
    if (!has_bias)
        return false;
    bias_context context = {.cpu = run->cpu,
                            .y = y,
                            .call = call,
                            .tokens = run->tokens,
                            .add = add,
                            .rows = pieces_of_rows(run->n, call->weight.rows)};
    cpu_run_tasks(run->cpu, context.rows.count, bias_task, &context);
    return true;
}

/* ---- dropout ---- */

typedef struct dropout_context {
    cpu_backend *cpu;
    float *y;
    const float *x;
    const token_rows *tokens;
    float p;
    uint32_t stream;
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
                           .stream = c->stream,
                           .threshold = dropout_threshold(c->p),
                           .factor = (float)(1 / (1 - (double)c->p))};
        c->cpu->rows->dropout(c->y + t * c->width, c->x + t * c->width, &row, c->width, c->add);
    }
}

static void dropout_run(dropout_context *c) {
    cpu_run_tasks(c->cpu, c->rows.count, dropout_task, c);
}

/* y (+)= dropped x, for the term's rows. */
static void run_dropout(const linear_run *run, float *y, const float *x, const low_rank_term *term,
                        bool add) {
    int32_t begin, end;
    cpu_term_rows(&begin, &end, term, run->tokens);
    dropout_run(&(dropout_context){.cpu = run->cpu,
                                   .y = y,
                                   .x = x,
                                   .tokens = run->tokens,
                                   .p = term->dropout,
                                   .stream = term->dropout_stream,
                                   .width = run->in,
                                   .row_begin = begin,
                                   .add = add,
                                   .rows = pieces_of_rows(end - begin, run->in)});
}

void cpu_dropout(backend *dev, device_array *y, const device_array *x, float p, uint32_t stream,
                 int64_t cols, bool add, const token_rows *tokens) {
    dropout_run(&(dropout_context){.cpu = cpu_of(dev),
                                   .y = cpu_array(y),
                                   .x = cpu_array_const(x),
                                   .tokens = tokens,
                                   .p = p,
                                   .stream = stream,
                                   .width = cols,
                                   .add = add,
                                   .rows = pieces_of_rows(tokens->n, cols)});
}

/* ---- forward ---- */

/* A term as the products want it, but for what differs between forward and backward. xa: column 0
 * of the term, every `ranks` elements a row; rows of other jobs become zero. */
static gemm_low_rank low_rank_of(const linear_run *run, const low_rank_term *term, float *xa,
                                 int64_t ranks) {
    int32_t begin, end;
    cpu_term_rows(&begin, &end, term, run->tokens);
    for (int64_t t = 0; t < run->n; t++)
        if (t < begin || t >= end)
            memset(xa + t * ranks, 0, (size_t)term->rank * sizeof *xa);
    return (gemm_low_rank){
        .xa = xa, .xa_stride = ranks, .rank = term->rank, .row_begin = begin, .row_end = end};
}

/* xa of a term whose input is dropped, made aside. */
static void run_dropped_xa(const linear_run *run, const low_rank_term *term,
                           const gemm_low_rank *low_rank, float *dropped, const float *x) {
    run_dropout(run, dropped, x, term, false);
    gemm_product product = {
        .c = low_rank->xa + low_rank->row_begin * low_rank->xa_stride,
        .c_stride = low_rank->xa_stride,
        .rows = low_rank->row_end - low_rank->row_begin,
        .cols = term->rank,
        .a = {.a = rows_operand(dropped + low_rank->row_begin * run->in, run->in), .k = run->in},
        .b = rows_operand(cpu_array_const(term->a), run->in),
        .scale = 1};
    gemm_product_run(run->cpu, &product);
}

/* The forward terms of branch j, in to. */
static void forward_terms(const linear_run *run, gemm_low_rank *to, int32_t j, const float *x,
                          float *dropped) {
    const linear_branch *branch = &run->branches[j];
    int64_t ranks = ranks_of(branch->call);
    float *xa = cpu_array(branch->xa);
    for (int32_t i = 0; i < branch->call->n_terms; i++) {
        const low_rank_term *term = &branch->call->terms[i];
        to[i] = low_rank_of(run, term, xa, ranks);
        to[i].thin = rows_operand(cpu_array_const(term->a), run->in);
        to[i].thin_scale = 1;
        to[i].target = j;
        to[i].b = rows_operand(cpu_array_const(term->b), term->rank);
        to[i].scale = term->scale;
        if (is_dropping(term, run->tokens)) {
            to[i].source = -1;
            run_dropped_xa(run, term, &to[i], dropped, x);
        }
        xa += term->rank;
    }
}

void cpu_linear_group_fwd(backend *dev, const linear_branch *branches, int32_t n_branches,
                          const device_array *x_, bool add, device_array *scratch,
                          const token_rows *tokens) {
    linear_run run = linear_run_of(dev, branches, n_branches, tokens);
    if (run.cpu->narrow && n_branches > 1) {
        for (int32_t j = 0; j < n_branches; j++)
            cpu_linear_group_fwd(dev, &branches[j], 1, x_, add, scratch, tokens);
        return;
    }
    const float *x = cpu_array_const(x_);
    gemm_source source = {.a = rows_operand(x, run.in), .k = run.in};
    gemm_operand weights[LINEAR_BRANCHES_MAX];
    gemm_target targets[LINEAR_BRANCHES_MAX];
    gemm_low_rank low_rank[LINEAR_TERMS_MAX];
    int32_t n_low_rank = 0;
    for (int32_t j = 0; j < n_branches; j++) {
        const linear_call *call = branches[j].call;
        float *y = cpu_array(branches[j].y);
        weights[j] = weight_operand(&call->weight, false);
        targets[j] = (gemm_target){.c = y,
                                   .c_stride = call->weight.rows,
                                   .cols = call->weight.rows,
                                   .b = &weights[j],
                                   .scale = 1,
                                   .add = add_biases(&run, y, call, add) || add};
        forward_terms(&run, low_rank + n_low_rank, j, x, dropped_rows(&run, scratch));
        n_low_rank += call->n_terms;
    }
    gemm_call call = {.rows = run.n,
                      .sources = &source,
                      .targets = targets,
                      .low_rank = low_rank,
                      .n_sources = 1,
                      .n_low_rank = n_low_rank};
    if (is_narrow(&run)) {
        run_beside_narrow(&run, &call, targets);
        return;
    }
    call.n_targets = n_branches;
    gemm_run(run.cpu, &call);
}

void cpu_linear_fwd(backend *dev, device_array *y, device_array *xa, const device_array *x,
                    const linear_call *call, bool add, device_array *scratch,
                    const token_rows *tokens) {
    const linear_branch branch = {.call = call, .y = y, .xa = xa};
    cpu_linear_group_fwd(dev, &branch, 1, x, add, scratch, tokens);
}

/* ---- backward ---- */

/* c [rows, cols] (turned: [cols, rows]) += scale a^T b, summed over tokens begin .. end on the
 * grid; a [n, rows], b [n, cols] by stride. The operand with fewer columns should be a. */
static void run_gradient(const linear_run *run, gemm_product *product, const float *a,
                         int64_t a_stride, const float *b, int64_t b_stride, int32_t begin,
                         int32_t end) {
    int32_t first, last;
    cpu_grid_of(&first, &last, run->tokens, begin, end);
    if (first == last)
        return;
    product->a = (gemm_source){.a = k_major_operand(a + begin * a_stride, a_stride),
                               .k = end - begin,
                               .cuts = run->tokens->grid + first,
                               .n_cuts = last - first};
    product->b = k_major_operand(b + begin * b_stride, b_stride);
    product->add = true;
    gemm_product_run(run->cpu, product);
}

/* Gradients of one term's own tensors; input [n, in]; xa, d_xa [n, rank] every `ranks` elements. */
static void term_gradients(const linear_run *run, const low_rank_term *term, int64_t out,
                           const float *dy, const float *input, const float *xa, const float *d_xa,
                           int64_t ranks) {
    int32_t begin, end;
    cpu_term_rows(&begin, &end, term, run->tokens);
    if (term->db) {
        gemm_product db = {.c = cpu_array(term->db),
                           .c_stride = term->rank,
                           .rows = term->rank,
                           .cols = out,
                           .scale = term->scale,
                           .is_turned = true};
        run_gradient(run, &db, xa, ranks, dy, out, begin, end);
    }
    if (term->da) {
        gemm_product da = {.c = cpu_array(term->da),
                           .c_stride = run->in,
                           .rows = term->rank,
                           .cols = run->in,
                           .scale = 1};
        run_gradient(run, &da, d_xa, ranks, input, run->in, begin, end);
    }
    if (term->dbias)
        cpu_sum_rows(run->cpu, cpu_array(term->dbias), dy, out, term->scale, run->tokens, begin,
                     end);
}

/* dx += mask (d_xa A), for a term whose input was dropped; made aside, in `dropped`, first. */
static void add_dropped_dx(const linear_run *run, float *dx, float *dropped,
                           const low_rank_term *term, const float *d_xa, int64_t ranks) {
    int32_t begin, end;
    cpu_term_rows(&begin, &end, term, run->tokens);
    gemm_product product = {.c = dropped + begin * run->in,
                            .c_stride = run->in,
                            .rows = end - begin,
                            .cols = run->in,
                            .a = {.a = rows_operand(d_xa + begin * ranks, ranks), .k = term->rank},
                            .b = k_major_operand(cpu_array_const(term->a), run->in),
                            .scale = 1};
    gemm_product_run(run->cpu, &product);
    run_dropout(run, dx, dropped, term, true);
}

/* The backward terms of branch j (d_xa: its columns), in `to`; returns how many there are. */
static int32_t backward_terms(const linear_run *run, gemm_low_rank *to, int32_t j, float *d_xa,
                              bool needs_dx) {
    const linear_call *call = run->branches[j].call;
    int64_t ranks = ranks_of(call);
    int32_t n = 0;
    for (int32_t i = 0; i < call->n_terms; i++, d_xa += call->terms[i - 1].rank) {
        const low_rank_term *term = &call->terms[i];
        if (!needs_dx && !term->da)
            continue;
        to[n] = low_rank_of(run, term, d_xa, ranks);
        to[n].source = j;
        to[n].thin = k_major_operand(cpu_array_const(term->b), term->rank);
        to[n].thin_scale = term->scale;
        to[n].target = needs_dx && !is_dropping(term, run->tokens) ? 0 : -1;
        to[n].b = k_major_operand(cpu_array_const(term->a), run->in);
        to[n].scale = 1;
        n++;
    }
    return n;
}

/* d_xa [n, ranks] of every term = scale dy B, and dx (NULL: nobody needs it) (+)= every dy W and
 * the terms that nothing was dropped from, in one product. */
static void base_dx(const linear_run *run, float *dx, float *d_xa, bool add) {
    gemm_source sources[LINEAR_BRANCHES_MAX];
    gemm_operand weights[LINEAR_BRANCHES_MAX];
    gemm_low_rank low_rank[LINEAR_TERMS_MAX];
    int32_t n_low_rank = 0;
    for (int32_t j = 0; j < run->n_branches; j++) {
        const linear_call *call = run->branches[j].call;
        int64_t out = call->weight.rows;
        sources[j] =
            (gemm_source){.a = rows_operand(cpu_array_const(run->branches[j].y), out), .k = out};
        weights[j] = weight_operand(&call->weight, true);
        n_low_rank += backward_terms(run, low_rank + n_low_rank, j, d_xa, dx != NULL);
        d_xa += run->n * ranks_of(call);
    }
    gemm_target target = {
        .c = dx, .c_stride = run->in, .cols = run->in, .b = weights, .scale = 1, .add = add};
    gemm_call call = {.rows = run->n,
                      .sources = sources,
                      .targets = &target,
                      .low_rank = low_rank,
                      .n_sources = run->n_branches,
                      .n_low_rank = n_low_rank};
    if (is_narrow(run)) {
        run_beside_narrow(run, &call, dx ? &target : NULL);
        return;
    }
    call.n_targets = dx ? 1 : 0;
    if (dx || n_low_rank > 0)
        gemm_run(run->cpu, &call);
}

/* Everything that adds up over tokens for one branch. */
static void branch_gradients(const linear_run *run, const linear_branch *branch, float *dx,
                             const float *x, const float *d_xa, float *dropped) {
    const linear_call *call = branch->call;
    const float *dy = cpu_array_const(branch->y), *xa = cpu_array_const(branch->xa);
    int64_t ranks = ranks_of(call), out = call->weight.rows, before = 0;
    for (int32_t i = 0; i < call->n_terms; i++) {
        const low_rank_term *term = &call->terms[i];
        bool drops = is_dropping(term, run->tokens);
        if (drops && term->da)
            run_dropout(run, dropped, x, term, false);
        term_gradients(run, term, out, dy, drops ? dropped : x, xa ? xa + before : NULL,
                       d_xa + before, ranks);
        if (drops && dx)
            add_dropped_dx(run, dx, dropped, term, d_xa + before, ranks);
        before += term->rank;
    }
    if (call->d_weight) {
        bool turned = call->weight.is_transposed;
        gemm_product d_weight = {.c = cpu_array(call->d_weight),
                                 .c_stride = turned ? out : run->in,
                                 .rows = turned ? run->in : out,
                                 .cols = turned ? out : run->in,
                                 .scale = 1};
        if (turned)
            run_gradient(run, &d_weight, x, run->in, dy, out, 0, run->tokens->n);
        else
            run_gradient(run, &d_weight, dy, out, x, run->in, 0, run->tokens->n);
    }
    if (call->d_bias)
        cpu_sum_rows(run->cpu, cpu_array(call->d_bias), dy, out, 1, run->tokens, 0, run->tokens->n);
}

void cpu_linear_group_bwd(backend *dev, device_array *dx, const linear_branch *branches,
                          int32_t n_branches, const device_array *x, bool add,
                          device_array *scratch, const token_rows *tokens) {
    linear_run run = linear_run_of(dev, branches, n_branches, tokens);
    if (run.cpu->narrow && n_branches > 1) {
        for (int32_t j = 0; j < n_branches; j++)
            cpu_linear_group_bwd(dev, dx, &branches[j], 1, x, add || j > 0, scratch, tokens);
        return;
    }
    float *d_xa = cpu_array(scratch);
    base_dx(&run, cpu_array(dx), d_xa, add);
    for (int32_t j = 0; j < n_branches; j++) {
        branch_gradients(&run, &branches[j], cpu_array(dx), cpu_array_const(x), d_xa,
                         dropped_rows(&run, scratch));
        d_xa += run.n * ranks_of(branches[j].call);
    }
}

void cpu_linear_bwd(backend *dev, device_array *dx, const device_array *dy, const device_array *x,
                    const device_array *xa, const linear_call *call, bool add,
                    device_array *scratch, const token_rows *tokens) {
    /* Backward reads y and xa only. */
    const linear_branch branch = {
        .call = call, .y = (device_array *)(uintptr_t)dy, .xa = (device_array *)(uintptr_t)xa};
    cpu_linear_group_bwd(dev, dx, &branch, 1, x, add, scratch, tokens);
}
