/* The program when memory runs out (promise 2): an allocation of every verb fails, once, or it and
 * all after it. Whatever the place: no crash; exit status 0 with the whole result, or 1 with a
 * message and nothing on stdout that looks like one. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Places tried of each verb, each in both ways; GRAFT_FAULT_ALL tries every one. */
enum { PLACES = 60 };

typedef struct trial {
    const char *const *arguments;
    const char *output; /* folder to remove before each run; NULL: none */
    json_t *expected; /* stdout of the run without failures, without what changes from run to run */
    long long n;      /* allocations of that run */
} trial;

static void drop_timings(json_t *document) {
    static const char *const keys[] = {"seconds", "tokens_per_second", "peak_memory_bytes", "time"};
    for (size_t i = 0; json_is_object(document) && i < sizeof keys / sizeof *keys; i++)
        json_object_del(document, keys[i]);
}

static cli_result run(const trial *t, long long at, bool always) {
    char number[32];
    snprintf(number, sizeof number, "%lld", at);
    if (t->output)
        assert_ok(folder_remove(t->output, &test_error));
    setenv("LD_PRELOAD", getenv("GRAFT_FAILING_MALLOC"), 1);
    setenv("GRAFT_FAIL_AT", number, 1);
    if (always)
        setenv("GRAFT_FAIL_ALWAYS", "1", 1);
    cli_result result = cli_run(NULL, t->arguments);
    unsetenv("LD_PRELOAD");
    unsetenv("GRAFT_FAIL_AT");
    unsetenv("GRAFT_FAIL_ALWAYS");
    return result;
}

static void measure(trial *t) {
    char *path = cli_path("count");
    setenv("GRAFT_FAIL_COUNT", path, 1);
    cli_result result = run(t, 0, false);
    unsetenv("GRAFT_FAIL_COUNT");
    if (result.status != 0)
        fail_msg("graft %s: exit status %d: %s", t->arguments[0], result.status,
                 strbuf_text(&result.err));
    assert_ok(json_parse(&t->expected, strbuf_text(&result.out), result.out.length, "stdout",
                         &test_error));
    drop_timings(t->expected);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lld", &t->n), 1);
    assert_true(t->n > 20);
    fclose(file);
    cli_free(&result);
    free(path);
}

static void check(const trial *t, long long at, bool always) {
    cli_result result = run(t, at, always);
    const char *out = strbuf_text(&result.out), *err = strbuf_text(&result.err),
               *how = always ? "from" : "at";
    if (result.status == 0) {
        json_t *document = NULL;
        if (json_parse(&document, out, result.out.length, "stdout", &test_error) != GRAFT_OK)
            fail_msg("%s: failing %s %lld of %lld: no result, exit status 0: %s", t->arguments[0],
                     how, at, t->n, out);
        drop_timings(document);
        if (!json_equal(document, t->expected))
            fail_msg("%s: failing %s %lld of %lld: another result: %s", t->arguments[0], how, at,
                     t->n, out);
        json_decref(document);
    } else if (result.status != 1 || !*err || *out) {
        fail_msg("%s: failing %s %lld of %lld: exit status %d; stdout: %s; stderr: %s",
                 t->arguments[0], how, at, t->n, result.status, out, err);
    }
    cli_free(&result);
}

static void every_verb(trial *t) {
    measure(t);
    bool all = getenv("GRAFT_FAULT_ALL") != NULL;
    rng random = rng_create(1, 0);
    long long places = all || t->n < PLACES ? t->n : PLACES;
    for (long long i = 0; i < places; i++) { /* one at random of each stretch */
        long long begin = i * t->n / places, end = (i + 1) * t->n / places;
        long long at = 1 + begin + (long long)rng_below(&random, (uint32_t)(end - begin));
        check(t, at, false);
        check(t, at, true);
    }
    json_decref(t->expected);
}

static void inspect_model(void **state) {
    (void)state;
    char *model = cli_model();
    every_verb(&(trial){.arguments = ARGS("inspect", model, "--json")});
    free(model);
}

static void plan_of_data(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    every_verb(&(trial){.arguments = ARGS("plan", "--model", model, "--data", rows, "--json",
                                          "--threads", "1", "--memory-limit", "1G")});
    free(rows);
    free(model);
}

static void data_shown(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    every_verb(&(trial){
        .arguments = ARGS("data", "--model", model, "--data", rows, "--json", "--rows", "2")});
    free(rows);
    free(model);
}

static void eval_of_data(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows();
    every_verb(&(trial){
        .arguments = ARGS("eval", "--model", model, "--data", rows, "--json", "--threads", "1")});
    free(rows);
    free(model);
}

static void generate_in_a_chat(void **state) {
    (void)state;
    char *model = cli_model();
    every_verb(&(trial){.arguments = ARGS("generate", "--model", model, "--chat", "--chat-template",
                                          "chatml", "--prompt", "Say </s>.", "--max-new-tokens",
                                          "4", "--json", "--threads", "1")});
    free(model);
}

static void train_two_steps(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("out");
    every_verb(&(trial){.arguments = ARGS("train", "--model", model, "--data", rows, "--eval-data",
                                          rows, "--output-dir", output, "--max-steps", "2",
                                          "--json", "--threads", "1", "--memory-limit", "1G"),
                        .output = output});
    free(output);
    free(rows);
    free(model);
}

static void allocator_of_a_sanitizer(void **state) {
    (void)state;
    skip();
}

int main(void) {
    const struct CMUnitTest none[] = {cmocka_unit_test(allocator_of_a_sanitizer)};
    if (!TEST_MALLOC_IS_OURS)
        return cmocka_run_group_tests_name("memory of the program", none, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inspect_model),      cmocka_unit_test(plan_of_data),
        cmocka_unit_test(data_shown),         cmocka_unit_test(eval_of_data),
        cmocka_unit_test(generate_in_a_chat), cmocka_unit_test(train_two_steps),
    };
    return cmocka_run_group_tests_name("memory of the program", tests, NULL, NULL);
}
