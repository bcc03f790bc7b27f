/* --compute: learning in int8, its memory, and where it is refused. */
#include "tests/cli/cli.h"

#include "base/atomic_file.h"

#include <math.h>
#include <stdlib.h>

static json_t *train(const char *compute, const char *threads, const char *model, const char *rows,
                     const char *output) {
    return cli_json(ARGS("train", "--model", model, "--data", rows, "--eval-data", rows,
                         "--output-dir", output, "--json", "--num-train-epochs", "8",
                         "--per-device-train-batch-size", "2", "--learning-rate", "5e-3",
                         "--target-modules", "all-linear", "--compute", compute, "--force-compute",
                         "--threads", threads));
}

static void rounded_products_learn_as_exact_ones(void **state) {
    (void)state;
    static const char *const types[] = {"int8", "bf16"};
    char *model = cli_model(), *rows = cli_rows(), *exact = cli_path("exact");
    json_t *f32 = train("f32", "2", model, rows, exact);
    for (int i = 0; i < 2; i++) {
        char *output = cli_path(types[i]);
        json_t *result = train(types[i], "2", model, rows, output);
        double first = cli_number(result, "first_loss");
        assert_true(first != cli_number(f32, "first_loss")); /* it did round */
        test_assert_near(first, cli_number(f32, "first_loss"), 0, 0.01, "first loss");
        assert_true(cli_number(result, "last_loss") < 0.3 * first);
        assert_true(cli_number(result, "planned_memory_bytes") ==
                    cli_number(f32, "planned_memory_bytes"));
        json_decref(result);
        free(output);
    }
    json_decref(f32);
    free(exact);
    free(rows);
    free(model);
}

static void int8_has_the_same_bits_on_any_threads(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *one = cli_path("one"),
         *three = cli_path("three");
    json_decref(train("int8", "1", model, rows, one));
    json_decref(train("int8", "3", model, rows, three));
    cli_assert_same_file(one, three, "adapter_model.safetensors");
    free(three);
    free(one);
    free(rows);
    free(model);
}

static void no_gain_is_refused_before_anything_is_written(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *never = cli_path("never");
    cli_refused("AVX-512 VNNI", ARGS("train", "--model", model, "--data", rows, "--output-dir",
                                     never, "--compute", "int8", "--cpu-features", "none"));
    cli_refused("amx_bf16", ARGS("eval", "--model", model, "--data", rows, "--compute", "bf16",
                                 "--cpu-features", "none"));
    cli_refused("every weight trains",
                ARGS("train", "--model", model, "--data", rows, "--output-dir", never, "--compute",
                     "int8", "--method", "full"));
    cli_refused("once a token",
                ARGS("generate", "--model", model, "--prompt", "a", "--compute", "int8"));
    cli_refused("int8", ARGS("train", "--model", model, "--data", rows, "--output-dir", never,
                             "--compute", "int4"));
    assert_false(path_exists(never));
    free(never);
    free(rows);
    free(model);
}

static void resume_in_another_arithmetic_is_refused(void **state) {
    (void)state;
    char *model = cli_model(), *rows = cli_rows(), *output = cli_path("resumed");
    json_decref(train("int8", "2", model, rows, output));
    char *recipe = path_join(output, "recipe.yaml");
    cli_refused("compute: expected \"int8\"",
                ARGS("train", recipe, "--resume", "--compute", "f32", "--num-train-epochs", "9"));
    cli_result result = cli_ok(ARGS("train", recipe, "--resume", "--num-train-epochs", "9"));
    cli_free(&result);
    free(recipe);
    free(output);
    free(rows);
    free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounded_products_learn_as_exact_ones),
        cmocka_unit_test(int8_has_the_same_bits_on_any_threads),
        cmocka_unit_test(no_gain_is_refused_before_anything_is_written),
        cmocka_unit_test(resume_in_another_arithmetic_is_refused),
    };
    return cmocka_run_group_tests_name("compute", tests, NULL, NULL);
}
