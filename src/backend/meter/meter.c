#include "backend/meter/meter_internal.h"

#include "base/clock.h"
#include "base/layout.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct meter_backend {
    backend base;
    backend *inner; /* NULL: only counts */
    meter_tally tallies[N_METER_OPS];
} meter_backend;

static const char *const names[N_METER_OPS] = {
    [METER_UPLOAD] = "upload",
    [METER_DOWNLOAD] = "download",
    [METER_EMBED_FWD] = "embed_fwd",
    [METER_EMBED_BWD] = "embed_bwd",
    [METER_NORM_FWD] = "norm_fwd",
    [METER_NORM_BWD] = "norm_bwd",
    [METER_LINEAR_FWD] = "linear_fwd",
    [METER_LINEAR_BWD] = "linear_bwd",
    [METER_ROPE] = "rope",
    [METER_ATTENTION_FWD] = "attention_fwd",
    [METER_ATTENTION_BWD] = "attention_bwd",
    [METER_GATED_FWD] = "gated_fwd",
    [METER_GATED_BWD] = "gated_bwd",
    [METER_CROSS_ENTROPY] = "cross_entropy",
    [METER_FILL] = "fill",
    [METER_COPY] = "copy",
    [METER_COPY_BLOCKS] = "copy_blocks",
    [METER_SOFT_CAP] = "soft_cap",
    [METER_CLAMP] = "clamp",
    [METER_CLAMP_BWD] = "clamp_bwd",
    [METER_ROUTE_FWD] = "route_fwd",
    [METER_ROUTE_BWD] = "route_bwd",
    [METER_ADD] = "add",
    [METER_SCALE] = "scale",
    [METER_GATHER_ROWS] = "gather_rows",
    [METER_SCATTER_ROWS] = "scatter_rows",
    [METER_MATMUL] = "matmul",
    [METER_WEIGHT_LOAD] = "weight_load",
    [METER_ADD_SCALED] = "add_scaled",
    [METER_MUL] = "mul",
    [METER_SCALE_COLS] = "scale_cols",
    [METER_SCALE_ROWS] = "scale_rows",
    [METER_ADD_ROWS] = "add_rows",
    [METER_SUM_ROWS] = "sum_rows",
    [METER_SUM_COLS] = "sum_cols",
    [METER_SCATTER_ADD_ROWS] = "scatter_add_rows",
    [METER_ROTATE_HALVES] = "rotate_halves",
    [METER_SPECTRUM_FWD] = "spectrum_fwd",
    [METER_SPECTRUM_BWD] = "spectrum_bwd",
    [METER_ACTIVATION_FWD] = "activation_fwd",
    [METER_ACTIVATION_BWD] = "activation_bwd",
    [METER_SOFTMAX_FWD] = "softmax_fwd",
    [METER_SOFTMAX_BWD] = "softmax_bwd",
    [METER_DROPOUT] = "dropout",
    [METER_SUM_SQUARES] = "sum_squares",
    [METER_ADAMW] = "adamw",
};

const char *meter_op_name(meter_op op) {
    return names[op];
}

bool meter_op_is_attention(meter_op op) {
    return op == METER_ATTENTION_FWD || op == METER_ATTENTION_BWD;
}

static meter_backend *meter_of(backend *dev) {
    return (meter_backend *)(void *)dev;
}

passing pass_begin(backend *dev) {
    backend *inner = meter_of(dev)->inner;
    return (passing){dev, inner, inner ? inner->ops : NULL, inner ? clock_seconds() : 0};
}

void pass_end(const passing *p, meter_op op, op_cost cost) {
    meter_tally *tally = &meter_of(p->meter)->tallies[op];
    tally->calls++;
    tally->cost.flops += cost.flops;
    tally->cost.trained_flops += cost.trained_flops;
    tally->cost.bytes += cost.bytes;
    if (p->inner)
        tally->seconds += clock_seconds() - p->began_s;
}

void pass_end_moved(const passing *p, meter_op op, int64_t elements) {
    pass_end(p, op, moved_cost(elements, p->meter->element_bytes));
}

/* ---- Memory ---- */

/* What stands before memory that only has addresses: its size. The header's page can be written. */
enum { HEADER_BYTES = 1 << 16 };

static void *address_space(size_t bytes) {
    size_t whole;
    if (!size_add(&whole, bytes, HEADER_BYTES))
        return NULL;
    void *memory = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (mprotect(memory, HEADER_BYTES, PROT_READ | PROT_WRITE) != 0) {
        munmap(memory, whole);
        return NULL;
    }
    memcpy(memory, &whole, sizeof whole);
    return (unsigned char *)memory + HEADER_BYTES;
}

static void *meter_alloc(backend *dev, size_t bytes) {
    backend *inner = meter_of(dev)->inner;
    return inner ? inner->ops->alloc(inner, bytes) : address_space(bytes);
}

static void meter_release(backend *dev, void *memory) {
    backend *inner = meter_of(dev)->inner;
    if (inner) {
        inner->ops->release(inner, memory);
    } else if (memory) {
        unsigned char *begin = (unsigned char *)memory - HEADER_BYTES;
        size_t whole;
        memcpy(&whole, begin, sizeof whole);
        munmap(begin, whole);
    }
}

static void meter_destroy(backend *dev) {
    meter_backend *meter = meter_of(dev);
    backend_destroy(&meter->inner);
    free(meter);
}

static graft_status meter_set_compute(backend *dev, compute_type type, const cpu_features *features,
                                      bool force, graft_error *err) {
    backend *inner = meter_of(dev)->inner;
    graft_status status = inner ? backend_set_compute(inner, type, features, force, err) : GRAFT_OK;
    if (status == GRAFT_OK)
        dev->compute = type;
    return status;
}

static void meter_upload(backend *dev, device_array *to, const void *stored, dtype type,
                         int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->upload(p.inner, to, stored, type, n);
    pass_end(&p, METER_UPLOAD, moved_cost(n, dtype_bytes(type) + p.meter->element_bytes));
}

static void meter_download(backend *dev, float *to, const device_array *from, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->download(p.inner, to, from, n);
    else if (n > 0)
        memset(to, 0, (size_t)n * sizeof *to);
    pass_end(&p, METER_DOWNLOAD, moved_cost(n, sizeof *to + p.meter->element_bytes));
}

static void meter_download_f64(backend *dev, double *to, const device_array *from, int64_t n) {
    passing p = pass_begin(dev);
    if (p.inner)
        p.ops->download_f64(p.inner, to, from, n);
    else if (n > 0)
        memset(to, 0, (size_t)n * sizeof *to);
    pass_end(&p, METER_DOWNLOAD, moved_cost(n, sizeof *to + p.meter->element_bytes));
}

/* Every op has its line: a test holds the table free of gaps. */
static const op_table meter_ops = {
    .alloc = meter_alloc,
    .release = meter_release,
    .upload = meter_upload,
    .download = meter_download,
    .download_f64 = meter_download_f64,
    .destroy = meter_destroy,
    .set_compute = meter_set_compute,
    .embed_fwd = meter_embed_fwd,
    .embed_bwd = meter_embed_bwd,
    .norm_fwd = meter_norm_fwd,
    .norm_bwd = meter_norm_bwd,
    .linear_fwd = meter_linear_fwd,
    .linear_bwd = meter_linear_bwd,
    .linear_group_fwd = meter_linear_group_fwd,
    .linear_group_bwd = meter_linear_group_bwd,
    .rope = meter_rope,
    .attention_fwd = meter_attention_fwd,
    .attention_bwd = meter_attention_bwd,
    .gated_fwd = meter_gated_fwd,
    .gated_bwd = meter_gated_bwd,
    .cross_entropy = meter_cross_entropy,
    .fill = meter_fill,
    .copy = meter_copy,
    .copy_blocks = meter_copy_blocks,
    .soft_cap = meter_soft_cap,
    .clamp = meter_clamp,
    .clamp_bwd = meter_clamp_bwd,
    .route_fwd = meter_route_fwd,
    .route_bwd = meter_route_bwd,
    .add = meter_add,
    .scale = meter_scale,
    .gather_rows = meter_gather_rows,
    .scatter_rows = meter_scatter_rows,
    .matmul = meter_matmul,
    .weight_load = meter_weight_load,
    .add_scaled = meter_add_scaled,
    .mul = meter_mul,
    .scale_cols = meter_scale_cols,
    .scale_rows = meter_scale_rows,
    .add_rows = meter_add_rows,
    .sum_rows = meter_sum_rows,
    .sum_cols = meter_sum_cols,
    .scatter_add_rows = meter_scatter_add_rows,
    .rotate_halves = meter_rotate_halves,
    .spectrum_fwd = meter_spectrum_fwd,
    .spectrum_bwd = meter_spectrum_bwd,
    .activation_fwd = meter_activation_fwd,
    .activation_bwd = meter_activation_bwd,
    .softmax_fwd = meter_softmax_fwd,
    .softmax_bwd = meter_softmax_bwd,
    .dropout = meter_dropout,
    .sum_squares = meter_sum_squares,
    .adamw = meter_adamw,
};

graft_status backend_create_meter(backend **out, backend *inner, graft_error *err) {
    *out = NULL;
    meter_backend *meter = mem_array(1, sizeof *meter);
    if (!meter) {
        backend_destroy(&inner);
        return error_memory(err, sizeof *meter, "the profile");
    }
    meter->inner = inner;
    meter->base = inner ? *inner
                        : (backend){.name = "counting",
                                    .element = DTYPE_F32,
                                    .element_bytes = sizeof(float),
                                    .n_threads = 1};
    meter->base.ops = &meter_ops;
    *out = &meter->base;
    return GRAFT_OK;
}

const meter_tally *meter_tallies(const backend *dev) {
    return dev->ops == &meter_ops ? ((const meter_backend *)(const void *)dev)->tallies : NULL;
}

void meter_reset(backend *dev) {
    if (dev->ops == &meter_ops)
        memset(meter_of(dev)->tallies, 0, sizeof meter_of(dev)->tallies);
}
