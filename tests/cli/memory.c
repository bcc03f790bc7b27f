/* The whole process holds what the plan says, and little else. GRAFT_SMOLLM2 names the folder of
 * SmolLM2-135M-Instruct: it is not among the shared data. */
#include "tests/cli/cli.h"

#include "tests/support/support.h"

#include <stdio.h>
#include <stdlib.h>

static const double SHARE_BESIDE_PLAN = 0.05; /* the program, its libraries, the heap */

/* Rows longer than any max_length here. */
static char *long_rows(void) {
    strbuf text = {0};
    for (int row = 0; row < 4; row++) {
        strbuf_add_text(&text, "{\"text\": \"");
        for (int word = 0; word < 400; word++)
            strbuf_printf(&text, "%d and %d make %d. ", row, word, row + word);
        strbuf_add_text(&text, "\"}\n");
    }
    test_file("long.jsonl", text.data, text.length);
    strbuf_free(&text);
    return cli_path("long.jsonl");
}

typedef struct memory_case {
    const char *name, *rows, *length, *method, *checkpointing;
} memory_case;

static void peak_is_what_was_planned(void **state) {
    const memory_case *c = *state;
    const char *model = getenv("GRAFT_SMOLLM2");
    if (!model)
        skip();
    char *rows = long_rows(), *output = cli_path(c->name);
    json_t *result = cli_json(ARGS(
        "train", "--model", model, "--data", rows, "--output-dir", output, "--json", "--method",
        c->method, "--per-device-train-batch-size", c->rows, "--max-length", c->length,
        "--gradient-checkpointing", c->checkpointing, "--max-steps", "1", "--save-steps", "0"));
    double planned = cli_number(result, "planned_memory_bytes"),
           peak = cli_number(result, "peak_memory_bytes");
    if (peak < (1 - SHARE_BESIDE_PLAN) * planned || peak > (1 + SHARE_BESIDE_PLAN) * planned)
        fail_msg("planned %.0f bytes, and the process held %.0f", planned, peak);
    json_decref(result);
    free(output);
    free(rows);
}

int main(void) {
    static const memory_case cases[] = {
        {"lora_keeps_all", "2", "256", "lora", "off"},
        {"lora_recomputes", "1", "256", "lora", "on"},
        {"full_fine_tuning", "1", "64", "full", "off"},
    };
    enum { N = sizeof cases / sizeof *cases };
    struct CMUnitTest tests[N];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){.name = cases[i].name,
                                       .test_func = peak_is_what_was_planned,
                                       .initial_state = (void *)&cases[i]};
    return _cmocka_run_group_tests("memory", tests, N, NULL, NULL);
}
