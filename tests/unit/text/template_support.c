#include "tests/unit/text/template_support.h"

#include "base/file_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

char *file_text(const char *path) {
    char *text = NULL;
    size_t n;
    assert_ok(file_read_all(&text, &n, path, 64 << 20, &test_error));
    return text;
}

json_t *parse_json(const char *text) {
    json_t *json = NULL;
    assert_ok(json_parse(&json, text, strlen(text), "test", &test_error));
    return json;
}

graft_status render_source(template_result *out, const char *source, const char *messages,
                           const char *variables) {
    chat_template *t = NULL;
    json_t *conversation = parse_json(messages);
    json_t *more = variables ? parse_json(variables) : NULL;
    *out = (template_result){0};
    graft_status status = template_parse(&t, source, strlen(source), "test.jinja", &test_error);
    if (status == GRAFT_OK) {
        const template_input input = {.messages = conversation, .variables = more};
        status = template_render(t, out, &input, &test_error);
    }
    template_destroy(&t);
    json_decref(conversation);
    json_decref(more);
    return status;
}

const char *rendered(const char *source, const char *messages, const char *variables) {
    static char text[1 << 16];
    template_result result;
    assert_ok(render_source(&result, source, messages, variables));
    assert_true(result.text.length < sizeof text);
    memcpy(text, strbuf_text(&result.text), result.text.length + 1);
    template_result_free(&result);
    return text;
}

/* "2025-03-07T09:05:04" as seconds, without a time zone. */
static int64_t clock_of(const json_t *row) {
    const char *text = json_string_value(json_object_get(row, "now"));
    struct tm t = {0};
    if (!text || !strptime(text, "%Y-%m-%dT%H:%M:%S", &t))
        return 0;
    return (int64_t)timegm(&t);
}

static void add_token(json_t *variables, const json_t *row, const char *name) {
    json_t *token = json_object_get(row, name);
    if (json_is_string(token) && !json_object_get(variables, name))
        json_object_set(variables, name, token);
}

graft_status render_case(template_result *out, const chat_template *t, const json_t *row) {
    json_t *kwargs = json_object_get(row, "kwargs");
    json_t *variables = kwargs ? json_copy(kwargs) : json_object();
    template_input input = {.messages = json_object_get(row, "messages"),
                            .tools = json_object_get(row, "tools"),
                            .documents = json_object_get(row, "documents"),
                            .variables = variables,
                            .now = clock_of(row)};
    add_token(variables, row, "bos_token");
    add_token(variables, row, "eos_token");
    input.tools = json_is_null(input.tools) ? NULL : input.tools;
    input.documents = json_is_null(input.documents) ? NULL : input.documents;
    input.add_generation_prompt = json_is_true(json_object_get(kwargs, "add_generation_prompt"));
    input.continue_final_message = json_is_true(json_object_get(kwargs, "continue_final_message"));
    graft_status status = template_render(t, out, &input, &test_error);
    json_decref(variables);
    return status;
}
