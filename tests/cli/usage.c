/* What the program says to bad usage: exit status 2, a message that helps, and nothing written. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"
#include "formats/json.h"

#include <stdio.h>
#include <string.h>

static void unknown_verb(void **state) {
    (void)state;
    cli_refused("unknown verb \"tran\"", ARGS("tran"));
}

static void unknown_option_names_the_nearest(void **state) {
    (void)state;
    cli_refused("did you mean \"learning_rate\"", ARGS("train", "--learning-rat", "1e-4"));
}

static void option_of_another_verb(void **state) {
    (void)state;
    cli_refused("not an option of this verb", ARGS("eval", "--model", "x", "--no-shuffle"));
    cli_refused("not an option of this verb",
                ARGS("eval", "--model", "x", "--learning-rate", "1e-4"));
}

static void option_without_its_value(void **state) {
    (void)state;
    cli_refused("needs a value", ARGS("train", "--model"));
}

static void values_out_of_their_kind(void **state) {
    (void)state;
    cli_refused("expected a whole number", ARGS("train", "--max-steps", "2.5"));
    cli_refused("expected a number", ARGS("train", "--learning-rate", "fast"));
    cli_refused("expected one of", ARGS("train", "--lr-scheduler-type", "some"));
    cli_refused("expected a size", ARGS("train", "--memory-limit", "8X"));
    cli_refused("is outside", ARGS("train", "--lora-dropout", "1.5"));
    cli_refused("is outside", ARGS("train", "-r", "0"));
}

static void train_needs_its_options(void **state) {
    (void)state;
    cli_refused("--output-dir", ARGS("train", "--model", "x", "--data", "y"));
    cli_refused("--data", ARGS("train", "--model", "x", "--output-dir", "y"));
    cli_refused("--model", ARGS("train", "--data", "x", "--output-dir", "y"));
}

static void missing_model_writes_nothing(void **state) {
    (void)state;
    char out[4096];
    snprintf(out, sizeof out, "%s/never", test_folder());
    cli_refused("no-such-model", ARGS("train", "--model", "/no-such-model", "--data", "x.jsonl",
                                      "--output-dir", out));
    assert_false(path_exists(out));
}

static void recipe_with_an_unknown_key(void **state) {
    (void)state;
    const char recipe[] = "learning_rate: 1e-4\nlora_rnk: 8\n";
    const char *path = test_file("recipe.yaml", recipe, sizeof recipe - 1);
    cli_refused("line 2", ARGS("train", path));
    cli_refused("did you mean", ARGS("train", path));
}

static void recipe_with_a_value_of_another_kind(void **state) {
    (void)state;
    const char recipe[] = "max_steps: many\n";
    cli_refused("line 1", ARGS("train", test_file("recipe.yaml", recipe, sizeof recipe - 1)));
}

static void help_of_every_verb_fits_a_screen(void **state) {
    (void)state;
    static const char *const verbs[] = {"train",  "eval",    "generate", "chat",
                                        "plan",   "data",    "inspect",  "tokenize",
                                        "render", "methods", "doctor"};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        cli_result result = cli_ok(ARGS(verbs[i], "--help"));
        int lines = 0;
        for (const char *c = strbuf_text(&result.out); *c; c++)
            lines += *c == '\n';
        if (lines > 45)
            fail_msg("graft %s --help: %d lines", verbs[i], lines);
        assert_non_null(strstr(strbuf_text(&result.out), "usage: graft"));
        cli_free(&result);
    }
}

static void methods_as_json(void **state) {
    (void)state;
    cli_result result = cli_ok(ARGS("methods", "--json"));
    json_t *list = NULL;
    assert_ok(
        json_parse(&list, strbuf_text(&result.out), result.out.length, "stdout", &test_error));
    assert_true(json_array_size(list) >= 2);
    json_decref(list);
    cli_free(&result);
}

static void inspect_names_what_it_cannot_read(void **state) {
    (void)state;
    cli_refused("no such file", ARGS("inspect", "/no/such/file"));
    cli_refused("neither a model", ARGS("inspect", test_folder()));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_verb),
        cmocka_unit_test(unknown_option_names_the_nearest),
        cmocka_unit_test(option_of_another_verb),
        cmocka_unit_test(option_without_its_value),
        cmocka_unit_test(values_out_of_their_kind),
        cmocka_unit_test(train_needs_its_options),
        cmocka_unit_test(missing_model_writes_nothing),
        cmocka_unit_test(recipe_with_an_unknown_key),
        cmocka_unit_test(recipe_with_a_value_of_another_kind),
        cmocka_unit_test(help_of_every_verb_fits_a_screen),
        cmocka_unit_test(methods_as_json),
        cmocka_unit_test(inspect_names_what_it_cannot_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
