/* The CPU backend: f32 arrays in ordinary memory, ops run at once by a team of threads. */
#ifndef GRAFT_BACKEND_CPU_BACKEND_H
#define GRAFT_BACKEND_CPU_BACKEND_H

#include "backend/cpu/kernels.h"
#include "backend/cpu/threads.h"

typedef struct cpu_backend {
    backend base;
    thread_team *team;
    const gemm_kernels *gemm;
    const row_kernels *rows;
    const struct narrow_kernels *narrow; /* of base.compute; NULL: f32 */
    unsigned char *scratch;              /* [n_threads][CPU_SCRATCH_BYTES], 64-byte aligned */
    float *packed;        /* [CPU_PACKED_BYTES / 4] of a product under way (gemm.c) */
    float *embed_scratch; /* [GRID_TOKENS, CPU_EMBED_RANKS] */
    double *partial_sums; /* [CPU_PARTIAL_SUMS] */
} cpu_backend;

enum {
    CPU_SCRATCH_BYTES = 1 << 20, /* of one thread; ops assert that they fit */
    CPU_PACKED_BYTES = 2 << 20,
    CPU_PARTIAL_SUMS = 4096,
    CPU_EMBED_RANKS = 64,     /* of an embedding term, worked on at a time */
    CPU_TASK_ELEMENTS = 16384 /* elementwise work of one task: a few microseconds */
};

static inline cpu_backend *cpu_of(backend *dev) {
    return (cpu_backend *)(void *)dev;
}
static inline float *cpu_array(device_array *array) {
    return (float *)(void *)array;
}
static inline const float *cpu_array_const(const device_array *array) {
    return (const float *)(const void *)array;
}

/* Runs task(context, i, thread) for every i in [0, n_tasks), in any order on any thread; returns
 * when all are done. What a task computes must not depend on the thread or the order. */
static inline void cpu_run_tasks(cpu_backend *cpu, int64_t n_tasks, thread_task *task,
                                 void *context) {
    thread_team_run(cpu->team, n_tasks, task, context);
}

/* One thread's scratch memory. */
static inline void *cpu_scratch(const cpu_backend *cpu, int32_t thread) {
    return cpu->scratch + (size_t)thread * CPU_SCRATCH_BYTES;
}

/* Tasks over items in pieces: how many pieces, and the items of piece i. */
typedef struct pieces {
    int64_t n, size, count;
} pieces;
static inline pieces pieces_of(int64_t n, int64_t size) {
    return (pieces){.n = n, .size = size, .count = (n + size - 1) / size};
}
/* Rows of `cols` elements, so many to a task that it is worth starting. */
static inline pieces pieces_of_rows(int64_t rows, int64_t cols) {
    int64_t size = cols > 0 ? CPU_TASK_ELEMENTS / cols : 1;
    return pieces_of(rows, size > 0 ? size : 1);
}
static inline int64_t piece_begin(const pieces *p, int64_t i) {
    return i * p->size;
}
static inline int64_t piece_end(const pieces *p, int64_t i) {
    return p->n - i * p->size < p->size ? p->n : (i + 1) * p->size;
}

/* The rows [*begin, *end) a term applies to, and the grid blocks [*first, *last) they are. */
void cpu_term_rows(int32_t *begin, int32_t *end, const low_rank_term *, const token_rows *);
void cpu_grid_of(int32_t *first, int32_t *last, const token_rows *, int32_t begin, int32_t end);
/* out [width] += scale * sum of x rows begin .. end [.., width], block by block of the grid. */
void cpu_sum_rows(cpu_backend *, float *out, const float *x, int64_t width, float scale,
                  const token_rows *, int32_t begin, int32_t end);

graft_status cpu_set_compute(backend *, compute_type, const cpu_features *, bool force,
                             graft_error *);

/* Memory with every page touched, 64-byte aligned, zeroed; release with free(). */
void *cpu_memory(size_t bytes);

void cpu_embed_fwd(backend *, device_array *y, const weight_ref *table, const low_rank_term *terms,
                   int32_t n_terms, const int32_t *ids, const token_rows *);
void cpu_embed_bwd(backend *, device_array *d_table, const device_array *dy,
                   const weight_ref *table, const low_rank_term *terms, int32_t n_terms,
                   const int32_t *ids, int32_t padding_id, const token_rows *);

void cpu_norm_fwd(backend *, device_array *y, device_array *rstd, const device_array *x,
                  const norm_call *, int64_t rows, int64_t cols);
void cpu_norm_bwd(backend *, device_array *dx, const device_array *dy, const device_array *x,
                  const device_array *rstd, const norm_call *, int32_t per_token, int64_t cols,
                  bool add, const token_rows *);

void cpu_linear_group_fwd(backend *, const linear_branch *, int32_t n_branches,
                          const device_array *x, bool add, device_array *scratch,
                          const token_rows *);
void cpu_linear_group_bwd(backend *, device_array *dx, const linear_branch *, int32_t n_branches,
                          const device_array *x, bool add, device_array *scratch,
                          const token_rows *);
void cpu_linear_fwd(backend *, device_array *y, device_array *xa, const device_array *x,
                    const linear_call *, bool add, device_array *scratch, const token_rows *);
void cpu_dropout(backend *, device_array *y, const device_array *x, float p, uint32_t stream,
                 int64_t cols, bool add, const token_rows *);
void cpu_linear_bwd(backend *, device_array *dx, const device_array *dy, const device_array *x,
                    const device_array *xa, const linear_call *, bool add, device_array *scratch,
                    const token_rows *);

void cpu_rope(backend *, device_array *x, const device_array *cos, const device_array *sin,
              const rope_call *, int64_t n, bool inverse);

void cpu_attention_fwd(backend *, device_array *o, device_array *lse, const device_array *q,
                       const device_array *k, const device_array *v, const attention_call *,
                       const batch *, int32_t layer);
void cpu_attention_bwd(backend *, device_array *dq, device_array *dk, device_array *dv,
                       const device_array *d_o, const device_array *o, const device_array *lse,
                       const device_array *q, const device_array *k, const device_array *v,
                       const attention_call *, device_array *scratch, const batch *, int32_t layer);

void cpu_gated_fwd(backend *, device_array *h, const device_array *gate, const device_array *up,
                   const gate_call *, int64_t n);
void cpu_gated_bwd(backend *, device_array *d_gate, device_array *d_up, const device_array *dh,
                   const device_array *gate, const device_array *up, const gate_call *, int64_t n);
void cpu_soft_cap(backend *, device_array *y, double scale, double cap, int64_t n);
void cpu_clamp(backend *, device_array *y, double limit, int64_t n);
void cpu_clamp_bwd(backend *, device_array *dy, const device_array *y, double limit, int64_t n);

void cpu_cross_entropy(backend *, device_array *loss, device_array *logits, const int32_t *targets,
                       const float *weights, int64_t n, int64_t vocab, double cap, bool gradient);

void cpu_fill(backend *, device_array *y, double value, int64_t n);
void cpu_copy(backend *, device_array *y, const device_array *x, int64_t n);
void cpu_add(backend *, device_array *y, const device_array *x, int64_t n);
void cpu_scale(backend *, device_array *y, double factor, int64_t n);
void cpu_route_fwd(backend *, device_array *weights, int32_t *choice, const device_array *logits,
                   const route_call *, int64_t n);
void cpu_route_bwd(backend *, device_array *d_logits, const device_array *d_weights,
                   const device_array *logits, const int32_t *choice, const route_call *, int64_t n);
void cpu_copy_blocks(backend *, device_array *y, block_places to, const device_array *x,
                     block_places from, int64_t n, int64_t blocks, int64_t cols, bool add);
void cpu_gather_rows(backend *, device_array *y, const device_array *x, const int32_t *index,
                     int64_t n, int64_t cols);
void cpu_scatter_rows(backend *, device_array *y, const device_array *x, const int32_t *index,
                      int64_t n, int64_t cols);

void cpu_matmul(backend *, const matmul_call *);
void cpu_weight_load(backend *, device_array *y, const weight_ref *);
void cpu_add_scaled(backend *, device_array *y, const device_array *x, double factor, int64_t n);
void cpu_mul(backend *, device_array *y, const device_array *a, const device_array *b, int64_t n,
             bool add);
void cpu_scale_cols(backend *, device_array *y, const device_array *x, const device_array *v,
                    int64_t rows, int64_t cols, bool add);
void cpu_scale_rows(backend *, device_array *y, const device_array *x, const device_array *v,
                    int64_t rows, int64_t cols, bool add);
void cpu_add_rows(backend *, device_array *y, const device_array *v, int64_t rows, int64_t cols);
void cpu_sum_rows_of(backend *, device_array *s, const device_array *a, const device_array *b,
                     int64_t rows, int64_t cols, bool add);
void cpu_sum_cols(backend *, device_array *s, const device_array *a, const device_array *b,
                  int64_t rows, int64_t cols, const token_rows *);
void cpu_scatter_add_rows(backend *, device_array *y, const device_array *x, const int32_t *index,
                          int64_t n, int64_t cols);
void cpu_rotate_halves(backend *, device_array *y, const device_array *x, int64_t rows,
                       int64_t cols, int64_t group, bool inverse);
void cpu_spectrum_fwd(backend *, device_array *w, const spectrum_call *);
void cpu_spectrum_bwd(backend *, device_array *d_c, const device_array *d_w, const spectrum_call *);
void cpu_activation_fwd(backend *, device_array *y, const device_array *x, activation_kind,
                        int64_t n);
void cpu_activation_bwd(backend *, device_array *dx, const device_array *dy, const device_array *x,
                        activation_kind, int64_t n);
void cpu_softmax_fwd(backend *, device_array *y, const device_array *x, int64_t rows, int64_t cols);
void cpu_softmax_bwd(backend *, device_array *dx, const device_array *dy, const device_array *y,
                     int64_t rows, int64_t cols);

double cpu_sum_squares(backend *, const device_array *x, int64_t n);
void cpu_adamw(backend *, device_array *p, const device_array *g, device_array *m, device_array *v,
               int64_t n, const adamw_step *);

#endif
