#include "backend/cpu/gemm.h"

#include <assert.h>

enum {
    /* Rows of one task: their packed A of one k block (330 KiB at most) stays in the L2 cache while
     * panels of B, each packed into L1, pass over it. */
    PIECE_ROWS = 264,
    /* Rows whose A is packed at a time; and the memory for it. */
    ROWS_AT_ONCE = 2 * PIECE_ROWS,
    PIECES_MAX = 64,
    BLOCKS_MAX = 128,
    PACKED_ELEMENTS = CPU_PACKED_BYTES / 4,
    /* So much of A that all k blocks stay in L2: then B is read from end to end instead. */
    BY_PANELS_ELEMENTS = 65536,
    GROUP_PANELS = 8, /* panels of A that one task packs */
    TASKS_A_THREAD = 4,
    PANELS_MIN = 4, /* of B, of one task */
    PANELS_MAX = 128
};

typedef struct thread_buffers {
    float b[TILE_COLS_MAX * K_BLOCK_MAX];
    float b_tail[TILE_COLS_MAX * K_BLOCK_MAX];
} thread_buffers;
static_assert(sizeof(thread_buffers) <= CPU_SCRATCH_BYTES, "a thread's scratch is too small");

/* ---- The sum over k, block by block ---- */

typedef struct k_block {
    int32_t source;
    int64_t k_begin; /* in the source */
    int32_t k;
    int64_t k_before;       /* in the packed A */
    bool is_first, is_last; /* of the call */
} k_block;

typedef struct block_walk {
    const gemm_kernels *kernels;
    const gemm_call *call;
    int32_t source, cut; /* the next */
    int64_t k_begin;
} block_walk;

/* k blocks of equal length as far as they go: a short last one would visit C for little. */
static int32_t k_piece(const gemm_kernels *kernels, int64_t k) {
    int64_t n = (k + kernels->k_block - 1) / kernels->k_block;
    int64_t piece = round_up((k + n - 1) / n, 8);
    return (int32_t)(piece < kernels->k_block ? piece : kernels->k_block);
}

static bool walk_next(block_walk *w, k_block *block) {
    if (w->source == w->call->n_sources)
        return false;
    const gemm_source *source = &w->call->sources[w->source];
    *block = (k_block){.source = w->source, .k_begin = w->k_begin};
    if (source->cuts) {
        block->k = source->cuts[w->cut + 1] - source->cuts[w->cut];
        w->cut++;
    } else {
        int64_t left = source->k - w->k_begin;
        int32_t piece = k_piece(w->kernels, source->k);
        block->k = (int32_t)(left < piece ? left : piece);
    }
    assert(block->k > 0 && block->k <= K_BLOCK_MAX);
    w->k_begin += block->k;
    if (source->cuts ? w->cut == source->n_cuts : w->k_begin == source->k) {
        w->source++;
        w->cut = 0;
        w->k_begin = 0;
    }
    block->is_first = block->source == 0 && block->k_begin == 0;
    block->is_last = w->source == w->call->n_sources;
    return true;
}

/* ---- One round: some rows, some k blocks ---- */

/* Rows to which the same low-rank terms apply. */
typedef struct row_piece {
    int64_t begin, end;
    int64_t panel; /* the first, in the packed A */
} row_piece;

typedef struct gemm_round {
    cpu_backend *cpu;
    const gemm_kernels *kernels;
    const gemm_call *call;
    row_piece pieces[PIECES_MAX];
    int32_t n_pieces;
    int64_t n_panels;
    int64_t tail_ranks; /* of all terms that have a target */
    k_block blocks[BLOCKS_MAX];
    int32_t n_blocks;
    int64_t k;     /* of all of them */
    pieces panels; /* of B, over all targets */
} gemm_round;

static bool applies(const gemm_low_rank *term, const row_piece *rows) {
    return term->row_begin <= rows->begin && rows->end <= term->row_end;
}

/* Packed A lies block after block, panel after panel, [k][tile_rows]; behind it each panel's tails
 * (xa of the terms that apply to its rows), target after target. */
static float *packed_at(const gemm_round *r, const k_block *block, int64_t panel) {
    return r->cpu->packed +
           (block->k_before * r->n_panels + panel * block->k) * r->kernels->tile_rows;
}

static float *tail_at(const gemm_round *r, int64_t panel, int64_t rank) {
    return r->cpu->packed +
           (r->k * r->n_panels + panel * r->tail_ranks + rank) * r->kernels->tile_rows;
}

/* Where the ranks of a target's terms begin among all. */
static int64_t ranks_before(const gemm_call *call, int32_t target) {
    int64_t ranks = 0;
    for (int32_t i = 0; i < call->n_low_rank; i++)
        if (call->low_rank[i].target >= 0 && call->low_rank[i].target < target)
            ranks += call->low_rank[i].rank;
    return ranks;
}

/* The first row after `row` where other terms apply. */
static int64_t next_cut(const gemm_call *call, int64_t row) {
    int64_t cut = call->rows;
    for (int32_t i = 0; i < call->n_low_rank; i++) {
        const gemm_low_rank *term = &call->low_rank[i];
        if (term->row_begin > row && term->row_begin < cut)
            cut = term->row_begin;
        if (term->row_end > row && term->row_end < cut)
            cut = term->row_end;
    }
    return cut;
}

/* Equal parts of n, multiples of `unit`, none above `most` (a multiple of unit). */
static int64_t even_part(int64_t n, int64_t most, int64_t unit) {
    int64_t parts = (n + most - 1) / most;
    return round_up((n + parts - 1) / parts, unit);
}

/* Takes rows from `row` on; returns where they end. */
static int64_t take_rows(gemm_round *r, int64_t row) {
    const int32_t tile = r->kernels->tile_rows;
    const int64_t a_panel = tile * (r->tail_ranks + K_BLOCK_MAX);
    int64_t stop = row + even_part(r->call->rows - row, ROWS_AT_ONCE / tile * tile, tile);
    r->n_pieces = 0;
    r->n_panels = 0;
    while (row < r->call->rows && row < stop && r->n_pieces < PIECES_MAX) {
        int64_t end = next_cut(r->call, row);
        end = end < stop ? end : stop;
        int64_t size = even_part(end - row, PIECE_ROWS / tile * tile, tile);
        int64_t most = (PACKED_ELEMENTS / a_panel - r->n_panels) * tile;
        if (most <= 0)
            break;
        size = size < most ? size : most;
        end = end - row < size ? end : row + size;
        r->pieces[r->n_pieces++] = (row_piece){.begin = row, .end = end, .panel = r->n_panels};
        r->n_panels += (end - row + tile - 1) / tile;
        row = end;
    }
    assert(r->n_pieces > 0 && "terms of more ranks than there is memory for");
    return row;
}

/* Takes k blocks as far as they fit; false at the end. */
static bool take_blocks(gemm_round *r, block_walk *w) {
    int64_t room = PACKED_ELEMENTS / (r->n_panels * r->kernels->tile_rows) - r->tail_ranks;
    r->n_blocks = 0;
    r->k = 0;
    for (block_walk next = *w; r->n_blocks < BLOCKS_MAX; *w = next) {
        k_block *block = &r->blocks[r->n_blocks];
        if (!walk_next(&next, block) || r->k + block->k > room)
            break;
        block->k_before = r->k;
        r->k += block->k;
        r->n_blocks++;
    }
    return r->n_blocks > 0;
}

/* ---- Packing A ---- */

/* Rows of one piece, from a panel's first. */
typedef struct row_group {
    row_piece rows;
    int32_t n;
} row_group;

static row_group group_at(const gemm_round *r, int64_t i) {
    int64_t size = (int64_t)GROUP_PANELS * r->kernels->tile_rows;
    const row_piece *piece = r->pieces;
    for (; i >= (piece->end - piece->begin + size - 1) / size; piece++)
        i -= (piece->end - piece->begin + size - 1) / size;
    row_group group = {.rows = *piece};
    group.rows.begin += i * size;
    group.rows.panel += i * GROUP_PANELS;
    if (group.rows.end - group.rows.begin > size)
        group.rows.end = group.rows.begin + size;
    group.n = (int32_t)(group.rows.end - group.rows.begin);
    return group;
}

static int64_t group_count(const gemm_round *r) {
    int64_t size = (int64_t)GROUP_PANELS * r->kernels->tile_rows, n = 0;
    for (int32_t i = 0; i < r->n_pieces; i++)
        n += (r->pieces[i].end - r->pieces[i].begin + size - 1) / size;
    return n;
}

/* What one k block (a: packed) adds to a term's xa. */
static void add_thin(const gemm_round *r, thread_buffers *buffers, const gemm_low_rank *term,
                     const row_group *group, const k_block *block, const float *a) {
    int32_t step = r->kernels->tile_cols;
    for (int32_t col = 0; col < term->rank; col += step) {
        int32_t cols = term->rank - col < step ? term->rank - col : step;
        gemm_pack_b(r->kernels, buffers->b, &term->thin, col, cols, block->k_begin, block->k);
        gemm_block product = {.c = term->xa + group->rows.begin * term->xa_stride + col,
                              .c_stride = term->xa_stride,
                              .a = a,
                              .b = buffers->b,
                              .rows = group->n,
                              .cols = cols,
                              .k = block->k,
                              .scale = term->thin_scale,
                              .add = block->k_begin > 0};
        gemm_block_run(r->kernels, &product);
    }
}

/* One term's xa, from its place among the tails on. */
static void pack_tail(const gemm_round *r, const row_group *group, const gemm_low_rank *term,
                      int64_t place) {
    const int32_t tile = r->kernels->tile_rows;
    gemm_operand xa = {term->xa, DTYPE_F32, term->xa_stride, false};
    for (int32_t row = 0; row < group->n; row += tile)
        for (int32_t rank = 0; rank < term->rank; rank += K_BLOCK_MAX)
            gemm_pack_a(r->kernels, tail_at(r, group->rows.panel + row / tile, place + rank), &xa,
                        group->rows.begin + row, group->n - row < tile ? group->n - row : tile,
                        rank, term->rank - rank < K_BLOCK_MAX ? term->rank - rank : K_BLOCK_MAX);
}

static void pack_tails(const gemm_round *r, const row_group *group) {
    for (int32_t t = 0; t < r->call->n_targets; t++) {
        int64_t place = ranks_before(r->call, t);
        for (int32_t i = 0; i < r->call->n_low_rank; i++) {
            const gemm_low_rank *term = &r->call->low_rank[i];
            if (term->target != t || !applies(term, &group->rows))
                continue;
            pack_tail(r, group, term, place);
            place += term->rank;
        }
    }
}

static void pack_task(void *context, int64_t i, int32_t thread) {
    const gemm_round *r = context;
    row_group group = group_at(r, i);
    for (int32_t b = 0; b < r->n_blocks; b++) {
        const k_block *block = &r->blocks[b];
        float *a = packed_at(r, block, group.rows.panel);
        gemm_pack_a(r->kernels, a, &r->call->sources[block->source].a, group.rows.begin, group.n,
                    block->k_begin, block->k);
        for (int32_t j = 0; j < r->call->n_low_rank; j++) {
            const gemm_low_rank *term = &r->call->low_rank[j];
            if (term->source == block->source && applies(term, &group.rows))
                add_thin(r, cpu_scratch(r->cpu, thread), term, &group, block, a);
        }
    }
    if (r->blocks[r->n_blocks - 1].is_last && r->tail_ranks > 0)
        pack_tails(r, &group);
}

/* ---- Products ---- */

/* A panel of B's columns. */
typedef struct col_panel {
    const gemm_target *target;
    int32_t index; /* of the target */
    int64_t col;
    int32_t cols;
} col_panel;

static int64_t panels_of(const gemm_round *r, const gemm_target *target) {
    return (target->cols + r->kernels->tile_cols - 1) / r->kernels->tile_cols;
}

static col_panel panel_at(const gemm_round *r, int64_t i) {
    col_panel panel = {.target = r->call->targets};
    for (; i >= panels_of(r, panel.target); panel.target++, panel.index++)
        i -= panels_of(r, panel.target);
    panel.col = i * r->kernels->tile_cols;
    int64_t left = panel.target->cols - panel.col;
    panel.cols = (int32_t)(left < r->kernels->tile_cols ? left : r->kernels->tile_cols);
    return panel;
}

/* Packs B of ranks [first, first + K_BLOCK_MAX) of the terms that apply; returns how many there
 * are. Their scales are folded in. */
static int32_t pack_b_tail(const gemm_round *r, float *b, const row_piece *rows,
                           const col_panel *panel, int64_t first) {
    int64_t before = 0, end = first + K_BLOCK_MAX;
    int32_t n = 0;
    for (int32_t i = 0; i < r->call->n_low_rank; i++) {
        const gemm_low_rank *term = &r->call->low_rank[i];
        if (term->target != panel->index || !applies(term, rows))
            continue;
        int64_t from = before > first ? before : first;
        int64_t to = before + term->rank < end ? before + term->rank : end;
        if (from < to) {
            int32_t k = (int32_t)(to - from), elements = k * r->kernels->tile_cols;
            gemm_pack_b(r->kernels, b, &term->b, panel->col, panel->cols, from - before, k);
            for (int32_t j = 0; j < elements; j++)
                b[j] *= term->scale;
            b += elements;
            n += k;
        }
        before += term->rank;
    }
    return n;
}

/* A panel of B in a k block: where a task has come to. */
typedef struct place {
    col_panel panel;
    const k_block *block;
} place;

/* c (+)= one k block, and after the last one the tails. next: NULL at the end. */
static void run_panel(const gemm_round *r, thread_buffers *buffers, const row_piece *rows,
                      const place *here, const place *next) {
    const col_panel *panel = &here->panel;
    const k_block *block = here->block;
    const gemm_target *target = panel->target;
    int64_t row_step = target->is_turned ? 1 : target->c_stride;
    int64_t col_step = target->is_turned ? target->c_stride : 1;
    const gemm_operand *b = &target->b[block->source];
    gemm_block product = {.c = target->c + rows->begin * row_step + panel->col * col_step,
                          .c_stride = target->c_stride,
                          .a = packed_at(r, block, rows->panel),
                          .b = buffers->b,
                          .rows = (int32_t)(rows->end - rows->begin),
                          .cols = panel->cols,
                          .k = block->k,
                          .b_tail = buffers->b_tail,
                          .a_tail_stride = r->tail_ranks * r->kernels->tile_rows,
                          .scale = target->scale,
                          .add = target->add || !block->is_first,
                          .is_turned = target->is_turned};
    if (!target->is_turned &&
        gemm_takes_stored(r->kernels, b, rows->end - rows->begin, panel->cols)) {
        product.b_stored = gemm_operand_at(b, panel->col, block->k_begin);
        product.b_type = b->type;
        product.b_stride = b->stride;
    } else {
        gemm_pack_b(r->kernels, buffers->b, b, panel->col, panel->cols, block->k_begin, block->k);
        if (next)
            product.ahead =
                gemm_ahead_of(&next->panel.target->b[next->block->source], next->panel.col,
                              next->panel.cols, next->block->k_begin, next->block->k);
    }
    for (int64_t rank = 0;; rank += K_BLOCK_MAX) {
        if (block->is_last && r->tail_ranks > 0) {
            product.k_tail = pack_b_tail(r, buffers->b_tail, rows, panel, rank);
            product.a_tail = tail_at(r, rows->panel, ranks_before(r->call, panel->index) + rank);
        }
        if (rank > 0 && product.k_tail == 0)
            return;
        gemm_block_run(r->kernels, &product);
        if (product.k_tail < K_BLOCK_MAX)
            return;
        product.k = 0; /* more ranks than one visit takes */
        product.add = true;
    }
}

/* Panels [begin, end) of B and all k blocks, in one of two orders. Many rows: every panel passes
 * over a k block of A, then comes the next block. Few rows: B's rows are read once, from end to
 * end, as memory likes it. */
static place place_at(const gemm_round *r, int64_t begin, int64_t end, bool by_panels, int64_t i) {
    int64_t n = end - begin;
    int64_t panel = by_panels ? i / r->n_blocks : i % n;
    int64_t block = by_panels ? i % r->n_blocks : i / n;
    return (place){.panel = panel_at(r, begin + panel), .block = &r->blocks[block]};
}

static void product_task(void *context, int64_t i, int32_t thread) {
    const gemm_round *r = context;
    /* Rows vary fastest: threads that run side by side read the same columns of B. */
    const row_piece *rows = &r->pieces[i % r->n_pieces];
    int64_t begin = piece_begin(&r->panels, i / r->n_pieces);
    int64_t end = piece_end(&r->panels, i / r->n_pieces);
    bool by_panels = (rows->end - rows->begin) * r->k <= BY_PANELS_ELEMENTS;
    int64_t n = (end - begin) * r->n_blocks;
    place here, next = place_at(r, begin, end, by_panels, 0);
    for (int64_t j = 0; j < n; j++) {
        here = next;
        if (j + 1 < n)
            next = place_at(r, begin, end, by_panels, j + 1);
        run_panel(r, cpu_scratch(r->cpu, thread), rows, &here, j + 1 < n ? &next : NULL);
    }
}

/* Columns in pieces so wide that reading A again for each costs little, yet so many that every
 * thread has a few tasks. */
static void choose_panels(gemm_round *r) {
    int64_t n = 0, threads = r->cpu->base.n_threads;
    for (int32_t t = 0; t < r->call->n_targets; t++)
        n += panels_of(r, &r->call->targets[t]);
    int64_t wanted = threads == 1 ? 1 : TASKS_A_THREAD * threads;
    int64_t n_pieces = (wanted + r->n_pieces - 1) / r->n_pieces;
    while (n_pieces * r->n_pieces % threads != 0) /* equally fast threads end together */
        n_pieces++;
    int64_t size = (n + n_pieces - 1) / n_pieces;
    r->panels = pieces_of(n, size < PANELS_MIN   ? PANELS_MIN
                             : size > PANELS_MAX ? PANELS_MAX
                                                 : size);
}

void gemm_run(cpu_backend *cpu, const gemm_call *call) {
    gemm_round r = {.cpu = cpu, .kernels = cpu->gemm, .call = call};
    r.tail_ranks = ranks_before(call, call->n_targets);
    for (int64_t row = 0; row < call->rows;) {
        row = take_rows(&r, row);
        choose_panels(&r);
        block_walk w = {.kernels = cpu->gemm, .call = call};
        while (take_blocks(&r, &w)) {
            cpu_run_tasks(cpu, group_count(&r), pack_task, &r);
            cpu_run_tasks(cpu, r.panels.count * r.n_pieces, product_task, &r);
        }
    }
}

void gemm_product_run(cpu_backend *cpu, const gemm_product *p) {
    gemm_target target = {.c = p->c,
                          .c_stride = p->c_stride,
                          .cols = p->cols,
                          .b = &p->b,
                          .scale = p->scale,
                          .add = p->add,
                          .is_turned = p->is_turned};
    gemm_call call = {
        .rows = p->rows, .sources = &p->a, .targets = &target, .n_sources = 1, .n_targets = 1};
    gemm_run(cpu, &call);
}
