#include "backend/reference/reference.h"

#include "base/layout.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static void *ref_alloc(backend *dev, size_t bytes) {
    (void)dev;
    size_t padded;
    if (!size_add(&padded, bytes, LAYOUT_ALIGNMENT))
        return NULL;
    padded &= ~(size_t)(LAYOUT_ALIGNMENT - 1);
    void *memory = aligned_alloc(LAYOUT_ALIGNMENT, padded);
    if (memory)
        memset(memory, 0, padded);
    return memory;
}

static void ref_release(backend *dev, void *memory) {
    (void)dev;
    free(memory);
}

static void ref_upload(backend *dev, device_array *to, const void *stored, dtype type, int64_t n) {
    (void)dev;
    weight_ref row = {.data = stored, .type = type, .rows = 1, .cols = n, .row_stride = n};
    double *y = ref_array(to);
    for (int64_t i = 0; i < n; i++)
        y[i] = ref_weight(&row, 0, i);
}

static void ref_download(backend *dev, float *to, const device_array *from, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)ref_array_const(from)[i];
}

static void ref_download_f64(backend *dev, double *to, const device_array *from, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++)
        to[i] = ref_array_const(from)[i];
}

static void ref_destroy(backend *dev) {
    free(dev);
}

static graft_status ref_set_compute(backend *dev, compute_type type, const cpu_features *features,
                                    bool force, graft_error *err) {
    (void)features, (void)force, (void)err;
    dev->compute = type;
    return GRAFT_OK;
}

static const op_table reference_ops = {
    .alloc = ref_alloc,
    .release = ref_release,
    .upload = ref_upload,
    .download = ref_download,
    .download_f64 = ref_download_f64,
    .destroy = ref_destroy,
    .set_compute = ref_set_compute,
    .embed_fwd = ref_embed_fwd,
    .embed_bwd = ref_embed_bwd,
    .norm_fwd = ref_norm_fwd,
    .norm_bwd = ref_norm_bwd,
    .linear_fwd = ref_linear_fwd,
    .linear_bwd = ref_linear_bwd,
    .linear_group_fwd = ref_linear_group_fwd,
    .linear_group_bwd = ref_linear_group_bwd,
    .rope = ref_rope,
    .attention_fwd = ref_attention_fwd,
    .attention_bwd = ref_attention_bwd,
    .gated_fwd = ref_gated_fwd,
    .gated_bwd = ref_gated_bwd,
    .soft_cap = ref_soft_cap,
    .clamp = ref_clamp,
    .clamp_bwd = ref_clamp_bwd,
    .cross_entropy = ref_cross_entropy,
    .fill = ref_fill,
    .copy = ref_copy,
    .add = ref_add,
    .scale = ref_scale,
    .copy_blocks = ref_copy_blocks,
    .route_fwd = ref_route_fwd,
    .route_bwd = ref_route_bwd,
    .gather_rows = ref_gather_rows,
    .scatter_rows = ref_scatter_rows,
    .matmul = ref_matmul,
    .weight_load = ref_weight_load,
    .add_scaled = ref_add_scaled,
    .mul = ref_mul,
    .scale_cols = ref_scale_cols,
    .scale_rows = ref_scale_rows,
    .add_rows = ref_add_rows,
    .sum_rows = ref_sum_rows,
    .sum_cols = ref_sum_cols,
    .scatter_add_rows = ref_scatter_add_rows,
    .rotate_halves = ref_rotate_halves,
    .spectrum_fwd = ref_spectrum_fwd,
    .spectrum_bwd = ref_spectrum_bwd,
    .activation_fwd = ref_activation_fwd,
    .activation_bwd = ref_activation_bwd,
    .softmax_fwd = ref_softmax_fwd,
    .softmax_bwd = ref_softmax_bwd,
    .dropout = ref_dropout,
    .sum_squares = ref_sum_squares,
    .adamw = ref_adamw,
};

graft_status backend_create_reference(backend **out, graft_error *err) {
    *out = NULL;
    backend *dev = mem_array(1, sizeof *dev);
    if (!dev)
        return error_memory(err, sizeof *dev, "the reference backend");
    *dev = (backend){.ops = &reference_ops,
                     .name = "reference",
                     .element = DTYPE_F64,
                     .element_bytes = sizeof(double),
                     .n_threads = 1};
    *out = dev;
    return GRAFT_OK;
}
