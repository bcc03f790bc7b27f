/* Inside meter/ only: how an op passes through. */
#ifndef GRAFT_BACKEND_METER_METER_INTERNAL_H
#define GRAFT_BACKEND_METER_METER_INTERNAL_H

#include "backend/meter/meter.h"

/* One call on its way through: begun before the inner op, ended after it. */
typedef struct passing {
    backend *meter;
    backend *inner;      /* NULL: only counts */
    const op_table *ops; /* of inner */
    double began_s;
} passing;

passing pass_begin(backend *meter);
void pass_end(const passing *, meter_op, op_cost);
/* An op that moves so many elements. */
void pass_end_moved(const passing *, meter_op, int64_t elements);

void meter_embed_fwd(backend *dev, device_array *y, const weight_ref *table,
                     const low_rank_term *terms, int32_t n_terms, const int32_t *ids,
                     const token_rows *rows);
void meter_embed_bwd(backend *, device_array *d_table, const device_array *dy,
                     const weight_ref *table, const low_rank_term *terms, int32_t n_terms,
                     const int32_t *ids, int32_t padding_id, const token_rows *);
void meter_norm_fwd(backend *, device_array *y, device_array *rstd, const device_array *x,
                    const norm_call *, int64_t rows, int64_t cols);
void meter_norm_bwd(backend *, device_array *dx, const device_array *dy, const device_array *x,
                    const device_array *rstd, const norm_call *, int32_t per_token, int64_t cols,
                    bool add, const token_rows *);

void meter_linear_group_fwd(backend *, const linear_branch *, int32_t n_branches,
                            const device_array *x, bool add, device_array *scratch,
                            const token_rows *);
void meter_linear_group_bwd(backend *, device_array *dx, const linear_branch *, int32_t n_branches,
                            const device_array *x, bool add, device_array *scratch,
                            const token_rows *);
void meter_linear_fwd(backend *dev, device_array *y, device_array *xa, const device_array *x,
                      const linear_call *call, bool add, device_array *scratch,
                      const token_rows *rows);
void meter_linear_bwd(backend *dev, device_array *dx, const device_array *dy, const device_array *x,
                      const device_array *xa, const linear_call *call, bool add,
                      device_array *scratch, const token_rows *rows);
void meter_rope(backend *, device_array *x, const device_array *cos, const device_array *sin,
                const rope_call *, int64_t n, bool inverse);
void meter_attention_fwd(backend *dev, device_array *o, device_array *lse, const device_array *q,
                         const device_array *k, const device_array *v, const attention_call *call,
                         const batch *b, int32_t layer);
void meter_attention_bwd(backend *dev, device_array *dq, device_array *dk, device_array *dv,
                         const device_array *d_o, const device_array *o, const device_array *lse,
                         const device_array *q, const device_array *k, const device_array *v,
                         const attention_call *call, device_array *scratch, const batch *b,
                         int32_t layer);
void meter_gated_fwd(backend *, device_array *h, const device_array *gate, const device_array *up,
                     const gate_call *, int64_t n);
void meter_gated_bwd(backend *, device_array *d_gate, device_array *d_up, const device_array *dh,
                     const device_array *gate, const device_array *up, const gate_call *,
                     int64_t n);
void meter_soft_cap(backend *, device_array *y, double scale, double cap, int64_t n);
void meter_clamp(backend *, device_array *y, double limit, int64_t n);
void meter_clamp_bwd(backend *, device_array *dy, const device_array *y, double limit, int64_t n);

void meter_cross_entropy(backend *, device_array *loss, device_array *logits,
                         const int32_t *targets, const float *weights, int64_t n, int64_t vocab,
                         double cap, bool gradient);
void meter_route_fwd(backend *, device_array *weights, int32_t *choice, const device_array *logits,
                     const route_call *, int64_t n);
void meter_route_bwd(backend *, device_array *d_logits, const device_array *d_weights,
                     const device_array *logits, const int32_t *choice, const route_call *,
                     int64_t n);
void meter_copy_blocks(backend *, device_array *y, block_places to, const device_array *x,
                       block_places from, int64_t n, int64_t blocks, int64_t cols, bool add);
void meter_fill(backend *dev, device_array *y, double value, int64_t n);
void meter_copy(backend *dev, device_array *y, const device_array *x, int64_t n);
void meter_add(backend *dev, device_array *y, const device_array *x, int64_t n);
void meter_scale(backend *dev, device_array *y, double factor, int64_t n);
void meter_gather_rows(backend *dev, device_array *y, const device_array *x, const int32_t *index,
                       int64_t n, int64_t cols);
void meter_scatter_rows(backend *dev, device_array *y, const device_array *x, const int32_t *index,
                        int64_t n, int64_t cols);
double meter_sum_squares(backend *dev, const device_array *x, int64_t n);
void meter_adamw(backend *dev, device_array *values, const device_array *g, device_array *m,
                 device_array *v, int64_t n, const adamw_step *step);
void meter_matmul(backend *dev, const matmul_call *call);
void meter_weight_load(backend *dev, device_array *y, const weight_ref *weight);
void meter_add_scaled(backend *dev, device_array *y, const device_array *x, double factor,
                      int64_t n);
void meter_mul(backend *dev, device_array *y, const device_array *a, const device_array *b,
               int64_t n, bool add);
void meter_scale_cols(backend *dev, device_array *y, const device_array *x, const device_array *v,
                      int64_t rows, int64_t cols, bool add);
void meter_scale_rows(backend *dev, device_array *y, const device_array *x, const device_array *v,
                      int64_t rows, int64_t cols, bool add);
void meter_add_rows(backend *dev, device_array *y, const device_array *v, int64_t rows,
                    int64_t cols);
void meter_sum_rows(backend *dev, device_array *s, const device_array *a, const device_array *b,
                    int64_t rows, int64_t cols, bool add);
void meter_sum_cols(backend *dev, device_array *s, const device_array *a, const device_array *b,
                    int64_t rows, int64_t cols, const token_rows *tokens);
void meter_scatter_add_rows(backend *dev, device_array *y, const device_array *x,
                            const int32_t *index, int64_t n, int64_t cols);
void meter_rotate_halves(backend *dev, device_array *y, const device_array *x, int64_t rows,
                         int64_t cols, int64_t group, bool inverse);
void meter_spectrum_fwd(backend *dev, device_array *w, const spectrum_call *call);
void meter_spectrum_bwd(backend *dev, device_array *d_c, const device_array *d_w,
                        const spectrum_call *call);
void meter_activation_fwd(backend *dev, device_array *y, const device_array *x,
                          activation_kind kind, int64_t n);
void meter_activation_bwd(backend *dev, device_array *dx, const device_array *dy,
                          const device_array *x, activation_kind kind, int64_t n);
void meter_softmax_fwd(backend *dev, device_array *y, const device_array *x, int64_t rows,
                       int64_t cols);
void meter_dropout(backend *dev, device_array *y, const device_array *x, float p_drop,
                   uint32_t stream, int64_t cols, bool add, const token_rows *rows);
void meter_softmax_bwd(backend *dev, device_array *dx, const device_array *dy,
                       const device_array *y, int64_t rows, int64_t cols);

#endif
