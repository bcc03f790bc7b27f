#include "backend/reference/reference.h"

/* The input of a term on an embedding is one-hot, so x A^T is column ids[i] of A. Nothing is
 * dropped from it, as in PEFT. */
void ref_embed_fwd(backend *dev, device_array *y_, const weight_ref *table,
                   const low_rank_term *terms, int32_t n_terms, const int32_t *ids,
                   const token_rows *tokens) {
    (void)dev;
    int64_t cols = table->cols;
    double *y = ref_array(y_);
    for (int32_t t = 0; t < tokens->n; t++)
        for (int64_t c = 0; c < cols; c++)
            y[t * cols + c] = ref_weight(table, ids[t], c);
    for (int32_t i = 0; i < n_terms; i++) {
        const low_rank_term *term = &terms[i];
        const double *a = ref_array_const(term->a), *b = ref_array_const(term->b);
        const double *bias = ref_array_const(term->bias);
        int32_t begin, end;
        ref_term_rows(&begin, &end, term, tokens);
        for (int32_t t = begin; t < end; t++)
            for (int64_t c = 0; c < cols; c++) {
                double sum = bias ? bias[c] : 0;
                for (int32_t r = 0; r < term->rank; r++)
                    sum += a[r * table->rows + ids[t]] * b[c * term->rank + r];
                y[t * cols + c] += (double)term->scale * sum;
            }
    }
}

void ref_embed_bwd(backend *dev, device_array *d_table, const device_array *dy_,
                   const weight_ref *table, const low_rank_term *terms, int32_t n_terms,
                   const int32_t *ids, int32_t padding_id, const token_rows *tokens) {
    (void)dev;
    int64_t cols = table->cols;
    const double *dy = ref_array_const(dy_);
    if (d_table)
        for (int32_t t = 0; t < tokens->n; t++)
            for (int64_t c = 0; c < cols && ids[t] != padding_id; c++)
                ref_array(d_table)[ids[t] * cols + c] += dy[t * cols + c];
    for (int32_t i = 0; i < n_terms; i++) {
        const low_rank_term *term = &terms[i];
        const double *a = ref_array_const(term->a), *b = ref_array_const(term->b);
        int32_t begin, end;
        ref_term_rows(&begin, &end, term, tokens);
        for (int32_t t = begin; t < end; t++)
            for (int64_t c = 0; c < cols; c++) {
                double scaled = (double)term->scale * dy[t * cols + c];
                if (term->dbias)
                    ref_array(term->dbias)[c] += scaled;
                for (int32_t r = 0; r < term->rank; r++) {
                    int64_t a_at = r * table->rows + ids[t], b_at = c * term->rank + r;
                    if (term->da && ids[t] != padding_id)
                        ref_array(term->da)[a_at] += scaled * b[b_at];
                    if (term->db)
                        ref_array(term->db)[b_at] += scaled * a[a_at];
                }
            }
    }
}
