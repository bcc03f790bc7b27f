/* Many small templates, as Transformers' own environment renders them:
 * tests/fixtures/templates/make_expressions.py. */
#include "tests/unit/text/template_support.h"

#include "formats/jsonl.h"

#include <stdlib.h>
#include <string.h>

static const char conversation[] = "[{\"role\": \"user\", \"content\": \"x\"}]";

static void small_templates_equal_jinja(void **state) {
    (void)state;
    row_reader *reader = NULL;
    json_t *row = NULL;
    int64_t line, n = 0, n_wrong = 0;
    char *variables = NULL;
    const char *path = test_fixture("templates/expressions.jsonl");
    assert_ok(row_reader_open(&reader, path, &test_error));
    assert_ok(row_reader_next(reader, &row, &line, &test_error));
    variables = json_dumps(json_object_get(row, "variables"), 0);
    json_decref(row);
    for (;;) {
        assert_ok(row_reader_next(reader, &row, &line, &test_error));
        if (!row)
            break;
        template_result result;
        const char *source = json_string_value(json_object_get(row, "template"));
        const char *expected = json_string_value(json_object_get(row, "expected"));
        graft_status status = render_source(&result, source, conversation, variables);
        bool is_equal =
            status == GRAFT_OK && expected && strcmp(strbuf_text(&result.text), expected) == 0;
        if (!is_equal && (expected || status == GRAFT_OK)) {
            n_wrong++;
            print_message("%s:%lld: %s\n    gives %s\n    instead of %s\n", path, (long long)line,
                          source,
                          status == GRAFT_OK ? strbuf_text(&result.text) : test_error.message,
                          expected ? expected : "an error");
        }
        n++;
        template_result_free(&result);
        json_decref(row);
    }
    row_reader_close(&reader);
    free(variables);
    assert_int_equal(n_wrong, 0);
    assert_true(n > 800);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_templates_equal_jinja)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
