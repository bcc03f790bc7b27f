#include "backend/cpu/gemm_narrow.h"

#include <assert.h>

/* The rows of C are taken in groups, the sum over k in pieces. For each group and piece, all
 * threads first pack A into slots, one in each thread's scratch memory, and then divide the
 * columns: a panel of B is packed into the thread's own L1 or L2 cache and passes over every slot.
 * So A is rounded once, not once a thread, and B once a group.
 *
 * Where groups and pieces end changes no bit: the chain of an element goes on from C. */
enum {
    SLOT_ROWS_MAX = 512,
    SUM_BLOCKS_MAX = 10, /* of a piece: 640 of k */
    B_BYTES = 64 << 10,  /* a panel of B, packed */
    EDGE_BYTES = NARROW_TILE_ROWS_MAX * NARROW_TILE_COLS_MAX * sizeof(float),
    SLOT_BYTES = CPU_SCRATCH_BYTES - B_BYTES - EDGE_BYTES,
    TASKS_A_THREAD = 4,
    PACK_TASK_ELEMENTS = 1 << 16
};
static_assert(SLOT_BYTES >= 512 << 10, "a thread's scratch is too small");

typedef struct narrow_pass { /* one group of rows and one piece of the sum */
    cpu_backend *cpu;
    const narrow_kernels *kernels;
    const narrow_call *call;
    int64_t row_begin, row_end, k_begin;
    int32_t n_blocks;
    int32_t slot_rows; /* of a slot; whole tiles */
    bool add;
    pieces tiles;            /* of the group: packed by tasks */
    pieces panels;           /* of B: multiplied by tasks */
    int64_t slots_at_a_time; /* of one task */
} narrow_pass;

static unsigned char *slot_at(const narrow_pass *pass, int64_t slot) {
    return cpu_scratch(pass->cpu, (int32_t)slot);
}

static int64_t slot_count(const narrow_pass *pass) {
    return (pass->row_end - pass->row_begin + pass->slot_rows - 1) / pass->slot_rows;
}

/* Elements of block i that exist. */
static int32_t block_length(const narrow_pass *pass, int32_t i) {
    int64_t left = pass->call->k - pass->k_begin - (int64_t)i * NARROW_BLOCK;
    return (int32_t)(left < NARROW_BLOCK ? left : NARROW_BLOCK);
}

static void enter(const narrow_kernels *kernels) {
    if (kernels->enter)
        kernels->enter();
}

static void leave(const narrow_kernels *kernels) {
    if (kernels->leave)
        kernels->leave();
}

/* ---- A ---- */

static void pack_task(void *context, int64_t task, int32_t thread) {
    (void)thread;
    const narrow_pass *pass = context;
    const narrow_kernels *kernels = pass->kernels;
    const narrow_call *call = pass->call;
    int64_t tiles_a_slot = pass->slot_rows / kernels->tile_rows;
    for (int64_t i = piece_begin(&pass->tiles, task); i < piece_end(&pass->tiles, task); i++) {
        unsigned char *block = slot_at(pass, i / tiles_a_slot) +
                               (size_t)(i % tiles_a_slot * pass->n_blocks) * kernels->a_bytes;
        int64_t row = pass->row_begin + i * kernels->tile_rows, left = pass->row_end - row;
        int32_t n = (int32_t)(left < kernels->tile_rows ? left : kernels->tile_rows);
        for (int32_t j = 0; j < pass->n_blocks; j++, block += kernels->a_bytes)
            kernels->pack_a(block, call->a + row * call->k + pass->k_begin + j * NARROW_BLOCK,
                            call->k, n, block_length(pass, j));
    }
}

/* ---- B, and the product ---- */

static void pack_panel(const narrow_pass *pass, unsigned char *block, int64_t col, int32_t n) {
    const gemm_operand *b = &pass->call->b;
    for (int32_t j = 0; j < pass->n_blocks; j++, block += pass->kernels->b_bytes) {
        int64_t k = pass->k_begin + (int64_t)j * NARROW_BLOCK;
        int64_t at = b->is_k_major ? k * b->stride + col : col * b->stride + k;
        const char *source = (const char *)b->data + at * (int64_t)dtype_bytes(b->type);
        if (b->is_k_major)
            pass->kernels->pack_b_cols(block, source, b->type, b->stride, n, block_length(pass, j));
        else
            pass->kernels->pack_b_rows(block, source, b->type, b->stride, n, block_length(pass, j));
    }
}

/* A tile at the right edge is computed whole, aside: the same operations as inside. */
static void edge_tile(const narrow_pass *pass, float *c, const void *a, const void *b, int32_t rows,
                      int32_t cols, float *whole) {
    const narrow_kernels *kernels = pass->kernels;
    int64_t c_stride = pass->call->cols;
    for (int32_t r = 0; r < rows && pass->add; r++)
        memcpy(whole + r * kernels->tile_cols, c + r * c_stride, (size_t)cols * sizeof *c);
    kernels->tile(whole, kernels->tile_cols, a, b, pass->n_blocks, rows, pass->add);
    for (int32_t r = 0; r < rows; r++)
        memcpy(c + r * c_stride, whole + r * kernels->tile_cols, (size_t)cols * sizeof *c);
}

/* One packed panel of B over the rows of one slot. */
static void multiply_slot(const narrow_pass *pass, int64_t slot, const void *b, int64_t col,
                          int32_t cols, float *whole) {
    const narrow_kernels *kernels = pass->kernels;
    int64_t begin = pass->row_begin + slot * pass->slot_rows, end = begin + pass->slot_rows;
    end = end < pass->row_end ? end : pass->row_end;
    const unsigned char *a = slot_at(pass, slot);
    for (int64_t row = begin; row < end; row += kernels->tile_rows) {
        int32_t rows = (int32_t)(end - row < kernels->tile_rows ? end - row : kernels->tile_rows);
        float *c = pass->call->c + row * pass->call->cols + col;
        if (cols == kernels->tile_cols)
            kernels->tile(c, pass->call->cols, a, b, pass->n_blocks, rows, pass->add);
        else
            edge_tile(pass, c, a, b, rows, cols, whole);
        a += (size_t)pass->n_blocks * kernels->a_bytes;
    }
}

static void multiply_task(void *context, int64_t task, int32_t thread) {
    const narrow_pass *pass = context;
    const narrow_kernels *kernels = pass->kernels;
    unsigned char *b = (unsigned char *)cpu_scratch(pass->cpu, thread) + SLOT_BYTES;
    float *whole = (float *)(void *)(b + B_BYTES);
    int64_t first_slot = task / pass->panels.count * pass->slots_at_a_time;
    int64_t last_slot = first_slot + pass->slots_at_a_time;
    last_slot = last_slot < slot_count(pass) ? last_slot : slot_count(pass);
    int64_t panel = task % pass->panels.count;
    memset(whole, 0, EDGE_BYTES);
    enter(kernels);
    for (int64_t i = piece_begin(&pass->panels, panel); i < piece_end(&pass->panels, panel); i++) {
        int64_t col = i * kernels->tile_cols, left = pass->call->cols - col;
        int32_t cols = (int32_t)(left < kernels->tile_cols ? left : kernels->tile_cols);
        pack_panel(pass, b, col, cols);
        for (int64_t slot = first_slot; slot < last_slot; slot++)
            multiply_slot(pass, slot, b, col, cols, whole);
    }
    leave(kernels);
}

/* ---- the driver ---- */

static void run_pass(narrow_pass *pass) {
    int64_t n_tiles =
        (pass->row_end - pass->row_begin + pass->kernels->tile_rows - 1) / pass->kernels->tile_rows;
    int64_t tile_elements = (int64_t)pass->kernels->tile_rows * pass->n_blocks * NARROW_BLOCK;
    pass->tiles = pieces_of(n_tiles, (PACK_TASK_ELEMENTS + tile_elements - 1) / tile_elements);
    cpu_run_tasks(pass->cpu, pass->tiles.count, pack_task, pass);

    int64_t threads = pass->cpu->base.n_threads, slots = slot_count(pass);
    int64_t n_panels = (pass->call->cols + pass->kernels->tile_cols - 1) / pass->kernels->tile_cols;
    int64_t wanted = threads == 1 ? 1 : threads * TASKS_A_THREAD;
    pass->panels = pieces_of(n_panels, (n_panels + wanted - 1) / wanted);
    /* Too few columns for every thread: slots are divided too. */
    pass->slots_at_a_time = pass->panels.count >= threads ? slots : 1;
    int64_t n_turns = (slots + pass->slots_at_a_time - 1) / pass->slots_at_a_time;
    cpu_run_tasks(pass->cpu, pass->panels.count * n_turns, multiply_task, pass);
}

/* As many rows as a slot holds for pieces of so many blocks, in whole tiles. */
static int32_t slot_rows_of(const narrow_kernels *kernels, int64_t n_blocks) {
    int64_t tiles = (int64_t)(SLOT_BYTES / (kernels->a_bytes * (size_t)n_blocks));
    int64_t most = SLOT_ROWS_MAX / kernels->tile_rows;
    return (int32_t)(tiles < most ? tiles : most) * kernels->tile_rows;
}

void narrow_run(cpu_backend *cpu, const narrow_call *call) {
    const narrow_kernels *kernels = cpu->narrow;
    if (call->rows == 0 || call->cols == 0)
        return;
    int64_t blocks = (call->k + NARROW_BLOCK - 1) / NARROW_BLOCK;
    int64_t n_pieces = (blocks + SUM_BLOCKS_MAX - 1) / SUM_BLOCKS_MAX;
    int64_t piece = (blocks + n_pieces - 1) / n_pieces;
    assert(blocks > 0 && kernels->b_bytes * (size_t)piece <= B_BYTES);
    narrow_pass pass = {
        .cpu = cpu, .kernels = kernels, .call = call, .slot_rows = slot_rows_of(kernels, piece)};
    int64_t group = (int64_t)pass.slot_rows * cpu->base.n_threads;
    for (int64_t row = 0; row < call->rows; row += group)
        for (int64_t block = 0; block < blocks; block += piece) {
            pass.row_begin = row;
            pass.row_end = call->rows - row < group ? call->rows : row + group;
            pass.k_begin = block * NARROW_BLOCK;
            pass.n_blocks = (int32_t)(blocks - block < piece ? blocks - block : piece);
            pass.add = call->add || block > 0;
            run_pass(&pass);
        }
}
