#include "backend/cpu/cpu_backend.h"

#include "base/layout.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- memory ---- */

enum { HUGE_PAGE = 2 << 20 };

void *cpu_memory(size_t bytes) {
    /* Large arrays, and those of whole huge pages, are aligned to them and ask for them: matrix
     * products walk many rows at once, and 4 KiB pages would miss the TLB. */
    bool is_huge = bytes >= 4 * (size_t)HUGE_PAGE || (bytes && bytes % HUGE_PAGE == 0);
    size_t alignment = is_huge ? HUGE_PAGE : LAYOUT_ALIGNMENT, padded;
    if (!size_add(&padded, bytes ? bytes : 1, alignment - 1))
        return NULL;
    padded &= ~(alignment - 1);
    void *memory = aligned_alloc(alignment, padded);
    if (!memory)
        return NULL;
    if (is_huge)
        madvise(memory, padded, MADV_HUGEPAGE); /* a wish: no harm when refused */
    memset(memory, 0, bytes);
    return memory;
}

static void *memory_alloc(backend *dev, size_t bytes) {
    (void)dev;
    return cpu_memory(bytes);
}

static void memory_release(backend *dev, void *memory) {
    (void)dev;
    free(memory);
}

typedef struct upload_context {
    cpu_backend *cpu;
    float *to;
    const char *stored;
    dtype type;
    pieces elements;
} upload_context;

static void upload_task(void *context, int64_t i, int32_t thread) {
    (void)thread;
    const upload_context *c = context;
    int64_t begin = piece_begin(&c->elements, i), n = piece_end(&c->elements, i) - begin;
    c->cpu->rows->load(c->to + begin, c->stored + begin * (int64_t)dtype_bytes(c->type), c->type,
                       n);
}

static void cpu_upload(backend *dev, device_array *to, const void *stored, dtype type, int64_t n) {
    upload_context context = {.cpu = cpu_of(dev),
                              .to = cpu_array(to),
                              .stored = stored,
                              .type = type,
                              .elements = pieces_of(n, CPU_TASK_ELEMENTS)};
    cpu_run_tasks(context.cpu, context.elements.count, upload_task, &context);
}

static void cpu_download(backend *dev, float *to, const device_array *from, int64_t n) {
    (void)dev;
    if (n)
        memcpy(to, cpu_array_const(from), (size_t)n * sizeof *to);
}

static void cpu_download_f64(backend *dev, double *to, const device_array *from, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        to[i] = (double)cpu_array_const(from)[i];
}

/* ---- the backend ---- */

static void cpu_destroy(backend *dev) {
    cpu_backend *cpu = cpu_of(dev);
    thread_team_destroy(&cpu->team);
    free(cpu->scratch);
    free(cpu->packed);
    free(cpu->embed_scratch);
    free(cpu->partial_sums);
    free(cpu);
}

static const op_table cpu_ops = {
    .alloc = memory_alloc,
    .release = memory_release,
    .upload = cpu_upload,
    .download = cpu_download,
    .download_f64 = cpu_download_f64,
    .destroy = cpu_destroy,
    .set_compute = cpu_set_compute,
    .embed_fwd = cpu_embed_fwd,
    .embed_bwd = cpu_embed_bwd,
    .norm_fwd = cpu_norm_fwd,
    .norm_bwd = cpu_norm_bwd,
    .linear_fwd = cpu_linear_fwd,
    .linear_bwd = cpu_linear_bwd,
    .linear_group_fwd = cpu_linear_group_fwd,
    .linear_group_bwd = cpu_linear_group_bwd,
    .rope = cpu_rope,
    .attention_fwd = cpu_attention_fwd,
    .attention_bwd = cpu_attention_bwd,
    .gated_fwd = cpu_gated_fwd,
    .gated_bwd = cpu_gated_bwd,
    .soft_cap = cpu_soft_cap,
    .clamp = cpu_clamp,
    .clamp_bwd = cpu_clamp_bwd,
    .cross_entropy = cpu_cross_entropy,
    .fill = cpu_fill,
    .copy = cpu_copy,
    .add = cpu_add,
    .scale = cpu_scale,
    .copy_blocks = cpu_copy_blocks,
    .route_fwd = cpu_route_fwd,
    .route_bwd = cpu_route_bwd,
    .gather_rows = cpu_gather_rows,
    .scatter_rows = cpu_scatter_rows,
    .matmul = cpu_matmul,
    .weight_load = cpu_weight_load,
    .add_scaled = cpu_add_scaled,
    .mul = cpu_mul,
    .scale_cols = cpu_scale_cols,
    .scale_rows = cpu_scale_rows,
    .add_rows = cpu_add_rows,
    .sum_rows = cpu_sum_rows_of,
    .sum_cols = cpu_sum_cols,
    .scatter_add_rows = cpu_scatter_add_rows,
    .rotate_halves = cpu_rotate_halves,
    .spectrum_fwd = cpu_spectrum_fwd,
    .spectrum_bwd = cpu_spectrum_bwd,
    .activation_fwd = cpu_activation_fwd,
    .activation_bwd = cpu_activation_bwd,
    .softmax_fwd = cpu_softmax_fwd,
    .softmax_bwd = cpu_softmax_bwd,
    .dropout = cpu_dropout,
    .sum_squares = cpu_sum_squares,
    .adamw = cpu_adamw,
};

static const size_t embed_bytes = sizeof(float) * GRID_TOKENS * CPU_EMBED_RANKS;
static const size_t partial_bytes = sizeof(double) * CPU_PARTIAL_SUMS;

static int32_t threads_of(int32_t n_threads) {
    return n_threads > 0 ? n_threads : thread_count_default();
}

size_t backend_cpu_workspace_bytes(int32_t n_threads) {
    return (size_t)threads_of(n_threads) * CPU_SCRATCH_BYTES + CPU_PACKED_BYTES + embed_bytes +
           partial_bytes;
}

graft_status backend_create_cpu(backend **out, int32_t n_threads, const cpu_features *features,
                                graft_error *err) {
    *out = NULL;
    n_threads = threads_of(n_threads);
    size_t workspace_bytes = backend_cpu_workspace_bytes(n_threads);
    const cpu_kernels *kernels = cpu_kernels_choose(features);
    cpu_backend *cpu = mem_array(1, sizeof *cpu);
    if (!cpu)
        return error_memory(err, sizeof *cpu, "the CPU backend");
    *cpu = (cpu_backend){.base = {.ops = &cpu_ops,
                                  .name = "cpu",
                                  .element = DTYPE_F32,
                                  .element_bytes = sizeof(float),
                                  .n_threads = n_threads,
                                  .workspace_bytes = workspace_bytes},
                         .gemm = kernels->gemm,
                         .rows = kernels->rows,
                         .scratch = cpu_memory((size_t)n_threads * CPU_SCRATCH_BYTES),
                         .packed = cpu_memory(CPU_PACKED_BYTES),
                         .embed_scratch = cpu_memory(embed_bytes),
                         .partial_sums = cpu_memory(partial_bytes)};
    if (!cpu->scratch || !cpu->packed || !cpu->embed_scratch || !cpu->partial_sums) {
        cpu_destroy(&cpu->base);
        return error_memory(err, workspace_bytes, "the CPU backend's workspace");
    }
    graft_status status = thread_team_create(&cpu->team, n_threads, err);
    if (status == GRAFT_OK)
        *out = &cpu->base;
    else
        cpu_destroy(&cpu->base);
    return status;
}
