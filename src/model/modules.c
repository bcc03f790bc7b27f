#include "model/spec.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_linear_shape(int64_t *rows, int64_t *cols, const model_spec *spec, linear_slot slot) {
    int64_t q = (int64_t)spec->n_heads * spec->head_dim;
    int64_t kv = (int64_t)spec->n_kv_heads * spec->head_dim;
    const int64_t shapes[N_LINEAR_SLOTS][2] = {
        [LINEAR_Q] = {q, spec->hidden},
        [LINEAR_K] = {kv, spec->hidden},
        [LINEAR_V] = {kv, spec->hidden},
        [LINEAR_QKV] = {q + 2 * kv, spec->hidden},
        [LINEAR_O] = {spec->hidden, q},
        [LINEAR_GATE] = {spec->intermediate, spec->hidden},
        [LINEAR_UP] = {spec->intermediate, spec->hidden},
        [LINEAR_GATE_UP] = {2 * (int64_t)spec->intermediate, spec->hidden},
        [LINEAR_DOWN] = {spec->hidden, spec->intermediate},
    };
    *rows = shapes[slot][0];
    *cols = shapes[slot][1];
}

int32_t model_stored_shape(int64_t shape[2], const model_module *module) {
    shape[0] = module->is_transposed ? module->cols : module->rows;
    shape[1] = module->is_transposed ? module->rows : module->cols;
    return module->cols > 0 ? 2 : 1;
}

void model_tensor_name(char *out, size_t capacity, const model_module *module, bool is_bias) {
    snprintf(out, capacity, "%s.%s", module->disk_name, is_bias ? "bias" : "weight");
}

/* Modules as they are listed: out NULL only counts. */
typedef struct module_list {
    model_module *out;
    size_t n;
    int64_t elements; /* of all parameters */
} module_list;

static void add(module_list *list, const model_module *module) {
    if (list->out) {
        model_module *to = &list->out[list->n];
        *to = *module;
        if (!*to->disk_name)
            memcpy(to->disk_name, module->name, sizeof to->disk_name);
    }
    list->n++;
    if (!module->is_tied)
        list->elements += module->rows * (module->cols > 0 ? module->cols : 1);
    list->elements += module->has_bias ? module->rows : 0;
}

static void name_in_layer(model_module *module, const model_spec *spec, const char *name) {
    snprintf(module->name, sizeof module->name, "%s.%d.%s", spec->family->layers_path,
             module->layer, name);
}

static void add_linear(module_list *list, const model_spec *spec, int32_t layer, linear_slot slot) {
    if (!spec->has_linear[slot])
        return;
    model_module module = {.kind = MODULE_LINEAR,
                           .layer = layer,
                           .slot = (int32_t)slot,
                           .has_bias = spec->has_bias[slot],
                           .is_transposed = spec->is_transposed};
    model_linear_shape(&module.rows, &module.cols, spec, slot);
    name_in_layer(&module, spec, spec->family->linear_names[slot]);
    add(list, &module);
}

static void add_head_norm(module_list *list, const model_spec *spec, int32_t layer,
                          norm_slot slot) {
    if (!spec->has_norm[slot] || spec->norms_lack_weights)
        return;
    int32_t heads = slot == NORM_Q ? spec->n_heads : spec->n_kv_heads;
    int32_t parts = spec->qk_norm == QK_NORM_SPLIT ? heads : 1;
    for (int32_t part = 0; part < parts; part++) {
        model_module module = {.kind = MODULE_NORM,
                               .layer = layer,
                               .slot = (int32_t)slot,
                               .part = part,
                               .rows = spec->head_dim};
        if (spec->qk_norm == QK_NORM_WHOLE)
            module.rows = (int64_t)heads * spec->head_dim;
        if (spec->qk_norm == QK_NORM_HEADS) {
            module.rows = heads;
            module.cols = spec->head_dim;
        }
        name_in_layer(&module, spec, spec->family->norm_names[slot]);
        if (spec->qk_norm == QK_NORM_SPLIT) {
            size_t length = strlen(module.name);
            snprintf(module.name + length, sizeof module.name - length, ".norms.%d", part);
        }
        add(list, &module);
    }
}

static void add_norm(module_list *list, const model_spec *spec, int32_t layer, norm_slot slot) {
    if (!spec->has_norm[slot] || spec->norms_lack_weights)
        return;
    model_module module = {.kind = MODULE_NORM,
                           .layer = layer,
                           .slot = (int32_t)slot,
                           .has_bias = spec->norms_have_bias,
                           .rows = spec->hidden};
    name_in_layer(&module, spec, spec->family->norm_names[slot]);
    add(list, &module);
}

/* Modules of one container stand together. */
static void add_layer(module_list *list, const model_spec *spec, int32_t layer) {
    for (int slot = LINEAR_Q; slot <= LINEAR_O; slot++)
        add_linear(list, spec, layer, (linear_slot)slot);
    add_head_norm(list, spec, layer, NORM_Q);
    add_head_norm(list, spec, layer, NORM_K);
    for (int slot = LINEAR_GATE; slot <= LINEAR_DOWN; slot++)
        add_linear(list, spec, layer, (linear_slot)slot);
    add_norm(list, spec, layer, NORM_ATTENTION);
    add_norm(list, spec, layer, NORM_MLP);
    for (int slot = NORM_ATTENTION_OUT; slot <= NORM_MLP_SUM; slot++)
        add_norm(list, spec, layer, (norm_slot)slot);
}

static model_module outer_module(const char *name, module_kind kind, int32_t slot, int64_t rows,
                                 int64_t cols) {
    model_module module = {.kind = kind, .layer = -1, .slot = slot, .rows = rows, .cols = cols};
    snprintf(module.name, sizeof module.name, "%s", name);
    return module;
}

static void add_outer_norm(module_list *list, const model_spec *spec, outer_norm slot,
                           bool is_there) {
    if (!is_there || spec->norms_lack_weights)
        return;
    model_module module = outer_module(spec->family->outer_norm_names[slot], MODULE_NORM,
                                       (int32_t)slot, spec->hidden, 0);
    module.has_bias = spec->norms_have_bias;
    add(list, &module);
}

static void add_outer_linear(module_list *list, const model_spec *spec, outer_linear slot) {
    if (spec->embedding_dim == spec->hidden)
        return;
    bool is_in = slot == OUTER_PROJECT_IN;
    model_module module = outer_module(spec->family->outer_linear_names[slot], MODULE_LINEAR,
                                       (int32_t)slot, is_in ? spec->hidden : spec->embedding_dim,
                                       is_in ? spec->embedding_dim : spec->hidden);
    add(list, &module);
}

static void add_model(module_list *list, const model_spec *spec) {
    const model_family *family = spec->family;
    model_module module = outer_module(family->embedding_name, MODULE_EMBEDDING, -1, spec->vocab,
                                       spec->embedding_dim);
    add(list, &module);
    if (spec->n_positions) {
        module = outer_module(family->positions_name, MODULE_POSITIONS, -1, spec->n_positions,
                              spec->hidden);
        add(list, &module);
    }
    add_outer_norm(list, spec, OUTER_NORM_EMBEDDING, spec->has_embedding_norm);
    add_outer_linear(list, spec, OUTER_PROJECT_OUT);
    add_outer_linear(list, spec, OUTER_PROJECT_IN);
    for (int32_t layer = 0; layer < spec->n_layers; layer++)
        add_layer(list, spec, layer);
    add_outer_norm(list, spec, OUTER_NORM_FINAL, spec->has_final_norm);
    module = outer_module(family->head_name, MODULE_HEAD, -1, spec->vocab, spec->embedding_dim);
    module.is_tied = spec->is_head_tied;
    if (family->head_disk_name)
        snprintf(module.disk_name, sizeof module.disk_name, "%s", family->head_disk_name);
    module.has_bias = spec->has_head_bias;
    add(list, &module);
}

graft_status model_modules(model_module **out, size_t *n, const model_spec *spec,
                           graft_error *err) {
    module_list list = {0};
    *out = NULL;
    *n = 0;
    add_model(&list, spec);
    list.out = mem_array(list.n, sizeof *list.out);
    if (!list.out)
        return error_memory(err, list.n * sizeof *list.out, "the list of modules");
    list.n = 0;
    add_model(&list, spec);
    *out = list.out;
    *n = list.n;
    return GRAFT_OK;
}

int64_t model_parameters(const model_spec *spec) {
    module_list list = {0};
    add_model(&list, spec);
    return list.elements;
}
