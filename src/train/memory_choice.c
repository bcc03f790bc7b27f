/* Which shape a run takes: the cheapest in time that fits the memory. */
#include "train/memory_plan.h"

#include "base/units.h"
#include "train/free_memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Micro-batches that are tried, in tokens; the last is one row. Half a batch costs little speed,
 * and recomputing up to a third of it. */
static const int32_t micro_batches[] = {MICRO_BATCH_TOKENS, 768, 512, 384, 256, 1};
enum { N_MICRO_BATCHES = sizeof micro_batches / sizeof *micro_batches };

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
    bool recomputes = plan->layers_from_input > 0;
    return error_set(
        err, GRAFT_E_MEMORY,
        "this fine-tune needs %s%s, and %s is %s. Largest: %s %s, %s %s, %s %s. What lowers it: "
        "%sa smaller max_length, a smaller lora_r or fewer target_modules, a smaller base model",
        bytes_text(need, (double)plan->total),
        recomputes ? " even with gradient checkpointing, one row at a time" : ", one row at a time",
        config->memory_limit_bytes > 0 ? "memory_limit" : "free memory",
        bytes_text(have, (double)limit), parts[0].name, size[0], parts[1].name, size[1],
        parts[2].name, size[2], recomputes ? "" : "gradient_checkpointing, ");
}

const char *memory_plan_keep_text(char out[KEEP_TEXT], const memory_plan *plan) {
    int32_t n = plan->backward_layers, from_input = plan->layers_from_input,
            without_mlp = plan->layers_without_mlp;
    if (from_input == 0 && without_mlp == 0)
        snprintf(out, KEEP_TEXT, "off");
    else if (without_mlp == 0 && from_input == n)
        snprintf(out, KEEP_TEXT, "on: every layer is recomputed from its input");
    else
        snprintf(out, KEEP_TEXT,
                 "of %d layers %d are recomputed from their input, and gate and up of %d", (int)n,
                 (int)from_input, (int)without_mlp);
    return out;
}

/* Blocks that backward passes. */
static int32_t lowest_layer(const plan_request *request) {
    return request->hooks->embedding_trains ? 0 : request->hooks->lowest_trained_layer;
}

/* Operations of a token's forward through one linear layer. */
static double slot_flops(const plan_request *request, int32_t layer, linear_slot slot) {
    int64_t rows, cols;
    model_linear_shape(&rows, &cols, request->spec, slot);
    double ranks = linear_hook_ranks(&request->hooks->layers[layer].linear[slot]);
    return 2 * (double)rows * (double)cols + 2 * ranks * (double)(rows + cols);
}

/* What is done again for one token of a block that keeps so much. */
static double again_flops(const plan_request *request, int32_t layer, layer_keep keep) {
    const model_spec *spec = request->spec;
    double flops = slot_flops(request, layer, LINEAR_GATE) + slot_flops(request, layer, LINEAR_UP);
    if (keep == KEEP_ATTENTION)
        return flops;
    for (int slot = LINEAR_Q; slot <= LINEAR_O; slot++)
        flops += slot_flops(request, layer, (linear_slot)slot);
    /* Scores and sums over values, of half the row on average. */
    return flops + 2.0 * request->data.longest_row * spec->n_heads * spec->head_dim;
}

/* What the lowest from_input blocks, and without_mlp blocks above them, do again for a token. */
static double recomputed_flops(const plan_request *request, int32_t from_input,
                               int32_t without_mlp) {
    int32_t lowest = lowest_layer(request);
    double flops = 0;
    for (int32_t i = 0; i < from_input + without_mlp; i++)
        flops += again_flops(request, lowest + i, i < from_input ? KEEP_INPUT : KEEP_ATTENTION);
    return flops;
}

static arena_shape shape_of(const plan_request *request, int32_t micro_batch_tokens) {
    const train_config *config = request->config;
    const data_shape *data = &request->data;
    int32_t row_virtual = request->hooks->sequence.n_virtual;
    int32_t longest = data->longest_trained + row_virtual;
    int64_t step_rows =
        (int64_t)config->per_device_train_batch_size * config->gradient_accumulation_steps;
    if (data->rows > 0 && step_rows > data->rows)
        step_rows = data->rows;
    return (arena_shape){
        .spec = request->spec,
        .adapter = request->adapter,
        .hooks = request->hooks,
        .limits = batch_limits_choose(data->longest_row, row_virtual, MICRO_BATCH_TOKENS,
                                      config->per_device_train_batch_size, step_rows,
                                      config->packing, micro_batch_tokens),
        .bin_tokens = longest > MICRO_BATCH_TOKENS ? longest : MICRO_BATCH_TOKENS,
        .step_rows = step_rows,
        .evaluation_rows = data->evaluation_rows,
        .element_bytes = request->element_bytes,
    };
}

arena_shape memory_plan_shape(const memory_plan *plan, const plan_request *request) {
    arena_shape shape = shape_of(request, MICRO_BATCH_TOKENS);
    shape.limits.max_tokens = plan->max_tokens;
    shape.limits.max_rows = plan->max_rows;
    shape.layers_from_input = plan->layers_from_input;
    shape.layers_without_mlp = plan->layers_without_mlp;
    return shape;
}

/* The search over shapes: what is looked for, and the last one that was counted. */
typedef struct search {
    const plan_request *request;
    arena_shape shape;
    memory_plan plan;
    uint64_t limit;
    graft_error *err;
    graft_status status; /* of the last count */
} search;

static bool fits(search *s, int32_t from_input, int32_t without_mlp) {
    s->shape.layers_from_input = from_input;
    s->shape.layers_without_mlp = without_mlp;
    s->status = memory_plan_count(&s->plan, &s->shape, s->request, s->err);
    s->plan.backward_layers = s->request->spec->n_layers - lowest_layer(s->request);
    return s->status == GRAFT_OK && s->plan.total <= s->limit;
}

/* Fewest blocks of n whose gate and up must go beside so many that keep their input; -1: all are
 * not enough. */
static int32_t fewest_without_mlp(search *s, int32_t from_input, int32_t n) {
    int32_t low = 0, high = n;
    if (!fits(s, from_input, n))
        return -1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (fits(s, from_input, middle))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* One row at a time: of all divisions of the blocks that fit, the one that does least again. */
static bool search_keep(search *s) {
    int32_t n = s->request->spec->n_layers - lowest_layer(s->request);
    int32_t best_from_input = -1, best_without_mlp = 0;
    double least = INFINITY;
    for (int32_t from_input = 0; from_input <= n; from_input++) {
        if (recomputed_flops(s->request, from_input, 0) >= least)
            break;
        int32_t without_mlp = fewest_without_mlp(s, from_input, n - from_input);
        if (s->status != GRAFT_OK)
            return false;
        double flops =
            without_mlp < 0 ? INFINITY : recomputed_flops(s->request, from_input, without_mlp);
        if (flops < least) {
            least = flops;
            best_from_input = from_input;
            best_without_mlp = without_mlp;
        }
    }
    return best_from_input >= 0 ? fits(s, best_from_input, best_without_mlp) : fits(s, n, 0);
}

static bool search_shape(search *s) {
    checkpointing_mode mode = s->request->config->checkpointing;
    int32_t all = s->request->spec->n_layers - lowest_layer(s->request);
    for (int i = 0; i < N_MICRO_BATCHES; i++) {
        s->shape = shape_of(s->request, micro_batches[i]);
        if (fits(s, mode == CHECKPOINTING_ON ? all : 0, 0))
            return true;
        if (s->status != GRAFT_OK)
            return false;
    }
    return mode == CHECKPOINTING_AUTO && search_keep(s);
}

graft_status memory_plan_choose(memory_plan *out, arena_shape *shape, const plan_request *request,
                                graft_error *err) {
    const train_config *config = request->config;
    int64_t limit =
        config->memory_limit_bytes > 0 ? config->memory_limit_bytes : free_memory_bytes("");
    search s = {.request = request, .limit = (uint64_t)limit, .err = err};
    bool found = search_shape(&s);
    *shape = s.shape;
    *out = s.plan;
    if (s.status != GRAFT_OK)
        return s.status;
    return found ? GRAFT_OK : does_not_fit(out, config, limit, err);
}
