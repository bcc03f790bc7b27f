#include "model/spec.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>

void model_linear_shape(int64_t *rows, int64_t *cols, const model_spec *spec, linear_slot slot) {
    int64_t q = (int64_t)spec->n_heads * spec->head_dim;
    int64_t kv = (int64_t)spec->n_kv_heads * spec->head_dim;
    const int64_t shapes[N_LINEAR_SLOTS][2] = {
        [LINEAR_Q] = {q, spec->hidden},
        [LINEAR_K] = {kv, spec->hidden},
        [LINEAR_V] = {kv, spec->hidden},
        [LINEAR_O] = {spec->hidden, q},
        [LINEAR_GATE] = {spec->intermediate, spec->hidden},
        [LINEAR_UP] = {spec->intermediate, spec->hidden},
        [LINEAR_DOWN] = {spec->hidden, spec->intermediate},
    };
    *rows = shapes[slot][0];
    *cols = shapes[slot][1];
}

static model_module linear_module(const model_spec *spec, int32_t layer, int slot) {
    model_module module = {
        .kind = MODULE_LINEAR, .layer = layer, .slot = slot, .has_bias = spec->has_bias[slot]};
    model_linear_shape(&module.rows, &module.cols, spec, (linear_slot)slot);
    snprintf(module.name, sizeof module.name, "%s.%d.%s", spec->family->layers_path, layer,
             spec->family->linear_names[slot]);
    return module;
}

static model_module norm_module(const model_spec *spec, int32_t layer, int slot) {
    bool is_head_norm = slot == NORM_Q || slot == NORM_K;
    model_module module = {.kind = MODULE_NORM,
                           .layer = layer,
                           .slot = slot,
                           .rows = is_head_norm ? spec->head_dim : spec->hidden};
    snprintf(module.name, sizeof module.name, "%s.%d.%s", spec->family->layers_path, layer,
             spec->family->norm_names[slot]);
    return module;
}

static model_module outer_module(const char *name, module_kind kind, int64_t rows, int64_t cols) {
    model_module module = {.kind = kind, .layer = -1, .slot = -1, .rows = rows, .cols = cols};
    snprintf(module.name, sizeof module.name, "%s", name);
    return module;
}

/* The order of Transformers' named_modules(). */
static size_t layer_modules(model_module *out, const model_spec *spec, int32_t layer) {
    size_t n = 0;
    for (int slot = LINEAR_Q; slot <= LINEAR_O; slot++)
        out[n++] = linear_module(spec, layer, slot);
    if (spec->has_qk_norm) {
        out[n++] = norm_module(spec, layer, NORM_Q);
        out[n++] = norm_module(spec, layer, NORM_K);
    }
    for (int slot = LINEAR_GATE; slot <= LINEAR_DOWN; slot++)
        out[n++] = linear_module(spec, layer, slot);
    out[n++] = norm_module(spec, layer, NORM_ATTENTION);
    out[n++] = norm_module(spec, layer, NORM_MLP);
    return n;
}

graft_status model_modules(model_module **out, size_t *n, const model_spec *spec,
                           graft_error *err) {
    size_t most = (size_t)spec->n_layers * (N_LINEAR_SLOTS + N_NORM_SLOTS) + 3, count = 0;
    model_module *modules = mem_array(most, sizeof *modules);
    *out = NULL;
    *n = 0;
    if (!modules)
        return error_memory(err, most * sizeof *modules, "the list of modules");
    modules[count++] =
        outer_module(spec->family->embedding_name, MODULE_EMBEDDING, spec->vocab, spec->hidden);
    for (int32_t layer = 0; layer < spec->n_layers; layer++)
        count += layer_modules(modules + count, spec, layer);
    modules[count++] = outer_module(spec->family->final_norm_name, MODULE_NORM, spec->hidden, 0);
    modules[count] = outer_module(spec->family->head_name, MODULE_HEAD, spec->vocab, spec->hidden);
    modules[count++].is_tied = spec->is_head_tied;
    *out = modules;
    *n = count;
    return GRAFT_OK;
}

int64_t model_parameters(const model_spec *spec) {
    int64_t layer =
        2 * (int64_t)spec->hidden + (spec->has_qk_norm ? 2 * (int64_t)spec->head_dim : 0);
    for (int slot = 0; slot < N_LINEAR_SLOTS; slot++) {
        int64_t rows, cols;
        model_linear_shape(&rows, &cols, spec, (linear_slot)slot);
        layer += rows * cols + (spec->has_bias[slot] ? rows : 0);
    }
    int64_t embedding = (int64_t)spec->vocab * spec->hidden;
    return spec->n_layers * layer + embedding * (spec->is_head_tied ? 1 : 2) + spec->hidden;
}
