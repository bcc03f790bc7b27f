/* The reference backend: every op as its equation reads, in double precision, one thread. Nothing
 * here is fast on purpose: this code is the specification that other backends are tested against.
 */
#ifndef GRAFT_BACKEND_REFERENCE_H
#define GRAFT_BACKEND_REFERENCE_H

#include "backend/ops.h"

/* Handles are arrays of double. */
static inline double *ref_array(device_array *array) {
    return (double *)(void *)array;
}
static inline const double *ref_array_const(const device_array *array) {
    return (const double *)(const void *)array;
}

/* Element [row, col] of a stored weight. */
double ref_weight(const weight_ref *, int64_t row, int64_t col);

/* The rows [*begin, *end) that a term applies to. */
void ref_term_rows(int32_t *begin, int32_t *end, const low_rank_term *, const token_rows *);

void ref_embed_fwd(backend *, device_array *y, const weight_ref *table, const low_rank_term *terms,
                   int32_t n_terms, const int32_t *ids, const token_rows *);
void ref_embed_bwd(backend *, device_array *d_table, const device_array *dy,
                   const weight_ref *table, const low_rank_term *terms, int32_t n_terms,
                   const int32_t *ids, int32_t padding_id, const token_rows *);

void ref_norm_fwd(backend *, device_array *y, device_array *rstd, const device_array *x,
                  const norm_call *, int64_t rows, int64_t cols);
void ref_norm_bwd(backend *, device_array *dx, const device_array *dy, const device_array *x,
                  const device_array *rstd, const norm_call *, int32_t per_token, int64_t cols,
                  bool add, const token_rows *);

void ref_linear_group_fwd(backend *, const linear_branch *, int32_t n_branches,
                          const device_array *x, bool add, device_array *scratch,
                          const token_rows *);
void ref_linear_group_bwd(backend *, device_array *dx, const linear_branch *, int32_t n_branches,
                          const device_array *x, bool add, device_array *scratch,
                          const token_rows *);
void ref_linear_fwd(backend *, device_array *y, device_array *xa, const device_array *x,
                    const linear_call *, bool add, device_array *scratch, const token_rows *);
void ref_dropout(backend *, device_array *y, const device_array *x, float p, uint32_t stream,
                 int64_t cols, bool add, const token_rows *);
void ref_linear_bwd(backend *, device_array *dx, const device_array *dy, const device_array *x,
                    const device_array *xa, const linear_call *, bool add, device_array *scratch,
                    const token_rows *);

void ref_rope(backend *, device_array *x, const device_array *cos, const device_array *sin,
              const rope_call *, int64_t n, bool inverse);

void ref_attention_fwd(backend *, device_array *o, device_array *lse, const device_array *q,
                       const device_array *k, const device_array *v, const attention_call *,
                       const batch *, int32_t layer);
void ref_attention_bwd(backend *, device_array *dq, device_array *dk, device_array *dv,
                       const device_array *d_o, const device_array *o, const device_array *lse,
                       const device_array *q, const device_array *k, const device_array *v,
                       const attention_call *, device_array *scratch, const batch *, int32_t layer);

void ref_gated_fwd(backend *, device_array *h, const device_array *gate, const device_array *up,
                   const gate_call *, int64_t n);
void ref_gated_bwd(backend *, device_array *d_gate, device_array *d_up, const device_array *dh,
                   const device_array *gate, const device_array *up, const gate_call *, int64_t n);
void ref_soft_cap(backend *, device_array *y, double scale, double cap, int64_t n);
void ref_clamp(backend *, device_array *y, double limit, int64_t n);
void ref_clamp_bwd(backend *, device_array *dy, const device_array *y, double limit, int64_t n);

void ref_cross_entropy(backend *, device_array *loss, device_array *logits, const int32_t *targets,
                       const float *weights, int64_t n, int64_t vocab, double cap, bool gradient);

void ref_fill(backend *, device_array *y, double value, int64_t n);
void ref_copy(backend *, device_array *y, const device_array *x, int64_t n);
void ref_add(backend *, device_array *y, const device_array *x, int64_t n);
void ref_scale(backend *, device_array *y, double factor, int64_t n);
void ref_route_fwd(backend *, device_array *weights, int32_t *choice, const device_array *logits,
                   const route_call *, int64_t n);
void ref_route_bwd(backend *, device_array *d_logits, const device_array *d_weights,
                   const device_array *logits, const int32_t *choice, const route_call *, int64_t n);
void ref_copy_blocks(backend *, device_array *y, block_places to, const device_array *x,
                     block_places from, int64_t n, int64_t blocks, int64_t cols, bool add);
void ref_gather_rows(backend *, device_array *y, const device_array *x, const int32_t *index,
                     int64_t n, int64_t cols);
void ref_scatter_rows(backend *, device_array *y, const device_array *x, const int32_t *index,
                      int64_t n, int64_t cols);

void ref_matmul(backend *, const matmul_call *);
void ref_weight_load(backend *, device_array *y, const weight_ref *);
void ref_add_scaled(backend *, device_array *y, const device_array *x, double factor, int64_t n);
void ref_mul(backend *, device_array *y, const device_array *a, const device_array *b, int64_t n,
             bool add);
void ref_scale_cols(backend *, device_array *y, const device_array *x, const device_array *v,
                    int64_t rows, int64_t cols, bool add);
void ref_scale_rows(backend *, device_array *y, const device_array *x, const device_array *v,
                    int64_t rows, int64_t cols, bool add);
void ref_add_rows(backend *, device_array *y, const device_array *v, int64_t rows, int64_t cols);
void ref_sum_rows(backend *, device_array *s, const device_array *a, const device_array *b,
                  int64_t rows, int64_t cols, bool add);
void ref_sum_cols(backend *, device_array *s, const device_array *a, const device_array *b,
                  int64_t rows, int64_t cols, const token_rows *);
void ref_scatter_add_rows(backend *, device_array *y, const device_array *x, const int32_t *index,
                          int64_t n, int64_t cols);
void ref_rotate_halves(backend *, device_array *y, const device_array *x, int64_t rows,
                       int64_t cols, int64_t group, bool inverse);
void ref_spectrum_fwd(backend *, device_array *w, const spectrum_call *);
void ref_spectrum_bwd(backend *, device_array *d_c, const device_array *d_w, const spectrum_call *);
void ref_activation_fwd(backend *, device_array *y, const device_array *x, activation_kind,
                        int64_t n);
void ref_activation_bwd(backend *, device_array *dx, const device_array *dy, const device_array *x,
                        activation_kind, int64_t n);
void ref_softmax_fwd(backend *, device_array *y, const device_array *x, int64_t rows, int64_t cols);
void ref_softmax_bwd(backend *, device_array *dx, const device_array *dy, const device_array *y,
                     int64_t rows, int64_t cols);

double ref_sum_squares(backend *, const device_array *x, int64_t n);
void ref_adamw(backend *, device_array *p, const device_array *g, device_array *m, device_array *v,
               int64_t n, const adamw_step *);

#endif
