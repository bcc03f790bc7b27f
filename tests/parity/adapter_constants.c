/* What methods draw from a seed is what PEFT drew, bit for bit: goldens whose files hold it. */
#include "tests/parity/model_case.h"

#include "adapter/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct drawn_case {
    const char *golden;
    const char *ends[2]; /* of the tensors' keys */
} drawn_case;

static const drawn_case cases[] = {
    {"vera", {"base_model.vera_A", "base_model.vera_B"}},
    {"pvera", {"base_model.pvera_A", "base_model.pvera_B"}},
    {"randlora", {"base_model.randlora_A", "base_model.randlora_B"}},
    {"tinylora", {"tinylora_P"}},
    {"unilora_saved_indices", {"unilora_indices_A", "unilora_indices_B"}},
    {"shira", {"shira_indices"}},
    {"frod", {"frod_s_indices.self_attn_q_proj", "frod_s_indices.self_attn_v_proj"}},
};

static bool ends_with(const char *key, const char *end) {
    size_t n = strlen(key), m = end ? strlen(end) : n + 1;
    return n >= m && !strcmp(key + n - m, end);
}

static void compare(backend *dev, const adapter_tensor *t, const safetensors *file) {
    tensor_view view;
    if (!safetensors_find(&view, file, t->key))
        fail_msg("no %s", t->key);
    assert_int_equal(tensor_count(&view), t->count);
    for (int64_t i = 0; t->integers && view.type == DTYPE_I32 && i < t->count; i++)
        assert_int_equal(t->integers[i], ((const int32_t *)view.data)[i]);
    if (t->integers && view.type == DTYPE_I32)
        return;
    if (t->integers) {
        assert_memory_equal(t->integers, view.data, tensor_bytes(&view));
        return;
    }
    float *values = malloc((size_t)t->count * sizeof *values);
    assert_non_null(values);
    dev->ops->download(dev, values, t->value, t->count);
    if (memcmp(values, view.data, tensor_bytes(&view)))
        fail_msg("%s is not PEFT's", t->key);
    free(values);
}

static void check_case(void **state) {
    const drawn_case *drawn = *state;
    static model_case model;
    char path[256];
    adapter_config config;
    adapter *a;
    safetensors *file;
    size_t compared = 0;
    rng random = rng_create(1, 2);
    model_case_open(&model, test_backend(1), test_data("models/stories260K"), "config.json");
    snprintf(path, sizeof path, "golden/%s", drawn->golden);
    assert_ok(adapter_config_read(&config, test_data(path), NULL, &test_error));
    assert_ok(adapter_create(&a, &config, &model.spec, 0, NULL, &test_error));
    layout counted = layout_counting();
    adapter_layout(a, &counted, model.dev->element_bytes, false);
    void *memory = model.dev->ops->alloc(model.dev, counted.high_water);
    layout assigned = layout_over(memory, counted.high_water);
    adapter_layout(a, &assigned, model.dev->element_bytes, false);
    assert_ok(adapter_init(a, model.dev, model.weights, &random, &test_error));
    snprintf(path, sizeof path, "golden/%s/adapter_model.safetensors", drawn->golden);
    assert_ok(safetensors_open(&file, test_data(path), &test_error));
    for (size_t i = 0; i < a->n_tensors; i++)
        if (ends_with(a->tensors[i].key, drawn->ends[0]) ||
            ends_with(a->tensors[i].key, drawn->ends[1])) {
            compare(model.dev, &a->tensors[i], file);
            compared++;
        }
    assert_true(compared >= 2);
    safetensors_close(&file);
    model.dev->ops->release(model.dev, memory);
    adapter_destroy(&a);
    adapter_config_free(&config);
    model_case_close(&model);
}

int main(void) {
    enum { N = sizeof cases / sizeof *cases };
    struct CMUnitTest tests[N];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){
            .name = cases[i].golden, .test_func = check_case, .initial_state = (void *)&cases[i]};
    return _cmocka_run_group_tests("parity_adapter_constants", tests, N, NULL, NULL);
}
