/* Results as people and programs read them. */
#include "tests/support/support.h"

#include "formats/json.h"

#include <math.h>
#include <string.h>

static void append(void *context, const char *text, size_t n) {
    strbuf_add(context, text, n);
}

static void exit_statuses(void **state) {
    (void)state;
    assert_int_equal(graft_exit_status(GRAFT_OK), 0);
    assert_int_equal(graft_exit_status(GRAFT_E_USAGE), 2);
    assert_int_equal(graft_exit_status(GRAFT_E_INPUT), 2);
    assert_int_equal(graft_exit_status(GRAFT_E_UNSUPPORTED), 2);
    assert_int_equal(graft_exit_status(GRAFT_E_NUMERIC), 1);
    assert_string_equal(graft_version(), GRAFT_VERSION);
}

static void bytes_as_text(void **state) {
    (void)state;
    char text[GRAFT_BYTES_TEXT];
    assert_string_equal(graft_bytes_text(text, 1536.0 * 1024 * 1024), "1.50 GiB");
}

static void assert_sparkline(const double *values, size_t n, int columns, const char *expected) {
    strbuf text = {0};
    graft_sparkline(&(graft_sink){append, &text}, values, n, columns);
    assert_string_equal(strbuf_text(&text), expected);
    strbuf_free(&text);
}

static void sparklines(void **state) {
    (void)state;
    assert_sparkline((const double[]){0, 1, 2, 3, 4, 5, 6, 7}, 8, 80, "▁▂▃▄▅▆▇█");
    assert_sparkline((const double[]){0, 0, 8, 8}, 4, 2, "▁█");
    assert_sparkline((const double[]){1, (double)NAN, 2}, 3, 80, "▁ █");
    assert_sparkline((const double[]){3, 3}, 2, 80, "▁▁");
    assert_sparkline(NULL, 0, 80, "");
}

static json_t *parsed(const strbuf *text) {
    json_t *document = NULL;
    assert_ok(json_parse(&document, strbuf_text(text), text->length, "document", &test_error));
    return document;
}

/* What is not finite is null, so that the document stays JSON. */
static void train_results(void **state) {
    (void)state;
    const double losses[] = {2, 1};
    const graft_train_result result = {.steps = 2,
                                       .tokens = 1234567,
                                       .first_loss = 2,
                                       .last_loss = 1,
                                       .eval_loss = (double)NAN,
                                       .seconds = 1,
                                       .parameters = 10,
                                       .trained_parameters = 5,
                                       .losses = losses,
                                       .n_losses = 2};
    strbuf text = {0};
    assert_ok(graft_train_result_write(&(graft_sink){append, &text}, (graft_format){.json = true},
                                       &result, &test_error));
    json_t *document = parsed(&text);
    assert_true(json_is_null(json_object_get(document, "eval_loss")));
    assert_int_equal(json_integer_value(json_object_get(document, "tokens")), 1234567);
    json_decref(document);
    strbuf_clear(&text);
    assert_ok(graft_train_result_write(&(graft_sink){append, &text}, (graft_format){0}, &result,
                                       &test_error));
    assert_non_null(strstr(strbuf_text(&text), "█▁  2.0000 to 1.0000"));
    assert_non_null(strstr(strbuf_text(&text), "1,234,567"));
    assert_null(strstr(strbuf_text(&text), "nan"));
    strbuf_free(&text);
}

/* A model may write NUL bytes. */
static void generations_with_nul(void **state) {
    (void)state;
    char written[] = "a\0b\"";
    int32_t ids[] = {1, 2};
    const graft_generation g = {
        .text = written, .text_bytes = 4, .token_ids = ids, .n_tokens = 2, .finish_reason = "stop"};
    strbuf text = {0};
    assert_ok(graft_generation_write_json(&(graft_sink){append, &text}, &g, &test_error));
    assert_int_equal(strchr(strbuf_text(&text), '\n') - text.data, text.length - 1);
    json_t *document = parsed(&text);
    assert_int_equal(json_string_length(json_object_get(document, "text")), 4);
    assert_int_equal(json_array_size(json_object_get(document, "token_ids")), 2);
    json_decref(document);
    strbuf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_statuses),        cmocka_unit_test(bytes_as_text),
        cmocka_unit_test(sparklines),           cmocka_unit_test(train_results),
        cmocka_unit_test(generations_with_nul),
    };
    return cmocka_run_group_tests_name("results", tests, NULL, NULL);
}
