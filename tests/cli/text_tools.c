/* tokenize and render: JSON lines in, JSON lines out. */
#include "tests/cli/cli.h"

#include <stdlib.h>
#include <string.h>

static void assert_output(const char *input, const char *expected, const char *const *arguments) {
    cli_result result = cli_run(input, arguments);
    if (result.status != 0)
        fail_msg("exit status %d: %s", result.status, strbuf_text(&result.err));
    assert_string_equal(strbuf_text(&result.out), expected);
    cli_free(&result);
}

static void assert_line_refused(const char *input, const char *message,
                                const char *const *arguments) {
    cli_result result = cli_run(input, arguments);
    assert_int_equal(result.status, 2);
    if (!strstr(strbuf_text(&result.err), message))
        fail_msg("the message lacks \"%s\": %s", message, strbuf_text(&result.err));
    cli_free(&result);
}

static void text_to_ids_and_back(void **state) {
    (void)state;
    char *model = cli_model();
    assert_output(
        "{\"text\": \"Once upon\"}\n{\"text\": \"Once upon\", \"add_special_tokens\": false}\n",
        "{\"ids\": [1, 403, 407], \"offsets\": [[0, 0], [0, 4], [4, 9]]}\n"
        "{\"ids\": [403, 407], \"offsets\": [[0, 4], [4, 9]]}\n",
        ARGS("tokenize", "--model", model));
    assert_output(
        "{\"ids\": [1, 403, 407]}\n{\"ids\": [1, 403, 407], \"skip_special_tokens\": true}\n",
        "{\"text\": \"<s> Once upon\"}\n{\"text\": \"Once upon\"}\n",
        ARGS("tokenize", "--model", model, "--decode"));
    free(model);
}

/* Of the file alone, with offsets in code points, blank lines passed over. */
static void tokenizer_file_and_offsets_in_code_points(void **state) {
    (void)state;
    char *path = strdup(test_data("models/stories260K/tokenizer.json"));
    cli_result result =
        cli_run("{\"text\": \"\xC3\xA9\xE2\x82\xAC.\"}\n\n", ARGS("tokenize", "--model", path));
    assert_int_equal(result.status, 0);
    json_t *line = NULL;
    assert_ok(
        json_parse(&line, strbuf_text(&result.out), result.out.length, "stdout", &test_error));
    const json_t *offsets = cli_member(line, "offsets");
    const json_t *last = json_array_get(offsets, json_array_size(offsets) - 1);
    assert_int_equal(json_integer_value(json_array_get(last, 0)), 2);
    assert_int_equal(json_integer_value(json_array_get(last, 1)), 3);
    json_decref(line);
    cli_free(&result);
    free(path);
}

static void tokenize_names_the_line(void **state) {
    (void)state;
    char *model = cli_model();
    assert_line_refused("{\"text\": \"a\"}\n{\"text\": 5}\n", "line 2: \"text\": expected a string",
                        ARGS("tokenize", "--model", model));
    assert_line_refused("{\"text\": \"a\"\n", "line 1", ARGS("tokenize", "--model", model));
    assert_line_refused("{\"ids\": [-1]}\n", "line 1: ids[0]",
                        ARGS("tokenize", "--model", model, "--decode"));
    assert_line_refused("[1]\n", "expected an object", ARGS("tokenize", "--model", model));
    free(model);
}

static void builtin_template(void **state) {
    (void)state;
    assert_output("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
                  "\"add_generation_prompt\": true}\n",
                  "{\"text\": \"<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n\"}\n",
                  ARGS("render", "--chat-template", "chatml"));
}

static void template_file_with_variables_tokens_and_time(void **state) {
    (void)state;
    static const char source[] =
        "{{ bos_token }}{{ messages[0]['content'] }}{{ mood }}{{ strftime_now('%Y-%m-%d') }}";
    const char *path = test_file("t.jinja", source, sizeof source - 1);
    assert_output("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"mood\": \"!\"}\n",
                  "{\"text\": \"<b>Hi!2026-01-31\"}\n",
                  ARGS("render", "--chat-template", path, "--bos-token", "<b>", "--now",
                       "2026-01-31T12:00:00"));
}

/* What a template refuses is a result: the lines after it are rendered. */
static void refusal_of_a_template_is_a_result(void **state) {
    (void)state;
    static const char source[] =
        "{% if messages|length > 1 %}{{ raise_exception('one message only') }}{% endif %}ok";
    const char *path = test_file("strict.jinja", source, sizeof source - 1);
    cli_result result = cli_run("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
                                "{\"role\": \"user\", \"content\": \"b\"}]}\n"
                                "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n",
                                ARGS("render", "--chat-template", path));
    assert_int_equal(result.status, 0);
    assert_non_null(strstr(strbuf_text(&result.out), "{\"error\": "));
    assert_non_null(strstr(strbuf_text(&result.out), "one message only"));
    assert_non_null(strstr(strbuf_text(&result.out), "\n{\"text\": \"ok\"}\n"));
    cli_free(&result);
}

static void nothing_to_render_with(void **state) {
    (void)state;
    char *model = cli_model();
    cli_refused("--chat-template FILE", ARGS("render"));
    cli_refused("no chat template", ARGS("render", "--model", model));
    cli_refused("line",
                ARGS("render", "--chat-template", test_file("bad.jinja", "{% if x %}", 10)));
    cli_refused("now", ARGS("render", "--chat-template", "chatml", "--now", "yesterday"));
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_to_ids_and_back),
        cmocka_unit_test(tokenizer_file_and_offsets_in_code_points),
        cmocka_unit_test(tokenize_names_the_line),
        cmocka_unit_test(builtin_template),
        cmocka_unit_test(template_file_with_variables_tokens_and_time),
        cmocka_unit_test(refusal_of_a_template_is_a_result),
        cmocka_unit_test(nothing_to_render_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
