#include "backend/cpu/gemm.h"

#include <assert.h>
#include <string.h>

/* Rows of C whose packed A (rows x k block, 330 KiB at most) stays in the L2 cache while panels of
 * B, each packed into L1, pass over it. */
enum { ROWS_MAX = 264, TASKS_A_THREAD = 4, COLS_MAX = 2048, PANELS_MIN = 4 };

enum { A_ELEMENTS = (ROWS_MAX + TILE_ROWS_MAX) * K_BLOCK_MAX };

typedef struct thread_buffers {
    float a[A_ELEMENTS];
    float b[TILE_COLS_MAX * K_BLOCK_MAX];
} thread_buffers;
static_assert(sizeof(thread_buffers) <= CPU_SCRATCH_BYTES, "a thread's scratch is too small");

/* ---- packing and blocks ---- */

static const char *operand_at(const gemm_operand *x, int64_t i, int64_t k) {
    int64_t at = x->is_k_major ? k * x->stride + i : i * x->stride + k;
    return (const char *)x->data + at * (int64_t)dtype_bytes(x->type);
}

void gemm_pack_a(const gemm_kernels *kernels, float *panels, const gemm_operand *a, int64_t first,
                 int32_t n, int64_t k_begin, int32_t k) {
    int32_t step = kernels->tile_rows;
    for (int32_t i = 0; i < n; i += step) {
        const float *source = (const float *)(const void *)operand_at(a, first + i, k_begin);
        int32_t count = n - i < step ? n - i : step;
        if (a->is_k_major)
            kernels->pack_a_cols(panels, source, a->stride, count, k);
        else
            kernels->pack_a_rows(panels, source, a->stride, count, k);
        panels += (int64_t)step * k;
    }
}

void gemm_pack_b(const gemm_kernels *kernels, float *panels, const gemm_operand *b, int64_t first,
                 int32_t n, int64_t k_begin, int32_t k) {
    int32_t step = kernels->tile_cols;
    for (int32_t i = 0; i < n; i += step) {
        const void *source = operand_at(b, first + i, k_begin);
        int32_t count = n - i < step ? n - i : step;
        if (b->is_k_major)
            kernels->pack_b_cols(panels, source, b->type, b->stride, count, k);
        else
            kernels->pack_b_rows(panels, source, b->type, b->stride, count, k);
        panels += (int64_t)step * k;
    }
}

/* A tile at the right edge is computed whole, aside, and what exists of it is added: the same
 * operations as inside. */
static void edge_tile(const gemm_kernels *kernels, float *c, int64_t c_stride, const float *a,
                      const float *b, int32_t k, int32_t rows, int32_t cols, float scale,
                      bool add) {
    float whole[TILE_ROWS_MAX * TILE_COLS_MAX];
    kernels->tile(whole, kernels->tile_cols, a, b, k, rows, scale, false);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t j = 0; j < cols; j++) {
            float value = whole[r * kernels->tile_cols + j];
            c[r * c_stride + j] = add ? c[r * c_stride + j] + value : value;
        }
}

void gemm_block_run(const gemm_kernels *kernels, const gemm_block *block) {
    int32_t tile_rows = kernels->tile_rows, tile_cols = kernels->tile_cols, k = block->k;
    const float *b = block->b;
    for (int32_t j = 0; j < block->cols; j += tile_cols, b += (int64_t)tile_cols * k) {
        const float *a = block->a;
        int32_t cols = block->cols - j;
        for (int32_t i = 0; i < block->rows; i += tile_rows, a += (int64_t)tile_rows * k) {
            int32_t rows = block->rows - i < tile_rows ? block->rows - i : tile_rows;
            float *c = block->c + i * block->c_stride + j;
            if (cols >= tile_cols)
                kernels->tile(c, block->c_stride, a, b, k, rows, block->scale, block->add);
            else
                edge_tile(kernels, c, block->c_stride, a, b, k, rows, cols, block->scale,
                          block->add);
        }
    }
}

/* ---- the driver ---- */

typedef struct gemm_run_context {
    cpu_backend *cpu;
    const gemm_call *call;
    pieces rows, cols;
} gemm_run_context;

/* k blocks of equal length as far as they go: a short last one would visit C for little. */
static int32_t k_piece(const gemm_kernels *kernels, int64_t k) {
    int64_t n = (k + kernels->k_block - 1) / kernels->k_block;
    int64_t piece = round_up((k + n - 1) / n, 8);
    return (int32_t)(piece < kernels->k_block ? piece : kernels->k_block);
}

typedef struct c_range { /* of C, in elements */
    int64_t row_begin, row_end, col_begin, col_end;
} c_range;

/* One k block of one part, for the rows of a range of C that the part adds to. */
typedef struct k_block {
    const gemm_part *part;
    int64_t k_begin, row_begin, row_end;
    int32_t k;
    bool add;
} k_block;

/* A walk over the k blocks of a call, in the order in which they are added. */
typedef struct walk {
    const gemm_kernels *kernels;
    const gemm_call *call;
    const c_range *range;
    int32_t part, cut; /* the next */
    int64_t k_begin;
} walk;

/* Moves past the next block of the current part; false when the part has no more. */
static bool next_in_part(walk *w, k_block *block) {
    const gemm_part *part = &w->call->parts[w->part];
    if (part->cuts ? w->cut == part->n_cuts : w->k_begin == part->k)
        return false;
    block->k_begin = w->k_begin;
    if (part->cuts) {
        block->k = part->cuts[w->cut + 1] - part->cuts[w->cut];
        w->cut++;
    } else {
        int64_t left = part->k - w->k_begin;
        int32_t piece = k_piece(w->kernels, part->k);
        block->k = (int32_t)(left < piece ? left : piece);
    }
    assert(block->k <= K_BLOCK_MAX);
    w->k_begin += block->k;
    return true;
}

static bool walk_next(walk *w, k_block *block) {
    for (; w->part < w->call->n_parts; w->part++, w->cut = 0, w->k_begin = 0) {
        const gemm_part *part = &w->call->parts[w->part];
        const c_range *range = w->range;
        *block = (k_block){
            .part = part,
            .row_begin = range->row_begin > part->row_begin ? range->row_begin : part->row_begin,
            .row_end = range->row_end < part->row_end ? range->row_end : part->row_end,
            .add = w->call->add || w->part > 0 || w->k_begin > 0};
        if (block->row_begin < block->row_end && next_in_part(w, block))
            return true;
    }
    return false;
}

static int64_t packed_a_elements(const gemm_kernels *kernels, const k_block *block) {
    return round_up(block->row_end - block->row_begin, kernels->tile_rows) * block->k;
}

static void pack_rows_of(const gemm_kernels *kernels, float *a, const k_block *block) {
    const gemm_part *part = block->part;
    gemm_pack_a(kernels, a, &part->a, block->row_begin - part->row_begin,
                (int32_t)(block->row_end - block->row_begin), block->k_begin, block->k);
}

/* c (+)= one block, for columns [col, col + cols) of at most one panel */
static void run_panel(const gemm_kernels *kernels, const gemm_call *call, const float *a, float *b,
                      const k_block *block, int64_t col, int32_t cols) {
    gemm_pack_b(kernels, b, &block->part->b, col, cols, block->k_begin, block->k);
    gemm_block product = {.c = call->c + block->row_begin * call->c_stride + col,
                          .c_stride = call->c_stride,
                          .a = a,
                          .b = b,
                          .rows = (int32_t)(block->row_end - block->row_begin),
                          .cols = cols,
                          .k = block->k,
                          .scale = block->part->scale,
                          .add = block->add};
    gemm_block_run(kernels, &product);
}

static int32_t panel_cols(const gemm_kernels *kernels, const c_range *range, int64_t col) {
    int64_t left = range->col_end - col;
    return (int32_t)(left < kernels->tile_cols ? left : kernels->tile_cols);
}

/* Many rows: a k block of A is packed, every panel of B passes over it, then comes the next block.
 */
static void run_by_blocks(const gemm_kernels *kernels, thread_buffers *buffers, walk w) {
    k_block block;
    while (walk_next(&w, &block)) {
        pack_rows_of(kernels, buffers->a, &block);
        for (int64_t col = w.range->col_begin; col < w.range->col_end; col += kernels->tile_cols)
            run_panel(kernels, w.call, buffers->a, buffers->b, &block, col,
                      panel_cols(kernels, w.range, col));
    }
}

/* Few rows: all of A stays packed, and B's rows are read once, from end to end, as memory likes it.
 */
static void run_by_panels(const gemm_kernels *kernels, thread_buffers *buffers, walk w) {
    k_block block;
    float *a = buffers->a;
    for (walk packing = w; walk_next(&packing, &block); a += packed_a_elements(kernels, &block))
        pack_rows_of(kernels, a, &block);
    for (int64_t col = w.range->col_begin; col < w.range->col_end; col += kernels->tile_cols) {
        a = buffers->a;
        for (walk panel = w; walk_next(&panel, &block); a += packed_a_elements(kernels, &block))
            run_panel(kernels, w.call, a, buffers->b, &block, col,
                      panel_cols(kernels, w.range, col));
    }
}

static bool fits_packed(walk w) {
    int64_t elements = 0;
    k_block block;
    while (walk_next(&w, &block))
        elements += packed_a_elements(w.kernels, &block);
    return elements <= A_ELEMENTS;
}

static void gemm_task(void *context, int64_t i, int32_t thread) {
    const gemm_run_context *run = context;
    /* Rows vary fastest: threads that run side by side read the same columns of B. */
    int64_t row_piece = i % run->rows.count, col_piece = i / run->rows.count;
    c_range range = {.row_begin = piece_begin(&run->rows, row_piece),
                     .row_end = piece_end(&run->rows, row_piece),
                     .col_begin = piece_begin(&run->cols, col_piece),
                     .col_end = piece_end(&run->cols, col_piece)};
    walk w = {.kernels = run->cpu->gemm, .call = run->call, .range = &range};
    thread_buffers *buffers = cpu_scratch(run->cpu, thread);
    if (fits_packed(w))
        run_by_panels(w.kernels, buffers, w);
    else
        run_by_blocks(w.kernels, buffers, w);
}

/* Pieces of C: rows as tall as the L2 cache allows; columns so wide that packing A again for each
 * piece costs little, yet so many that every thread has a few tasks. */
static void choose_pieces(gemm_run_context *run) {
    const gemm_kernels *kernels = run->cpu->gemm;
    const gemm_call *call = run->call;
    int64_t n = (call->rows + ROWS_MAX - 1) / ROWS_MAX;
    run->rows = pieces_of(call->rows, round_up((call->rows + n - 1) / n, kernels->tile_rows));
    int32_t threads = run->cpu->base.n_threads;
    int64_t wanted = threads == 1 ? 1 : TASKS_A_THREAD * threads;
    int64_t n_cols = (wanted + run->rows.count - 1) / run->rows.count;
    while (n_cols * run->rows.count % threads != 0) /* equally fast threads end together */
        n_cols++;
    int64_t width = round_up((call->cols + n_cols - 1) / n_cols, kernels->tile_cols);
    int64_t narrowest = (int64_t)PANELS_MIN * kernels->tile_cols;
    width = width < narrowest ? narrowest : width > COLS_MAX ? COLS_MAX : width;
    run->cols = pieces_of(call->cols, width);
}

void gemm_run(cpu_backend *cpu, const gemm_call *call) {
    if (call->rows == 0 || call->cols == 0)
        return;
    assert(call->n_parts > 0 &&
           (call->add || (call->parts[0].row_begin == 0 && call->parts[0].row_end == call->rows)));
    gemm_run_context run = {.cpu = cpu, .call = call};
    choose_pieces(&run);
    cpu_run_tasks(cpu, run.rows.count * run.cols.count, gemm_task, &run);
}
