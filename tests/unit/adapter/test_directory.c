/* PEFT directories: goldens load and are saved with the same bytes; what is wrong with a file is
 * named. */
#include "tests/unit/adapter/adapter_support.h"

#include "base/atomic_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const in_scope[] = {
    "lora",
    "lora_all_linear",
    "lora_rslora",
    "lora_bias",
    "lora_gaussian",
    "lora_default_targets",
    "lora_regex_target",
    "lora_exclude_modules",
    "lora_layers_to_transform",
    "lora_rank_alpha_pattern",
    "lora_modules_to_save",
    "lora_modules_to_save_lm_head",
    "lora_modules_to_save_suffix",
    "lora_modules_to_save_tied",
    "lora_embedding",
    "lora_embedding_lm_head",
    "lora_pissa_converted",
    "lora_pissa_rslora_converted",
    "lora_olora_converted",
    "lora_weighted_lr",
};

static const char *golden(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "golden/%s", name);
    return test_data(path);
}

static void goldens_are_saved_as_they_were_loaded(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof in_scope / sizeof *in_scope; i++) {
        bench b;
        char expected[4096];
        const char *folder = golden(in_scope[i]), *saved = scratch(in_scope[i]);
        snprintf(expected, sizeof expected, "%s/adapter_model.safetensors", folder);
        bench_open(&b, "models/stories260K");
        assert_ok(bench_create_from(&b, folder));
        bench_layout(&b, false);
        assert_ok(adapter_load(b.adapter, b.dev, b.weights, folder, &test_error));
        assert_ok(adapter_save(b.adapter, b.dev, b.weights, saved, "stories260K", &test_error));
        char *path = path_join(saved, "adapter_model.safetensors");
        assert_files_equal(path, expected);
        free(path);
        /* What was saved loads again, config and all. */
        assert_ok(bench_create_from(&b, saved));
        bench_layout(&b, false);
        assert_ok(adapter_load(b.adapter, b.dev, NULL, saved, &test_error));
        bench_close(&b);
    }
}

static void saved_files_are_the_same_bytes(void **state) {
    (void)state;
    size_t n, m;
    char *expected = path_join(golden("lora_all_linear"), "adapter_model.safetensors");
    char *left = read_file(scratch("lora_all_linear/adapter_model.safetensors"), &n);
    char *right = read_file(expected, &m);
    assert_int_equal(n, m);
    assert_memory_equal(left, right, n);
    free(left);
    free(right);
    free(expected);
}

static void lora_of_a_tied_pair_as_one_is_refused_by_name(void **state) {
    (void)state;
    bench b;
    bench_open(&b, "models/stories260K");
    assert_refused(bench_create_from(&b, golden("lora_embedding_tied")), GRAFT_E_UNSUPPORTED,
                   "ensure_weight_tying with LoRA on model.embed_tokens is not supported");
    bench_close(&b);
}

/* ---- Files with something wrong ---- */

typedef struct edited { /* the golden "lora", to be changed */
    bench b;
    safetensors *file;
    named_tensor tensors[32];
    size_t n;
} edited;

static void edit_begin(edited *e, const char *name) {
    const char *folder = golden(name);
    char *path = path_join(folder, "adapter_model.safetensors");
    bench_open(&e->b, "models/stories260K");
    assert_ok(bench_create_from(&e->b, folder));
    bench_layout(&e->b, false);
    assert_ok(safetensors_open(&e->file, path, &test_error));
    free(path);
    e->n = safetensors_count(e->file);
    assert_true(e->n < 31);
    for (size_t i = 0; i < e->n; i++)
        e->tensors[i] = (named_tensor){safetensors_name(e->file, i), safetensors_at(e->file, i)};
}

static named_tensor *edit_find(edited *e, const char *key) {
    for (size_t i = 0; i < e->n; i++)
        if (!strcmp(e->tensors[i].name, key))
            return &e->tensors[i];
    fail_msg("no %s", key);
    return NULL;
}

/* Writes the tensors and expects that loading them is refused with all three texts. */
static void edit_refused(edited *e, graft_status status, const char *first, const char *second) {
    const char *folder = scratch("edited");
    assert_ok(folder_create(folder, &test_error));
    char *path = path_join(folder, "adapter_model.safetensors");
    assert_ok(safetensors_write(path, e->tensors, e->n, &test_error));
    assert_refused(adapter_load(e->b.adapter, e->b.dev, e->b.weights, folder, &test_error), status,
                   first);
    if (!strstr(test_error.message, second) || !strstr(test_error.message, path))
        fail_msg("the message lacks \"%s\" or the path: %s", second, test_error.message);
    free(path);
    assert_ok(folder_remove(folder, &test_error));
    safetensors_close(&e->file);
    bench_close(&e->b);
}

#define Q0 "base_model.model.model.layers.0.self_attn.q_proj."

static void adapter_a_without_b(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "lora");
    *edit_find(&e, Q0 "lora_B.weight") = e.tensors[--e.n];
    edit_refused(&e, GRAFT_E_INPUT, Q0 "lora_B.weight is missing", "one without the other");
    edit_begin(&e, "lora_embedding");
    *edit_find(&e, "base_model.model.model.embed_tokens.lora_embedding_A") = e.tensors[--e.n];
    edit_refused(&e, GRAFT_E_INPUT, "lora_embedding_A is missing", "one without the other");
}

static void adapter_module_missing(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "lora");
    *edit_find(&e, Q0 "lora_A.weight") = e.tensors[--e.n];
    *edit_find(&e, Q0 "lora_B.weight") = e.tensors[--e.n];
    edit_refused(&e, GRAFT_E_INPUT, Q0 "lora_A.weight is missing", "the file is incomplete");
}

static void adapter_rank_differs_from_config(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "lora");
    edit_find(&e, Q0 "lora_A.weight")->view.shape[0] = 2;
    edit_refused(&e, GRAFT_E_INPUT, "lora_A.weight has shape [2, 64], expected [4, 64]",
                 "its rank is not the one that r and rank_pattern");
}

static void adapter_tensor_transposed(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "lora");
    named_tensor *t = edit_find(&e, Q0 "lora_B.weight");
    t->view.shape[0] = 4;
    t->view.shape[1] = 64;
    edit_refused(&e, GRAFT_E_INPUT, "has shape [4, 64], expected [64, 4]", "it is transposed");
}

static void adapter_shape_of_another_base(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "lora");
    named_tensor *t = edit_find(&e, Q0 "lora_A.weight");
    t->view.shape[0] = 2;
    t->view.shape[1] = 128;
    edit_refused(&e, GRAFT_E_INPUT, "has shape [2, 128]", "made for another base");
}

static void rename_key(const char *to, graft_status status, const char *first, const char *second) {
    edited e;
    edit_begin(&e, "lora");
    edit_find(&e, Q0 "lora_A.weight")->name = to;
    edit_refused(&e, status, first, second);
}

static void adapter_keys_of_another_origin(void **state) {
    (void)state;
    rename_key("model.layers.0.self_attn.q_proj.lora_A.weight", GRAFT_E_INPUT,
               "does not begin with", "save_pretrained()");
    rename_key(Q0 "lora_A.default.weight", GRAFT_E_INPUT, "a name from inside PEFT", ".default");
    rename_key("base_model.model.model.embed_tokens.lora_embedding_A.default", GRAFT_E_INPUT,
               "a name from inside PEFT", ".default");
}

static void adapter_keys_that_are_orphans(void **state) {
    (void)state;
    rename_key("base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight", GRAFT_E_INPUT,
               "does not target model.layers.0.self_attn.k_proj", "target_modules");
    rename_key("base_model.model.model.norm.weight", GRAFT_E_INPUT, "is an orphan",
               "modules_to_save");
    rename_key("base_model.model.score.weight", GRAFT_E_INPUT,
               "names no module of this llama model", "another base");
    rename_key(Q0 "lora_magnitude_vector", GRAFT_E_UNSUPPORTED, "DoRA", "not supported");
    rename_key("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
               GRAFT_E_UNSUPPORTED, "trainable tokens", "not supported");
}

static void adapter_layer_beyond_the_model(void **state) {
    (void)state;
    rename_key("base_model.model.model.layers.999.self_attn.q_proj.lora_A.weight", GRAFT_E_INPUT,
               "layer 999 is not there: the model has layers 0 to 4", "another base");
}

static void adapter_tensor_of_integers(void **state) {
    (void)state;
    edited e;
    edit_begin(&e, "lora");
    edit_find(&e, Q0 "lora_A.weight")->view.type = DTYPE_I32;
    edit_refused(&e, GRAFT_E_INPUT, Q0 "lora_A.weight has type I32", "F32, BF16 or F16");
}

static void adapter_values_not_finite(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        edited e;
        float values[256] = {0};
        edit_begin(&e, "lora");
        values[77] = bad[i];
        edit_find(&e, Q0 "lora_B.weight")->view.data = values;
        edit_refused(&e, GRAFT_E_INPUT, "element 77 is ", i ? "infinite" : "NaN");
    }
}

static void adapter_with_its_own_embedding(void **state) {
    (void)state;
    edited e;
    static float changed[512 * 64];
    edit_begin(&e, "lora_embedding");
    named_tensor *t = edit_find(&e, "base_model.model.model.embed_tokens.base_layer.weight");
    memcpy(changed, t->view.data, sizeof changed);
    changed[5] += 1;
    t->view.data = changed;
    edit_refused(&e, GRAFT_E_UNSUPPORTED, "differs from the base's", "not supported");
    edit_begin(&e, "lora_modules_to_save_tied");
    t = edit_find(&e, "base_model.model.lm_head.weight");
    t->view.data = changed;
    edit_refused(&e, GRAFT_E_UNSUPPORTED, "differs from base_model.model.model.embed_tokens.weight",
                 "not supported");
    edit_begin(&e, "lora_embedding");
    t = edit_find(&e, "base_model.model.model.embed_tokens.base_layer.weight");
    t->view.shape[0] = 500;
    edit_refused(&e, GRAFT_E_UNSUPPORTED, "resized vocabulary", "not supported");
}

static void adapter_as_a_pickle_only(void **state) {
    (void)state;
    bench b;
    const char *folder = scratch("pickle");
    bench_open(&b, "models/stories260K");
    assert_ok(bench_create_from(&b, golden("lora")));
    bench_layout(&b, false);
    assert_ok(folder_create(folder, &test_error));
    assert_refused(adapter_load(b.adapter, b.dev, b.weights, folder, &test_error), GRAFT_E_INPUT,
                   "there is no such file");
    test_file("pickle/adapter_model.bin", "x", 1);
    assert_refused(adapter_load(b.adapter, b.dev, b.weights, folder, &test_error),
                   GRAFT_E_UNSUPPORTED, "only a pickle is here");
    bench_close(&b);
}

/* ---- Half-precision files, and copies that need not be there ---- */

static void adapter_in_half_precision_is_read(void **state) {
    (void)state;
    bench b;
    const char *folder = scratch("half");
    bench_open(&b, "models/stories260K");
    assert_ok(bench_create_from(&b, golden("lora_embedding")));
    bench_layout(&b, false);
    const adapter *a = b.adapter;
    static uint16_t halves[4 * 512];
    named_tensor tensors[2];
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        halves[i] = f32_to_bf16((float)i / 64);
    assert_int_equal(a->n_tensors, 2);
    for (size_t i = 0; i < 2; i++)
        tensors[i] = (named_tensor){
            a->tensors[i].key,
            {halves, DTYPE_BF16, 2, {a->tensors[i].shape[0], a->tensors[i].shape[1]}}};
    assert_ok(folder_create(folder, &test_error));
    char *path = path_join(folder, "adapter_model.safetensors");
    assert_ok(safetensors_write(path, tensors, 2, &test_error));
    assert_ok(adapter_load(b.adapter, b.dev, b.weights, folder, &test_error));
    float got[8];
    b.dev->ops->download(b.dev, got, a->tensors[0].value, 8);
    assert_true(got[3] == 3.0f / 64);
    free(path);
    bench_close(&b);
}

static void base_of_a_bf16_model_is_copied_as_stored(void **state) {
    (void)state;
    bench b;
    adapter_config config;
    rng random = rng_create(1, 0);
    const char *folder = scratch("bf16");
    bench_open(&b, "arch/llama_bf16");
    assert_ok(adapter_config_default(&config, "lora", &test_error));
    assert_ok(text_list_add(&config.target_modules, "embed_tokens", &test_error));
    assert_ok(bench_create(&b, &config));
    adapter_config_free(&config);
    bench_layout(&b, false);
    assert_ok(adapter_init(b.adapter, b.dev, b.weights, &random, &test_error));
    assert_ok(adapter_save(b.adapter, b.dev, b.weights, folder, "llama_bf16", &test_error));
    char *path = path_join(folder, "adapter_model.safetensors");
    safetensors *file;
    tensor_view view;
    assert_ok(safetensors_open(&file, path, &test_error));
    assert_true(
        safetensors_find(&view, file, "base_model.model.model.embed_tokens.base_layer.weight"));
    assert_int_equal(view.type, DTYPE_BF16);
    safetensors_close(&file);
    assert_ok(adapter_load(b.adapter, b.dev, b.weights, folder, &test_error));
    free(path);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens_are_saved_as_they_were_loaded),
        cmocka_unit_test(saved_files_are_the_same_bytes),
        cmocka_unit_test(lora_of_a_tied_pair_as_one_is_refused_by_name),
        cmocka_unit_test(adapter_a_without_b),
        cmocka_unit_test(adapter_module_missing),
        cmocka_unit_test(adapter_rank_differs_from_config),
        cmocka_unit_test(adapter_tensor_transposed),
        cmocka_unit_test(adapter_shape_of_another_base),
        cmocka_unit_test(adapter_keys_of_another_origin),
        cmocka_unit_test(adapter_keys_that_are_orphans),
        cmocka_unit_test(adapter_layer_beyond_the_model),
        cmocka_unit_test(adapter_tensor_of_integers),
        cmocka_unit_test(adapter_values_not_finite),
        cmocka_unit_test(adapter_with_its_own_embedding),
        cmocka_unit_test(adapter_as_a_pickle_only),
        cmocka_unit_test(adapter_in_half_precision_is_read),
        cmocka_unit_test(base_of_a_bf16_model_is_copied_as_stored),
    };
    return cmocka_run_group_tests_name("adapter_directory", tests, NULL, NULL);
}
