#include "train/memory_plan.h"

#include "base/memory.h"
#include "train/optimizer.h"

#include <stdlib.h>
#include <string.h>

graft_status run_arenas_layout(run_arenas *arenas, layout *trainer, layout *step, layout *host,
                               const arena_shape *shape, graft_error *err) {
    adapter_layout(shape->adapter, trainer, shape->element_bytes, true);
    arenas->limits = shape->limits;
    batch_builder_layout(&arenas->batch, host, shape->limits.max_tokens, shape->limits.max_rows, 1,
                         &shape->hooks->sequence);
    int64_t evaluated = shape->evaluation_rows;
    row_packer_layout(&arenas->packer, host,
                      shape->step_rows > evaluated ? shape->step_rows : evaluated);
    arenas->bin_tokens = shape->bin_tokens;
    arenas->row_losses =
        layout_take(host, COMPONENT_WORKSPACE, (size_t)evaluated, sizeof *arenas->row_losses);
    arenas->staging =
        layout_take(host, COMPONENT_WORKSPACE, STAGING_ELEMENTS, shape->element_bytes);
    step_limits limits = {
        .max_tokens = shape->limits.max_tokens,
        .max_labelled = shape->limits.max_tokens,
        .max_segments = shape->limits.max_rows,
        .training = true,
        .layers_from_input = shape->layers_from_input,
        .layers_without_mlp = shape->layers_without_mlp,
        .labelled_only = true,
    };
    graft_status status = step_layout(&arenas->step, arenas->saved, step, host, shape->spec,
                                      shape->hooks, &limits, shape->element_bytes, err);
    if (status == GRAFT_OK && (trainer->overflow || step->overflow || host->overflow))
        status = error_set(err, GRAFT_E_MEMORY,
                           "the sizes of this model and batch do not fit 64 bits; lower max_length "
                           "or per_device_train_batch_size");
    return status;
}

graft_status memory_plan_count(memory_plan *plan, const arena_shape *shape,
                               const plan_request *request, graft_error *err) {
    run_arenas arenas = {0};
    layout trainer = layout_counting(), step = layout_counting(), host = layout_counting();
    arenas.saved = mem_array((size_t)shape->spec->n_layers, sizeof *arenas.saved);
    if (!arenas.saved)
        return error_memory(err, (size_t)shape->spec->n_layers * sizeof *arenas.saved, "a plan");
    graft_status status = run_arenas_layout(&arenas, &trainer, &step, &host, shape, err);
    free(arenas.saved);
    if (status != GRAFT_OK)
        return status;
    *plan = (memory_plan){
        .model_mapped = request->mapped_bytes,
        .model_uploaded = request->uploaded_bytes,
        .backend_workspace = request->workspace_bytes,
        .host = host.high_water,
        .layers_from_input = shape->layers_from_input,
        .layers_without_mlp = shape->layers_without_mlp,
        .max_tokens = shape->limits.max_tokens,
        .max_rows = shape->limits.max_rows,
        .trained = adapter_trained_count(shape->adapter),
        .parameters = model_parameters(shape->spec),
    };
    memcpy(plan->trainer, trainer.at_high_water, sizeof plan->trainer);
    memcpy(plan->step, step.at_high_water, sizeof plan->step);
    const size_t parts[] = {plan->model_mapped, plan->model_uploaded, plan->backend_workspace,
                            plan->host,         trainer.high_water,   step.high_water};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!size_add(&plan->total, plan->total, parts[i]))
            return error_set(err, GRAFT_E_MEMORY, "the plan's bytes do not fit 64 bits");
    return GRAFT_OK;
}

static void add_evaluation(data_shape *shape, const dataset *eval_data) {
    if (!eval_data)
        return;
    dataset_counts counts = dataset_count(eval_data);
    shape->evaluation_rows = counts.rows;
    if (counts.longest > shape->longest_row)
        shape->longest_row = counts.longest;
}

data_shape data_shape_of(const dataset *data, const dataset *eval_data) {
    int32_t longest = dataset_count(data).longest;
    data_shape shape = {
        .longest_row = longest, .longest_trained = longest, .rows = dataset_epoch_rows(data)};
    add_evaluation(&shape, eval_data);
    return shape;
}

data_shape data_shape_of_stream(int32_t max_length, const dataset *eval_data) {
    data_shape shape = {.longest_row = max_length, .longest_trained = max_length};
    add_evaluation(&shape, eval_data);
    return shape;
}

graft_status train_plan(memory_plan *plan, const model_spec *spec, adapter *trained,
                        const train_config *config, data_shape data, int32_t n_threads,
                        size_t mapped_bytes, graft_error *err) {
    model_hooks hooks = {0};
    size_t uploaded_bytes = 0;
    graft_status status = model_hooks_create(&hooks, spec, err);
    if (status == GRAFT_OK)
        status = weight_source_plan_bytes(&uploaded_bytes, spec, sizeof(float), err);
    if (status == GRAFT_OK)
        status = optimizer_shape(trained, config, err);
    if (status == GRAFT_OK) {
        adapter_bind(trained, &hooks);
        model_hooks_finish(&hooks, spec);
        plan_request request = {
            .spec = spec,
            .adapter = trained,
            .hooks = &hooks,
            .config = config,
            .data = data,
            .element_bytes = sizeof(float),
            .workspace_bytes = backend_cpu_workspace_bytes(n_threads),
            .mapped_bytes = mapped_bytes,
            .uploaded_bytes = uploaded_bytes,
        };
        arena_shape shape;
        status = memory_plan_choose(plan, &shape, &request, err);
    }
    model_hooks_free(&hooks);
    return status;
}
