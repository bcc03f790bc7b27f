/* The methods' own parts: first values, memory, hooks, whole models, model cards. */
#include "tests/unit/adapter/adapter_support.h"

#include "adapter/model_card.h"
#include "adapter/model_folder.h"
#include "base/atomic_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static adapter_config lora_on(const char *first, const char *second) {
    adapter_config config;
    assert_ok(adapter_config_default(&config, "lora", &test_error));
    assert_ok(text_list_add(&config.target_modules, first, &test_error));
    if (second)
        assert_ok(text_list_add(&config.target_modules, second, &test_error));
    return config;
}

static void open_lora(bench *b, adapter_config config, bool training) {
    rng random = rng_create(7, 1);
    bench_open(b, "models/stories260K");
    assert_ok(bench_create(b, &config));
    adapter_config_free(&config);
    bench_layout(b, training);
    assert_ok(adapter_init(b->adapter, b->dev, b->weights, &random, &test_error));
}

typedef struct moments {
    double mean, deviation, largest;
} moments;

static moments measure(const bench *b, tensor_role role) {
    double sum = 0, squares = 0, largest = 0;
    int64_t count = 0;
    for (size_t i = 0; i < b->adapter->n_tensors; i++) {
        const adapter_tensor *t = &b->adapter->tensors[i];
        if (t->role != role)
            continue;
        float *values = malloc((size_t)t->count * sizeof *values);
        b->dev->ops->download(b->dev, values, t->value, t->count);
        for (int64_t j = 0; j < t->count; j++) {
            sum += (double)values[j];
            squares += (double)values[j] * (double)values[j];
            largest = fmax(largest, fabs((double)values[j]));
        }
        count += t->count;
        free(values);
    }
    assert_true(count > 0);
    double mean = sum / (double)count;
    return (moments){mean, sqrt(squares / (double)count - mean * mean), largest};
}

/* ---- First values ---- */

static void lora_starts_as_the_identity(void **state) {
    (void)state;
    bench b;
    adapter_config config = lora_on("q_proj", "down_proj");
    config.lora_bias = true;
    open_lora(&b, config, false);
    moments a = measure(&b, ROLE_LORA_A);
    assert_true(measure(&b, ROLE_LORA_B).largest == 0);
    assert_true(measure(&b, ROLE_LORA_BIAS).largest == 0);
    assert_true(a.largest > 0.11 && a.largest <= 1 / sqrt(64.0));
    test_assert_near(a.mean, 0, 0.005, 0, "mean of A");
    bench_close(&b);
}

static void lora_gaussian_is_normal_over_rank(void **state) {
    (void)state;
    bench b;
    adapter_config config = lora_on("q_proj", "v_proj");
    config.init = LORA_INIT_GAUSSIAN;
    config.r = 4;
    open_lora(&b, config, false);
    test_assert_near(measure(&b, ROLE_LORA_A).deviation, 0.25, 0, 0.05, "deviation of A");
    assert_true(measure(&b, ROLE_LORA_B).largest == 0);
    bench_close(&b);
}

static void lora_random_leaves_nothing_zero(void **state) {
    (void)state;
    bench b;
    adapter_config config = lora_on("q_proj", "embed_tokens");
    config.init = LORA_INIT_RANDOM;
    config.r = 4;
    open_lora(&b, config, false);
    moments factor = measure(&b, ROLE_LORA_B);
    assert_true(factor.largest > 0.45 && factor.largest <= 0.5);
    test_assert_near(measure(&b, ROLE_LORA_EMBEDDING_A).deviation, 1, 0, 0.1, "embedding A");
    bench_close(&b);
}

static void lora_embedding_starts_as_the_identity(void **state) {
    (void)state;
    bench b;
    open_lora(&b, lora_on("embed_tokens", NULL), false);
    assert_true(measure(&b, ROLE_LORA_EMBEDDING_A).largest == 0);
    test_assert_near(measure(&b, ROLE_LORA_EMBEDDING_B).deviation, 1, 0, 0.15, "embedding B");
    bench_close(&b);
}

static void modules_to_save_start_from_the_base(void **state) {
    (void)state;
    bench b;
    adapter_config config = lora_on("q_proj", NULL);
    assert_ok(text_list_add(&config.modules_to_save, "lm_head", &test_error));
    open_lora(&b, config, false);
    tensor_view embedding;
    assert_true(weight_source_tensor(&embedding, b.weights, "model.embed_tokens.weight"));
    float values[64];
    b.dev->ops->download(b.dev, values, b.adapter->tensors[0].value, 64);
    assert_string_equal(b.adapter->tensors[0].key, "base_model.model.lm_head.weight");
    assert_memory_equal(values, embedding.data, sizeof values);
    bench_close(&b);
}

/* ---- Memory and hooks ---- */

static void layout_counts_by_component(void **state) {
    (void)state;
    bench b;
    adapter_config config = lora_on("q_proj", NULL);
    assert_ok(text_list_add(&config.modules_to_save, "model.norm", &test_error));
    open_lora(&b, config, true);
    layout counted = layout_counting();
    adapter_layout(b.adapter, &counted, 4, true);
    size_t lora = 5 * 2 * 8 * 64, norm = 64;
    assert_int_equal(adapter_trained_count(b.adapter), lora + norm);
    assert_int_equal(counted.now[COMPONENT_ADAPTER], 4 * lora);
    assert_int_equal(counted.now[COMPONENT_WEIGHTS], 4 * norm);
    assert_int_equal(counted.now[COMPONENT_GRADIENTS], 4 * (lora + norm));
    assert_int_equal(counted.now[COMPONENT_OPTIMIZER], 8 * (lora + norm));
    bench_close(&b);
}

static void bind_fills_the_hooks(void **state) {
    (void)state;
    bench b;
    model_hooks hooks;
    adapter_config config = lora_on("q_proj", "lm_head");
    config.lora_alpha = 32;
    config.lora_dropout = 0.25;
    assert_ok(text_list_add(&config.modules_to_save, "embed_tokens", &test_error));
    open_lora(&b, config, true);
    assert_ok(model_hooks_create(&hooks, &b.spec, &test_error));
    adapter_bind(b.adapter, &hooks);
    model_hooks_finish(&hooks, &b.spec);
    const linear_hook *q = &hooks.layers[3].linear[LINEAR_Q];
    assert_int_equal(q->n_terms, 1);
    assert_int_equal(q->terms->rank, 8);
    assert_true(q->terms->scale == 4 && q->terms->dropout == 0.25f);
    assert_true(q->terms->a && q->terms->b && q->terms->da && q->terms->db && !q->terms->bias);
    assert_int_equal(hooks.layers[3].linear[LINEAR_V].n_terms, 0);
    assert_int_equal(hooks.head.n_terms, 1);
    assert_false(hooks.head.weight.is_freed);
    assert_true(hooks.embedding.weight.is_freed && hooks.embedding.weight.gradient);
    assert_true(q->terms->dropout_stream != hooks.layers[2].linear[LINEAR_Q].terms->dropout_stream);
    assert_true(hooks.embedding_trains);
    model_hooks_free(&hooks);
    bench_close(&b);
}

static void one_weight_for_embedding_and_head(void **state) {
    (void)state;
    bench b;
    model_hooks hooks;
    adapter_config config = lora_on("q_proj", NULL);
    config.ensure_weight_tying = true;
    assert_ok(text_list_add(&config.modules_to_save, "lm_head", &test_error));
    open_lora(&b, config, true);
    assert_ok(model_hooks_create(&hooks, &b.spec, &test_error));
    adapter_bind(b.adapter, &hooks);
    assert_true(hooks.embedding.weight.is_freed && hooks.head.weight.is_freed);
    assert_ptr_equal(hooks.embedding.weight.value, hooks.head.weight.value);
    assert_ptr_equal(hooks.embedding.weight.gradient, hooks.head.weight.gradient);
    model_hooks_free(&hooks);
    bench_close(&b);
}

static void methods_are_found_by_either_name(void **state) {
    (void)state;
    assert_ptr_equal(adapter_method_find("LoRA"), adapter_method_at(0));
    assert_ptr_equal(adapter_method_find("full"), adapter_method_at(1));
    for (size_t i = 0; adapter_method_at(i); i++) {
        const adapter_method *method = adapter_method_at(i);
        assert_ptr_equal(adapter_method_find(method->name), method);
        assert_ptr_equal(adapter_method_of_type(method->peft_type), method->keys ? method : NULL);
    }
    assert_null(adapter_method_find("bone"));
}

static void gradients_are_saved_under_the_same_keys(void **state) {
    (void)state;
    bench b;
    open_lora(&b, lora_on("q_proj", NULL), true);
    for (size_t i = 0; i < b.adapter->n_tensors; i++)
        b.dev->ops->fill(b.dev, b.adapter->tensors[i].gradient, (double)i,
                         b.adapter->tensors[i].count);
    const char *path = scratch("gradients.safetensors");
    assert_ok(adapter_save_gradients(b.adapter, b.dev, path, &test_error));
    safetensors *file;
    tensor_view view;
    assert_ok(safetensors_open(&file, path, &test_error));
    assert_int_equal(safetensors_count(file), b.adapter->n_tensors);
    assert_true(safetensors_find(&view, file, b.adapter->tensors[3].key));
    assert_int_equal(view.type, DTYPE_F32);
    assert_true(((const float *)view.data)[0] == 3);
    safetensors_close(&file);
    bench_close(&b);
}

/* ---- Full fine-tuning ---- */

static void open_full(bench *b, const char *model) {
    adapter_config config;
    rng random = rng_create(1, 0);
    bench_open(b, model);
    assert_ok(adapter_config_default(&config, "full", &test_error));
    assert_ok(bench_create(b, &config));
    adapter_config_free(&config);
    bench_layout(b, false);
    assert_ok(adapter_init(b->adapter, b->dev, b->weights, &random, &test_error));
}

static void assert_model_saved(const char *model, const char *file) {
    bench b;
    char expected[4096], got[4096];
    const char *saved = scratch("full");
    open_full(&b, model);
    assert_int_equal(adapter_trained_count(b.adapter), model_parameters(&b.spec));
    snprintf(expected, sizeof expected, "%s/%s", test_data(model), file);
    snprintf(got, sizeof got, "%s/model.safetensors", saved);
    assert_ok(adapter_save(b.adapter, b.dev, b.weights, saved, "base", &test_error));
    assert_files_equal(got, expected);
    assert_ok(adapter_load(b.adapter, b.dev, b.weights, saved, &test_error));
    bench_close(&b);
}

static void whole_models_are_saved_in_their_own_types(void **state) {
    (void)state;
    assert_model_saved("models/stories260K", "model.safetensors");
    size_t n;
    char *config = read_file(scratch("full/config.json"), &n);
    assert_non_null(strstr(config, "llama"));
    free(config);
    assert_true(path_exists(scratch("full/tokenizer.json")));
    assert_true(path_exists(scratch("full/generation_config.json")));
    assert_ok(folder_remove(scratch("full"), &test_error));
    assert_model_saved("arch/llama_bf16", "model.safetensors");
    assert_ok(folder_remove(scratch("full"), &test_error));
    assert_model_saved("arch/qwen3", "model.safetensors");
}

static void large_models_are_saved_in_shards(void **state) {
    (void)state;
    bench b;
    const char *saved = scratch("shards");
    char path[4096];
    open_full(&b, "models/stories260K");
    assert_ok(model_folder_save(b.adapter, b.dev, b.weights, saved, 200000, &test_error));
    safetensors *whole, *shards;
    snprintf(path, sizeof path, "%s/model.safetensors", test_data("models/stories260K"));
    assert_ok(safetensors_open(&whole, path, &test_error));
    assert_ok(safetensors_open_model(&shards, saved, &b.sink, &test_error));
    assert_int_equal(safetensors_count(whole), safetensors_count(shards));
    for (size_t i = 0; i < safetensors_count(whole); i++) {
        tensor_view left = safetensors_at(whole, i), right = safetensors_at(shards, i);
        assert_string_equal(safetensors_name(whole, i), safetensors_name(shards, i));
        assert_memory_equal(left.data, right.data, tensor_bytes(&left));
    }
    assert_string_equal(b.messages,
                        "model.embed_tokens and lm_head are tied: one weight trains for "
                        "both\n");
    safetensors_close(&whole);
    safetensors_close(&shards);
    assert_ok(adapter_load(b.adapter, b.dev, b.weights, saved, &test_error));
    bench_close(&b);
}

static void full_model_of_another_shape(void **state) {
    (void)state;
    bench b;
    open_full(&b, "models/stories260K");
    assert_refused(
        adapter_load(b.adapter, b.dev, b.weights, test_data("arch/llama_bf16"), &test_error),
        GRAFT_E_INPUT, "model.embed_tokens.weight has shape");
    bench_close(&b);
}

/* ---- Model cards ---- */

static void model_cards_say_how_it_was_trained(void **state) {
    (void)state;
    bench b;
    static const char *const data[] = {"/tmp/a`b.jsonl"};
    open_lora(&b, lora_on("q_proj", NULL), false);
    model_card card = {.base_name = "org/model: x",
                       .data = data,
                       .n_data = 1,
                       .rows = 100,
                       .supervised_tokens = 2000,
                       .steps = 50,
                       .epochs = 2,
                       .learning_rate = 2e-4,
                       .schedule = "cosine",
                       .optimizer = "adamw",
                       .rows_per_step = 4,
                       .max_length = 512,
                       .seed = 42,
                       .first_loss = 2.5,
                       .last_loss = 1.25,
                       .eval_loss = NAN};
    assert_ok(model_card_write(&card, b.adapter, test_folder(), &test_error));
    size_t n;
    char *text = read_file(scratch("README.md"), &n);
    static const char *const parts[] = {
        "---\nbase_model: \"org/model: x\"\nlibrary_name: peft\n",
        "- lora\n",
        "`a'b.jsonl`",
        "| 2.5000, 1.2500 |",
        "PeftModel.from_pretrained(base, \".\")",
        "5120 trained parameters",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(text, parts[i]))
            fail_msg("README.md lacks \"%s\": %s", parts[i], text);
    assert_null(strstr(text, "evaluation loss"));
    free(text);
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lora_starts_as_the_identity),
        cmocka_unit_test(lora_gaussian_is_normal_over_rank),
        cmocka_unit_test(lora_random_leaves_nothing_zero),
        cmocka_unit_test(lora_embedding_starts_as_the_identity),
        cmocka_unit_test(modules_to_save_start_from_the_base),
        cmocka_unit_test(layout_counts_by_component),
        cmocka_unit_test(bind_fills_the_hooks),
        cmocka_unit_test(one_weight_for_embedding_and_head),
        cmocka_unit_test(methods_are_found_by_either_name),
        cmocka_unit_test(gradients_are_saved_under_the_same_keys),
        cmocka_unit_test(whole_models_are_saved_in_their_own_types),
        cmocka_unit_test(large_models_are_saved_in_shards),
        cmocka_unit_test(full_model_of_another_shape),
        cmocka_unit_test(model_cards_say_how_it_was_trained),
    };
    return cmocka_run_group_tests_name("adapter_methods", tests, NULL, NULL);
}
