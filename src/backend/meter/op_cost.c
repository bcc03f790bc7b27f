#include "backend/meter/op_cost.h"

#include <math.h>

/* Rows a term applies to. */
static double term_rows(const low_rank_term *term, const token_rows *rows) {
    if (term->job < 0)
        return rows->n;
    return term->job < rows->n_jobs ? rows->job_begin[term->job + 1] - rows->job_begin[term->job]
                                    : 0;
}

static double ranks_of(const low_rank_term *terms, int32_t n_terms) {
    double ranks = 0;
    for (int32_t i = 0; i < n_terms; i++)
        ranks += terms[i].rank;
    return ranks;
}

/* The weight once, x and y once, and A, B and x A^T of the terms. */
static double linear_bytes(const linear_call *call, const token_rows *rows, double element) {
    double n = rows->n, in = (double)call->weight.cols, out = (double)call->weight.rows;
    double ranks = ranks_of(call->terms, call->n_terms);
    return in * out * (double)dtype_bytes(call->weight.type) +
           element * (n * (in + out + ranks) + ranks * (in + out));
}

op_cost linear_fwd_cost(const linear_call *call, const token_rows *rows, size_t element_bytes,
                        bool add) {
    double in = (double)call->weight.cols, out = (double)call->weight.rows, n = rows->n;
    double element = (double)element_bytes;
    op_cost cost = {.bytes = linear_bytes(call, rows, element) + (add ? element * n * out : 0)};
    for (int32_t i = 0; i < call->n_terms; i++)
        cost.trained_flops +=
            2 * term_rows(&call->terms[i], rows) * call->terms[i].rank * (in + out);
    cost.flops = 2 * n * in * out + cost.trained_flops;
    return cost;
}

op_cost linear_bwd_cost(const linear_call *call, const token_rows *rows, size_t element_bytes,
                        bool needs_dx, bool add) {
    double in = (double)call->weight.cols, out = (double)call->weight.rows, n = rows->n;
    double element = (double)element_bytes, moved = 0;
    op_cost cost = {0};
    for (int32_t i = 0; i < call->n_terms; i++) {
        const low_rank_term *term = &call->terms[i];
        double products = 2 * term_rows(term, rows) * term->rank;
        cost.trained_flops += (term->db ? products * out : 0) +
                              (term->da || needs_dx ? products * out : 0) +
                              (term->da ? products * in : 0) + (needs_dx ? products * in : 0);
        moved += (term->da ? in : 0) * term->rank + (term->db ? out : 0) * term->rank;
    }
    if (call->d_weight) {
        cost.trained_flops += 2 * n * in * out;
        moved += 2 * in * out;
    }
    cost.flops = cost.trained_flops + (needs_dx ? 2 * n * in * out : 0);
    cost.bytes = element * (moved + n * out + (needs_dx ? n * in * (add ? 2 : 1) : 0));
    if (needs_dx)
        cost.bytes += in * out * (double)dtype_bytes(call->weight.type);
    return cost;
}

static void cost_add(op_cost *sum, op_cost part) {
    sum->flops += part.flops;
    sum->trained_flops += part.trained_flops;
    sum->bytes += part.bytes;
}

/* Bytes of an input that every layer of a group was counted to move, but the first. */
static double shared_bytes(const linear_branch *branches, int32_t n_branches,
                           const token_rows *rows, size_t element_bytes) {
    return (double)element_bytes * (n_branches - 1) * rows->n *
           (double)branches[0].call->weight.cols;
}

op_cost linear_group_fwd_cost(const linear_branch *branches, int32_t n_branches,
                              const token_rows *rows, size_t element_bytes, bool add) {
    op_cost cost = {0};
    for (int32_t i = 0; i < n_branches; i++)
        cost_add(&cost, linear_fwd_cost(branches[i].call, rows, element_bytes, add));
    cost.bytes -= shared_bytes(branches, n_branches, rows, element_bytes);
    return cost;
}

op_cost linear_group_bwd_cost(const linear_branch *branches, int32_t n_branches,
                              const token_rows *rows, size_t element_bytes, bool needs_dx,
                              bool add) {
    op_cost cost = {0};
    for (int32_t i = 0; i < n_branches; i++)
        cost_add(&cost, linear_bwd_cost(branches[i].call, rows, element_bytes, needs_dx, add));
    if (needs_dx)
        cost.bytes -= (add ? 2 : 1) * shared_bytes(branches, n_branches, rows, element_bytes);
    return cost;
}

op_cost embed_cost(const weight_ref *table, const low_rank_term *terms, int32_t n_terms,
                   const token_rows *rows, size_t element_bytes, bool backward) {
    double n = rows->n, width = (double)table->cols;
    op_cost cost = {.bytes =
                        n * width * ((double)dtype_bytes(table->type) + (double)element_bytes)};
    for (int32_t i = 0; i < n_terms; i++) /* x is one-hot: only B is a product */
        cost.trained_flops +=
            2 * term_rows(&terms[i], rows) * terms[i].rank * width * (backward ? 2 : 1);
    cost.flops = cost.trained_flops;
    return cost;
}

/* Keys that the queries of one segment look at, summed over the queries. */
static double segment_pairs(double n, double past, double window) {
    double all = n * past + n * (n + 1) / 2;
    if (window <= 0 || past + n <= window)
        return all;
    /* Query i sees min(past + i + 1, window) keys. */
    double whole = window - past > 0 ? window - past : 0; /* queries that see all before them */
    return whole * past + whole * (whole + 1) / 2 + (n - whole) * window;
}

op_cost attention_cost(const attention_call *call, const batch *b, int32_t layer,
                       size_t element_bytes, bool backward) {
    double pairs = 0, keys = 0;
    for (int32_t i = 0; i < b->n_segments; i++) {
        const segment *s = &b->segments[i];
        double past = s->past ? s->past[layer].length : 0;
        pairs += segment_pairs(s->token_end - s->token_begin, past, call->window);
        keys += past + s->token_end - s->token_begin;
    }
    /* Forward: scores and their sum over values; backward: scores again, dv, dp, dq, dk. */
    double width = (double)call->n_heads * call->head_dim, n = b->tokens.n;
    double value_width = (double)call->n_heads * attention_value_dim(call);
    double kv_width = (double)call->n_kv_heads * (call->head_dim + attention_value_dim(call));
    double moved = (backward ? 2 : 1) * (n * (width + value_width) + keys * kv_width);
    return (op_cost){
        .flops = pairs * (backward ? 6 * width + 4 * value_width : 2 * width + 2 * value_width),
        .bytes = (double)element_bytes * (moved + n * call->n_heads)};
}

op_cost matmul_cost(const matmul_call *call, size_t element_bytes) {
    double times = call->batch > 0 ? (double)call->batch : 1;
    double rows = (double)call->rows, cols = (double)call->cols, k = (double)call->k;
    double flops = 2 * times * rows * cols * k;
    return (op_cost){.flops = flops,
                     .trained_flops = flops,
                     .bytes = times * (double)element_bytes *
                              (rows * k + k * cols + rows * cols * (call->add ? 2 : 1))};
}

op_cost spectrum_cost(const spectrum_call *call, size_t element_bytes) {
    double rows = (double)call->rows, cols = (double)call->cols;
    double flops = 2.5 * rows * log2(rows) * cols + 4 * (double)call->n * cols;
    return (op_cost){
        .flops = flops, .trained_flops = flops, .bytes = (double)element_bytes * 2 * rows * cols};
}

op_cost moved_cost(int64_t elements, size_t element_bytes) {
    return (op_cost){.bytes = (double)elements * (double)element_bytes};
}
