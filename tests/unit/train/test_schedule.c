/* Learning-rate schedules against transformers.get_scheduler, and the step arithmetic of
 * transformers.Trainer. */
#include "tests/support/support.h"

#include "formats/json.h"
#include "train/schedule.h"

#include <string.h>

static schedule_kind kind_named(const char *name) {
    for (int kind = 0; kind <= SCHEDULE_INVERSE_SQRT; kind++)
        if (strcmp(name, schedule_name((schedule_kind)kind)) == 0)
            return (schedule_kind)kind;
    fail_msg("no schedule is named %s", name);
    return SCHEDULE_CONSTANT;
}

static void check_row(const json_t *row, double learning_rate) {
    const char *name = json_string_value(json_object_get(row, "kind"));
    int64_t warmup = json_integer_value(json_object_get(row, "warmup"));
    int64_t total = json_integer_value(json_object_get(row, "total"));
    const json_t *steps = json_object_get(row, "steps"), *factors = json_object_get(row, "factors");
    for (size_t i = 0; i < json_array_size(steps); i++) {
        int64_t step = json_integer_value(json_array_get(steps, i));
        double got = schedule_factor(kind_named(name), step, warmup, total, learning_rate);
        double expected = json_number_value(json_array_get(factors, i));
        char what[128];
        snprintf(what, sizeof what, "%s, warm-up %d, step %d of %d", name, (int)warmup, (int)step,
                 (int)total);
        test_assert_near(got, expected, 1e-15, 1e-15, what);
    }
}

static void schedules_equal_transformers(void **state) {
    (void)state;
    json_t *root = NULL;
    assert_ok(json_read_file(&root, test_fixture("train/schedules.json"), 1 << 20, &test_error));
    const json_t *rows = json_object_get(root, "rows");
    assert_true(json_array_size(rows) > 30);
    for (size_t i = 0; i < json_array_size(rows); i++)
        check_row(json_array_get(rows, i),
                  json_number_value(json_object_get(root, "learning_rate")));
    json_decref(root);
}

static step_count count(int64_t rows, int32_t batch_size, int32_t accumulation, double epochs,
                        int64_t max_steps) {
    const train_config config = {.num_train_epochs = epochs,
                                 .max_steps = max_steps,
                                 .per_device_train_batch_size = batch_size,
                                 .gradient_accumulation_steps = accumulation};
    return step_count_of(&config, rows);
}

static void steps_round_up_as_in_trainer(void **state) {
    (void)state;
    assert_int_equal(count(10, 2, 2, 1, 0).total, 3);   /* 4 + 4 + 2 rows */
    assert_int_equal(count(8, 2, 2, 3, 0).total, 6);    /* nothing left over */
    assert_int_equal(count(10, 2, 2, 1.5, 0).total, 5); /* ceil(4.5) */
    assert_int_equal(count(10, 2, 2, 9, 7).total, 7);   /* max_steps wins */
    assert_int_equal(count(1, 8, 16, 3, 0).total, 3);   /* fewer rows than a step */
    assert_int_equal(count(10, 2, 2, 0.01, 0).total, 1);
    assert_int_equal(count(10, 2, 2, 1, 0).steps_per_epoch, 3);
}

static void warmup_ratio_rounds_up_and_steps_win(void **state) {
    (void)state;
    train_config config = {.warmup_ratio = 0.03};
    assert_int_equal(schedule_warmup(&config, 100), 3);
    assert_int_equal(schedule_warmup(&config, 101), 4);
    config.warmup_steps = 7;
    assert_int_equal(schedule_warmup(&config, 101), 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_equal_transformers),
        cmocka_unit_test(steps_round_up_as_in_trainer),
        cmocka_unit_test(warmup_ratio_rounds_up_and_steps_win),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
