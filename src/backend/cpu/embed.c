/* Embedding. A term's input is one-hot, so x A^T is a column of A; nothing is dropped from it, as
 * in PEFT. */
#include "backend/cpu/gemm.h"

#include <string.h>

enum { RANKS = CPU_EMBED_RANKS };

/* ---- forward ---- */

typedef struct embed_context {
    cpu_backend *cpu;
    float *y;
    const weight_ref *table;
    const low_rank_term *terms;
    int32_t n_terms;
    const int32_t *ids;
    const token_rows *tokens;
    pieces rows;
} embed_context;

static void add_term(const embed_context *c, float *y, const low_rank_term *term, int32_t id) {
    const float *a = cpu_array_const(term->a), *b = cpu_array_const(term->b);
    int64_t cols = c->table->cols;
    for (int32_t first = 0; first < term->rank; first += RANKS) {
        float xa[RANKS];
        int32_t n = term->rank - first < RANKS ? term->rank - first : RANKS;
        for (int32_t r = 0; r < n; r++)
            xa[r] = a[(first + r) * c->table->rows + id];
        for (int64_t j = 0; j < cols; j++)
            y[j] += term->scale * c->cpu->rows->dot(b + j * term->rank + first, xa, n);
    }
    if (term->bias)
        c->cpu->rows->add_scaled(y, cpu_array_const(term->bias), term->scale, cols);
}

static void embed_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const embed_context *c = context;
    const weight_ref *table = c->table;
    for (int64_t t = piece_begin(&c->rows, i); t < piece_end(&c->rows, i); t++) {
        float *y = c->y + t * table->cols;
        int64_t offset = c->ids[t] * table->row_stride * (int64_t)dtype_bytes(table->type);
        c->cpu->rows->load(y, (const char *)table->data + offset, table->type, table->cols);
        for (int32_t j = 0; j < c->n_terms; j++) {
            int32_t begin, end;
            cpu_term_rows(&begin, &end, &c->terms[j], c->tokens);
            if (t >= begin && t < end)
                add_term(c, y, &c->terms[j], c->ids[t]);
        }
    }
}

void cpu_embed_fwd(backend *dev, device_array *y, const weight_ref *table,
                   const low_rank_term *terms, int32_t n_terms, const int32_t *ids,
                   const token_rows *tokens) {
    embed_context context = {.cpu = cpu_of(dev),
                             .y = cpu_array(y),
                             .table = table,
                             .terms = terms,
                             .n_terms = n_terms,
                             .ids = ids,
                             .tokens = tokens,
                             .rows = pieces_of_rows(tokens->n, table->cols * (1 + 8 * n_terms))};
    cpu_run_tasks(context.cpu, context.rows.count, embed_task, &context);
}

/* ---- backward ---- */

typedef struct table_context {
    cpu_backend *cpu;
    float *d_table;
    const float *dy;
    const int32_t *ids;
    int32_t n, padding_id;
    int64_t cols;
    pieces columns;
} table_context;

/* A task owns columns, so that rows which occur twice are added in order. */
static void table_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const table_context *c = context;
    int64_t begin = piece_begin(&c->columns, i), n = piece_end(&c->columns, i) - begin;
    for (int32_t t = 0; t < c->n; t++)
        if (c->ids[t] != c->padding_id)
            c->cpu->rows->add(c->d_table + c->ids[t] * c->cols + begin, c->dy + t * c->cols + begin,
                              n);
}

/* One grid block of tokens and some of a term's ranks. */
typedef struct embed_block {
    cpu_backend *cpu;
    const low_rank_term *term;
    const int32_t *ids;
    const float *dy; /* [n, cols] */
    int32_t n, padding_id, first_rank, n_ranks;
    int64_t vocab, cols;
} embed_block;

/* db [cols, rank] += scale dy^T xa */
static void add_db(const embed_block *k, float *xa) {
    const float *a = cpu_array_const(k->term->a);
    for (int32_t r = 0; r < k->n_ranks; r++)
        for (int32_t t = 0; t < k->n; t++)
            xa[t * k->n_ranks + r] = a[(k->first_rank + r) * k->vocab + k->ids[t]];
    const int32_t cuts[2] = {0, k->n};
    gemm_product product = {.c = cpu_array(k->term->db) + k->first_rank,
                            .c_stride = k->term->rank,
                            .rows = k->n_ranks,
                            .cols = k->cols,
                            .a = {{xa, DTYPE_F32, k->n_ranks, true}, k->n, cuts, 1},
                            .b = {k->dy, DTYPE_F32, k->cols, true},
                            .scale = k->term->scale,
                            .add = true,
                            .is_turned = true};
    gemm_product_run(k->cpu, &product);
}

/* da [rank, vocab] += (scale dy B) by id */
static void add_da(const embed_block *k, float *d_xa) {
    const float *b = cpu_array_const(k->term->b) + k->first_rank;
    gemm_product product = {.c = d_xa,
                            .c_stride = k->n_ranks,
                            .rows = k->n,
                            .cols = k->n_ranks,
                            .a = {.a = {k->dy, DTYPE_F32, k->cols, false}, .k = k->cols},
                            .b = {b, DTYPE_F32, k->term->rank, true},
                            .scale = k->term->scale};
    gemm_product_run(k->cpu, &product);
    float *da = cpu_array(k->term->da);
    for (int32_t r = 0; r < k->n_ranks; r++)
        for (int32_t t = 0; t < k->n; t++)
            if (k->ids[t] != k->padding_id)
                da[(k->first_rank + r) * k->vocab + k->ids[t]] += d_xa[t * k->n_ranks + r];
}

static void term_bwd(cpu_backend *cpu, const low_rank_term *term, const float *dy,
                     const weight_ref *table, const int32_t *ids, int32_t padding_id,
                     const token_rows *tokens) {
    int32_t begin, end, first, last;
    cpu_term_rows(&begin, &end, term, tokens);
    cpu_grid_of(&first, &last, tokens, begin, end);
    for (int32_t g = first; g < last; g++)
        for (int32_t r = 0; r < term->rank; r += RANKS) {
            embed_block block = {.cpu = cpu,
                                 .term = term,
                                 .ids = ids + tokens->grid[g],
                                 .dy = dy + tokens->grid[g] * table->cols,
                                 .n = tokens->grid[g + 1] - tokens->grid[g],
                                 .padding_id = padding_id,
                                 .first_rank = r,
                                 .n_ranks = term->rank - r < RANKS ? term->rank - r : RANKS,
                                 .vocab = table->rows,
                                 .cols = table->cols};
            if (term->db)
                add_db(&block, cpu->embed_scratch);
            if (term->da)
                add_da(&block, cpu->embed_scratch);
        }
    if (term->dbias)
        cpu_sum_rows(cpu, cpu_array(term->dbias), dy, table->cols, term->scale, tokens, begin, end);
}

void cpu_embed_bwd(backend *dev, device_array *d_table, const device_array *dy,
                   const weight_ref *table, const low_rank_term *terms, int32_t n_terms,
                   const int32_t *ids, int32_t padding_id, const token_rows *tokens) {
    table_context context = {.cpu = cpu_of(dev),
                             .d_table = cpu_array(d_table),
                             .dy = cpu_array_const(dy),
                             .ids = ids,
                             .n = tokens->n,
                             .padding_id = padding_id,
                             .cols = table->cols,
                             .columns = pieces_of(table->cols, 64)};
    if (d_table)
        cpu_run_tasks(context.cpu, context.columns.count, table_task, &context);
    for (int32_t i = 0; i < n_terms; i++)
        term_bwd(context.cpu, &terms[i], context.dy, table, ids, padding_id, tokens);
}
