/* What is wrong with the world, through the program: each refusal names the file and the place,
 * ends with the right status and leaves nothing behind. Formats are tested one by one in
 * tests/unit; docs/bad-input.md lists all. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"
#include "base/file_map.h"
#include "formats/safetensors.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- A copy of the model that can be spoilt ---- */

static char *copy_of_model(const char *name) {
    static const char *const files[] = {"config.json", "generation_config.json",
                                        "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    char *model = cli_model(), *copy = cli_path(name);
    assert_ok(folder_create(copy, &test_error));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *from = path_join(model, files[i]), *to = path_join(copy, files[i]), *bytes = NULL;
        size_t n;
        assert_ok(file_read_all(&bytes, &n, from, 1 << 24, &test_error));
        assert_ok(file_write_atomic(to, bytes, n, &test_error));
        free(bytes);
        free(from);
        free(to);
    }
    free(model);
    return copy;
}

static void overwrite(const char *folder, const char *name, const void *bytes, size_t n) {
    char *path = path_join(folder, name);
    assert_ok(file_write_atomic(path, bytes, n, &test_error));
    free(path);
}

static void poke(const char *folder, const char *name, long from_end, const void *bytes, size_t n) {
    char *path = path_join(folder, name);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, from_end, from_end < 0 ? SEEK_END : SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    free(path);
}

/* ---- Models ---- */

/* Every verb that reads a model says the same, before anything is written. */
static void refused_by_every_verb(const char *model, const char *message) {
    char *rows = cli_rows(), *output = cli_path("never");
    cli_refused(message, ARGS("inspect", model));
    cli_refused(message, ARGS("plan", "--model", model, "--data", rows));
    cli_refused(message, ARGS("eval", "--model", model, "--data", rows));
    cli_refused(message, ARGS("generate", "--model", model, "--prompt", "a"));
    cli_refused(message, ARGS("train", "--model", model, "--data", rows, "--output-dir", output));
    assert_false(path_exists(output));
    free(output);
    free(rows);
}

static void model_with_a_header_longer_than_its_file(void **state) {
    (void)state;
    char *model = copy_of_model("header");
    static const unsigned char length[8] = {0xFF, 0xFF, 0xFF};
    poke(model, "model.safetensors", 0, length, 8);
    refused_by_every_verb(model, "model.safetensors");
    free(model);
}

static void model_with_truncated_weights(void **state) {
    (void)state;
    char *model = copy_of_model("truncated"), *path = path_join(model, "model.safetensors");
    assert_int_equal(truncate(path, 500000), 0);
    refused_by_every_verb(model, "model.safetensors");
    free(path);
    free(model);
}

static void model_as_a_git_lfs_pointer(void **state) {
    (void)state;
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 1044992\n";
    char *model = copy_of_model("lfs");
    overwrite(model, "model.safetensors", pointer, sizeof pointer - 1);
    refused_by_every_verb(model, "git lfs pull");
    free(model);
}

static void model_of_an_unknown_type(void **state) {
    (void)state;
    static const char config[] = "{\"model_type\": \"perceptron\", \"hidden_size\": 8}";
    char *model = copy_of_model("type");
    overwrite(model, "config.json", config, sizeof config - 1);
    refused_by_every_verb(model, "perceptron");
    free(model);
}

static void model_with_a_cut_config(void **state) {
    (void)state;
    char *model = copy_of_model("config");
    overwrite(model, "config.json", "{\n  \"model_type\":", 17);
    refused_by_every_verb(model, "config.json: line 2, column 16");
    free(model);
}

static void model_without_a_tokenizer(void **state) {
    (void)state;
    char *model = copy_of_model("silent"), *rows = cli_rows(),
         *path = path_join(model, "tokenizer.json");
    assert_int_equal(remove(path), 0);
    cli_refused("tokenizer", ARGS("eval", "--model", model, "--data", rows));
    cli_refused("tokenizer", ARGS("data", "--model", model, "--data", rows));
    cli_result result = cli_ok(ARGS("inspect", model)); /* shows what there is */
    cli_free(&result);
    free(path);
    free(rows);
    free(model);
}

/* ---- Weights that are no numbers, or no longer there ---- */

static void weights_not_finite(void **state) {
    (void)state;
    static const unsigned char nan[4] = {0, 0, 0xC0, 0x7F};
    char *model = copy_of_model("nan"), *rows = cli_rows(), *output = cli_path("nan-out");
    poke(model, "model.safetensors", -4, nan,
         4); /* the last element of the last tensor, as they lie */
    cli_result result = cli_run(NULL, ARGS("eval", "--model", model, "--data", rows, "--json"));
    assert_int_equal(result.status, 1);
    assert_string_equal(strbuf_text(&result.out), "");
    assert_non_null(strstr(strbuf_text(&result.err), "not finite"));
    cli_free(&result);
    result = cli_run(NULL, ARGS("train", "--model", model, "--data", rows, "--output-dir", output,
                                "--max-steps", "9"));
    assert_int_equal(result.status, 1);
    assert_non_null(strstr(strbuf_text(&result.err), "not finite"));
    assert_non_null(strstr(strbuf_text(&result.err), "No adapter was published"));
    cli_free(&result);
    char *adapter = path_join(output, "adapter_model.safetensors");
    assert_false(path_exists(adapter));
    result = cli_run(NULL, ARGS("generate", "--model", model, "--prompt", "a", "--json"));
    assert_int_equal(result.status, 1);
    assert_string_equal(strbuf_text(&result.out), "");
    cli_free(&result);
    free(adapter);
    free(output);
    free(rows);
    free(model);
}

/* The file shrinks under a running process: it ends with a message, and what it saved is whole. */
static void weights_cut_while_they_are_mapped(void **state) {
    (void)state;
    char *model = copy_of_model("cut"), *rows = cli_rows(), *output = cli_path("cut-out");
    char *weights = path_join(model, "model.safetensors"),
         *log = path_join(output, "metrics.jsonl");
    int messages[2];
    assert_int_equal(pipe(messages), 0);
    pid_t child = cli_start(-1, -1, messages[1],
                            ARGS("train", "--model", model, "--data", rows, "--output-dir", output,
                                 "--max-steps", "100000", "--save-steps", "0"));
    close(messages[1]);
    for (int i = 0; i < 5000 && !path_exists(log); i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    assert_int_equal(truncate(weights, 4096), 0);
    strbuf said = {0};
    char bytes[4096];
    ssize_t n;
    while ((n = read(messages[0], bytes, sizeof bytes)) > 0)
        strbuf_add(&said, bytes, (size_t)n);
    close(messages[0]);
    assert_int_equal(cli_wait(child), 1);
    assert_non_null(strstr(strbuf_text(&said), "cut short while it was in use"));
    strbuf_free(&said);
    free(log);
    free(weights);
    free(output);
    free(rows);
    free(model);
}

/* ---- Adapters ---- */

static void adapter_that_is_none(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    cli_refused("adapter_config.json",
                ARGS("eval", "--model", model, "--adapter", model, "--data", rows));
    cli_refused("/no/such/adapter", ARGS("generate", "--model", model, "--adapter",
                                         "/no/such/adapter", "--prompt", "a"));
    free(rows);
    free(model);
}

static void adapter_with_half_its_tensors(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("half");
    cli_result result = cli_ok(ARGS("train", "--model", model, "--data", rows, "--output-dir",
                                    output, "--max-steps", "1"));
    cli_free(&result);
    char *path = path_join(output, "adapter_model.safetensors");
    safetensors *file = NULL;
    assert_ok(safetensors_open(&file, path, &test_error));
    named_tensor one = {safetensors_name(file, 0), safetensors_at(file, 0)};
    char *damaged = path_join(output, "damaged.safetensors");
    assert_ok(safetensors_write(damaged, &one, 1, &test_error));
    safetensors_close(&file);
    assert_int_equal(rename(damaged, path), 0);
    cli_refused("lora_B", ARGS("eval", "--model", model, "--adapter", output, "--data", rows));
    free(damaged);
    free(path);
    free(output);
    free(rows);
    free(model);
}

/* Shapes decide; the name only warns, and is never opened as a path. */
static void adapter_of_another_base(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("other"),
         *copy = copy_of_model("elsewhere");
    cli_result result = cli_ok(
        ARGS("train", "--model", copy, "--data", rows, "--output-dir", output, "--max-steps", "1"));
    cli_free(&result);
    result = cli_ok(ARGS("eval", "--model", copy, "--adapter", output, "--data", rows));
    assert_string_equal(strbuf_text(&result.err), "");
    cli_free(&result);
    assert_ok(folder_remove(copy, &test_error));
    result = cli_ok(ARGS("eval", "--model", model, "--adapter", output, "--data", rows));
    assert_non_null(strstr(strbuf_text(&result.err), "made for the base"));
    cli_free(&result);
    free(copy);
    free(output);
    free(rows);
    free(model);
}

/* ---- Data ---- */

static void data_refused(const char *message, const char *name, const char *text) {
    char *model = cli_model(), *path = strdup(test_file(name, text, strlen(text))),
         *output = cli_path("no-data");
    cli_refused(message, ARGS("data", "--model", model, "--data", path));
    cli_refused(message, ARGS("train", "--model", model, "--data", path, "--output-dir", output));
    assert_false(path_exists(output));
    free(output);
    free(path);
    free(model);
}

static void data_that_cannot_be_trained(void **state) {
    (void)state;
    data_refused("found none", "empty.jsonl", "");
    data_refused("a.jsonl:2: ", "a.jsonl", "{\"text\": \"one\"}\n{\"text\": \n");
    data_refused("b.jsonl:1: ", "b.jsonl", "[1, 2]\n");
    data_refused("c.jsonl:2: ", "c.jsonl",
                 "{\"text\": \"one\"}\n{\"prompt\": \"two\", \"completion\": \"three\"}\n");
    data_refused("d.jsonl:1: ", "d.jsonl", "{\"messages\": [{\"role\": \"user\"}]}\n");
    data_refused("e.jsonl:1: ", "e.jsonl", "{\"text\": \"\xFF\"}\n");
    data_refused("f.jsonl:1: ", "f.jsonl", "{\"text\": \"a\", \"text\": \"b\"}\n");
    data_refused("g.jsonl:1: ", "g.jsonl", "{\"question\": \"a\"}\n");
}

static void data_with_ids_beyond_the_embedding(void **state) {
    (void)state;
    data_refused("512", "ids.jsonl", "{\"input_ids\": [1, 512], \"labels\": [1, 512]}\n");
    data_refused("ids-.jsonl:1", "ids-.jsonl", "{\"input_ids\": [1, -2], \"labels\": [1, 2]}\n");
}

static void every_label_masked_after_truncation(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("masked");
    cli_refused("max_length 5", ARGS("train", "--model", model, "--data", rows, "--max-length", "5",
                                     "--output-dir", output));
    assert_false(path_exists(output));
    free(output);
    free(rows);
    free(model);
}

static void fewer_rows_than_one_batch(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("few");
    json_t *result =
        cli_json(ARGS("train", "--model", model, "--data", rows, "--output-dir", output,
                      "--num-train-epochs", "2", "--per-device-train-batch-size", "64", "--json"));
    assert_true(cli_number(result, "steps") == 2);
    json_decref(result);
    free(output);
    free(rows);
    free(model);
}

/* ---- Output ---- */

static void output_that_cannot_be(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    cli_refused("found a file",
                ARGS("train", "--model", model, "--data", rows, "--output-dir", rows));
    cli_refused("does not exist", ARGS("eval", "--model", model, "--data", rows, "--logits",
                                       "/no/such/folder/x.safetensors"));
    cli_refused("start without --resume", ARGS("train", "--model", model, "--data", rows,
                                               "--output-dir", test_folder(), "--resume"));
    free(rows);
    free(model);
}

static void two_runs_into_one_folder(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("shared"),
         *log = path_join(output, "metrics.jsonl");
    const char *const *arguments = ARGS("train", "--model", model, "--data", rows, "--output-dir",
                                        output, "--max-steps", "100000");
    pid_t first = cli_start(-1, -1, -1, arguments);
    for (int i = 0; i < 5000 && !path_exists(log); i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    cli_refused("trains into", arguments);
    kill(first, SIGINT);
    assert_int_equal(cli_wait(first), 128 + SIGINT);
    free(log);
    free(output);
    free(rows);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_with_a_header_longer_than_its_file),
        cmocka_unit_test(model_with_truncated_weights),
        cmocka_unit_test(model_as_a_git_lfs_pointer),
        cmocka_unit_test(model_of_an_unknown_type),
        cmocka_unit_test(model_with_a_cut_config),
        cmocka_unit_test(model_without_a_tokenizer),
        cmocka_unit_test(weights_not_finite),
        cmocka_unit_test(weights_cut_while_they_are_mapped),
        cmocka_unit_test(adapter_that_is_none),
        cmocka_unit_test(adapter_with_half_its_tensors),
        cmocka_unit_test(adapter_of_another_base),
        cmocka_unit_test(data_that_cannot_be_trained),
        cmocka_unit_test(data_with_ids_beyond_the_embedding),
        cmocka_unit_test(every_label_masked_after_truncation),
        cmocka_unit_test(fewer_rows_than_one_batch),
        cmocka_unit_test(output_that_cannot_be),
        cmocka_unit_test(two_runs_into_one_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
