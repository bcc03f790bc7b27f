#include "backend/reference/reference.h"

#include "backend/quantize.h"

#include <assert.h>

double ref_weight(const weight_ref *w, int64_t row, int64_t col) {
    int64_t at = w->is_transposed ? col * w->row_stride + row : row * w->row_stride + col;
    switch (w->type) {
    case DTYPE_F32:
        return (double)((const float *)w->data)[at];
    case DTYPE_BF16:
        return (double)bf16_to_f32(((const uint16_t *)w->data)[at]);
    case DTYPE_F16:
        return (double)f16_to_f32(((const uint16_t *)w->data)[at]);
    default:
        assert(w->type == DTYPE_F64);
        return ((const double *)w->data)[at];
    }
}

void ref_term_rows(int32_t *begin, int32_t *end, const low_rank_term *term,
                   const token_rows *tokens) {
    *begin = term->job < 0 ? 0 : tokens->job_begin[term->job];
    *end = term->job < 0 ? tokens->n : tokens->job_begin[term->job + 1];
}

/* What multiplies element i of a token under dropout: 0 or 1 / (1 - p). */
static double kept_factor(float p, uint32_t stream, const token_rows *tokens, int32_t token,
                          int64_t i) {
    uint32_t words[4];
    dropout_words(words, tokens->dropout_key, stream, tokens->dropout_counter[token],
                  (uint32_t)(i / 4));
    return words[i % 4] >= dropout_threshold(p) ? 1 / (1 - (double)p) : 0;
}

/* The same for a term's input; 1 without dropout. */
static double dropout_factor(const low_rank_term *term, const token_rows *tokens, int32_t token,
                             int64_t i) {
    if (!tokens->training || !(term->dropout > 0))
        return 1;
    return kept_factor(term->dropout, term->dropout_stream, tokens, token, i);
}

void ref_dropout(backend *dev, device_array *y, const device_array *x, float p, uint32_t stream,
                 int64_t cols, bool add, const token_rows *tokens) {
    (void)dev;
    for (int32_t t = 0; t < tokens->n; t++)
        for (int64_t i = 0; i < cols; i++) {
            int64_t at = t * cols + i;
            double dropped = ref_array_const(x)[at] * kept_factor(p, stream, tokens, t, i);
            ref_array(y)[at] = dropped + (add ? ref_array(y)[at] : 0);
        }
}

static int64_t ranks_of(const linear_call *call) {
    int64_t ranks = 0;
    for (int32_t i = 0; i < call->n_terms; i++)
        ranks += call->terms[i].rank;
    return ranks;
}

/* ---- products in fewer bits ---- */

enum { BLOCK = QUANTIZE_BLOCK };

/* What is left of a block of an operand: integers times their scale, or bf16. */
static void round_block(double *x, int64_t n, compute_type type) {
    int32_t largest = 0;
    float inverse;
    for (int64_t i = 0; i < n; i++)
        if (quantize_magnitude((float)x[i]) > largest)
            largest = quantize_magnitude((float)x[i]);
    float scale = quantize_scale(&inverse, largest);
    for (int64_t i = 0; i < n; i++)
        if (type == COMPUTE_INT8)
            x[i] = (double)scale * (double)quantize_value((float)x[i], inverse);
        else if (type == COMPUTE_BF16)
            x[i] = (double)bf16_to_f32(f32_to_bf16((float)x[i]));
}

/* c [n, cols] += a [n, k] w, with w's element [k, col] at [col, k] of the weight, or at [k, col] in
 * backward: both rounded by blocks along k, unless the call is exact. */
static void base_product(double *c, const double *a, const linear_call *call, compute_type type,
                         bool is_backward, int32_t n) {
    const weight_ref *w = &call->weight;
    int64_t cols = is_backward ? w->cols : w->rows, k = is_backward ? w->rows : w->cols;
    if (call->is_exact)
        type = COMPUTE_F32;
    for (int64_t col = 0; col < cols; col++)
        for (int64_t first = 0; first < k; first += BLOCK) {
            int64_t length = k - first < BLOCK ? k - first : BLOCK;
            double of_weight[BLOCK], of_a[BLOCK];
            for (int64_t i = 0; i < length; i++)
                of_weight[i] =
                    is_backward ? ref_weight(w, first + i, col) : ref_weight(w, col, first + i);
            if (type != COMPUTE_F32)
                round_block(of_weight, length, type);
            for (int32_t t = 0; t < n; t++) {
                for (int64_t i = 0; i < length; i++)
                    of_a[i] = a[t * k + first + i];
                if (type != COMPUTE_F32)
                    round_block(of_a, length, type);
                for (int64_t i = 0; i < length; i++)
                    c[t * cols + col] += of_a[i] * of_weight[i];
            }
        }
}

static void base_fwd(double *y, const double *x, const linear_call *call, compute_type type,
                     bool add, int32_t n) {
    const double *bias = ref_array_const(call->bias);
    int64_t out = call->weight.rows;
    for (int64_t i = 0; i < n * out; i++)
        y[i] = (add ? y[i] : 0) + (bias ? bias[i % out] : 0);
    base_product(y, x, call, type, false, n);
}

/* xa: this term's columns, one row each `ranks` elements; 0 for tokens of other jobs. */
static void term_fwd(double *y, double *xa, int64_t ranks, const double *x, const linear_call *call,
                     const low_rank_term *term, const token_rows *tokens) {
    const double *a = ref_array_const(term->a), *b = ref_array_const(term->b);
    const double *bias = ref_array_const(term->bias);
    int64_t in = call->weight.cols, out = call->weight.rows;
    int32_t begin, end;
    ref_term_rows(&begin, &end, term, tokens);
    for (int32_t t = 0; t < tokens->n; t++) {
        for (int32_t r = 0; r < term->rank; r++)
            xa[t * ranks + r] = 0;
        if (t < begin || t >= end)
            continue;
        for (int64_t i = 0; i < in; i++) {
            double dropped = x[t * in + i] * dropout_factor(term, tokens, t, i);
            for (int32_t r = 0; r < term->rank; r++)
                xa[t * ranks + r] += dropped * a[r * in + i];
        }
        for (int64_t o = 0; o < out; o++) {
            double sum = bias ? bias[o] : 0;
            for (int32_t r = 0; r < term->rank; r++)
                sum += xa[t * ranks + r] * b[o * term->rank + r];
            y[t * out + o] += (double)term->scale * sum;
        }
    }
}

void ref_linear_fwd(backend *dev, device_array *y, device_array *xa, const device_array *x,
                    const linear_call *call, bool add, device_array *scratch,
                    const token_rows *tokens) {
    (void)scratch;
    base_fwd(ref_array(y), ref_array_const(x), call, dev->compute, add, tokens->n);
    int64_t ranks = ranks_of(call), before = 0;
    for (int32_t i = 0; i < call->n_terms; i++) {
        term_fwd(ref_array(y), ref_array(xa) + before, ranks, ref_array_const(x), call,
                 &call->terms[i], tokens);
        before += call->terms[i].rank;
    }
}

static void base_bwd(double *dx, const double *dy, const double *x, const linear_call *call,
                     compute_type type, bool add, int32_t n) {
    int64_t in = call->weight.cols, out = call->weight.rows;
    for (int64_t i = 0; dx && !add && i < n * in; i++)
        dx[i] = 0;
    if (dx)
        base_product(dx, dy, call, type, true, n);
    for (int32_t t = 0; t < n; t++)
        for (int64_t o = 0; o < out; o++) {
            if (call->d_bias)
                ref_array(call->d_bias)[o] += dy[t * out + o];
            for (int64_t i = 0; call->d_weight && i < in; i++) {
                int64_t at = call->weight.is_transposed ? i * out + o : o * in + i;
                ref_array(call->d_weight)[at] += dy[t * out + o] * x[t * in + i];
            }
        }
}

/* y = scale (xa B^T + bias), xa = dropped(x) A^T. x is NULL when neither da nor dropout needs it.
 */
static void term_bwd(double *dx, const double *dy, const double *x, const double *xa, int64_t ranks,
                     const linear_call *call, const low_rank_term *term, const token_rows *tokens) {
    const double *a = ref_array_const(term->a), *b = ref_array_const(term->b);
    double *da = ref_array(term->da), *db = ref_array(term->db), *dbias = ref_array(term->dbias);
    int64_t in = call->weight.cols, out = call->weight.rows;
    int32_t begin, end;
    ref_term_rows(&begin, &end, term, tokens);
    for (int32_t t = begin; t < end; t++) {
        for (int64_t o = 0; o < out; o++) {
            double scaled = (double)term->scale * dy[t * out + o];
            if (dbias)
                dbias[o] += scaled;
            for (int32_t r = 0; db && r < term->rank; r++)
                db[o * term->rank + r] += scaled * xa[t * ranks + r];
        }
        for (int32_t r = 0; r < term->rank; r++) {
            double d_xa = 0;
            for (int64_t o = 0; o < out; o++)
                d_xa += (double)term->scale * dy[t * out + o] * b[o * term->rank + r];
            for (int64_t i = 0; i < in; i++) {
                double factor = dropout_factor(term, tokens, t, i);
                if (da)
                    da[r * in + i] += d_xa * factor * x[t * in + i];
                if (dx)
                    dx[t * in + i] += d_xa * a[r * in + i] * factor;
            }
        }
    }
}

void ref_linear_bwd(backend *dev, device_array *dx, const device_array *dy, const device_array *x,
                    const device_array *xa, const linear_call *call, bool add,
                    device_array *scratch, const token_rows *tokens) {
    (void)scratch;
    base_bwd(ref_array(dx), ref_array_const(dy), ref_array_const(x), call, dev->compute, add,
             tokens->n);
    int64_t ranks = ranks_of(call), before = 0;
    for (int32_t i = 0; i < call->n_terms; i++) {
        const double *term_xa = xa ? ref_array_const(xa) + before : NULL;
        term_bwd(ref_array(dx), ref_array_const(dy), ref_array_const(x), term_xa, ranks, call,
                 &call->terms[i], tokens);
        before += call->terms[i].rank;
    }
}

void ref_linear_group_fwd(backend *dev, const linear_branch *branches, int32_t n_branches,
                          const device_array *x, bool add, device_array *scratch,
                          const token_rows *tokens) {
    for (const linear_branch *b = branches; b < branches + n_branches; b++)
        ref_linear_fwd(dev, b->y, b->xa, x, b->call, add, scratch, tokens);
}

void ref_linear_group_bwd(backend *dev, device_array *dx, const linear_branch *branches,
                          int32_t n_branches, const device_array *x, bool add,
                          device_array *scratch, const token_rows *tokens) {
    for (const linear_branch *b = branches; b < branches + n_branches; b++)
        ref_linear_bwd(dev, dx, b->y, x, b->xa, b->call, add || b > branches, scratch, tokens);
}
