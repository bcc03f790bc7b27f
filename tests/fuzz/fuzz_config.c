/* Any config.json is read or refused; what is read can be laid out and has finite sizes. */
#include "tests/fuzz/fuzz.h"

#include "base/memory.h"
#include "model/transformer.h"

#include <stdlib.h>

enum { TOKENS = 3 };

static void check_rope(const model_spec *spec) {
    size_t half = (size_t)spec->rope.dim / 2;
    if (half == 0) /* no layer rotates */
        return;
    float *table = mem_array(2 * TOKENS * half, sizeof *table);
    const segment row = {.token_end = TOKENS, .position_first = 5};
    const batch tokens = {.tokens = {.n = TOKENS}, .segments = &row, .n_segments = 1};
    if (!table)
        abort();
    rope_fill(table, table + TOKENS * half, &spec->rope, &tokens);
    free(table);
}

static void check_layout(const model_spec *spec) {
    layout device = layout_counting(), host = layout_counting();
    const step_limits limits = {
        .max_tokens = TOKENS, .max_labelled = TOKENS, .max_segments = 1, .training = true};
    step_buffers buffers;
    model_hooks hooks;
    graft_error err;
    block_saved *saved = mem_array((size_t)spec->n_layers, sizeof *saved);
    if (!saved || model_hooks_create(&hooks, spec, &err) != GRAFT_OK)
        abort();
    hooks.embedding_trains = true;
    if (step_layout(&buffers, saved, &device, &host, spec, &hooks, &limits, 8, &err) != GRAFT_OK)
        abort();
    model_hooks_free(&hooks);
    free(saved);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *config = NULL;
    model_spec spec;
    model_module *modules;
    size_t n, uploaded;
    graft_error err;
    if (json_parse(&config, (const char *)data, size, "config.json", &err) != GRAFT_OK)
        return 0;
    graft_status status = model_spec_parse(&spec, config, "config.json", NULL, &err);
    json_decref(config);
    if (status != GRAFT_OK)
        return 0;
    if (model_modules(&modules, &n, &spec, &err) != GRAFT_OK || model_parameters(&spec) <= 0 ||
        weight_source_plan_bytes(&uploaded, &spec, 4, &err) != GRAFT_OK || uploaded == 0)
        abort();
    check_rope(&spec);
    check_layout(&spec);
    free(modules);
    model_spec_free(&spec);
    return 0;
}
