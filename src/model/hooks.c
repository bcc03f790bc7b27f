#include "model/hooks.h"

#include "base/memory.h"

#include <assert.h>
#include <stdlib.h>

graft_status model_hooks_create(model_hooks *hooks, const model_spec *spec, graft_error *err) {
    *hooks = (model_hooks){.lowest_trained_layer = spec->n_layers};
    size_t layers = (size_t)spec->n_layers;
    bool is_split = spec->has_norm[NORM_Q] && spec->qk_norm == QK_NORM_SPLIT;
    size_t split = is_split ? (size_t)(spec->n_heads + spec->n_kv_heads) : 0;
    size_t experts = (size_t)spec->n_experts * N_EXPERT_SLOTS, n_sparse = 0;
    for (int32_t layer = 0; layer < spec->n_layers; layer++)
        n_sparse += model_layer_is_sparse(spec, layer);
    hooks->layers = mem_array(layers, sizeof *hooks->layers);
    hooks->experts = n_sparse ? mem_array(n_sparse * experts, sizeof *hooks->experts) : NULL;
    hooks->split_norms = split ? mem_array(layers * split, sizeof *hooks->split_norms) : NULL;
    if (!hooks->layers || (split && !hooks->split_norms) || (n_sparse && !hooks->experts)) {
        model_hooks_free(hooks);
        return error_memory(err, layers * sizeof *hooks->layers, "hooks");
    }
    linear_hook *next = hooks->experts;
    for (int32_t layer = 0; layer < spec->n_layers; layer++)
        if (model_layer_is_sparse(spec, layer)) {
            hooks->layers[layer].experts = next;
            next += experts;
        }
    for (size_t layer = 0; split && layer < layers; layer++) {
        freed_parameter *heads = hooks->split_norms + layer * split;
        hooks->layers[layer].split_norm[0] = heads;
        hooks->layers[layer].split_norm[1] = heads + spec->n_heads;
    }
    return GRAFT_OK;
}

static bool is_hooked(const linear_hook *hook) {
    return hook->n_terms > 0 || hook->weight.is_freed || hook->bias.is_freed || hook->form;
}

static bool is_split_norm_freed(const layer_hooks *layer, const model_spec *spec) {
    int32_t n = layer->split_norm[0] ? spec->n_heads + spec->n_kv_heads : 0;
    for (int32_t i = 0; i < n; i++) /* NORM_K's follow NORM_Q's */
        if (layer->split_norm[0][i].is_freed)
            return true;
    return false;
}

static bool is_layer_hooked(const layer_hooks *layer, const model_spec *spec) {
    for (int slot = 0; slot < N_LINEAR_SLOTS; slot++)
        if (is_hooked(&layer->linear[slot]))
            return true;
    for (int slot = 0; slot < N_NORM_SLOTS; slot++)
        if (layer->norm[slot].is_freed || layer->norm_bias[slot].is_freed)
            return true;
    for (int slot = 0; slot < N_BRANCH_SLOTS; slot++)
        if (layer->branch[slot].form)
            return true;
    for (int slot = 0; slot < N_EXPERT_SLOTS; slot++)
        if (layer->expert_stack[slot].is_freed || layer->expert_stack_bias[slot].is_freed)
            return true;
    for (int32_t i = 0; layer->experts && i < spec->n_experts * N_EXPERT_SLOTS; i++)
        if (is_hooked(&layer->experts[i]))
            return true;
    return layer->sinks.is_freed || is_split_norm_freed(layer, spec);
}

void model_hooks_finish(model_hooks *hooks, const model_spec *spec) {
    const sequence_hook *sequence = &hooks->sequence;
    hooks->embedding_trains = is_hooked(&hooks->embedding) || hooks->embedding_rows.form ||
                              sequence->n_virtual > 0 || hooks->positions.is_freed ||
                              hooks->outer_norm[OUTER_NORM_EMBEDDING].is_freed ||
                              hooks->outer_norm_bias[OUTER_NORM_EMBEDDING].is_freed ||
                              is_hooked(&hooks->outer_linear[OUTER_PROJECT_IN]);
    hooks->lowest_trained_layer = spec->n_layers;
    for (int32_t layer = spec->n_layers - 1; layer >= 0; layer--)
        if (is_layer_hooked(&hooks->layers[layer], spec) || sequence->past)
            hooks->lowest_trained_layer = layer;
}

void model_hooks_free(model_hooks *hooks) {
    free(hooks->layers);
    free(hooks->split_norms);
    free(hooks->experts);
    *hooks = (model_hooks){0};
}

linear_hook *model_hooks_linear(model_hooks *hooks, const model_module *module) {
    assert(module->kind != MODULE_NORM && module->kind != MODULE_POSITIONS);
    if (module->kind == MODULE_EMBEDDING)
        return &hooks->embedding;
    if (module->kind == MODULE_HEAD)
        return &hooks->head;
    if (module->layer < 0)
        return &hooks->outer_linear[module->slot];
    layer_hooks *layer = &hooks->layers[module->layer];
    if (module->kind == MODULE_EXPERT)
        return &layer->experts[module->part * N_EXPERT_SLOTS + module->slot];
    return &layer->linear[module->slot];
}

static freed_parameter *norm_parameter(model_hooks *hooks, const model_module *module,
                                       bool is_bias) {
    if (module->layer < 0)
        return is_bias ? &hooks->outer_norm_bias[module->slot] : &hooks->outer_norm[module->slot];
    layer_hooks *layer = &hooks->layers[module->layer];
    if (layer->split_norm[0] && (module->slot == NORM_Q || module->slot == NORM_K))
        return &layer->split_norm[module->slot - NORM_Q][module->part];
    return is_bias ? &layer->norm_bias[module->slot] : &layer->norm[module->slot];
}

freed_parameter *model_hooks_parameter(model_hooks *hooks, const model_module *module,
                                       bool is_bias) {
    if (module->kind == MODULE_NORM)
        return norm_parameter(hooks, module, is_bias);
    if (module->kind == MODULE_POSITIONS)
        return &hooks->positions;
    if (module->kind == MODULE_SINKS)
        return &hooks->layers[module->layer].sinks;
    if (module->kind == MODULE_EXPERTS)
        return is_bias ? &hooks->layers[module->layer].expert_stack_bias[module->slot]
                       : &hooks->layers[module->layer].expert_stack[module->slot];
    linear_hook *hook = model_hooks_linear(hooks, module);
    return is_bias ? &hook->bias : &hook->weight;
}

int32_t linear_hook_ranks(const linear_hook *hook) {
    int32_t ranks = 0;
    for (int32_t i = 0; i < hook->n_terms; i++)
        ranks += hook->terms[i].rank;
    return ranks;
}

int32_t layer_expert_ranks(const layer_hooks *layer, const model_spec *spec, expert_slot slot) {
    int32_t most = 0;
    for (int32_t e = 0; layer->experts && e < spec->n_experts; e++) {
        int32_t ranks = linear_hook_ranks(&layer->experts[e * N_EXPERT_SLOTS + (int32_t)slot]);
        most = ranks > most ? ranks : most;
    }
    return most;
}
