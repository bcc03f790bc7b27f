/* config.json: what it means, and what is refused. */
#include "tests/support/support.h"

#include "model/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_messages;
static char last_message[1024];

static void keep_message(void *context, message_level level, const char *text) {
    (void)context;
    (void)level;
    n_messages++;
    snprintf(last_message, sizeof last_message, "%s", text);
}

static const message_sink sink = {.emit = keep_message};

static graft_status parse(model_spec *spec, const char *text) {
    json_t *config = NULL;
    graft_status status = json_parse(&config, text, strlen(text), "config.json", &test_error);
    n_messages = 0;
    if (status == GRAFT_OK)
        status = model_spec_parse(spec, config, "config.json", &sink, &test_error);
    json_decref(config);
    return status;
}

static void read_config(model_spec *spec, const char *text) {
    graft_status status = parse(spec, text);
    if (status != GRAFT_OK)
        fail_msg("%s: %s", text, test_error.message);
}

static void refuse(const char *text, graft_status expected, const char *message) {
    model_spec spec;
    graft_status status = parse(&spec, text);
    assert_refused(status, expected, message);
    assert_non_null(strstr(test_error.message, "config.json"));
}

#define LLAMA "\"model_type\": \"llama\", \"hidden_size\": 64, \"num_attention_heads\": 4"

/* ---- Left-out keys ---- */

static void left_out_keys_mean_the_class_defaults(void **state) {
    (void)state;
    model_spec spec;
    read_config(&spec, "{\"model_type\": \"llama\", \"hidden_size\": 4096}");
    assert_int_equal(spec.vocab, 32000);
    assert_int_equal(spec.intermediate, 11008);
    assert_int_equal(spec.n_layers, 32);
    assert_int_equal(spec.n_kv_heads, 32);
    assert_int_equal(spec.head_dim, 128);
    assert_int_equal(spec.max_positions, 2048);
    assert_int_equal(spec.bos_id, 1);
    assert_int_equal(spec.pad_id, -1);
    assert_int_equal(spec.n_eos, 1);
    assert_int_equal(spec.eos_ids[0], 2);
    assert_false(spec.is_head_tied);
    test_assert_near((double)spec.norm_eps, 1e-6, 0, 1e-6, "rms_norm_eps");
    test_assert_near(spec.rope.theta, 10000, 0, 0, "rope_theta");
    model_spec_free(&spec);

    read_config(&spec, "{\"model_type\": \"mistral\", \"hidden_size\": 4096}");
    assert_int_equal(spec.n_kv_heads, 8);
    assert_int_equal(spec.window, 4096);
    assert_int_equal(spec.layer_slides[0] + spec.layer_slides[31], 2);
    model_spec_free(&spec);

    read_config(&spec, "{\"model_type\": \"qwen2\", \"hidden_size\": 4096}");
    assert_int_equal(spec.vocab, 151936);
    assert_int_equal(spec.n_kv_heads, 32);
    assert_int_equal(spec.n_eos, 0);
    assert_int_equal(spec.bos_id, -1);
    assert_int_equal(spec.window, 0);
    assert_true(spec.has_bias[LINEAR_Q] && spec.has_bias[LINEAR_V] && !spec.has_bias[LINEAR_O]);
    model_spec_free(&spec);

    read_config(&spec, "{\"model_type\": \"qwen3\", \"hidden_size\": 1024}");
    assert_int_equal(spec.head_dim, 128);
    assert_true(spec.has_norm[NORM_Q]);
    model_spec_free(&spec);
}

static void null_is_not_left_out(void **state) {
    (void)state;
    model_spec spec;
    read_config(&spec,
                "{\"model_type\": \"mistral\", \"hidden_size\": 64, \"num_attention_heads\": 4,"
                " \"num_key_value_heads\": null, \"sliding_window\": null,"
                " \"bos_token_id\": null, \"eos_token_id\": null}");
    assert_int_equal(spec.n_kv_heads, 4);
    assert_int_equal(spec.window, 0);
    assert_int_equal(spec.bos_id, -1);
    assert_int_equal(spec.n_eos, 0);
    model_spec_free(&spec);
}

static void eos_may_be_a_list(void **state) {
    (void)state;
    model_spec spec;
    read_config(&spec, "{" LLAMA ", \"eos_token_id\": [128001, 128008, 128009]}");
    assert_int_equal(spec.n_eos, 3);
    assert_int_equal(spec.eos_ids[2], 128009);
    model_spec_free(&spec);
    refuse("{" LLAMA ", \"eos_token_id\": [1, \"2\"]}", GRAFT_E_INPUT, "eos_token_id");
    refuse("{" LLAMA ", \"eos_token_id\": [1,2,3,4,5,6,7,8,9]}", GRAFT_E_INPUT, "at most 8");
}

/* ---- Sliding windows ---- */

static void qwen2_layers_slide_from_max_window_layers_on(void **state) {
    (void)state;
    model_spec spec;
    read_config(&spec,
                "{\"model_type\": \"qwen2\", \"hidden_size\": 64, \"num_attention_heads\": 4,"
                " \"num_key_value_heads\": 4, \"num_hidden_layers\": 3,"
                " \"use_sliding_window\": true, \"sliding_window\": 7, \"max_window_layers\": 2}");
    assert_int_equal(spec.window, 7);
    assert_int_equal(spec.layer_slides[1], 0);
    assert_int_equal(spec.layer_slides[2], 1);
    model_spec_free(&spec);
}

static void layer_types_that_do_not_fit(void **state) {
    (void)state;
#define QWEN                                                                                       \
    "\"model_type\": \"qwen2\", \"hidden_size\": 64, \"num_attention_heads\": 4,"                  \
    " \"num_key_value_heads\": 4, \"num_hidden_layers\": 2"
    refuse("{" QWEN ", \"layer_types\": [\"full_attention\"]}", GRAFT_E_INPUT, "layer_types");
    refuse("{" QWEN ", \"layer_types\": \"full_attention\"}", GRAFT_E_INPUT, "layer_types");
    refuse("{" QWEN ", \"layer_types\": [\"full_attention\", \"linear_attention\"]}",
           GRAFT_E_UNSUPPORTED, "linear_attention");
    refuse("{" QWEN ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}",
           GRAFT_E_INPUT, "use_sliding_window");
    refuse("{" QWEN ", \"use_sliding_window\": true, \"sliding_window\": 0}", GRAFT_E_INPUT,
           "sliding_window");
}

/* ---- Rotary embedding ---- */

static void rope_of_transformers_4_and_5(void **state) {
    (void)state;
    model_spec spec;
    read_config(&spec,
                "{" LLAMA
                ", \"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}");
    assert_int_equal(spec.rope.kind, ROPE_LINEAR);
    test_assert_near(spec.rope.theta, 5e5, 0, 0, "theta");
    model_spec_free(&spec);
    read_config(&spec, "{" LLAMA
                       ", \"rope_scaling\": {}, \"rope_parameters\": {\"rope_type\": \"default\","
                       " \"rope_theta\": 7.0}}");
    assert_int_equal(spec.rope.kind, ROPE_DEFAULT);
    test_assert_near(spec.rope.theta, 7, 0, 0, "theta");
    model_spec_free(&spec);
}

static void yarn_attention_factor(void **state) {
    (void)state;
    model_spec spec;
#define YARN "\"rope_type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 32"
    read_config(&spec, "{" LLAMA ", \"rope_parameters\": {" YARN "}}");
    test_assert_near(spec.rope.attention_factor, 0.1 * 1.3862943611198906 + 1, 1e-12, 0,
                     "inferred");
    assert_true(spec.rope.truncate);
    model_spec_free(&spec);
    read_config(&spec, "{" LLAMA ", \"rope_parameters\": {" YARN
                       ", \"mscale\": 0.707, \"mscale_all_dim\": 1.0}}");
    test_assert_near(spec.rope.attention_factor,
                     (0.0707 * 1.3862943611198906 + 1) / (0.1 * 1.3862943611198906 + 1), 1e-12, 0,
                     "ratio");
    model_spec_free(&spec);
    read_config(&spec, "{" LLAMA ", \"rope_parameters\": {" YARN ", \"mscale\": 0.707}}");
    test_assert_near(spec.rope.attention_factor, 0.1 * 1.3862943611198906 + 1, 1e-12, 0,
                     "mscale alone");
    model_spec_free(&spec);
    read_config(
        &spec,
        "{" LLAMA
        ", \"max_position_embeddings\": 96, \"rope_parameters\": {\"rope_type\": \"yarn\","
        " \"factor\": null, \"original_max_position_embeddings\": 32, \"attention_factor\": 1.5}}");
    test_assert_near(spec.rope.factor, 3, 0, 0, "factor from the lengths");
    test_assert_near(spec.rope.attention_factor, 1.5, 0, 0, "given");
    model_spec_free(&spec);
}

static void rope_theta_zero_or_nan_unknown_type_factor_zero(void **state) {
    (void)state;
    refuse("{" LLAMA ", \"rope_theta\": 0}", GRAFT_E_INPUT, "rope_theta");
    refuse("{" LLAMA ", \"rope_theta\": -1.0}", GRAFT_E_INPUT, "rope_theta");
    refuse("{" LLAMA ", \"rope_theta\": NaN}", GRAFT_E_INPUT, "rope_theta");
    refuse("{" LLAMA ", \"rope_theta\": 1e999}", GRAFT_E_INPUT, "");
    refuse("{" LLAMA ", \"rope_parameters\": {\"rope_theta\": NaN}}", GRAFT_E_INPUT, "rope_theta");
    refuse("{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"longrope\"}}", GRAFT_E_INPUT,
           "long_factor");
    refuse("{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"proportional\"}}", GRAFT_E_UNSUPPORTED,
           "proportional");
    refuse("{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 0}}",
           GRAFT_E_INPUT, "factor");
    refuse("{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"linear\"}}", GRAFT_E_INPUT, "factor");
    refuse("{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": \"2\"}}",
           GRAFT_E_INPUT, "factor");
    refuse("{" LLAMA ", \"rope_scaling\": [1]}", GRAFT_E_INPUT, "rope_scaling");
    refuse("{" LLAMA
           ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4,"
           " \"high_freq_factor\": 4}}",
           GRAFT_E_INPUT, "high_freq_factor");
    refuse("{" LLAMA ", \"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1e4}}}",
           GRAFT_E_UNSUPPORTED, "each kind of layer");
    refuse("{" LLAMA ", \"partial_rotary_factor\": 0.5}", GRAFT_E_UNSUPPORTED,
           "partial_rotary_factor");
    refuse("{" LLAMA
           ", \"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 4, \"beta_fast\": -1}}",
           GRAFT_E_INPUT, "beta_fast");
}

static void rope_keys_that_nobody_reads_are_told(void **state) {
    (void)state;
    model_spec spec;
    read_config(&spec,
                "{" LLAMA
                ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"finetuned\": true}}");
    assert_int_equal(n_messages, 1);
    assert_non_null(strstr(last_message, "finetuned"));
    model_spec_free(&spec);
}

/* ---- The rows of docs/bad-input.md ---- */

static void config_missing_hidden_size(void **state) {
    (void)state;
    refuse("{\"model_type\": \"llama\"}", GRAFT_E_INPUT, "hidden_size");
}

static void config_missing_empty_truncated_or_utf16(void **state) {
    (void)state;
    model_spec spec;
    static const struct {
        const char *bytes;
        size_t n;
    } files[] = {{"", 0}, {"{\"model_type\": \"lla", 19}, {"\xff\xfe{\0}\0", 6}};
    graft_status status = model_spec_read(&spec, test_folder(), NULL, &test_error);
    assert_refused(status, GRAFT_E_INPUT, "config.json");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        test_file("config.json", files[i].bytes, files[i].n);
        status = model_spec_read(&spec, test_folder(), NULL, &test_error);
        assert_refused(status, GRAFT_E_INPUT, "config.json");
    }
}

static void config_not_an_object(void **state) {
    (void)state;
    refuse("[]", GRAFT_E_INPUT, "expected an object");
}

static void config_unknown_model_type(void **state) {
    (void)state;
    refuse("{\"model_type\": \"t5\"}", GRAFT_E_UNSUPPORTED, "llama, mistral, qwen2, qwen3");
    refuse("{}", GRAFT_E_UNSUPPORTED, "llama, mistral, qwen2, qwen3");
    refuse("{\"model_type\": 7}", GRAFT_E_INPUT, "model_type");
}

static void config_with_auto_map_only(void **state) {
    (void)state;
    refuse("{\"auto_map\": {\"AutoModel\": \"modeling_x.X\"}}", GRAFT_E_UNSUPPORTED, "never runs");
    refuse("{\"model_type\": \"x\", \"auto_map\": {}}", GRAFT_E_UNSUPPORTED, "never runs");
}

static void config_heads_that_do_not_divide(void **state) {
    (void)state;
    refuse("{\"model_type\": \"llama\", \"hidden_size\": 64, \"num_attention_heads\": 0}",
           GRAFT_E_INPUT, "num_attention_heads");
    refuse("{\"model_type\": \"llama\", \"hidden_size\": 64, \"num_attention_heads\": 5}",
           GRAFT_E_INPUT, "not a multiple");
    refuse("{" LLAMA ", \"num_key_value_heads\": 3}", GRAFT_E_INPUT, "num_key_value_heads");
    refuse("{" LLAMA ", \"num_key_value_heads\": 0}", GRAFT_E_INPUT, "num_key_value_heads");
    refuse("{" LLAMA ", \"head_dim\": 7}", GRAFT_E_INPUT, "even");
}

static void config_sizes_out_of_range(void **state) {
    (void)state;
    refuse("{" LLAMA ", \"num_hidden_layers\": -1}", GRAFT_E_INPUT, "num_hidden_layers");
    refuse("{" LLAMA ", \"num_hidden_layers\": 0}", GRAFT_E_INPUT, "num_hidden_layers");
    refuse("{" LLAMA ", \"num_hidden_layers\": 2147483648}", GRAFT_E_INPUT, "num_hidden_layers");
    refuse("{" LLAMA ", \"vocab_size\": 1099511627776}", GRAFT_E_INPUT, "vocab_size");
    refuse("{" LLAMA ", \"intermediate_size\": null}", GRAFT_E_INPUT, "intermediate_size");
}

static void config_numbers_of_another_kind(void **state) {
    (void)state;
    refuse("{\"model_type\": \"llama\", \"hidden_size\": \"4096\"}", GRAFT_E_INPUT, "hidden_size");
    refuse("{" LLAMA ", \"num_hidden_layers\": 32.5}", GRAFT_E_INPUT, "32.5");
    refuse("{" LLAMA ", \"tie_word_embeddings\": 1}", GRAFT_E_INPUT, "tie_word_embeddings");
    refuse("{" LLAMA ", \"rms_norm_eps\": -1}", GRAFT_E_INPUT, "rms_norm_eps");
}

static void config_unknown_quantization_config(void **state) {
    (void)state;
    refuse("{" LLAMA ", \"quantization_config\": {\"quant_method\": \"gptq\"}}",
           GRAFT_E_UNSUPPORTED, "gptq");
    refuse("{" LLAMA ", \"compression_config\": {}}", GRAFT_E_UNSUPPORTED, "compression_config");
    model_spec spec;
    read_config(&spec, "{" LLAMA ", \"quantization_config\": null}");
    model_spec_free(&spec);
}

static void config_unknown_dtype(void **state) {
    (void)state;
    model_spec spec;
    refuse("{" LLAMA ", \"dtype\": \"float8_e4m3fn\"}", GRAFT_E_UNSUPPORTED, "float8_e4m3fn");
    refuse("{" LLAMA ", \"torch_dtype\": \"int4\"}", GRAFT_E_UNSUPPORTED, "torch_dtype");
    read_config(&spec, "{" LLAMA ", \"torch_dtype\": \"bfloat16\"}");
    assert_int_equal(spec.stored, DTYPE_BF16);
    model_spec_free(&spec);
}

static void config_that_would_change_a_number(void **state) {
    (void)state;
    model_spec spec;
    refuse("{" LLAMA ", \"hidden_act\": \"mish\"}", GRAFT_E_UNSUPPORTED, "mish");
    refuse("{" LLAMA ", \"is_causal\": false}", GRAFT_E_UNSUPPORTED, "causal");
    read_config(&spec, "{" LLAMA ", \"hidden_act\": \"swish\", \"attention_dropout\": 0.1}");
    assert_int_equal(n_messages, 1);
    assert_non_null(strstr(last_message, "attention_dropout"));
    model_spec_free(&spec);
}

static void config_harmless_oddities(void **state) {
    (void)state;
    model_spec spec;
    read_config(
        &spec, "\xef\xbb\xbf{" LLAMA ", \"num_hidden_layers\": 2.0, \"_name_or_path\": \"../../x\","
               " \"time_step_limit\": [0.0, Infinity], \"x\": {\"__float__\": \"Infinity\"}}");
    assert_int_equal(spec.n_layers, 2);
    model_spec_free(&spec);
}

/* ---- Modules ---- */

static void modules_stand_in_transformers_order(void **state) {
    (void)state;
    model_spec spec;
    model_module *modules;
    size_t n;
    read_config(&spec,
                "{\"model_type\": \"qwen3\", \"hidden_size\": 64, \"num_attention_heads\": 4,"
                " \"num_key_value_heads\": 2, \"head_dim\": 8, \"num_hidden_layers\": 2,"
                " \"intermediate_size\": 96, \"vocab_size\": 100, \"tie_word_embeddings\": true}");
    assert_ok(model_modules(&modules, &n, &spec, &test_error));
    assert_int_equal(n, 1 + 2 * 11 + 2);
    assert_string_equal(modules[0].name, "model.embed_tokens");
    assert_string_equal(modules[1].name, "model.layers.0.self_attn.q_proj");
    assert_string_equal(modules[5].name, "model.layers.0.self_attn.q_norm");
    assert_string_equal(modules[7].name, "model.layers.0.mlp.gate_proj");
    assert_string_equal(modules[10].name, "model.layers.0.input_layernorm");
    assert_string_equal(modules[12].name, "model.layers.1.self_attn.q_proj");
    assert_string_equal(modules[n - 1].name, "lm_head");
    assert_true(modules[n - 1].is_tied);
    assert_int_equal(modules[1].rows, 32);
    assert_int_equal(modules[2].rows, 16);
    int64_t elements = 0;
    for (size_t i = 0; i < n; i++)
        if (!modules[i].is_tied)
            elements += modules[i].rows * (modules[i].cols ? modules[i].cols : 1);
    assert_int_equal(elements, model_parameters(&spec));
    free(modules);
    model_spec_free(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(left_out_keys_mean_the_class_defaults),
        cmocka_unit_test(null_is_not_left_out),
        cmocka_unit_test(eos_may_be_a_list),
        cmocka_unit_test(qwen2_layers_slide_from_max_window_layers_on),
        cmocka_unit_test(layer_types_that_do_not_fit),
        cmocka_unit_test(rope_of_transformers_4_and_5),
        cmocka_unit_test(yarn_attention_factor),
        cmocka_unit_test(rope_theta_zero_or_nan_unknown_type_factor_zero),
        cmocka_unit_test(rope_keys_that_nobody_reads_are_told),
        cmocka_unit_test(config_missing_hidden_size),
        cmocka_unit_test(config_missing_empty_truncated_or_utf16),
        cmocka_unit_test(config_not_an_object),
        cmocka_unit_test(config_unknown_model_type),
        cmocka_unit_test(config_with_auto_map_only),
        cmocka_unit_test(config_heads_that_do_not_divide),
        cmocka_unit_test(config_sizes_out_of_range),
        cmocka_unit_test(config_numbers_of_another_kind),
        cmocka_unit_test(config_unknown_quantization_config),
        cmocka_unit_test(config_unknown_dtype),
        cmocka_unit_test(config_that_would_change_a_number),
        cmocka_unit_test(config_harmless_oddities),
        cmocka_unit_test(modules_stand_in_transformers_order),
    };
    return cmocka_run_group_tests_name("model_spec", tests, NULL, NULL);
}
