#include "model/hooks.h"

#include "base/memory.h"

#include <assert.h>
#include <stdlib.h>

graft_status model_hooks_create(model_hooks *hooks, const model_spec *spec, graft_error *err) {
    *hooks = (model_hooks){.lowest_trained_layer = spec->n_layers};
    hooks->layers = mem_array((size_t)spec->n_layers, sizeof *hooks->layers);
    if (!hooks->layers)
        return error_memory(err, (size_t)spec->n_layers * sizeof *hooks->layers, "hooks");
    return GRAFT_OK;
}

static bool is_hooked(const linear_hook *hook) {
    return hook->n_terms > 0 || hook->weight.is_freed || hook->bias.is_freed || hook->form;
}

static bool is_layer_hooked(const layer_hooks *layer) {
    for (int slot = 0; slot < N_LINEAR_SLOTS; slot++)
        if (is_hooked(&layer->linear[slot]))
            return true;
    for (int slot = 0; slot < N_NORM_SLOTS; slot++)
        if (layer->norm[slot].is_freed)
            return true;
    for (int slot = 0; slot < N_BRANCH_SLOTS; slot++)
        if (layer->branch[slot].form)
            return true;
    return false;
}

void model_hooks_finish(model_hooks *hooks, const model_spec *spec) {
    const sequence_hook *sequence = &hooks->sequence;
    hooks->embedding_trains =
        is_hooked(&hooks->embedding) || hooks->embedding_rows.form || sequence->n_virtual > 0;
    hooks->lowest_trained_layer = spec->n_layers;
    for (int32_t layer = spec->n_layers - 1; layer >= 0; layer--)
        if (is_layer_hooked(&hooks->layers[layer]) || sequence->past)
            hooks->lowest_trained_layer = layer;
}

void model_hooks_free(model_hooks *hooks) {
    free(hooks->layers);
    *hooks = (model_hooks){0};
}

linear_hook *model_hooks_linear(model_hooks *hooks, const model_module *module) {
    assert(module->kind != MODULE_NORM);
    if (module->kind == MODULE_EMBEDDING)
        return &hooks->embedding;
    if (module->kind == MODULE_HEAD)
        return &hooks->head;
    return &hooks->layers[module->layer].linear[module->slot];
}

freed_parameter *model_hooks_norm(model_hooks *hooks, const model_module *module) {
    assert(module->kind == MODULE_NORM);
    return module->layer < 0 ? &hooks->final_norm
                             : &hooks->layers[module->layer].norm[module->slot];
}

int32_t linear_hook_ranks(const linear_hook *hook) {
    int32_t ranks = 0;
    for (int32_t i = 0; i < hook->n_terms; i++)
        ranks += hook->terms[i].rank;
    return ranks;
}
