/* Matching of names, against what PEFT does with the same configs
 * (fixtures/adapter/make_targets.py). */
#include "tests/unit/adapter/adapter_support.h"

#include "adapter/lora.h"
#include "adapter/pattern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_shape(const json_t *keys, const char *key, int rank, const int64_t *shape,
                         const char *name) {
    const json_t *expected = json_object_get(keys, key);
    if (!expected)
        fail_msg("%s: %s is not among PEFT's keys", name, key);
    assert_int_equal(json_array_size(expected), rank);
    for (int d = 0; d < rank; d++)
        if (json_integer_value(json_array_get(expected, (size_t)d)) != shape[d])
            fail_msg("%s: %s: dimension %d is %lld", name, key, d, (long long)shape[d]);
}

static void assert_keys(const adapter *a, const json_t *keys, const char *name) {
    size_t written = a->n_tensors;
    for (size_t i = 0; i < a->n_tensors; i++)
        assert_shape(keys, a->tensors[i].key, a->tensors[i].rank, a->tensors[i].shape, name);
    for (size_t i = 0; i < a->n_copies; i++) {
        if (a->copies[i].is_written)
            assert_shape(keys, a->copies[i].key, 2, a->copies[i].shape, name);
        written += a->copies[i].is_written;
    }
    if (written != json_object_size(keys))
        fail_msg("%s: %zu keys instead of %zu", name, written, json_object_size(keys));
}

static void assert_scales(const adapter *a, const json_t *scales, const char *name) {
    const lora_state *lora = lora_state_of(a);
    if (lora->n_layers != json_object_size(scales))
        fail_msg("%s: %zu LoRAs instead of %zu", name, lora->n_layers, json_object_size(scales));
    for (size_t i = 0; i < lora->n_layers; i++) {
        const char *module = a->modules[lora->layers[i].module].name;
        const json_t *expected = json_object_get(scales, module);
        if (!expected)
            fail_msg("%s: %s has no LoRA in PEFT", name, module);
        test_assert_near(lora->layers[i].scale, json_number_value(expected), 0, 1e-6, module);
    }
}

static bool list_has(const text_list *list, const char *name) {
    for (size_t i = 0; i < list->n; i++)
        if (!strcmp(list->items[i], name))
            return true;
    return false;
}

static void assert_targets(const adapter_config *config, const json_t *targets, const char *name) {
    if (json_is_string(targets)) {
        assert_string_equal(config->target_regex, json_string_value(targets));
        return;
    }
    if (config->target_modules.n != json_array_size(targets))
        fail_msg("%s: %zu targets instead of %zu", name, config->target_modules.n,
                 json_array_size(targets));
    for (size_t i = 0; i < json_array_size(targets); i++)
        if (!list_has(&config->target_modules, json_string_value(json_array_get(targets, i))))
            fail_msg("%s: lacks target %s", name, json_string_value(json_array_get(targets, i)));
}

/* The case's config as a file, with what PEFT itself adds. */
static const char *config_file(const json_t *config) {
    json_t *whole = json_deep_copy(config);
    json_object_set_new(whole, "peft_type", json_string("LORA"));
    char *text = json_dumps(whole, 0);
    const char *path = test_file("adapter_config.json", text, strlen(text));
    free(text);
    json_decref(whole);
    return path;
}

static void run_case(const json_t *models, const json_t *one) {
    const char *name = json_string_value(json_object_get(one, "name"));
    const char *model = json_string_value(json_object_get(one, "model"));
    bool refused = json_object_get(one, "error") || json_object_get(one, "stricter");
    bench b;
    bench_open_spec(&b, json_object_get(models, model));
    graft_status status = bench_create_from(&b, config_file(json_object_get(one, "config")));
    if (refused) {
        if (status != GRAFT_E_INPUT && status != GRAFT_E_UNSUPPORTED)
            fail_msg("%s: status %d, PEFT refuses it", name, status);
    } else if (status != GRAFT_OK) {
        fail_msg("%s: %s", name, test_error.message);
    } else {
        assert_keys(b.adapter, json_object_get(one, "keys"), name);
        assert_scales(b.adapter, json_object_get(one, "scales"), name);
        assert_targets(&b.adapter->config, json_object_get(one, "target_modules"), name);
        if (adapter_trained_count(b.adapter) != json_integer_value(json_object_get(one, "trained")))
            fail_msg("%s: %lld trained parameters", name,
                     (long long)adapter_trained_count(b.adapter));
    }
    bench_close(&b);
}

static void matching_equals_peft(void **state) {
    (void)state;
    json_t *document = NULL;
    assert_ok(
        json_read_file(&document, test_fixture("adapter/targets.json"), 1 << 24, &test_error));
    const json_t *cases = json_object_get(document, "cases");
    assert_true(json_array_size(cases) > 80);
    for (size_t i = 0; i < json_array_size(cases); i++)
        run_case(json_object_get(document, "models"), json_array_get(cases, i));
    json_decref(document);
}

/* ---- Messages ---- */

static const char llama[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 24, \"hidden_size\": 8, \"intermediate_size\": "
    "12, "
    "\"num_hidden_layers\": 3, \"num_attention_heads\": 2, \"tie_word_embeddings\": true}";

static graft_status create(bench *b, const char *config) {
    json_t *model = json_loads(llama, 0, NULL);
    bench_open_spec(b, model);
    json_decref(model);
    return bench_create_from(b, test_file("adapter_config.json", config, strlen(config)));
}

static void assert_config_refused(const char *config, graft_status expected, const char *text) {
    bench b;
    assert_refused(create(&b, config), expected, text);
    bench_close(&b);
}

static void adapter_targets_that_match_nothing(void **state) {
    (void)state;
    assert_config_refused("{\"peft_type\": \"LORA\", \"target_modules\": [\"query\"]}",
                          GRAFT_E_INPUT, "\"query\" matches no module");
    assert_config_refused("{\"peft_type\": \"LORA\", \"target_modules\": \"q_proj\"}",
                          GRAFT_E_INPUT, "must match the whole name");
    assert_config_refused("{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], "
                          "\"exclude_modules\": [\"q_proj\"]}",
                          GRAFT_E_INPUT, "is excluded");
}

static void adapter_targets_of_the_wrong_kind(void **state) {
    (void)state;
    assert_config_refused("{\"peft_type\": \"LORA\", \"target_modules\": [\"mlp\"]}", GRAFT_E_INPUT,
                          "model.layers.0.mlp, which is neither");
    assert_config_refused("{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\", \"norm\"]}",
                          GRAFT_E_INPUT, "model.norm, which is neither");
}

static void adapter_layers_to_transform_out_of_range(void **state) {
    (void)state;
    assert_config_refused("{\"peft_type\": \"LORA\", \"layers_to_transform\": [0, 3]}",
                          GRAFT_E_INPUT, "layer 3 is not there: the model has layers 0 to 2");
    assert_config_refused("{\"peft_type\": \"LORA\", \"layers_to_transform\": [-1]}", GRAFT_E_INPUT,
                          "layers_to_transform");
    assert_config_refused("{\"peft_type\": \"LORA\", \"layers_to_transform\": [1000000000000]}",
                          GRAFT_E_INPUT, "found 1000000000000");
}

static void adapter_modules_to_save_unknown(void **state) {
    (void)state;
    assert_config_refused("{\"peft_type\": \"LORA\", \"modules_to_save\": [\"score\"]}",
                          GRAFT_E_INPUT,
                          "modules_to_save: \"score\" is the end of no module's name");
}

static void adapter_modules_to_save_that_are_targets(void **state) {
    (void)state;
    assert_config_refused("{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], "
                          "\"modules_to_save\": [\"_proj\"]}",
                          GRAFT_E_INPUT, "in target_modules and");
}

static void adapter_regex_bad_in_every_place(void **state) {
    (void)state;
    assert_config_refused("{\"peft_type\": \"LORA\", \"target_modules\": \".*(q\"}", GRAFT_E_INPUT,
                          "target_modules: \".*(q\" is not a regular expression");
    assert_config_refused("{\"peft_type\": \"LORA\", \"rank_pattern\": {\"*\": 3}}", GRAFT_E_INPUT,
                          "rank_pattern: \"*\" is not a regular expression");
    assert_config_refused("{\"peft_type\": \"LORA\", \"alpha_pattern\": {\"[\": 3}}", GRAFT_E_INPUT,
                          "alpha_pattern: \"[\" is not a regular expression");
    assert_config_refused("{\"peft_type\": \"LORA\", \"modules_to_save\": [\"norm(\"]}",
                          GRAFT_E_INPUT, "modules_to_save: \"norm(\" is not a regular expression");
    assert_config_refused("{\"peft_type\": \"LORA\", \"exclude_modules\": \"(\"}", GRAFT_E_INPUT,
                          "exclude_modules: \"(\" is not a regular expression");
    assert_config_refused("{\"peft_type\": \"LORA\", \"layers_to_transform\": [1], "
                          "\"layers_pattern\": \"(\"}",
                          GRAFT_E_INPUT, "layers_pattern: \"(\" is not a regular expression");
}

static void adapter_regex_that_backtracks_without_end(void **state) {
    (void)state;
    assert_config_refused(
        "{\"peft_type\": \"LORA\", \"target_modules\": \"(([a-z._0-9]+)+)+[!?]\"}", GRAFT_E_INPUT,
        "takes too long to match");
}

static void adapter_regex_that_python_reads_otherwise(void **state) {
    (void)state;
    static const char *const foreign[][2] = {
        {".{,9}q_proj", "write it so"},
        {".*q_proj\\Z", "backslash sequence"},
        {"\\Q.\\E*q_proj", "backslash sequence"},
        {"[[:alpha:]]+q_proj", "POSIX class"},
        {"(*LIMIT_MATCH=9).*q_proj", "kind of group"},
        {"((?R)q)*", "kind of group"},
        {"(?<name>q_proj)", "kind of group"},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        pattern *p;
        assert_refused(pattern_create(&p, foreign[i][0], PATTERN_END, "rank_pattern", &test_error),
                       GRAFT_E_INPUT, foreign[i][1]);
    }
    static const char *const shared[] = {
        "(?P<kind>q|v)_proj(?P=kind)?", "(?i:Q)_proj", "(?<!x)q_proj", "[^\\w\\s]q", "(?>a+)b",
    };
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        pattern *p;
        assert_ok(pattern_create(&p, shared[i], PATTERN_END, "rank_pattern", &test_error));
        pattern_destroy(&p);
    }
}

static void adapter_regex_longer_than_the_limit(void **state) {
    (void)state;
    char text[ADAPTER_PATTERN_MAX + 2];
    pattern *p;
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 0;
    assert_refused(pattern_create(&p, text, PATTERN_WHOLE, "target_modules", &test_error),
                   GRAFT_E_INPUT, "longer than");
    assert_null(p);
}

static void tied_weights_are_spoken_of(void **state) {
    (void)state;
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"embed_tokens\"]}",
         "unties them: model.embed_tokens changes, the other keeps the base's weight. PEFT does "
         "the "
         "same"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"embed_tokens\"]}",
         "the adapter file will also hold the base's model.embed_tokens.weight"},
        {"{\"peft_type\": \"LORA\", \"modules_to_save\": [\"lm_head\"]}",
         "unties them: lm_head changes"},
        {"{\"peft_type\": \"LORA\", \"modules_to_save\": [\"lm_head\", \"embed_tokens\"]}",
         "model.embed_tokens and lm_head changes, each on its own"},
        {"{\"peft_type\": \"LORA\", \"modules_to_save\": [\"lm_head\"], "
         "\"ensure_weight_tying\": true}",
         "one weight trains for both"},
        {"{\"peft_type\": \"LORA\", \"ensure_weight_tying\": true}", "it has no effect"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench b;
        assert_ok(create(&b, cases[i].config));
        if (!strstr(b.messages, cases[i].message))
            fail_msg("%s: said \"%s\"", cases[i].config, b.messages);
        bench_close(&b);
    }
    assert_config_refused("{\"peft_type\": \"LORA\", \"target_modules\": [\"lm_head\"], "
                          "\"ensure_weight_tying\": true}",
                          GRAFT_E_UNSUPPORTED, "ensure_weight_tying with LoRA on lm_head");
}

static void patterns_without_effect_are_spoken_of(void **state) {
    (void)state;
    bench b;
    assert_ok(create(&b, "{\"peft_type\": \"LORA\", \"rank_pattern\": {\"down_proj\": 3}, "
                         "\"exclude_modules\": [\"o_proj\"]}"));
    assert_non_null(strstr(b.messages, "rank_pattern: \"down_proj\""));
    assert_non_null(strstr(b.messages, "exclude_modules keeps out no module"));
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matching_equals_peft),
        cmocka_unit_test(adapter_targets_that_match_nothing),
        cmocka_unit_test(adapter_targets_of_the_wrong_kind),
        cmocka_unit_test(adapter_layers_to_transform_out_of_range),
        cmocka_unit_test(adapter_modules_to_save_unknown),
        cmocka_unit_test(adapter_modules_to_save_that_are_targets),
        cmocka_unit_test(adapter_regex_bad_in_every_place),
        cmocka_unit_test(adapter_regex_that_backtracks_without_end),
        cmocka_unit_test(adapter_regex_that_python_reads_otherwise),
        cmocka_unit_test(adapter_regex_longer_than_the_limit),
        cmocka_unit_test(tied_weights_are_spoken_of),
        cmocka_unit_test(patterns_without_effect_are_spoken_of),
    };
    return cmocka_run_group_tests_name("adapter_targets", tests, NULL, NULL);
}
