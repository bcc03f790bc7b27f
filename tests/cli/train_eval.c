/* A whole small fine-tune as a user does it: train, look, evaluate, generate, repeat. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *train_cats_and_dogs(const char *model, const char *rows, const char *output) {
    return cli_json(ARGS("train", "--model", model, "--data", rows, "--eval-data", rows,
                         "--output-dir", output, "--json", "--num-train-epochs", "8",
                         "--per-device-train-batch-size", "2", "--learning-rate", "5e-3",
                         "--target-modules", "all-linear", "--eval-steps", "4", "--save-steps",
                         "6"));
}

static void fine_tune_learns_and_leaves_its_files(void **state) {
    (void)state;
    static const char *const files[] = {"adapter_model.safetensors",
                                        "adapter_config.json",
                                        "README.md",
                                        "recipe.yaml",
                                        "metrics.jsonl",
                                        "report.html",
                                        "checkpoint-16",
                                        "checkpoint-12"};
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("files");
    json_t *result = train_cats_and_dogs(model, rows, output);
    assert_true(cli_number(result, "steps") == 16);
    assert_true(cli_number(result, "last_loss") < 0.3 * cli_number(result, "first_loss"));
    assert_true(cli_number(result, "eval_loss") < 1);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = path_join(output, files[i]);
        if (!path_exists(path))
            fail_msg("%s is not there", path);
        free(path);
    }
    json_decref(result);
    free(output);
    free(rows);
    free(model);
}

static void eval_agrees_with_the_last_evaluation(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("agrees");
    json_t *result = train_cats_and_dogs(model, rows, output);
    json_t *with =
        cli_json(ARGS("eval", "--model", model, "--adapter", output, "--data", rows, "--json"));
    json_t *without = cli_json(ARGS("eval", "--model", model, "--data", rows, "--json"));
    test_assert_near(cli_number(with, "loss"), cli_number(result, "eval_loss"), 0, 1e-6, "loss");
    test_assert_near(cli_number(with, "perplexity"), exp(cli_number(with, "loss")), 0, 1e-9,
                     "perplexity");
    assert_true(cli_number(without, "loss") > 2 * cli_number(with, "loss"));
    json_decref(result);
    json_decref(with);
    json_decref(without);
    cli_result said = cli_ok(ARGS("generate", "--model", model, "--adapter", output, "--prompt",
                                  "Tell me of a cat.", "--max-new-tokens", "14"));
    assert_string_equal(strbuf_text(&said.out), "The cat sat on the mat and was happy.\n");
    cli_free(&said);
    free(output);
    free(rows);
    free(model);
}

/* The profile of a result: its ops' seconds lie inside the whole, and the named op computed. */
static void assert_profile(const json_t *result, const char *op) {
    const json_t *profile = cli_member(result, "profile"), *ops = cli_member(profile, "ops");
    bool found = false;
    assert_true(json_array_size(ops) > 5);
    assert_true(cli_number(profile, "seconds_in_ops") > 0);
    assert_true(cli_number(profile, "seconds_in_ops") <= cli_number(profile, "seconds"));
    assert_true(cli_number(profile, "peak_gflops") > 0);
    for (size_t i = 0; i < json_array_size(ops); i++) {
        const json_t *one = json_array_get(ops, i);
        if (strcmp(json_string_value(cli_member(one, "op")), op) == 0)
            found = cli_number(one, "calls") > 0 && cli_number(one, "gflops") > 0 &&
                    cli_number(one, "of_peak") > 0;
    }
    assert_true(found);
}

/* Looking changes nothing; and without the option there is nothing to see. */
static void profile_tells_where_time_goes(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("profiled"),
         *plain = cli_path("unprofiled");
    json_t *with = cli_json(ARGS("train", "--model", model, "--data", rows, "--output-dir", output,
                                 "--max-steps", "2", "--profile", "--json"));
    json_t *without = cli_json(ARGS("train", "--model", model, "--data", rows, "--output-dir",
                                    plain, "--max-steps", "2", "--json"));
    assert_profile(with, "linear_bwd");
    assert_null(json_object_get(without, "profile"));
    cli_assert_same_file(output, plain, "adapter_model.safetensors");
    json_decref(with);
    json_decref(without);
    with = cli_json(ARGS("eval", "--model", model, "--data", rows, "--profile", "--json"));
    assert_profile(with, "attention_fwd");
    json_decref(with);
    with = cli_json(ARGS("generate", "--model", model, "--prompt", "A cat", "--max-new-tokens", "4",
                         "--profile", "--json"));
    assert_profile(with, "linear_fwd");
    json_decref(with);
    cli_result text = cli_ok(ARGS("eval", "--model", model, "--data", rows, "--profile"));
    assert_non_null(strstr(strbuf_text(&text.out), "of peak"));
    cli_free(&text);
    cli_result said = cli_ok(ARGS("generate", "--model", model, "--prompt", "A cat",
                                  "--max-new-tokens", "4", "--profile"));
    assert_null(strstr(strbuf_text(&said.out), "of peak"));
    assert_non_null(strstr(strbuf_text(&said.err), "of peak"));
    cli_free(&said);
    free(plain);
    free(output);
    free(rows);
    free(model);
}

/* The order and the company that rows are passed in change no digit. */
static void eval_packed_equals_unpacked(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *logits = cli_path("logits.safetensors");
    json_t *packed = cli_json(ARGS("eval", "--model", model, "--data", rows, "--json"));
    json_t *alone =
        cli_json(ARGS("eval", "--model", model, "--data", rows, "--no-packing", "--json"));
    json_t *in_order =
        cli_json(ARGS("eval", "--model", model, "--data", rows, "--logits", logits, "--json"));
    assert_true(cli_number(packed, "loss") == cli_number(alone, "loss"));
    assert_true(cli_number(packed, "loss") == cli_number(in_order, "loss"));
    json_decref(packed);
    json_decref(alone);
    json_decref(in_order);
    free(logits);
    free(rows);
    free(model);
}

/* recipe.yaml repeats the run to the last bit. */
static void recipe_repeats_the_run(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("first"),
         *again = cli_path("again");
    json_decref(train_cats_and_dogs(model, rows, output));
    char *recipe = path_join(output, "recipe.yaml");
    cli_result result = cli_ok(ARGS("train", recipe, "--output-dir", again, "--quiet"));
    cli_free(&result);
    cli_assert_same_file(output, again, "adapter_model.safetensors");
    free(recipe);
    free(again);
    free(output);
    free(rows);
    free(model);
}

static void train_and_repeat(const char *const *arguments, const char *output, const char *file) {
    char *recipe = path_join(output, "recipe.yaml"), *again = cli_path("repeated");
    cli_result first = cli_ok(arguments),
               second = cli_ok(ARGS("train", recipe, "--output-dir", again, "--quiet"));
    cli_assert_same_file(output, again, file);
    cli_free(&first);
    cli_free(&second);
    assert_ok(folder_remove(again, &test_error));
    free(again);
    free(recipe);
}

/* Of every way to say what is trained: options, an adapter, its config, all weights. */
static void recipe_repeats_other_runs(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *a = cli_path("a"), *b = cli_path("b"),
         *c = cli_path("c");
    char *config = path_join(a, "adapter_config.json");
    train_and_repeat(ARGS("train", "--model", model, "--data", rows, "--output-dir", a,
                          "--max-steps", "2", "--lora-dropout", "0.1", "--rank-pattern", "q_proj=4",
                          "--target-modules", ".*\\.(q|v)_proj", "--use-rslora"),
                     a, "adapter_model.safetensors");
    train_and_repeat(ARGS("train", "--model", model, "--data", rows, "--output-dir", b,
                          "--max-steps", "2", "--init-adapter", a, "--adapter-config", config),
                     b, "adapter_model.safetensors");
    train_and_repeat(ARGS("train", "--model", model, "--data", rows, "--output-dir", c,
                          "--max-steps", "2", "--method", "full"),
                     c, "model.safetensors");
    json_t *whole = cli_json(
        ARGS("eval", "--model", c, "--data", rows, "--json")); /* what full writes is a model */
    json_decref(whole);
    free(config);
    free(a);
    free(b);
    free(c);
    free(rows);
    free(model);
}

static void options_beside_a_description_of_the_adapter(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *a = cli_path("described"),
         *never = cli_path("never");
    cli_result result = cli_ok(
        ARGS("train", "--model", model, "--data", rows, "--output-dir", a, "--max-steps", "1"));
    cli_free(&result);
    cli_refused("lora_r", ARGS("train", "--model", model, "--data", rows, "--output-dir", never,
                               "--init-adapter", a, "-r", "4"));
    cli_refused("bias", ARGS("train", "--model", model, "--data", rows, "--output-dir", never,
                             "--method", "full", "--bias", "all"));
    cli_refused("method", ARGS("train", "--model", model, "--data", rows, "--output-dir", never,
                               "--init-adapter", a, "--method", "full"));
    static const char louder[] = "{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16}";
    cli_refused("lora_alpha 8, adapter_config 16",
                ARGS("train", "--model", model, "--data", rows, "--output-dir", never,
                     "--init-adapter", a, "--adapter-config",
                     test_file("adapter_config.json", louder, sizeof louder - 1)));
    assert_false(path_exists(never));
    /* A flag overrules what only stands in a recipe. */
    char *recipe = path_join(a, "recipe.yaml");
    result = cli_ok(ARGS("train", recipe, "--output-dir", never, "--method", "full"));
    cli_free(&result);
    free(recipe);
    free(never);
    free(a);
    free(rows);
    free(model);
}

/* The base is never written to. */
static void model_folder_stays_as_it_was(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("base");
    char *path = path_join(model, "model.safetensors"), *before = NULL, *after = NULL;
    size_t n_before, n_after;
    assert_ok(file_read_all(&before, &n_before, path, 1 << 28, &test_error));
    json_decref(train_cats_and_dogs(model, rows, output));
    assert_ok(file_read_all(&after, &n_after, path, 1 << 28, &test_error));
    assert_int_equal(n_before, n_after);
    assert_memory_equal(before, after, n_before);
    free(before);
    free(after);
    free(path);
    free(output);
    free(rows);
    free(model);
}

static void resume_of_a_finished_run(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("finished");
    json_decref(train_cats_and_dogs(model, rows, output));
    char *recipe = path_join(output, "recipe.yaml");
    cli_result result = cli_ok(ARGS("train", recipe, "--resume"));
    assert_non_null(strstr(strbuf_text(&result.out), "nothing was left to train"));
    assert_null(strstr(strbuf_text(&result.out), "nan"));
    cli_free(&result);
    result = cli_ok(ARGS("train", recipe, "--resume", "--num-train-epochs", "10", "--quiet"));
    cli_free(&result);
    free(recipe);
    free(output);
    free(rows);
    free(model);
}

/* ---- Tasks ---- */

static json_t *eval_of(const char *model, const char *adapter, const char *rows) {
    return cli_json(ARGS("eval", "--model", model, "--adapter", adapter, "--data", rows, "--json"));
}

static char *task_rows(const char *name, int cat, int dog) {
    char text[512];
    snprintf(text, sizeof text,
             "{\"prompt\": \"I am a\", \"completion\": \" cat on a mat\", \"task_id\": %d}\n"
             "{\"prompt\": \"I am a\", \"completion\": \" big red dog\", \"task_id\": %d}\n",
             cat, dog);
    return strdup(test_file(name, text, strlen(text)));
}

/* One prompt, two answers: only the task tells which. */
static void rows_of_tasks_learn_their_own(void **state) {
    (void)state;
    char *model = cli_model(), *output = cli_path("tasks"), *rows = task_rows("a.jsonl", 0, 1),
         *swapped = task_rows("b.jsonl", 1, 0), *third = task_rows("c.jsonl", 0, 2);
    const char *const train[] = {"train",
                                 "--quiet",
                                 "--model",
                                 model,
                                 "--output-dir",
                                 output,
                                 "--method",
                                 "multitask_prompt_tuning",
                                 "--adapter-set",
                                 "num_tasks=2",
                                 "--adapter-set",
                                 "num_virtual_tokens=4",
                                 "--learning-rate",
                                 "1e-1",
                                 "--max-steps",
                                 "60",
                                 "--per-device-train-batch-size",
                                 "2",
                                 "--data",
                                 NULL,
                                 NULL,
                                 NULL};
    const char *arguments[sizeof train / sizeof *train];
    memcpy(arguments, train, sizeof train);
    const size_t data = sizeof train / sizeof *train - 3;
    arguments[data] = third;
    cli_refused("c.jsonl:2: task_id is 2; the adapter has 2 tasks", arguments);
    arguments[data + 1] = "--streaming";
    cli_refused("c.jsonl:2: task_id is 2; the adapter has 2 tasks", arguments);
    arguments[data + 1] = NULL;
    arguments[data] = rows;
    cli_result trained = cli_ok(arguments);
    cli_free(&trained);
    json_t *own = eval_of(model, output, rows), *other = eval_of(model, output, swapped);
    assert_true(2 * cli_number(own, "loss") < cli_number(other, "loss"));
    json_decref(own);
    json_decref(other);
    cli_refused("c.jsonl:2: task_id is 2",
                ARGS("eval", "--model", model, "--adapter", output, "--data", third));
    cli_refused("--task-id is 2; the adapter has 2 tasks",
                ARGS("generate", "--model", model, "--adapter", output, "--prompt", "I am a",
                     "--task-id", "2"));
    cli_result said[2];
    for (int task = 0; task < 2; task++)
        said[task] = cli_ok(ARGS("generate", "--model", model, "--adapter", output, "--prompt",
                                 "I am a", "--max-new-tokens", "4", "--task-id", task ? "1" : "0"));
    assert_string_not_equal(strbuf_text(&said[0].out), strbuf_text(&said[1].out));
    cli_free(&said[0]);
    cli_free(&said[1]);
    free(third);
    free(swapped);
    free(rows);
    free(output);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fine_tune_learns_and_leaves_its_files),
        cmocka_unit_test(eval_agrees_with_the_last_evaluation),
        cmocka_unit_test(profile_tells_where_time_goes),
        cmocka_unit_test(eval_packed_equals_unpacked),
        cmocka_unit_test(recipe_repeats_the_run),
        cmocka_unit_test(recipe_repeats_other_runs),
        cmocka_unit_test(options_beside_a_description_of_the_adapter),
        cmocka_unit_test(model_folder_stays_as_it_was),
        cmocka_unit_test(resume_of_a_finished_run),
        cmocka_unit_test(rows_of_tasks_learn_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
