#include "train/memory_plan.h"

#include "base/memory.h"
#include "train/free_memory.h"

#include <stdio.h>
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
        .layers_from_input = shape->checkpointing ? shape->spec->n_layers : 0,
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

static graft_status count(memory_plan *plan, const arena_shape *shape, const plan_request *request,
                          graft_error *err) {
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
        .checkpointing = shape->checkpointing,
        .max_tokens = shape->limits.max_tokens,
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

typedef struct consumer {
    const char *name;
    size_t bytes;
} consumer;

static int by_bytes_descending(const void *a, const void *b) {
    size_t x = ((const consumer *)a)->bytes, y = ((const consumer *)b)->bytes;
    return (x < y) - (x > y);
}

/* Names the three largest parts and what a person can turn. */
static graft_status does_not_fit(const memory_plan *plan, const train_config *config, int64_t limit,
                                 graft_error *err) {
    consumer parts[N_COMPONENTS + 1] = {
        {"the base model", plan->model_mapped + plan->model_uploaded}};
    for (int i = 0; i < N_COMPONENTS; i++)
        parts[i + 1] = (consumer){component_name((component)i), plan->trainer[i] + plan->step[i]};
    parts[1 + COMPONENT_WORKSPACE].bytes += plan->backend_workspace + plan->host;
    parts[1 + COMPONENT_WEIGHTS].name = "weights that train";
    qsort(parts, N_COMPONENTS + 1, sizeof *parts, by_bytes_descending);
    char need[BYTES_TEXT], have[BYTES_TEXT], size[3][BYTES_TEXT];
    for (int i = 0; i < 3; i++)
        bytes_text(size[i], (double)parts[i].bytes);
    return error_set(
        err, GRAFT_E_MEMORY,
        "this fine-tune needs %s%s, and %s is %s. Largest: %s %s, %s %s, %s %s. What lowers it: "
        "%sa smaller max_length, a smaller lora_r or fewer target_modules, a smaller base model",
        bytes_text(need, (double)plan->total),
        plan->checkpointing ? " even with gradient checkpointing, one row at a time"
                            : ", one row at a time",
        config->memory_limit_bytes > 0 ? "memory_limit" : "free memory",
        bytes_text(have, (double)limit), parts[0].name, size[0], parts[1].name, size[1],
        parts[2].name, size[2], plan->checkpointing ? "" : "gradient_checkpointing, ");
}

/* One row at a time costs little speed, recomputing costs a third of it: so smaller micro-batches
 * come first. */
graft_status memory_plan_choose(memory_plan *out, arena_shape *shape, const plan_request *request,
                                graft_error *err) {
    const train_config *config = request->config;
    int64_t limit =
        config->memory_limit_bytes > 0 ? config->memory_limit_bytes : free_memory_bytes("");
    const data_shape *data = &request->data;
    int64_t rows_per_step =
        (int64_t)config->per_device_train_batch_size * config->gradient_accumulation_steps;
    if (data->rows > 0 && rows_per_step > data->rows)
        rows_per_step = data->rows;
    int32_t row_virtual = request->hooks->sequence.n_virtual;
    const int32_t tokens[2] = {MICRO_BATCH_TOKENS, 1};
    bool first = config->checkpointing == CHECKPOINTING_ON;
    bool last = config->checkpointing != CHECKPOINTING_OFF;
    for (int checkpointing = first; checkpointing <= last; checkpointing++) {
        for (int i = 0; i < 2; i++) {
            *shape = (arena_shape){
                .spec = request->spec,
                .adapter = request->adapter,
                .hooks = request->hooks,
                .limits = batch_limits_choose(data->longest_row, row_virtual, MICRO_BATCH_TOKENS,
                                              config->per_device_train_batch_size, rows_per_step,
                                              config->packing, tokens[i]),
                .bin_tokens = data->longest_trained + row_virtual > MICRO_BATCH_TOKENS
                                  ? data->longest_trained + row_virtual
                                  : MICRO_BATCH_TOKENS,
                .step_rows = rows_per_step,
                .evaluation_rows = data->evaluation_rows,
                .checkpointing = checkpointing,
                .element_bytes = request->element_bytes,
            };
            graft_status status = count(out, shape, request, err);
            if (status != GRAFT_OK || out->total <= (uint64_t)limit)
                return status;
        }
    }
    return does_not_fit(out, config, limit, err);
}

data_shape data_shape_of(const dataset *data, const dataset *eval_data) {
    dataset_counts counts = dataset_count(data);
    data_shape shape = {
        .longest_row = counts.longest, .longest_trained = counts.longest, .rows = counts.rows};
    if (eval_data) {
        counts = dataset_count(eval_data);
        shape.evaluation_rows = counts.rows;
        if (counts.longest > shape.longest_row)
            shape.longest_row = counts.longest;
    }
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
