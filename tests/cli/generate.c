/* generate and chat. */
#include "tests/cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char EXPECTED[] =
    ", there was a little girl named Lily. She loved to play outside in the park. One day,";

static void greedy_text_is_the_models_own(void **state) {
    (void)state;
    char *model = cli_model();
    cli_result result = cli_ok(ARGS("generate", "--model", model, "--prompt", "Once upon a time",
                                    "--max-new-tokens", "30"));
    assert_string_equal(strbuf_text(&result.out),
                        ", there was a little girl named Lily. She loved to play outside in the "
                        "park. One day,\n");
    cli_free(&result);
    free(model);
}

static void json_is_one_document(void **state) {
    (void)state;
    char *model = cli_model();
    json_t *g = cli_json(ARGS("generate", "--model", model, "--prompt", "Once upon a time",
                              "--max-new-tokens", "30", "--json"));
    assert_string_equal(json_string_value(cli_member(g, "text")), EXPECTED);
    assert_int_equal(json_array_size(cli_member(g, "token_ids")), 30);
    assert_true(cli_number(g, "prompt_tokens") == 5 && cli_number(g, "generated_tokens") == 30);
    assert_true(cli_number(g, "tokens_per_second") > 0);
    assert_string_equal(json_string_value(cli_member(g, "finish_reason")), "length");
    json_decref(g);
    free(model);
}

/* A stop text that spans tokens is found, and nothing of it is shown. */
static void stop_texts_end_the_answer(void **state) {
    (void)state;
    char *model = cli_model();
    cli_result result = cli_ok(ARGS("generate", "--model", model, "--prompt", "Once upon a time",
                                    "--stop", "zebra", "--stop", "loved to play"));
    assert_string_equal(strbuf_text(&result.out), ", there was a little girl named Lily. She \n");
    cli_free(&result);
    json_t *g = cli_json(ARGS("generate", "--model", model, "--prompt", "Once upon a time",
                              "--stop", "loved to play", "--json"));
    assert_string_equal(json_string_value(cli_member(g, "finish_reason")), "stop");
    json_decref(g);
    free(model);
}

static char *sampled(const char *model, const char *seed) {
    cli_result result = cli_ok(ARGS("generate", "--model", model, "--prompt", "Once upon a time",
                                    "--temperature", "0.9", "--top-k", "50", "--top-p", "0.95",
                                    "--seed", seed, "--max-new-tokens", "40"));
    char *text = strdup(strbuf_text(&result.out));
    cli_free(&result);
    return text;
}

static void a_seed_fixes_the_sample(void **state) {
    (void)state;
    char *model = cli_model();
    char *first = sampled(model, "7"), *again = sampled(model, "7"), *other = sampled(model, "8");
    assert_string_equal(first, again);
    assert_string_not_equal(first, other);
    free(first);
    free(again);
    free(other);
    free(model);
}

static void prompt_from_a_file_and_from_stdin(void **state) {
    (void)state;
    char *model = cli_model();
    const char *path = test_file("prompt.txt", "Once upon a time", 16);
    cli_result from_file =
        cli_ok(ARGS("generate", "--model", model, "--prompt-file", path, "--max-new-tokens", "5"));
    cli_result from_stdin =
        cli_run("Once upon a time",
                ARGS("generate", "--model", model, "--prompt-file", "-", "--max-new-tokens", "5"));
    assert_string_equal(strbuf_text(&from_file.out), ", there was a little\n");
    assert_string_equal(strbuf_text(&from_stdin.out), ", there was a little\n");
    cli_free(&from_file);
    cli_free(&from_stdin);
    free(model);
}

static void prompts_that_cannot_be(void **state) {
    (void)state;
    char *model = cli_model();
    cli_refused("one of --prompt", ARGS("generate", "--model", model));
    cli_refused("one of --prompt",
                ARGS("generate", "--model", model, "--prompt", "a", "--prompt-file", "b"));
    cli_refused("No such file",
                ARGS("generate", "--model", model, "--prompt-file", "/no/such/file"));
    cli_refused("NUL", ARGS("generate", "--model", model, "--prompt-file",
                            test_file("nul.txt", "a\0b", 3)));
    cli_refused("UTF-8", ARGS("generate", "--model", model, "--prompt", "a\xFF"));
    strbuf text = {0};
    for (int i = 0; i < 2000; i++)
        strbuf_add_text(&text, "word ");
    cli_refused("512", ARGS("generate", "--model", model, "--prompt-file",
                            test_file("long.txt", text.data, text.length)));
    strbuf_free(&text);
    free(model);
}

/* ---- chat ---- */

static void chat_answers_each_line(void **state) {
    (void)state;
    char *model = cli_model();
    cli_result result =
        cli_run("Hello\nBye\n", ARGS("chat", "--model", model, "--chat-template", "chatml",
                                     "--system", "Be brief.", "--max-new-tokens", "8", "--json"));
    assert_int_equal(result.status, 0);
    char *second = strchr(strbuf_text(&result.out), '\n');
    assert_non_null(second);
    json_t *a = NULL, *b = NULL;
    assert_ok(
        json_parse(&a, result.out.data, (size_t)(second - result.out.data), "first", &test_error));
    assert_ok(json_parse(&b, second, strlen(second), "second", &test_error));
    assert_true(cli_number(b, "prompt_tokens") > cli_number(a, "prompt_tokens") + 8);
    json_decref(a);
    json_decref(b);
    cli_free(&result);
    free(model);
}

static void chat_without_a_template(void **state) {
    (void)state;
    char *model = cli_model();
    cli_refused("no chat template", ARGS("chat", "--model", model));
    cli_refused("no chat template", ARGS("generate", "--model", model, "--chat", "--prompt", "x"));
    free(model);
}

/* Tokens before the first supervised one, of the one row of a file. */
static int prompt_tokens_of_data(const char *model, const char *path) {
    json_t *data = cli_json(ARGS("data", "--model", model, "--data", path, "--chat-template",
                                 "chatml", "--json", "--quiet"));
    const json_t *tokens = cli_member(json_array_get(cli_member(data, "rows"), 0), "tokens");
    int n = 0;
    while (!json_is_true(json_object_get(json_array_get(tokens, (size_t)n), "supervised")))
        n++;
    json_decref(data);
    return n;
}

/* The same conversation gives the same tokens in training and in generation; "</s>" typed by a user
 * is four characters. */
static void control_token_text_in_a_message_stays_text(void **state) {
    (void)state;
    static const char *const messages[] = {"Say it.", "Say </s> it.", "</s>",
                                           "<s><unk></s> and more"};
    char *model = cli_model();
    int plain = 0;
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        char row[256];
        int n = snprintf(row, sizeof row,
                         "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}, {\"role\": "
                         "\"assistant\", \"content\": "
                         "\"Yes.\"}]}\n",
                         messages[i]);
        int expected = prompt_tokens_of_data(model, test_file("row.jsonl", row, (size_t)n));
        json_t *g =
            cli_json(ARGS("generate", "--model", model, "--chat", "--chat-template", "chatml",
                          "--prompt", messages[i], "--max-new-tokens", "1", "--json"));
        assert_int_equal((int)cli_number(g, "prompt_tokens"), expected);
        json_decref(g);
        if (i == 0)
            plain = expected;
        else if (i == 1)
            assert_true(expected >= plain + 4);
    }
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_text_is_the_models_own),
        cmocka_unit_test(json_is_one_document),
        cmocka_unit_test(stop_texts_end_the_answer),
        cmocka_unit_test(a_seed_fixes_the_sample),
        cmocka_unit_test(prompt_from_a_file_and_from_stdin),
        cmocka_unit_test(prompts_that_cannot_be),
        cmocka_unit_test(chat_answers_each_line),
        cmocka_unit_test(chat_without_a_template),
        cmocka_unit_test(control_token_text_in_a_message_stays_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
