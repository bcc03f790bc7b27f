/* AdamW and clipping against torch, and LoRA+'s groups against PEFT's rules. */
#include "tests/support/support.h"

#include "formats/safetensors.h"
#include "train/optimizer.h"

#include <stdio.h>
#include <string.h>

enum { TENSORS = 2, STEPS = 10, ELEMENTS_MAX = 16 };

/* Two tensors in a backend's memory, as an adapter laid out for training has them. */
typedef struct bench {
    backend *dev;
    safetensors *file;
    adapter adapter;
    adapter_tensor tensors[TENSORS];
    void *memory;
} bench;

static tensor_view fixture_tensor(const bench *b, const char *name) {
    tensor_view view;
    if (!safetensors_find(&view, b->file, name))
        fail_msg("adamw.safetensors lacks %s", name);
    return view;
}

static void upload(const bench *b, device_array *to, const char *kind, int tensor, int step) {
    char name[32];
    if (step < 0)
        snprintf(name, sizeof name, "%s.%d", kind, tensor);
    else
        snprintf(name, sizeof name, "%s.%d.%d", kind, tensor, step);
    tensor_view view = fixture_tensor(b, name);
    b->dev->ops->upload(b->dev, to, view.data, view.type, (int64_t)tensor_count(&view));
}

static void bench_open(bench *b, backend *dev) {
    *b = (bench){.dev = dev};
    assert_ok(safetensors_open(&b->file, test_fixture("train/adamw.safetensors"), &test_error));
    b->adapter = (adapter){.tensors = b->tensors, .n_tensors = TENSORS};
    b->memory = dev->ops->alloc(dev, 4 * TENSORS * ELEMENTS_MAX * dev->element_bytes);
    device_array *at = b->memory;
    for (int i = 0; i < TENSORS; i++) {
        adapter_tensor *t = &b->tensors[i];
        char name[32];
        snprintf(name, sizeof name, "p0.%d", i);
        tensor_view view = fixture_tensor(b, name);
        t->count = (int64_t)tensor_count(&view);
        t->rank = view.rank;
        t->value = array_at(dev, at, (4 * i) * ELEMENTS_MAX);
        t->gradient = array_at(dev, at, (4 * i + 1) * ELEMENTS_MAX);
        t->moment1 = array_at(dev, at, (4 * i + 2) * ELEMENTS_MAX);
        t->moment2 = array_at(dev, at, (4 * i + 3) * ELEMENTS_MAX);
        upload(b, t->value, "p0", i, -1);
    }
}

static void bench_close(bench *b) {
    b->dev->ops->release(b->dev, b->memory);
    safetensors_close(&b->file);
    backend_destroy(&b->dev);
}

static void compare_values(const bench *b, int step) {
    for (int i = 0; i < TENSORS; i++) {
        float got[ELEMENTS_MAX];
        char name[32];
        snprintf(name, sizeof name, "p.%d.%d", i, step);
        tensor_view view = fixture_tensor(b, name);
        const float *expected = view.data;
        b->dev->ops->download(b->dev, got, b->tensors[i].value, b->tensors[i].count);
        for (int64_t k = 0; k < b->tensors[i].count; k++)
            test_assert_near((double)got[k], (double)expected[k], 2e-7, 1e-6, name);
    }
}

static void follow_torch(backend *dev) {
    const train_config config = {.learning_rate = 1e-2,
                                 .weight_decay = 0.1,
                                 .adam_beta1 = 0.9,
                                 .adam_beta2 = 0.95,
                                 .adam_epsilon = 1e-6};
    bench b;
    bench_open(&b, dev);
    tensor_view norms = fixture_tensor(&b, "norms"), scales = fixture_tensor(&b, "scales");
    for (int step = 0; step < STEPS; step++) {
        adapter_zero_gradients(&b.adapter, dev);
        for (int i = 0; i < TENSORS; i++)
            upload(&b, b.tensors[i].gradient, "g", i, step);
        double norm = optimizer_gradient_norm(&b.adapter, dev);
        double scale = optimizer_clip_scale(norm, 2.0);
        test_assert_near(norm, (double)((const float *)norms.data)[step], 0, 1e-6, "norm");
        test_assert_near(scale, (double)((const float *)scales.data)[step], 0, 1e-6, "clip scale");
        assert_ok(optimizer_update(&b.adapter, dev, &config, 1.0, scale, step + 1, &test_error));
        compare_values(&b, step);
    }
    bench_close(&b);
}

static void adamw_equals_torch_on_reference(void **state) {
    (void)state;
    backend *dev = NULL;
    assert_ok(backend_create_reference(&dev, &test_error));
    follow_torch(dev);
}

static void adamw_equals_torch_on_cpu(void **state) {
    (void)state;
    backend *dev = NULL;
    cpu_features features = cpu_features_detect();
    assert_ok(backend_create_cpu(&dev, 2, &features, &test_error));
    follow_torch(dev);
}

static adapter_tensor tensor_with(tensor_role role, int32_t rank, const char *key) {
    adapter_tensor tensor = {.role = role, .rank = rank};
    snprintf(tensor.key, sizeof tensor.key, "%s", key);
    return tensor;
}

static void check_group(tensor_role role, int32_t rank, const char *key, double rate,
                        double decay) {
    const train_config config = {
        .learning_rate = 1e-3, .weight_decay = 0.01, .loraplus_lr_ratio = 16};
    adapter_tensor tensor = tensor_with(role, rank, key);
    parameter_group group = parameter_group_of(&tensor, &config);
    test_assert_near(group.learning_rate, rate, 0, 1e-15, key);
    test_assert_near(group.weight_decay, decay, 0, 1e-15, key);
}

static void loraplus_groups_as_peft(void **state) {
    (void)state;
    check_group(ROLE_LORA_A, 2, "q_proj.lora_A.weight", 1e-3, 0.01);
    check_group(ROLE_LORA_B, 2, "q_proj.lora_B.weight", 16e-3, 0.01);
    check_group(ROLE_LORA_BIAS, 1, "q_proj.lora_B.bias", 16e-3, 0);
    check_group(ROLE_LORA_EMBEDDING_A, 2, "embed_tokens.lora_embedding_A", 1e-6, 0.01);
    check_group(ROLE_LORA_EMBEDDING_B, 2, "embed_tokens.lora_embedding_B", 1e-6, 0.01);
    check_group(ROLE_FREED, 1, "model.norm.weight", 16e-3, 0.01);
    check_group(ROLE_FREED, 1, "q_proj.base_layer.bias", 16e-3, 0);
    check_group(ROLE_FREED, 2, "lm_head.weight", 1e-3, 0.01);
}

static void without_loraplus_every_tensor_decays(void **state) {
    (void)state;
    const train_config config = {.learning_rate = 1e-3, .weight_decay = 0.01};
    adapter_tensor bias = tensor_with(ROLE_LORA_BIAS, 1, "q_proj.lora_B.bias");
    parameter_group group = parameter_group_of(&bias, &config);
    test_assert_near(group.learning_rate, 1e-3, 0, 0, "rate");
    test_assert_near(group.weight_decay, 0.01, 0, 0, "decay");
}

static void clip_scale_zero_norm_means_no_clipping(void **state) {
    (void)state;
    test_assert_near(optimizer_clip_scale(5, 0), 1, 0, 0, "off");
    test_assert_near(optimizer_clip_scale(0.5, 1), 1, 0, 0, "below");
    test_assert_near(optimizer_clip_scale(4, 1), 1 / 4.000001, 0, 1e-15, "above");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_equals_torch_on_reference),
        cmocka_unit_test(adamw_equals_torch_on_cpu),
        cmocka_unit_test(loraplus_groups_as_peft),
        cmocka_unit_test(without_loraplus_every_tensor_decays),
        cmocka_unit_test(clip_scale_zero_norm_means_no_clipping),
    };
    return cmocka_run_group_tests_name("optimizer", tests, NULL, NULL);
}
