/* The template that comes with a model. */
#include "tests/unit/text/template_support.h"

#include "base/atomic_file.h"

#include <stdio.h>
#include <string.h>

static void write_text(const char *name, const char *text) {
    test_file(name, text, strlen(text));
}

static void start(void) {
    assert_ok(folder_remove(test_folder(), &test_error));
    assert_ok(folder_create(test_folder(), &test_error));
}

static void assert_source(const char *name, bool has_tools, const char *expected) {
    chat_template *t = NULL;
    assert_ok(template_load_model(&t, test_folder(), name, has_tools, &test_error));
    assert_non_null(t);
    assert_string_equal(template_source(t), expected);
    template_destroy(&t);
}

static graft_status load(const char *name) {
    chat_template *t = NULL;
    graft_status status = template_load_model(&t, test_folder(), name, false, &test_error);
    assert_null(t);
    return status;
}

static void a_model_without_template(void **state) {
    (void)state;
    start();
    assert_int_equal(load(NULL), GRAFT_OK);
    write_text("tokenizer_config.json", "{\"chat_template\": null}");
    assert_int_equal(load(NULL), GRAFT_OK);
}

static void template_as_text_of_the_config(void **state) {
    (void)state;
    start();
    write_text("tokenizer_config.json", "{\"chat_template\": \"a{{ 1 }}\"}");
    assert_source(NULL, false, "a{{ 1 }}");
    assert_source(NULL, true, "a{{ 1 }}");
}

static void template_as_list(void **state) {
    (void)state;
    start();
    write_text("tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"default\", \"template\": \"d\"}, {\"name\": "
               "\"tool_use\", "
               "\"template\": \"t\"}, {\"name\": \"rag\", \"template\": \"r\"}]}");
    assert_source(NULL, false, "d");
    assert_source(NULL, true, "t");
    assert_source("rag", true, "r");
    assert_refused(load("other"), GRAFT_E_INPUT, "it has \"default\", \"tool_use\", \"rag\"");
}

static void template_as_jinja_file(void **state) {
    (void)state;
    char path[512];
    start();
    write_text("tokenizer_config.json", "{\"chat_template\": \"old\"}");
    write_text("chat_template.jinja", "new\n");
    assert_source(NULL, false, "new\n");
    snprintf(path, sizeof path, "%s/additional_chat_templates", test_folder());
    assert_ok(folder_create(path, &test_error));
    write_text("additional_chat_templates/tool_use.jinja", "tools");
    assert_source(NULL, false, "new\n");
    assert_source(NULL, true, "tools");
    assert_source("tool_use", false, "tools");
    write_text("chat_template.jinja", "a\n{% if %}");
    assert_refused(load(NULL), GRAFT_E_INPUT, "chat_template.jinja:2:");
}

static void template_of_another_type(void **state) {
    (void)state;
    start();
    write_text("tokenizer_config.json", "{\"chat_template\": 5}");
    assert_refused(load(NULL), GRAFT_E_INPUT, "must be a string or a list");
    write_text("tokenizer_config.json", "{\"chat_template\": \"{{\"}");
    assert_refused(load(NULL), GRAFT_E_INPUT, "tokenizer_config.json: chat_template:1:");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_without_template),
        cmocka_unit_test(template_as_text_of_the_config),
        cmocka_unit_test(template_as_list),
        cmocka_unit_test(template_as_jinja_file),
        cmocka_unit_test(template_of_another_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
