/* `graft merge`: the merged model is the base with its adapter. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"
#include "formats/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Methods that change weights, one of each kind. */
static const char *const cases[] = {
    "lora",
    "lora_all_linear",
    "lora_embedding",
    "lora_embedding_lm_head",
    "lora_modules_to_save",
    "lora_dora",
    "lora_target_parameters",
    "lora_bdlora",
    "lora_kasa",
    "lora_trainable_tokens",
    "trainable_tokens",
    "ia3",
    "loha",
};

static double loss_of(const char *model, const char *adapter, const char *rows) {
    cli_result result =
        adapter
            ? cli_ok(ARGS("eval", "--model", model, "--adapter", adapter, "--data", rows, "--json"))
            : cli_ok(ARGS("eval", "--model", model, "--data", rows, "--json"));
    json_t *report = NULL;
    assert_ok(
        json_parse(&report, strbuf_text(&result.out), result.out.length, "stdout", &test_error));
    double loss = json_number_value(json_object_get(report, "loss"));
    json_decref(report);
    cli_free(&result);
    return loss;
}

static const char *rows_file(void) {
    const char rows[] = "{\"text\": \"Once upon a time there was a little dog who could sing.\"}\n"
                        "{\"text\": \"Tom and Sam went to the park. They saw a big red ball.\"}\n";
    return test_file("rows.jsonl", rows, sizeof rows - 1);
}

static void merged_equals_adapter(void **state) {
    (void)state;
    char *base = strdup(test_data("models/stories260K")), *rows = strdup(rows_file());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char relative[128], out[4096];
        snprintf(relative, sizeof relative, "golden/%s", cases[i]);
        snprintf(out, sizeof out, "%s/%s", test_folder(), cases[i]);
        char *adapter = strdup(test_data(relative));
        cli_result merged =
            cli_ok(ARGS("merge", "--model", base, "--adapter", adapter, "--output-dir", out));
        cli_free(&merged);
        double apart = loss_of(out, NULL, rows) - loss_of(base, adapter, rows);
        if (!(apart < 1e-5 && apart > -1e-5))
            fail_msg("%s: losses differ by %g", cases[i], apart);
        free(adapter);
    }
    free(base);
    free(rows);
}

static void merge_that_cannot_be(void **state) {
    (void)state;
    char out[4096];
    char *base = strdup(test_data("models/stories260K"));
    char *prompt = strdup(test_data("golden/prompt_tuning"));
    char *lora = strdup(test_data("golden/lora"));
    snprintf(out, sizeof out, "%s/never", test_folder());
    cli_refused("cannot be merged",
                ARGS("merge", "--model", base, "--adapter", prompt, "--output-dir", out));
    assert_false(path_exists(out));
    cli_refused("not an empty folder",
                ARGS("merge", "--model", base, "--adapter", lora, "--output-dir", base));
    cli_refused("--adapter DIR is needed", ARGS("merge", "--model", base, "--output-dir", out));
    free(base);
    free(prompt);
    free(lora);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_equals_adapter),
        cmocka_unit_test(merge_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
