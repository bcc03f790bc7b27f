#include "model/spec.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_linear_shape(int64_t *rows, int64_t *cols, const model_spec *spec, linear_slot slot) {
    int64_t q = (int64_t)spec->n_heads * spec->head_dim;
    int64_t kv = (int64_t)spec->n_kv_heads * spec->head_dim;
    int64_t rotated = spec->head_dim - spec->head_plain;
    const int64_t shapes[N_LINEAR_SLOTS][2] = {
        [LINEAR_Q] = {q, spec->hidden},
        [LINEAR_K] = {kv, spec->hidden},
        [LINEAR_V] = {kv, spec->hidden},
        [LINEAR_QKV] = {q + 2 * kv, spec->hidden},
        [LINEAR_Q_A] = {spec->q_latent, spec->hidden},
        [LINEAR_Q_B] = {q, spec->q_latent},
        [LINEAR_KV_A] = {spec->kv_latent + rotated, spec->hidden},
        [LINEAR_KV_B] = {(int64_t)spec->n_heads * (spec->head_plain + spec->value_dim),
                         spec->kv_latent},
        [LINEAR_O] = {spec->hidden, (int64_t)spec->n_heads * spec->value_dim},
        [LINEAR_GATE] = {spec->intermediate, spec->hidden},
        [LINEAR_UP] = {spec->intermediate, spec->hidden},
        [LINEAR_GATE_UP] = {2 * (int64_t)spec->intermediate, spec->hidden},
        [LINEAR_DOWN] = {spec->hidden, spec->intermediate},
        [LINEAR_ROUTER] = {spec->n_experts, spec->hidden},
        [LINEAR_SHARED_GATE] = {spec->shared_intermediate, spec->hidden},
        [LINEAR_SHARED_UP] = {spec->shared_intermediate, spec->hidden},
        [LINEAR_SHARED_DOWN] = {spec->hidden, spec->shared_intermediate},
        [LINEAR_SHARED_SCALE] = {1, spec->hidden},
    };
    *rows = shapes[slot][0];
    *cols = shapes[slot][1];
}

void model_expert_shape(int64_t *rows, int64_t *cols, const model_spec *spec, expert_slot slot) {
    int64_t width = (slot == EXPERT_GATE_UP ? 2 : 1) * (int64_t)spec->expert_intermediate;
    *rows = slot == EXPERT_DOWN ? spec->hidden : width;
    *cols = slot == EXPERT_DOWN ? width : spec->hidden;
}

bool model_layer_is_sparse(const model_spec *spec, int32_t layer) {
    return spec->layer_is_sparse && spec->layer_is_sparse[layer];
}

bool model_layer_has(const model_spec *spec, int32_t layer, linear_slot slot) {
    if (!spec->has_linear[slot])
        return false;
    if (slot >= LINEAR_ROUTER)
        return model_layer_is_sparse(spec, layer);
    return slot < LINEAR_GATE || !model_layer_is_sparse(spec, layer);
}

int32_t model_stored_shape(int64_t shape[3], const model_module *module) {
    int32_t rank = 0;
    if (module->n_stacked)
        shape[rank++] = module->n_stacked;
    shape[rank++] = module->is_transposed ? module->cols : module->rows;
    if (module->cols > 0)
        shape[rank++] = module->is_transposed ? module->rows : module->cols;
    return rank;
}

static int64_t stacked(const model_module *module) {
    return module->n_stacked ? module->n_stacked : 1;
}

int64_t model_weight_count(const model_module *module) {
    return stacked(module) * module->rows * (module->cols > 0 ? module->cols : 1);
}

int64_t model_bias_count(const model_module *module) {
    return stacked(module) * module->rows;
}

void model_tensor_name(char *out, size_t capacity, const model_module *module, bool is_bias) {
    if (module->kind == MODULE_EXPERTS || module->kind == MODULE_SINKS ||
        module->kind == MODULE_BUFFER)
        snprintf(out, capacity, "%s%s", module->disk_name, is_bias ? "_bias" : "");
    else
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
    if (!module->is_tied && module->kind != MODULE_BUFFER)
        list->elements += model_weight_count(module);
    list->elements += module->has_bias ? model_bias_count(module) : 0;
}

static void name_in_layer(model_module *module, const model_spec *spec, const char *name) {
    snprintf(module->name, sizeof module->name, "%s.%d.%s", spec->family->layers_path,
             module->layer, name);
}

static void add_linear(module_list *list, const model_spec *spec, int32_t layer, linear_slot slot) {
    if (!model_layer_has(spec, layer, slot))
        return;
    const char *disk = spec->family->linear_disk_names[slot];
    model_module module = {.kind = slot == LINEAR_ROUTER ? MODULE_ROUTER : MODULE_LINEAR,
                           .layer = layer,
                           .slot = (int32_t)slot,
                           .has_bias = spec->has_bias[slot],
                           .is_transposed = spec->is_transposed};
    model_linear_shape(&module.rows, &module.cols, spec, slot);
    name_in_layer(&module, spec, spec->family->linear_names[slot]);
    if (disk)
        snprintf(module.disk_name, sizeof module.disk_name, "%s.%d.%s", spec->family->layers_path,
                 layer, disk);
    add(list, &module);
}

static void add_experts(module_list *list, const model_spec *spec, int32_t layer) {
    const model_family *family = spec->family;
    if (!model_layer_is_sparse(spec, layer))
        return;
    int32_t n = family->has_stacked_experts ? 1 : spec->n_experts;
    for (int32_t e = 0; e < n; e++)
        for (int slot = 0; slot < N_EXPERT_SLOTS; slot++) {
            if (!family->expert_names[slot])
                continue;
            model_module module = {.kind = MODULE_EXPERT, .layer = layer, .slot = slot, .part = e};
            model_expert_shape(&module.rows, &module.cols, spec, (expert_slot)slot);
            char name[64];
            if (family->has_stacked_experts) {
                module.kind = MODULE_EXPERTS;
                module.n_stacked = spec->n_experts;
                module.has_bias = module.is_transposed = true;
                snprintf(name, sizeof name, "%s.%s", family->experts_path,
                         family->expert_names[slot]);
            } else
                snprintf(name, sizeof name, "%s.%d.%s", family->experts_path, e,
                         family->expert_names[slot]);
            name_in_layer(&module, spec, name);
            add(list, &module);
        }
}

/* A parameter of the layer itself. */
static void add_parameter(module_list *list, const model_spec *spec, int32_t layer,
                          module_kind kind, const char *name, int64_t n) {
    model_module module = {.kind = kind, .layer = layer, .slot = -1, .rows = n};
    name_in_layer(&module, spec, name);
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
                           .rows = slot == NORM_Q_A    ? spec->q_latent
                                   : slot == NORM_KV_A ? spec->kv_latent
                                                       : spec->hidden};
    name_in_layer(&module, spec, spec->family->norm_names[slot]);
    add(list, &module);
}

/* Modules of one container stand together. */
static void add_layer(module_list *list, const model_spec *spec, int32_t layer) {
    for (int slot = LINEAR_Q; slot <= LINEAR_O; slot++)
        add_linear(list, spec, layer, (linear_slot)slot);
    if (spec->has_sinks)
        add_parameter(list, spec, layer, MODULE_SINKS, spec->family->sinks_name, spec->n_heads);
    add_norm(list, spec, layer, NORM_Q_A);
    add_norm(list, spec, layer, NORM_KV_A);
    add_head_norm(list, spec, layer, NORM_Q);
    add_head_norm(list, spec, layer, NORM_K);
    for (int slot = LINEAR_GATE; slot < N_LINEAR_SLOTS; slot++)
        add_linear(list, spec, layer, (linear_slot)slot);
    if (spec->has_router_correction && model_layer_is_sparse(spec, layer))
        add_parameter(list, spec, layer, MODULE_BUFFER, spec->family->router_correction_name,
                      spec->n_experts);
    add_experts(list, spec, layer);
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
