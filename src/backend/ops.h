/* The contract of every op. Shapes are at the arguments; arrays are row-major and do not overlap
 * unless "may alias" is said. Sums over tokens follow token_rows.grid, in order. The bits of a
 * result do not depend on the number of threads, and a token's row of a result does not depend on
 * the other tokens in the buffer. NaN and infinity pass through.
 *
 * The reference backend (src/backend/reference) is the specification: plain loops in double
 * precision. */
#ifndef GRAFT_BACKEND_OPS_H
#define GRAFT_BACKEND_OPS_H

#include "backend/batch.h"

/* A slice of a stored weight matrix [rows, cols]: rows are outputs. Only ops read the data. */
typedef struct weight_ref {
    const void *data; /* element [0, 0] of the slice, as stored */
    dtype type;       /* F32, BF16, F16; F64 in the reference backend's own arrays */
    int64_t rows, cols;
    int64_t row_stride; /* elements from one stored row to the next */
    bool is_transposed; /* stored [cols, rows], as GPT-2's Conv1D: element [r, c] at c * row_stride
                           + r */
} weight_ref;

/* scale * (x A^T B^T + bias), as LoRA adds it to a linear layer. On an embedding, A is [rank,
 * vocab] and x one-hot. */
typedef struct low_rank_term {
    const device_array *a, *b, *bias; /* [rank, in], [out, rank], [out] or NULL */
    device_array *da, *db, *dbias;    /* gradients, added to; NULL: frozen */
    float scale;
    int32_t rank;
    int32_t job;             /* applies to this job's tokens; -1: to all */
    float dropout;           /* of the term's input, in training */
    uint32_t dropout_stream; /* tells modules apart */
} low_rank_term;

/* y = x W^T + bias + terms. Filled once when a model is bound; the op carries it out. */
typedef struct linear_call {
    weight_ref weight;               /* [out, in] */
    const device_array *bias;        /* [out] or NULL */
    device_array *d_weight, *d_bias; /* as the weight is stored, [out]: added to; NULL: frozen */
    /* The weight's products are f32 whatever dev->compute: it trains, or an adapter reckons with it
     * for itself. */
    bool is_exact;
    const low_rank_term *terms;
    int32_t n_terms;
} linear_call;

/* Of rows: y = (x - mean) rstd (weight + offset) + bias; the mean is 0 unless centred, the offset 1
 * where adds_one (Gemma stores weights less one), rstd = 1 / sqrt(mean((x - mean)^2) + eps). */
typedef struct norm_call {
    const device_array *weight, *bias; /* [groups, cols]; NULL: 1 and 0 */
    device_array *d_weight, *d_bias;   /* added to; NULL: frozen */
    float eps;
    bool is_centred; /* layer norm; else RMS norm */
    bool adds_one;
    int32_t groups; /* row r takes weights r % groups (a weight for each head); 0: 1 */
} norm_call;

/* Which experts a token goes to, and how much each counts. */
typedef enum router_kind {
    ROUTER_SOFTMAX,        /* the largest shares of a softmax over all */
    ROUTER_SOFTMAX_CHOSEN, /* a softmax over the largest logits */
    ROUTER_SIGMOID         /* each expert's own sigmoid (DeepSeek) */
} router_kind;

enum { ROUTER_EXPERTS_MAX = 1024 };

typedef struct route_call {
    router_kind kind;
    int32_t n_experts, n_chosen;
    bool normalises; /* weights are divided by their sum */
    float scale;     /* of the weights, at last */
    /* Sigmoid: experts are chosen from the best groups, by the sum of a group's two best; 1: no
     * groups. */
    int32_t n_groups, n_chosen_groups;
    const device_array *correction; /* sigmoid: [n_experts] added for the choice alone; or NULL */
} route_call;

/* Which elements of a head rotate, and in which pairs. */
typedef struct rope_call {
    int32_t heads, head_dim;
    int32_t first, n;    /* elements [first, first + n) of each head, n even */
    bool is_interleaved; /* pairs (2i, 2i + 1); else (i, i + n / 2) */
} rope_call;

/* One of several linear layers that read the same input: a group. */
enum { LINEAR_BRANCHES_MAX = 4, LINEAR_TERMS_MAX = 64 /* of all layers of a group */ };
typedef struct linear_branch {
    const linear_call *call;
    device_array *y;  /* [n, out]; in backward its gradient, which is only read */
    device_array *xa; /* as linear_fwd's; in backward only read */
} linear_branch;

enum { ATTENTION_HEAD_DIM_MAX = 256 }; /* larger heads are refused when a model is read */

typedef struct attention_call {
    int32_t n_heads, n_kv_heads, head_dim; /* n_kv_heads divides n_heads */
    int32_t value_dim;                     /* of a head of v and o; 0: head_dim */
    float scale;                           /* of the scores, before softmax; > 0 */
    int32_t window;                        /* position i sees j with i - j < window; 0: no window */
    float soft_cap;      /* scaled scores become soft_cap tanh(score / soft_cap); 0: they stay */
    const float *slopes; /* host, [n_heads] ALiBi: score += slope_scale slope (j - i); NULL: none */
    float slope_scale;
    bool rounds_slopes;        /* score += slope_scale bf16(slope j) instead, as Falcon has it */
    const device_array *sinks; /* [n_heads] one more score a head, without a value; NULL: none */
    device_array *d_sinks;     /* added to; NULL: frozen */
} attention_call;
static inline int32_t attention_value_dim(const attention_call *call) {
    return call->value_dim ? call->value_dim : call->head_dim;
}

/* `blocks` blocks of `cols` elements in each row: block j of row i lies at i * row + j * step. */
typedef struct block_places {
    int64_t row, step;
} block_places;

typedef struct adamw_step {
    double learning_rate, beta1, beta2, epsilon,
        weight_decay;                          /* decoupled decay, as torch.optim.AdamW */
    double bias_correction1, bias_correction2; /* 1 - beta^t */
    double gradient_scale;                     /* clipping; 1: none */
} adamw_step;

/* ---- Algebra: what adapter methods are written in ---- */

/* An operand of a product: element [i, k] lies at i * stride + k, transposed at k * stride + i. */
typedef struct matrix {
    const device_array *data;
    int64_t stride;
    bool is_transposed;
} matrix;

/* c [rows, cols] (+)= scale a [rows, k] b [k, cols], `batch` times (0: once), each time further on
 * by the steps. */
typedef struct matmul_call {
    device_array *c;
    int64_t c_stride, rows, cols, k;
    matrix a, b;
    double scale;
    bool add;
    int64_t batch, c_step, a_step, b_step;
    const token_rows *tokens; /* k runs over these tokens: summed on their grid, and then always
                                 added (gradients of weights); NULL: k is something else */
} matmul_call;

/* A few coefficients c [n] of a 2-D spectrum: w[p, q] = sum_k c_k cos(2 pi (p u_k / rows + q v_k /
 * cols)), with u_k = place[k] / cols, v_k = place[k] % cols; places may repeat. */
typedef struct spectrum_call {
    int64_t rows, cols; /* of w; rows <= SPECTRUM_ROWS_MAX */
    const device_array *c;
    const int32_t *place; /* [n] */
    int64_t n;
    const device_array *waves; /* cos(2 pi j / rows), sin(...) for j < rows, then both for cols */
    double scale;
    device_array *scratch; /* spectrum_scratch_elements */
} spectrum_call;

enum { SPECTRUM_ROWS_MAX = 65536 };

/* Columns are transformed two by two, in blocks of pairs that do not depend on the device. */
static inline int64_t spectrum_block(int64_t rows) {
    return rows < SPECTRUM_ROWS_MAX ? SPECTRUM_ROWS_MAX / rows : 1;
}
static inline int64_t spectrum_scratch_elements(int64_t rows, int64_t cols, int64_t n) {
    int64_t pairs = (cols + 1) / 2, block = spectrum_block(rows);
    return (pairs + block - 1) / block * n;
}

typedef enum activation_kind {
    ACTIVATION_IDENTITY,
    ACTIVATION_RELU,
    ACTIVATION_LEAKY_RELU, /* slope 0.01 */
    ACTIVATION_GELU,       /* x Phi(x) */
    ACTIVATION_GELU_TANH,  /* its approximation by tanh: gelu_new, gelu_pytorch_tanh */
    ACTIVATION_SILU,
    ACTIVATION_SIGMOID,
    ACTIVATION_TANH,
    N_ACTIVATIONS
} activation_kind;

/* The middle of an MLP. */
typedef struct gate_call {
    activation_kind kind; /* SiLU, GELU, its approximation, ReLU */
    float alpha, limit; /* limit > 0, gpt-oss: x sigmoid(alpha x) (up + 1) with x at most limit and
                           up within it, whatever the kind */
} gate_call;

typedef struct op_table {
    /* Memory. alloc gives LAYOUT_ALIGNMENT-aligned memory, zeroed and touched; NULL when there is
     * none. */
    void *(*alloc)(backend *, size_t bytes);
    void (*release)(backend *, void *memory);
    void (*upload)(backend *, device_array *to, const void *stored, dtype,
                   int64_t n); /* F32, BF16, F16, F64 */
    void (*download)(backend *, float *to, const device_array *from, int64_t n);
    void (*download_f64)(backend *, double *to, const device_array *from, int64_t n);
    void (*destroy)(backend *);
    graft_status (*set_compute)(backend *, compute_type, const cpu_features *, bool force,
                                graft_error *);

    /* y [n, cols] = rows ids[i] of the table, plus terms (their dropout is not applied, as in
     * PEFT). */
    void (*embed_fwd)(backend *, device_array *y, const weight_ref *table,
                      const low_rank_term *terms, int32_t n_terms, const int32_t *ids,
                      const token_rows *);
    /* d_table [vocab, cols] (NULL: frozen) += dy by id; the terms' gradients likewise. Rows of
     * padding_id (-1: none) of the table and of A learn nothing, as torch.nn.Embedding has it. */
    void (*embed_bwd)(backend *, device_array *d_table, const device_array *dy,
                      const weight_ref *table, const low_rank_term *terms, int32_t n_terms,
                      const int32_t *ids, int32_t padding_id, const token_rows *);

    /* rstd [rows]; y may alias x. */
    void (*norm_fwd)(backend *, device_array *y, device_array *rstd, const device_array *x,
                     const norm_call *, int64_t rows, int64_t cols);
    /* dx (+)= ..., and the call's gradients. `per_token` rows belong to one token (heads in q/k
     * norms; else 1): x is [n * per_token, cols]; groups divides per_token. add: dx is added to,
     * else overwritten; dx may alias dy. */
    void (*norm_bwd)(backend *, device_array *dx, const device_array *dy, const device_array *x,
                     const device_array *rstd, const norm_call *, int32_t per_token, int64_t cols,
                     bool add, const token_rows *);

    /* y [n, out] (+)= linear(x [n, in]). xa [n, sum of ranks] keeps scale-free x A^T of every term
     * for backward (NULL without terms), 0 where a term does not apply. scratch:
     * linear_scratch_elements.
     *
     * The product with the weight itself, x W^T here and dy W in backward, is in dev->compute: both
     * factors are rounded along the sum, which is the weight's cols here and its rows in backward.
     */
    void (*linear_fwd)(backend *, device_array *y, device_array *xa, const device_array *x,
                       const linear_call *, bool add, device_array *scratch, const token_rows *);
    /* dx [n, in] (+)= dy W + ... (NULL: nobody needs it); gradients of the call are added to. x is
     * read only for terms with da, for d_weight, and with dropout; else it may be NULL. */
    void (*linear_bwd)(backend *, device_array *dx, const device_array *dy, const device_array *x,
                       const device_array *xa, const linear_call *, bool add, device_array *scratch,
                       const token_rows *);

    /* The same for layers that share their input: every y (+)= its layer of x; dx (+)= the sum over
     * the layers. scratch: linear_group_scratch_elements. */
    void (*linear_group_fwd)(backend *, const linear_branch *, int32_t n_branches,
                             const device_array *x, bool add, device_array *scratch,
                             const token_rows *);
    void (*linear_group_bwd)(backend *, device_array *dx, const linear_branch *, int32_t n_branches,
                             const device_array *x, bool add, device_array *scratch,
                             const token_rows *);

    /* x [n, heads, head_dim] is rotated in place; cos, sin [n, call.n / 2]. inverse: the transposed
     * map, for backward. */
    void (*rope)(backend *, device_array *x, const device_array *cos, const device_array *sin,
                 const rope_call *, int64_t n, bool inverse);

    /* Causal attention inside each segment, over segment.past[layer] first. q [n, n_heads *
     * head_dim], k [n, n_kv_heads * head_dim], v [n, n_kv_heads * value_dim], o [n, n_heads *
     * value_dim]; lse [n, n_heads] log-sum-exp of the scores (and the sink), kept for backward. */
    void (*attention_fwd)(backend *, device_array *o, device_array *lse, const device_array *q,
                          const device_array *k, const device_array *v, const attention_call *,
                          const batch *, int32_t layer);
    /* dq, dk, dv are overwritten; past's dk, dv added to. scratch [n, n_heads]. d_o is d loss / d
     * o. */
    void (*attention_bwd)(backend *, device_array *dq, device_array *dk, device_array *dv,
                          const device_array *d_o, const device_array *o, const device_array *lse,
                          const device_array *q, const device_array *k, const device_array *v,
                          const attention_call *, device_array *scratch, const batch *,
                          int32_t layer);

    /* h = activation(gate) * up, without up activation(gate); h may alias gate or up. */
    void (*gated_fwd)(backend *, device_array *h, const device_array *gate, const device_array *up,
                      const gate_call *, int64_t n);
    /* d_gate may alias gate or dh, d_up (NULL without up) may alias up or dh. */
    void (*gated_bwd)(backend *, device_array *d_gate, device_array *d_up, const device_array *dh,
                      const device_array *gate, const device_array *up, const gate_call *,
                      int64_t n);

    /* y = cap tanh(scale y / cap), in place; cap > 0. */
    void (*soft_cap)(backend *, device_array *y, double scale, double cap, int64_t n);
    /* y is held within [-limit, limit], in place; then dy is 0 where y lies at an end. */
    void (*clamp)(backend *, device_array *y, double limit, int64_t n);
    void (*clamp_bwd)(backend *, device_array *dy, const device_array *y, double limit, int64_t n);

    /* loss[i] = logsumexp(logits[i]) - logits[i][targets[i]]; with `gradient`, logits become
     * weights[i] * (softmax - onehot) in place, with a cap times 1 - (logit / cap)^2: the gradient
     * before soft_cap. logits [n, vocab]. */
    void (*cross_entropy)(backend *, device_array *loss, device_array *logits,
                          const int32_t *targets, const float *weights, int64_t n, int64_t vocab,
                          double cap, bool gradient);

    void (*fill)(backend *, device_array *y, double value, int64_t n);
    void (*copy)(backend *, device_array *y, const device_array *x, int64_t n);
    void (*add)(backend *, device_array *y, const device_array *x, int64_t n); /* y += x */
    void (*scale)(backend *, device_array *y, double factor, int64_t n);
    /* Blocks of rows, from x to y: copied, or added one after the other (so that blocks which lie
     * at one place of y are summed). n rows. */
    void (*copy_blocks)(backend *, device_array *y, block_places to, const device_array *x,
                        block_places from, int64_t n, int64_t blocks, int64_t cols, bool add);
    /* y[i] = x[index[i]], and y[index[i]] = x[i] (other rows of y untouched; indices distinct);
     * rows of cols elements. */
    void (*gather_rows)(backend *, device_array *y, const device_array *x, const int32_t *index,
                        int64_t n, int64_t cols);
    void (*scatter_rows)(backend *, device_array *y, const device_array *x, const int32_t *index,
                         int64_t n, int64_t cols);

    /* choice [n, n_chosen] (host: this waits for the device) ascends within a token; weights [n,
     * n_chosen]; logits [n, n_experts]. Of equal logits the first is taken. */
    void (*route_fwd)(backend *, device_array *weights, int32_t *choice, const device_array *logits,
                      const route_call *, int64_t n);
    /* d_logits [n, n_experts] is overwritten. */
    void (*route_bwd)(backend *, device_array *d_logits, const device_array *d_weights,
                      const device_array *logits, const int32_t *choice, const route_call *,
                      int64_t n);

    void (*matmul)(backend *, const matmul_call *);
    /* y [rows, cols] = the stored weight, dense. */
    void (*weight_load)(backend *, device_array *y, const weight_ref *);
    void (*add_scaled)(backend *, device_array *y, const device_array *x, double factor, int64_t n);
    /* y (+)= a * b, element by element; y may alias either. */
    void (*mul)(backend *, device_array *y, const device_array *a, const device_array *b, int64_t n,
                bool add);
    /* y [rows, cols] (+)= x * v, v [cols] along each row (scale_cols) or v [rows] down each column
     * (scale_rows); y may alias x. */
    void (*scale_cols)(backend *, device_array *y, const device_array *x, const device_array *v,
                       int64_t rows, int64_t cols, bool add);
    void (*scale_rows)(backend *, device_array *y, const device_array *x, const device_array *v,
                       int64_t rows, int64_t cols, bool add);
    /* y [rows, cols] += v [cols] in each row. */
    void (*add_rows)(backend *, device_array *y, const device_array *v, int64_t rows, int64_t cols);
    /* s [rows] (+)= sum over each row of a * b (b NULL: of a). */
    void (*sum_rows)(backend *, device_array *s, const device_array *a, const device_array *b,
                     int64_t rows, int64_t cols, bool add);
    /* s [cols] += sum over rows of a * b (b NULL: of a). With tokens, the rows are theirs, summed
     * on the grid; without, rows are summed in order. */
    void (*sum_cols)(backend *, device_array *s, const device_array *a, const device_array *b,
                     int64_t rows, int64_t cols, const token_rows *);
    /* y[index[i]] += x[i], rows of cols elements, in the order of i: indices may repeat. */
    void (*scatter_add_rows)(backend *, device_array *y, const device_array *x,
                             const int32_t *index, int64_t n, int64_t cols);
    /* A quarter turn of pairs: in every `group` of columns, halves a and b of x become -b and a
     * (the other way with inverse, which is the transposed map). x, y [rows, cols]; y is not x. */
    void (*rotate_halves)(backend *, device_array *y, const device_array *x, int64_t rows,
                          int64_t cols, int64_t group, bool inverse);
    /* w += scale * the real part of the inverse 2-D Fourier sum of the coefficients; c.gradient +=
     * its transposed, from dw. See spectrum_call. */
    void (*spectrum_fwd)(backend *, device_array *w, const spectrum_call *);
    void (*spectrum_bwd)(backend *, device_array *d_c, const device_array *d_w,
                         const spectrum_call *);
    /* y = f(x); y may alias x. dx = dy f'(x); dx may alias dy or x. */
    void (*activation_fwd)(backend *, device_array *y, const device_array *x, activation_kind,
                           int64_t n);
    void (*activation_bwd)(backend *, device_array *dx, const device_array *dy,
                           const device_array *x, activation_kind, int64_t n);
    /* y [rows, cols] = softmax of each row; y may alias x. dx = y (dy - sum(dy y)); dx may alias
     * dy. */
    void (*softmax_fwd)(backend *, device_array *y, const device_array *x, int64_t rows,
                        int64_t cols);
    void (*softmax_bwd)(backend *, device_array *dx, const device_array *dy, const device_array *y,
                        int64_t rows, int64_t cols);

    /* y [n, cols] (+)= x where dropout keeps it, over 1 - p, and else 0: what a term of this
     * dropout and stream sees. For training alone. */
    void (*dropout)(backend *, device_array *y, const device_array *x, float p, uint32_t stream,
                    int64_t cols, bool add, const token_rows *);

    /* Optimizer. sum_squares waits for the device; blocks of fixed size are added in order. */
    double (*sum_squares)(backend *, const device_array *x, int64_t n);
    void (*adamw)(backend *, device_array *p, const device_array *g, device_array *m,
                  device_array *v, int64_t n, const adamw_step *);
} op_table;

/* Elements of scratch that linear_group_fwd and linear_group_bwd need for n tokens. */
static inline int64_t linear_group_scratch_elements(const linear_call *const *calls,
                                                    int32_t n_calls, int64_t n) {
    int64_t ranks = 0, dropped = 0;
    for (int32_t j = 0; j < n_calls; j++)
        for (int32_t i = 0; i < calls[j]->n_terms; i++) {
            ranks += calls[j]->terms[i].rank;
            dropped = calls[j]->terms[i].dropout > 0 ? calls[j]->weight.cols : dropped;
        }
    return n * (ranks + dropped);
}

/* The same for linear_fwd and linear_bwd. */
static inline int64_t linear_scratch_elements(const linear_call *call, int64_t n) {
    return linear_group_scratch_elements(&call, 1, n);
}

/* Whether dropout keeps an element, the same on every backend: one Philox block of 4 words covers
 * elements 4i..4i+3 of a token's row; counter {element / 4, stream, token counter low, high}, key
 * the step's. Kept when word >= p * 2^32. */
void dropout_words(uint32_t words[4], uint64_t key, uint32_t stream, uint64_t token_counter,
                   uint32_t block);
uint32_t dropout_threshold(float p);

#endif
