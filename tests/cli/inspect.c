/* inspect, doctor, methods. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void assert_text(const json_t *object, const char *key, const char *expected) {
    assert_string_equal(json_string_value(cli_member(object, key)), expected);
}

static void model_folder(void **state) {
    (void)state;
    char *model = cli_model();
    json_t *facts = cli_json(ARGS("inspect", model, "--json"));
    assert_text(facts, "kind", "model");
    assert_text(facts, "model_type", "llama");
    assert_text(facts, "tokenizer", "yes");
    assert_text(facts, "chat_template", "none");
    assert_true(cli_number(facts, "parameters") == 260032 &&
                cli_number(facts, "num_hidden_layers") == 5);
    json_decref(facts);
    free(model);
}

static void safetensors_file(void **state) {
    (void)state;
    char *model = cli_model(), *path = path_join(model, "model.safetensors");
    json_t *facts = cli_json(ARGS("inspect", path, "--json"));
    assert_text(facts, "kind", "safetensors");
    assert_true(cli_number(facts, "elements") == 260032);
    assert_int_equal(json_array_size(cli_member(facts, "tensors")), 47);
    const json_t *first = json_array_get(cli_member(facts, "tensors"), 0);
    assert_text(first, "name", "model.embed_tokens.weight");
    assert_text(first, "dtype", "F32");
    assert_int_equal(json_integer_value(json_array_get(cli_member(first, "shape"), 1)), 64);
    json_decref(facts);
    free(path);
    free(model);
}

static void adapter_and_checkpoint(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("trained");
    cli_result result = cli_ok(ARGS("train", "--model", model, "--data", rows, "--output-dir",
                                    output, "--max-steps", "2", "-r", "4", "--lora-alpha", "16",
                                    "--use-rslora", "--quiet"));
    cli_free(&result);
    json_t *adapter = cli_json(ARGS("inspect", output, "--json"));
    assert_text(adapter, "kind", "adapter");
    assert_text(adapter, "base_model", model);
    assert_true(cli_number(adapter, "r") == 4 && cli_number(adapter, "lora_alpha") == 16);
    assert_true(json_is_true(cli_member(adapter, "use_rslora")));
    json_decref(adapter);
    char *folder = path_join(output, "checkpoint-2"),
         *state_file = path_join(folder, "state.safetensors");
    json_t *checkpoint = cli_json(ARGS("inspect", folder, "--json"));
    assert_text(checkpoint, "kind", "checkpoint");
    assert_true(cli_number(checkpoint, "step") == 2 &&
                json_is_true(cli_member(checkpoint, "verified")));
    json_decref(checkpoint);
    FILE *file = fopen(state_file, "r+b"); /* one byte of the end */
    assert_non_null(file);
    fseek(file, -1, SEEK_END);
    int last = fgetc(file);
    fseek(file, -1, SEEK_END);
    fputc(last ^ 1, file);
    fclose(file);
    cli_refused("state.safetensors", ARGS("inspect", folder));
    free(state_file);
    free(folder);
    free(output);
    free(rows);
    free(model);
}

static void data_file(void **state) {
    (void)state;
    char *rows = cli_rows();
    json_t *facts = cli_json(ARGS("inspect", rows, "--json"));
    assert_text(facts, "kind", "data");
    assert_true(cli_number(facts, "rows") == 4);
    assert_string_equal(json_string_value(json_array_get(cli_member(facts, "keys"), 0)), "prompt");
    json_decref(facts);
    free(rows);
}

static void what_it_cannot_read(void **state) {
    (void)state;
    cli_refused("GGUF", ARGS("inspect", test_file("model.gguf", "GGUF\3\0\0\0", 8)));
    cli_refused("notes.jsonl:1", ARGS("inspect", test_file("notes.jsonl", "just words\n", 11)));
    cli_refused("what?", ARGS("inspect"));
}

/* Names out of a file cannot drive the terminal. */
static void names_with_an_escape(void **state) {
    (void)state;
    static const char header[] =
        "{\"a\\u001b[31m\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}";
    char bytes[128] = {(char)(sizeof header - 1)};
    memcpy(bytes + 8, header, sizeof header - 1);
    cli_result tensors =
        cli_run(NULL, ARGS("inspect", test_file("names.safetensors", bytes, 8 + sizeof header)));
    assert_int_equal(tensors.status, 2);
    assert_null(strchr(strbuf_text(&tensors.err), '\033'));
    cli_free(&tensors);
    static const char row[] = "{\"text\": \"a\", \"b\\u001b[31m\": 1}\n";
    cli_result data = cli_ok(ARGS("inspect", test_file("names.jsonl", row, sizeof row - 1)));
    assert_non_null(strstr(strbuf_text(&data.out), "b\\x1b[31m"));
    assert_null(strchr(strbuf_text(&data.out), '\033'));
    cli_free(&data);
}

static void doctor_finds_every_kernel_right(void **state) {
    (void)state;
    json_t *facts = cli_json(ARGS("doctor", "--json", "--threads", "2"));
    const char *name;
    json_t *check;
    json_object_foreach((json_t *)cli_member(facts, "checks"), name, check)
        assert_true(json_is_true(cli_member(check, "ok")));
    assert_true(json_object_size(cli_member(facts, "checks")) >= 8);
    assert_true(json_is_object(cli_member(cli_member(facts, "checks"), "linear_int8")));
    assert_true(json_is_object(cli_member(cli_member(facts, "compute"), "bf16")));
    assert_true(cli_number(facts, "threads") == 2);
    json_decref(facts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_folder),
        cmocka_unit_test(safetensors_file),
        cmocka_unit_test(adapter_and_checkpoint),
        cmocka_unit_test(data_file),
        cmocka_unit_test(what_it_cannot_read),
        cmocka_unit_test(names_with_an_escape),
        cmocka_unit_test(doctor_finds_every_kernel_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
