/* adapter_config.json, in and out. */
#include "tests/unit/adapter/adapter_support.h"

#include "base/atomic_file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static graft_status read_text(adapter_config *config, const char *text) {
    return adapter_config_read(config, test_file("adapter_config.json", text, strlen(text)), NULL,
                               &test_error);
}

static void refuse(const char *text, graft_status status, const char *message) {
    adapter_config config;
    assert_refused(read_text(&config, text), status, message);
    assert_int_equal(config.target_modules.n, 0);
}

static void accept(const char *text) {
    adapter_config config;
    assert_ok(read_text(&config, text));
    adapter_config_free(&config);
}

/* ---- Reading ---- */

static void keys_left_out_have_peft_defaults(void **state) {
    (void)state;
    adapter_config config;
    assert_ok(read_text(&config, "{\"peft_type\": \"LORA\"}"));
    assert_string_equal(config.method, "lora");
    assert_int_equal(config.r, 8);
    assert_true(config.lora_alpha == 8);
    assert_true(config.lora_dropout == 0);
    assert_int_equal(config.init, LORA_INIT_DEFAULT);
    assert_int_equal(config.bias, BIAS_NONE);
    assert_int_equal(config.target_modules.n, 0);
    assert_null(config.target_regex);
    adapter_config_free(&config);
}

static void every_field_is_read(void **state) {
    (void)state;
    adapter_config config;
    assert_ok(read_text(
        &config,
        "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 11.3125, \"lora_dropout\": 0.05, "
        "\"use_rslora\": true, \"lora_bias\": true, \"init_lora_weights\": false, \"bias\": "
        "\"all\", "
        "\"target_modules\": [\"a\", \"b\"], \"exclude_modules\": \".*c\", "
        "\"layers_to_transform\": 2, "
        "\"layers_pattern\": [\"layers\"], \"rank_pattern\": {\"z\": 3, \"a\": 2}, "
        "\"alpha_pattern\": {\"z\": 0.5}, \"modules_to_save\": [\"norm\"], "
        "\"ensure_weight_tying\": true, \"base_model_name_or_path\": \"org/m\", "
        "\"revision\": \"main\", \"task_type\": \"CAUSAL_LM\", \"inference_mode\": true, "
        "\"auto_mapping\": {\"base_model_class\": \"X\"}, \"megatron_core\": \"other\", "
        "\"runtime_config\": {\"ephemeral_gpu_offload\": true}, \"peft_version\": \"0.11.0\"}"));
    assert_int_equal(config.r, 4);
    assert_true(config.lora_alpha == 11.3125);
    assert_true(config.lora_dropout == 0.05);
    assert_true(config.use_rslora && config.lora_bias && config.ensure_weight_tying);
    assert_int_equal(config.init, LORA_INIT_RANDOM);
    assert_int_equal(config.bias, BIAS_ALL);
    assert_int_equal(config.target_modules.n, 2);
    assert_string_equal(config.exclude_regex, ".*c");
    assert_int_equal(config.n_layers_to_transform, 1);
    assert_int_equal(config.layers_to_transform[0], 2);
    assert_string_equal(config.layers_pattern.items[0], "layers");
    assert_int_equal(config.n_rank_pattern, 2);
    assert_string_equal(config.rank_pattern[0].pattern,
                        "z"); /* the file's order: the first counts */
    assert_true(config.alpha_pattern[0].value == 0.5);
    assert_string_equal(config.modules_to_save.items[0], "norm");
    assert_string_equal(config.base_model, "org/m");
    assert_string_equal(config.revision, "main");
    adapter_config copy;
    assert_ok(adapter_config_copy(&copy, &config, &test_error));
    adapter_config_free(&config);
    assert_string_equal(copy.rank_pattern[1].pattern, "a");
    assert_string_equal(copy.exclude_regex, ".*c");
    adapter_config_free(&copy);
}

static void adapter_config_of_another_peft_type(void **state) {
    (void)state;
    refuse("{\"peft_type\": \"BONE\"}", GRAFT_E_UNSUPPORTED,
           "peft_type \"BONE\" is not supported; supported: LORA, IA3");
    refuse("{\"r\": 8}", GRAFT_E_INPUT, "\"peft_type\": expected a string");
    refuse("[]", GRAFT_E_INPUT, "expected an object, found an array");
    refuse("{\"peft_type\": \"LORA\", \"task_type\": \"SEQ_CLS\"}", GRAFT_E_UNSUPPORTED,
           "task_type \"SEQ_CLS\" is not supported");
}

static void adapter_rank_out_of_range(void **state) {
    (void)state;
    refuse("{\"peft_type\": \"LORA\", \"r\": 0}", GRAFT_E_INPUT, "\"r\"");
    refuse("{\"peft_type\": \"LORA\", \"r\": -3}", GRAFT_E_INPUT, "\"r\"");
    refuse("{\"peft_type\": \"LORA\", \"r\": 1000000000}", GRAFT_E_INPUT, "\"r\"");
    refuse("{\"peft_type\": \"LORA\", \"r\": \"8\"}", GRAFT_E_INPUT, "\"r\"");
    refuse("{\"peft_type\": \"LORA\", \"rank_pattern\": {\"q\": 0}}", GRAFT_E_INPUT,
           "rank_pattern");
    refuse("{\"peft_type\": \"LORA\", \"rank_pattern\": {\"q\": 2.5}}", GRAFT_E_INPUT,
           "rank_pattern");
    refuse("{\"peft_type\": \"LORA\", \"rank_pattern\": [3]}", GRAFT_E_INPUT, "rank_pattern");
}

static void adapter_alpha_not_finite(void **state) {
    (void)state;
    refuse("{\"peft_type\": \"LORA\", \"lora_alpha\": NaN}", GRAFT_E_INPUT, "lora_alpha");
    refuse("{\"peft_type\": \"LORA\", \"lora_alpha\": Infinity}", GRAFT_E_INPUT, "lora_alpha");
    refuse("{\"peft_type\": \"LORA\", \"lora_alpha\": 1e300}", GRAFT_E_INPUT, "lora_alpha");
    refuse("{\"peft_type\": \"LORA\", \"alpha_pattern\": {\"q\": 1e39}}", GRAFT_E_INPUT,
           "alpha_pattern");
    refuse("{\"peft_type\": \"LORA\", \"lora_dropout\": 1.0}", GRAFT_E_INPUT, "lora_dropout");
    refuse("{\"peft_type\": \"LORA\", \"lora_dropout\": -0.1}", GRAFT_E_INPUT, "lora_dropout");
}

static void adapter_fields_of_the_wrong_type(void **state) {
    (void)state;
    refuse("{\"peft_type\": \"LORA\", \"target_modules\": 3}", GRAFT_E_INPUT, "target_modules");
    refuse("{\"peft_type\": \"LORA\", \"target_modules\": [3]}", GRAFT_E_INPUT, "target_modules");
    refuse("{\"peft_type\": \"LORA\", \"target_modules\": [\"\"]}", GRAFT_E_INPUT,
           "entry 0 is empty");
    refuse("{\"peft_type\": \"LORA\", \"modules_to_save\": \"norm\"}", GRAFT_E_INPUT,
           "modules_to_save");
    refuse("{\"peft_type\": \"LORA\", \"bias\": \"some\"}", GRAFT_E_INPUT, "found \"some\"");
    refuse("{\"peft_type\": \"LORA\", \"use_rslora\": \"yes\"}", GRAFT_E_INPUT, "use_rslora");
    refuse("{\"peft_type\": \"LORA\", \"layers_to_transform\": \"1\"}", GRAFT_E_INPUT,
           "layers_to_transform");
    refuse("{\"peft_type\": \"LORA\", \"layers_pattern\": \"layers\"}", GRAFT_E_INPUT,
           "layers_to_transform, which would pick some, is missing");
    refuse("{\"peft_type\": \"LORA\", \"target_modules\": \".*q\", \"layers_to_transform\": [1]}",
           GRAFT_E_INPUT, "put the layer numbers into the expression");
}

static void adapter_config_that_asks_for_what_is_lacking(void **state) {
    (void)state;
    static const char *const asking[][2] = {
        {"\"alora_invocation_tokens\": [1]", "activated LoRA"},
        {"\"arrow_config\": {\"top_k\": 3}", "Arrow"},
        {"\"corda_config\": {\"corda_method\": \"ipm\"}", "CorDA"},
        {"\"eva_config\": {\"rho\": 2.0}", "EVA"},
        {"\"layer_replication\": [[0, 1000000000]]", "layer replication"},
        {"\"loftq_config\": {\"loftq_bits\": 4}", "LoftQ"},
        {"\"lora_ga_config\": {\"scale\": \"unit\"}", "LoRA-GA"},
        {"\"megatron_config\": {\"x\": 1}", "Megatron"},
        {"\"monteclora_config\": {\"num_samples\": 8}", "MonteCLoRA"},
        {"\"use_qalora\": true", "QALoRA"},
        {"\"velora_config\": {\"scale\": 1.0}", "VeLoRA"},
        {"\"init_lora_weights\": \"eva\"", "init_lora_weights \"eva\""},
        {"\"something_new\": 3", "\"something_new\" is set"},
    };
    for (size_t i = 0; i < sizeof asking / sizeof *asking; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"peft_type\": \"LORA\", %s}", asking[i][0]);
        refuse(text, GRAFT_E_UNSUPPORTED, asking[i][1]);
        assert_non_null(strstr(test_error.message, "not supported"));
    }
}

static void adapter_keys_that_ask_for_nothing(void **state) {
    (void)state;
    accept("{\"peft_type\": \"LORA\", \"something_new\": null, \"other\": false, \"third\": \"\", "
           "\"fourth\": [], \"fifth\": {}}");
    accept("{\"peft_type\": \"LORA\", \"use_dora\": false, \"loftq_config\": {}, "
           "\"loftq_config2\": null, \"qalora_group_size\": 64, \"alora_invocation_tokens\": null, "
           "\"trainable_token_indices\": [], \"layer_replication\": null}");
}

static void adapter_config_missing(void **state) {
    (void)state;
    adapter_config config;
    assert_refused(adapter_config_read(&config, scratch("nowhere"), NULL, &test_error),
                   GRAFT_E_INPUT, "there is no such file");
    const char *folder = test_data("models/stories260K");
    assert_refused(adapter_config_read(&config, folder, NULL, &test_error), GRAFT_E_INPUT,
                   "give that as --model");
}

static void adapter_config_with_too_many_names(void **state) {
    (void)state;
    strbuf text = {0};
    strbuf_add_text(&text, "{\"peft_type\": \"LORA\", \"target_modules\": [\"q\"");
    for (int i = 0; i < ADAPTER_NAMES_MAX; i++)
        strbuf_add_text(&text, ",\"q\"");
    strbuf_add_text(&text, "]}");
    refuse(strbuf_text(&text), GRAFT_E_INPUT, "more than");
    strbuf_free(&text);
}

static void unknown_method_is_refused_with_the_known(void **state) {
    (void)state;
    adapter_config config;
    assert_refused(adapter_config_default(&config, "dora", &test_error), GRAFT_E_USAGE,
                   "there are: lora, full");
    assert_ok(adapter_config_default(&config, "LORA", &test_error));
    assert_string_equal(config.method, "lora");
    adapter_config_free(&config);
}

/* ---- Writing ---- */

static bool same_names(const json_t *a, const json_t *b) {
    if (json_array_size(a) != json_array_size(b))
        return false;
    for (size_t i = 0; i < json_array_size(a); i++) {
        bool found = false;
        for (size_t j = 0; j < json_array_size(b); j++)
            found = found || json_equal(json_array_get(a, i), json_array_get(b, j));
        if (!found)
            return false;
    }
    return true;
}

/* Reads a golden's config and writes it: every key has the value that PEFT wrote. */
static void rewrite_golden(const char *name) {
    char folder[256], path[256];
    snprintf(folder, sizeof folder, "golden/%s", name);
    snprintf(path, sizeof path, "golden/%s/adapter_config.json", name);
    adapter_config config;
    strbuf text = {0};
    size_t n;
    assert_ok(adapter_config_read(&config, test_data(folder), NULL, &test_error));
    assert_ok(adapter_config_write(&text, &config, config.base_model, &test_error));
    char *expected_text = read_file(test_data(path), &n);
    json_t *expected, *got;
    assert_ok(json_parse(&expected, expected_text, n, path, &test_error));
    assert_ok(json_parse(&got, text.data, text.length, name, &test_error));
    assert_int_equal(json_object_size(got), json_object_size(expected));
    const char *key;
    json_t *value;
    json_object_foreach(expected, key, value) {
        const json_t *ours = json_object_get(got, key);
        if (!json_equal(value, ours) && !(json_is_array(value) && same_names(value, ours)))
            fail_msg("%s: %s differs: %s", name, key, strbuf_text(&text));
    }
    /* target_modules is a set in PEFT, whose order means nothing: everything else is equal to the
     * byte. */
    if (json_array_size(json_object_get(expected, "target_modules")) == 1)
        assert_string_equal(strbuf_text(&text), expected_text);
    json_decref(expected);
    json_decref(got);
    free(expected_text);
    strbuf_free(&text);
    adapter_config_free(&config);
}

static void configs_of_goldens_are_written_as_peft_wrote_them(void **state) {
    (void)state;
    static const char *const names[] = {
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
        "lora_embedding_tied",
        "lora_pissa_converted",
        "lora_pissa_rslora_converted",
        "lora_olora_converted",
        "lora_accumulate",
        "lora_weighted_lr",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        rewrite_golden(names[i]);
}

/* The first match counts, so that sorting the patterns as PEFT does would change what they mean. */
static void patterns_keep_their_order(void **state) {
    (void)state;
    adapter_config config;
    strbuf text = {0};
    assert_ok(read_text(&config, "{\"peft_type\": \"LORA\", \"rank_pattern\": "
                                 "{\"v_proj\": 3, \"layers.1.*\": 2}}"));
    assert_ok(adapter_config_write(&text, &config, NULL, &test_error));
    const char *first = strstr(strbuf_text(&text), "v_proj");
    assert_true(first && first < strstr(strbuf_text(&text), "layers.1"));
    strbuf_free(&text);
    adapter_config_free(&config);
}

/* ---- Every config there is ---- */

/* Read, or refused by name. */
static bool read_or_refused(const char *path) {
    adapter_config config;
    graft_status status = adapter_config_read(&config, path, NULL, &test_error);
    if (status == GRAFT_OK) {
        adapter_config_free(&config);
        return true;
    }
    if (status != GRAFT_E_UNSUPPORTED || !strstr(test_error.message, "not supported"))
        fail_msg("%s: status %d: %s", path, status, test_error.message);
    return false;
}

static void real_configs_are_read_or_refused_by_name(void **state) {
    (void)state;
    const char *folder = test_data("adapter-configs");
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    size_t seen = 0, read = 0;
    for (struct dirent *entry; (entry = readdir(listing));) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        read += read_or_refused(path);
        seen++;
    }
    closedir(listing);
    assert_int_equal(seen, 103);
    assert_true(read >= 9);
}

static void goldens_are_read_or_refused_by_name(void **state) {
    (void)state;
    char path[4096];
    const char *folder = test_data("golden");
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    size_t read = 0;
    for (struct dirent *entry; (entry = readdir(listing));) {
        snprintf(path, sizeof path, "%s/%s/adapter_config.json", folder, entry->d_name);
        if (entry->d_name[0] != '.' && path_exists(path))
            read += read_or_refused(path);
    }
    closedir(listing);
    assert_true(read >= 26);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_left_out_have_peft_defaults),
        cmocka_unit_test(every_field_is_read),
        cmocka_unit_test(adapter_config_of_another_peft_type),
        cmocka_unit_test(adapter_rank_out_of_range),
        cmocka_unit_test(adapter_alpha_not_finite),
        cmocka_unit_test(adapter_fields_of_the_wrong_type),
        cmocka_unit_test(adapter_config_that_asks_for_what_is_lacking),
        cmocka_unit_test(adapter_keys_that_ask_for_nothing),
        cmocka_unit_test(adapter_config_missing),
        cmocka_unit_test(adapter_config_with_too_many_names),
        cmocka_unit_test(unknown_method_is_refused_with_the_known),
        cmocka_unit_test(configs_of_goldens_are_written_as_peft_wrote_them),
        cmocka_unit_test(patterns_keep_their_order),
        cmocka_unit_test(real_configs_are_read_or_refused_by_name),
        cmocka_unit_test(goldens_are_read_or_refused_by_name),
    };
    return cmocka_run_group_tests_name("adapter_config", tests, NULL, NULL);
}
