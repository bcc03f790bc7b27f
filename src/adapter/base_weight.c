#include "adapter/base_weight.h"

#include "adapter/freed.h"
#include "base/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_ELEMENTS = 4096 };

static void load(double *out, const tensor_view *view, int64_t first, int64_t n) {
    float chunk[CHUNK_ELEMENTS];
    const unsigned char *stored = view->data;
    for (int64_t done = 0; done < n;) {
        int64_t part = n - done < CHUNK_ELEMENTS ? n - done : CHUNK_ELEMENTS;
        dtype_load_f32(chunk, stored + (size_t)(first + done) * dtype_bytes(view->type), view->type,
                       (size_t)part);
        for (int64_t i = 0; i < part; i++)
            out[done + i] = (double)chunk[i];
        done += part;
    }
}

/* Of a weight that is stored [cols, rows], of `rows` in all. */
static void load_transposed(double *out, const tensor_view *view, int64_t rows, int64_t cols,
                            int64_t first, int64_t n) {
    const unsigned char *stored = view->data;
    float value;
    for (int64_t c = 0; c < cols; c++)
        for (int64_t r = 0; r < n; r++) {
            dtype_load_f32(&value,
                           stored + (size_t)(c * rows + first + r) * dtype_bytes(view->type),
                           view->type, 1);
            out[r * cols + c] = (double)value;
        }
}

graft_status base_weight_rows(double *out, const adapter *a, size_t module,
                              const weight_source *weights, int64_t first, int64_t n,
                              graft_error *err) {
    char name[sizeof a->tensors->key];
    tensor_view view;
    if (weights && !weight_source_files(weights)) { /* of shapes alone: nothing is computed */
        memset(out, 0, (size_t)(n * a->modules[module].cols) * sizeof *out);
        return GRAFT_OK;
    }
    freed_base_name(name, sizeof name, a, module, false);
    if (!weights || !weight_source_tensor(&view, weights, name))
        return error_set(err, GRAFT_E_INTERNAL, "the base's %s is not open", name);
    const model_module *m = &a->modules[module];
    assert((int64_t)tensor_count(&view) == m->rows * m->cols);
    if (m->is_transposed)
        load_transposed(out, &view, m->rows, m->cols, first, n);
    else
        load(out, &view, first * m->cols, n * m->cols);
    return GRAFT_OK;
}

graft_status base_weight_acquire(weight_ref *out, const adapter *a, size_t module,
                                 weight_source *weights, graft_error *err) {
    const model_module *m = &a->modules[module];
    layer_weights layer;
    if (m->kind != MODULE_LINEAR) {
        const outer_weights *outer = weight_source_outer(weights);
        *out = m->kind == MODULE_EMBEDDING ? outer->embedding : outer->head;
        return GRAFT_OK;
    }
    graft_status status = layer_acquire(&layer, weights, m->layer, +1, err);
    if (status == GRAFT_OK)
        *out = layer.linear[m->slot];
    return status;
}

void base_weight_release(const adapter *a, size_t module, weight_source *weights) {
    if (a->modules[module].kind == MODULE_LINEAR)
        layer_release(weights, a->modules[module].layer);
}

void matrix_tokens_make(matrix_tokens *out, int64_t n) {
    *out = (matrix_tokens){.edges = {0, (int32_t)n}};
    out->rows = (token_rows){
        .n = (int32_t)n, .grid = out->edges, .n_grid = 1, .job_begin = out->edges, .n_jobs = 1};
}
