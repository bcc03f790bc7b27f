/* What a recipe may say, and what a resumed run may change (R4). */
#include "tests/support/support.h"

#include "train/settings.h"

#include <math.h>
#include <string.h>

static char message[1024];
static void keep_message(void *context, message_level level, const char *text) {
    (void)context, (void)level;
    strncpy(message, text, sizeof message - 1);
}
static const message_sink sink = {keep_message, NULL};

static train_config good(void) {
    return (train_config){.num_train_epochs = 1,
                          .per_device_train_batch_size = 1,
                          .gradient_accumulation_steps = 1,
                          .learning_rate = 1e-4,
                          .adam_beta1 = 0.9,
                          .adam_beta2 = 0.999,
                          .adam_epsilon = 1e-8,
                          .output_dir = "out"};
}

static void good_settings_pass(void **state) {
    (void)state;
    train_config config = good();
    assert_ok(settings_check(&config, &test_error));
    config.max_steps = -1; /* HF's "not given" */
    assert_ok(settings_check(&config, &test_error));
}

static void bad_settings_are_named(void **state) {
    (void)state;
    train_config config = good();
    config.per_device_train_batch_size = 0;
    assert_refused(settings_check(&config, &test_error), GRAFT_E_USAGE,
                   "per_device_train_batch_size");
    config = good();
    config.learning_rate = (double)NAN;
    assert_refused(settings_check(&config, &test_error), GRAFT_E_USAGE, "learning_rate");
    config = good();
    config.adam_beta2 = 1;
    assert_refused(settings_check(&config, &test_error), GRAFT_E_USAGE, "adam_beta2");
    config = good();
    config.num_train_epochs = 0;
    assert_refused(settings_check(&config, &test_error), GRAFT_E_USAGE, "num_train_epochs");
    config = good();
    config.output_dir = "";
    assert_refused(settings_check(&config, &test_error), GRAFT_E_USAGE, "output_dir");
}

static graft_status compare(const char *then_text, const char *now_text) {
    json_t *then = NULL, *now = NULL;
    assert_ok(json_parse(&then, then_text, strlen(then_text), "then", &test_error));
    assert_ok(json_parse(&now, now_text, strlen(now_text), "now", &test_error));
    message[0] = '\0';
    graft_status status = settings_compare(then, now, "checkpoint-3", &sink, &test_error);
    json_decref(then);
    json_decref(now);
    return status;
}

static void resume_with_another_batch_or_seed(void **state) {
    (void)state;
    assert_refused(compare("{\"seed\": \"1\"}", "{\"seed\": \"2\"}"), GRAFT_E_INPUT,
                   "seed: expected \"1\" as when the checkpoint was made, found \"2\"");
    assert_refused(
        compare("{\"gradient_accumulation_steps\": 2}", "{\"gradient_accumulation_steps\": 4}"),
        GRAFT_E_INPUT, "gradient_accumulation_steps: expected 2");
    assert_refused(compare("{}", "{\"shuffle\": true}"), GRAFT_E_INPUT,
                   "shuffle: expected nothing");
}

static void resume_with_another_rate_warns(void **state) {
    (void)state;
    assert_ok(compare("{\"learning_rate\": 0.001}", "{\"learning_rate\": 0.002}"));
    assert_non_null(strstr(message, "learning_rate was 0.001"));
    assert_ok(compare("{\"learning_rate\": 1}", "{\"learning_rate\": 1.0}"));
    assert_string_equal(message, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_settings_pass),
        cmocka_unit_test(bad_settings_are_named),
        cmocka_unit_test(resume_with_another_batch_or_seed),
        cmocka_unit_test(resume_with_another_rate_warns),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
