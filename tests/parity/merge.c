/* A merged model computes what the base with its adapter computes: a line a method that merges. */
#include "tests/parity/adapter_case.h"

#include "adapter/targets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The module's weight (and bias) as the adapter makes them, in place of the base's. */
static void merge_module(adapter_case *from, model_case *to, size_t index) {
    backend *dev = to->dev;
    const model_module *module = &to->modules[index];
    char name[160];
    tensor_view weight, bias = {0};
    snprintf(name, sizeof name, "%s.weight", module->is_tied ? to->modules[0].name : module->name);
    assert_true(weight_source_tensor(&weight, to->weights, name));
    snprintf(name, sizeof name, "%s.weight", module->name);
    test_parameter *w = model_case_parameter(to, name, &weight, module->rows * module->cols),
                   *b = NULL;
    snprintf(name, sizeof name, "%s.bias", module->name);
    if (module->has_bias) {
        assert_true(weight_source_tensor(&bias, to->weights, name));
        b = model_case_parameter(to, name, &bias, module->rows);
    }
    void *scratch = dev->ops->alloc(
        dev, dev->element_bytes * (size_t)(1 + adapter_merge_scratch(from->adapter, index)));
    assert_non_null(scratch);
    assert_ok(adapter_merge(from->adapter, dev, index, w->value, b ? b->value : NULL, scratch,
                            &test_error));
    dev->ops->release(dev, scratch);
    linear_hook *hook = model_hooks_linear(&to->hooks, module);
    hook->weight = (freed_parameter){.value = w->value, .is_freed = true};
    if (b)
        hook->bias = (freed_parameter){.value = b->value, .is_freed = true};
}

static void merge_norm(adapter_case *from, model_case *to, size_t index) {
    const model_module *module = &to->modules[index];
    char name[160];
    tensor_view weight;
    snprintf(name, sizeof name, "%s.weight", module->name);
    assert_true(weight_source_tensor(&weight, to->weights, name));
    test_parameter *w = model_case_parameter(to, name, &weight, module->rows);
    assert_ok(adapter_merge(from->adapter, to->dev, index, w->value, NULL, NULL, &test_error));
    *model_hooks_parameter(&to->hooks, module, false) =
        (freed_parameter){.value = w->value, .is_freed = true};
}

/* The adapter's device makes the merged weights, so both models live on it. */
static void check_merge(const adapter_kind *kind, int which) {
    static adapter_case c;
    static model_case merged;
    adapter_case_open(&c, test_backend(which), kind, false);
    const int32_t n = c.model.batch->tokens.n * c.model.spec.vocab;
    float *with_adapter = adapter_case_logits(&c.model), largest = 0;
    model_case_open(&merged, test_backend(which), c.folder, "config.json");
    for (size_t i = 0; i < merged.n_modules; i++)
        if (merged.modules[i].kind != MODULE_NORM)
            merge_module(&c, &merged, i);
        else if (c.adapter->targets[i].is_target)
            merge_norm(&c, &merged, i);
    model_case_layout(&merged, &adapter_case_limits);
    adapter_case_fill(&merged, false);
    float *alone = adapter_case_logits(&merged);
    for (int32_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(with_adapter[i]));
    for (int32_t i = 0; i < n; i++)
        test_assert_near((double)alone[i], (double)with_adapter[i],
                         (which ? 2e-5 : 1e-6) * (double)largest, 0, kind->name);
    free(with_adapter);
    free(alone);
    model_case_close(&merged);
    adapter_case_close(&c);
}

static void check_kind(void **state) {
    for (int which = 0; which < BACKENDS; which++)
        check_merge(*state, which);
}

int main(void) {
    return adapter_kinds_run("parity_merge", CHECK_MERGE, check_kind);
}
