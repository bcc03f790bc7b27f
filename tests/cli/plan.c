/* plan says beforehand, to the byte, what a run will take. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct planned_case {
    const char *name;
    const char *options[10]; /* of both verbs */
} planned_case;

static const planned_case cases[] = {
    {"plan_of_lora", {"--per-device-train-batch-size", "2"}},
    {"plan_of_lora_on_every_layer",
     {"-r", "16", "--target-modules", "all-linear", "--bias", "all"}},
    {"plan_of_full_fine_tuning", {"--method", "full", "--gradient-accumulation-steps", "2"}},
    {"plan_with_checkpointing", {"--gradient-checkpointing", "on", "--no-packing"}},
    {"plan_with_a_memory_limit", {"--memory-limit", "8M", "--target-modules", "all-linear"}},
    {"plan_on_one_thread", {"--threads", "1", "--modules-to-save", "lm_head"}},
};

/* VERB, common options, the case's, --json and what only train has. */
static json_t *run(const char *verb, const planned_case *c, const char *model, const char *rows,
                   const char *output) {
    const char *arguments[32] = {verb, "--model",     model, "--data",
                                 rows, "--eval-data", rows,  "--json"};
    size_t n = 8;
    for (size_t i = 0; i < 10 && c->options[i]; i++)
        arguments[n++] = c->options[i];
    if (output) {
        arguments[n++] = "--output-dir";
        arguments[n++] = output;
        arguments[n++] = "--max-steps";
        arguments[n++] = "1";
    }
    return cli_json(arguments);
}

static void plan_equals_the_run(void **state) {
    const planned_case *c = *state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path(c->name);
    json_t *plan = run("plan", c, model, rows, NULL),
           *result = run("train", c, model, rows, output);
    const json_t *bytes = cli_member(plan, "bytes");
    assert_int_equal((long)cli_number(bytes, "total"),
                     (long)cli_number(result, "planned_memory_bytes"));
    assert_int_equal((long)cli_number(plan, "trained_parameters"),
                     (long)cli_number(result, "trained_parameters"));
    double sum = cli_number(bytes, "weights_mapped") + cli_number(bytes, "weights_uploaded") +
                 cli_number(bytes, "host") + cli_number(bytes, "backend_workspace");
    const char *key;
    json_t *part;
    json_object_foreach((json_t *)cli_member(bytes, "trainer"), key, part) sum +=
        json_number_value(part);
    json_object_foreach((json_t *)cli_member(bytes, "step"), key, part) sum +=
        json_number_value(part);
    assert_true(sum == cli_number(bytes, "total"));
    assert_true(json_is_true(cli_member(plan, "fits")));
    json_decref(plan);
    json_decref(result);
    free(output);
    free(rows);
    free(model);
}

/* "Will it fit" has an answer either way; train refuses to begin. */
static void plan_that_does_not_fit(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("never");
    json_t *plan =
        cli_json(ARGS("plan", "--model", model, "--data", rows, "--memory-limit", "1M", "--json"));
    assert_true(json_is_false(cli_member(plan, "fits")));
    assert_true(cli_number(cli_member(plan, "bytes"), "total") >
                cli_number(plan, "memory_limit_bytes"));
    json_decref(plan);
    cli_result text =
        cli_ok(ARGS("plan", "--model", model, "--data", rows, "--memory-limit", "1M"));
    assert_non_null(strstr(strbuf_text(&text.out), "It does not fit"));
    assert_non_null(strstr(strbuf_text(&text.out), "No change of batch"));
    cli_free(&text);
    cli_result train = cli_run(NULL, ARGS("train", "--model", model, "--data", rows,
                                          "--memory-limit", "1M", "--output-dir", output));
    assert_int_equal(train.status, 1);
    assert_non_null(strstr(strbuf_text(&train.err), "memory_limit"));
    assert_false(path_exists(output));
    cli_free(&train);
    free(output);
    free(rows);
    free(model);
}

/* A limit just below what it takes: what the plan advises is true when it is done. */
static void advice_is_true(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), limit[32], length[16];
    json_t *plan =
        cli_json(ARGS("plan", "--model", model, "--data", rows, "--gradient-checkpointing", "off",
                      "--batch-size", "1", "--target-modules", "all-linear", "--json"));
    snprintf(limit, sizeof limit, "%.0f", cli_number(cli_member(plan, "bytes"), "total") - 4096);
    json_t *tight = cli_json(ARGS(
        "plan", "--model", model, "--data", rows, "--gradient-checkpointing", "off", "--batch-size",
        "1", "--target-modules", "all-linear", "--memory-limit", limit, "--json"));
    const json_t *advice = cli_member(tight, "advice");
    const char *shorter = NULL;
    assert_true(json_is_false(cli_member(tight, "fits")));
    for (size_t i = 0; i < json_array_size(advice); i++) {
        const char *change =
            json_string_value(json_object_get(json_array_get(advice, i), "change"));
        if (!strncmp(change, "--max-length ", 13))
            shorter = change + 13;
    }
    assert_non_null(shorter);
    snprintf(length, sizeof length, "%s", shorter);
    json_t *changed =
        cli_json(ARGS("plan", "--model", model, "--data", rows, "--gradient-checkpointing", "off",
                      "--batch-size", "1", "--target-modules", "all-linear", "--memory-limit",
                      limit, "--max-length", length, "--json"));
    assert_true(json_is_true(cli_member(changed, "fits")));
    json_decref(plan);
    json_decref(tight);
    json_decref(changed);
    free(rows);
    free(model);
}

/* All that train takes, plan takes; and it tells work and time. */
static void plan_tells_work_and_time(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    json_t *plan = cli_json(ARGS("plan", "--model", model, "--data", rows, "--output-dir", "none",
                                 "--learning-rate", "1e-3", "--max-steps", "7", "--json"));
    const json_t *flops = cli_member(plan, "flops"), *time = cli_member(plan, "time");
    double forward = cli_number(cli_member(flops, "forward"), "step"),
           backward = cli_number(cli_member(flops, "backward"), "step");
    assert_true(forward > 0 && backward > 0);
    assert_true(cli_number(cli_member(flops, "recompute"), "step") == 0);
    assert_true(cli_number(flops, "step") == forward + backward);
    assert_true(cli_number(time, "step_seconds") > 0);
    assert_true(cli_number(time, "steps") == 7);
    assert_false(path_exists("none"));
    json_decref(plan);
    free(rows);
    free(model);
}

/* A config is enough: nobody downloads a model to learn that it does not fit. */
static void plan_needs_no_weights(void **state) {
    (void)state;
    static const char config[] = "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": "
                                 "\"llama\", \"hidden_size\": 8192, \"intermediate_size\": "
                                 "28672, \"num_hidden_layers\": 80, \"num_attention_heads\": 64, "
                                 "\"num_key_value_heads\": 8, \"vocab_size\": 128256, "
                                 "\"max_position_embeddings\": 8192, \"rms_norm_eps\": 1e-05, "
                                 "\"rope_theta\": 500000.0, \"tie_word_embeddings\": false, "
                                 "\"torch_dtype\": \"bfloat16\"}";
    test_file("config.json", config, sizeof config - 1);
    json_t *plan =
        cli_json(ARGS("plan", "--model", test_folder(), "--json", "--memory-limit", "1T"));
    assert_true(cli_number(plan, "parameters") == 70553706496.0);
    assert_true(cli_number(cli_member(plan, "bytes"), "weights_mapped") == 2 * 70553706496.0);
    json_decref(plan);
    char *file = path_join(test_folder(), "config.json");
    plan = cli_json(ARGS("plan", "--model-config", file, "--json", "--memory-limit", "1T"));
    assert_true(cli_number(plan, "parameters") == 70553706496.0);
    /* Two operations for each weight but the embedding's, and a few for adapters and attention. */
    double token = cli_number(cli_member(cli_member(plan, "flops"), "forward"), "token");
    assert_true(token > 2 * 69.5e9 && token < 2 * 71e9);
    json_decref(plan);
    cli_result refused =
        cli_run(NULL, ARGS("plan", "--model-config", file, "--data", "rows.jsonl"));
    assert_int_equal(refused.status, 2);
    assert_non_null(strstr(strbuf_text(&refused.err), "tokenizer"));
    cli_free(&refused);
    free(file);
}

int main(void) {
    enum { N = sizeof cases / sizeof *cases };
    struct CMUnitTest tests[N + 4];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){.name = cases[i].name,
                                       .test_func = plan_equals_the_run,
                                       .initial_state = (void *)&cases[i]};
    tests[N] = (struct CMUnitTest)cmocka_unit_test(plan_that_does_not_fit);
    tests[N + 1] = (struct CMUnitTest)cmocka_unit_test(plan_needs_no_weights);
    tests[N + 2] = (struct CMUnitTest)cmocka_unit_test(plan_tells_work_and_time);
    tests[N + 3] = (struct CMUnitTest)cmocka_unit_test(advice_is_true);
    return _cmocka_run_group_tests("plan", tests, N + 4, NULL, NULL);
}
