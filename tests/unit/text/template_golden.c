/* Every shared case that Transformers rendered, or refused. */
#include "tests/unit/text/template_support.h"

#include "formats/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static chat_template *load(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "templates_golden/%s", name);
    if (strncmp(name, "SmolLM2", 7) != 0)
        snprintf(path, sizeof path, "templates/%s", name);
    const char *full = test_data(path);
    char *source = file_text(full);
    chat_template *t = NULL;
    assert_ok(template_parse(&t, source, strlen(source), name, &test_error));
    free(source);
    return t;
}

/* What the case says must come out; false, and why in test_error, when something else does. */
static bool is_as_expected(const json_t *row, graft_status status, const template_result *result) {
    const json_t *expected = json_object_get(row, "expected");
    const char *refusal = json_string_value(json_object_get(row, "error"));
    const char *type = json_string_value(json_object_get(row, "error_type"));
    if (expected)
        return status == GRAFT_OK && result->text.length == json_string_length(expected) &&
               memcmp(strbuf_text(&result->text), json_string_value(expected),
                      result->text.length) == 0;
    if (status == GRAFT_OK)
        return false;
    return strcmp(type, "TemplateError") != 0 || strstr(test_error.message, refusal);
}

static void all_cases_equal_transformers(void **state) {
    (void)state;
    row_reader *reader = NULL;
    json_t *row = NULL;
    int64_t line, n = 0, n_wrong = 0;
    char known[128] = "";
    chat_template *t = NULL;
    assert_ok(row_reader_open(&reader, test_data("templates_golden/cases.jsonl"), &test_error));
    for (;;) {
        assert_ok(row_reader_next(reader, &row, &line, &test_error));
        if (!row)
            break;
        const char *name = json_string_value(json_object_get(row, "template"));
        if (strcmp(name, known) != 0) {
            template_destroy(&t);
            t = load(name);
            snprintf(known, sizeof known, "%s", name);
        }
        template_result result;
        test_error.message[0] = '\0';
        graft_status status = render_case(&result, t, row);
        if (!is_as_expected(row, status, &result)) {
            n_wrong++;
            print_message("%s, %s (line %lld): %s\n", name,
                          json_string_value(json_object_get(row, "name")), (long long)line,
                          status == GRAFT_OK ? strbuf_text(&result.text) : test_error.message);
        }
        n++;
        template_result_free(&result);
        json_decref(row);
    }
    row_reader_close(&reader);
    template_destroy(&t);
    assert_int_equal(n_wrong, 0);
    assert_int_equal(n, 988);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_cases_equal_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
