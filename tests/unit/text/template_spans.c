/* Which bytes of a rendered conversation are assistant turns. */
#include "tests/unit/text/template_support.h"

#include "formats/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The text with every occurrence of a mark's first string replaced by its second. */
static char *put_marks(const char *source, const json_t *marks) {
    size_t i;
    json_t *mark;
    char *marked = strdup(source);
    json_array_foreach(marks, i, mark) {
        const char *old = json_string_value(json_array_get(mark, 0));
        const char *new = json_string_value(json_array_get(mark, 1));
        const char *at = strstr(marked, old);
        strbuf changed = {0};
        assert_non_null(at);
        strbuf_add(&changed, marked, (size_t)(at - marked));
        strbuf_add_text(&changed, new);
        strbuf_add_text(&changed, at + strlen(old));
        free(marked);
        marked = strbuf_take(&changed);
    }
    return marked;
}

static chat_template *load(const char *name, const json_t *marks) {
    char path[256];
    chat_template *t = NULL;
    snprintf(path, sizeof path, "%s/%s",
             strncmp(name, "SmolLM2", 7) == 0 ? "templates_golden" : "templates", name);
    char *source = file_text(test_data(path));
    char *marked = put_marks(source, marks);
    assert_ok(template_parse(&t, marked, strlen(marked), name, &test_error));
    free(source);
    free(marked);
    return t;
}

static bool has_spans(const template_result *result, const json_t *expected) {
    bool same = result->n_spans == json_array_size(expected);
    for (size_t i = 0; same && i < result->n_spans; i++) {
        const json_t *span = json_array_get(expected, i);
        same = result->spans[i].begin == (size_t)json_integer_value(json_array_get(span, 0)) &&
               result->spans[i].end == (size_t)json_integer_value(json_array_get(span, 1));
    }
    return same && result->span_error.code == GRAFT_OK;
}

/* Every row of spans.jsonl, with the marks put into its template or without them. */
static void compare_rows(bool with_marks) {
    char *text = file_text(test_fixture("templates/marks.json"));
    json_t *marks = parse_json(text), *none = json_array(), *row = NULL;
    row_reader *reader = NULL;
    chat_template *t = NULL;
    char known[128] = "";
    int64_t line, n = 0, n_wrong = 0;
    assert_ok(row_reader_open(&reader, test_fixture("templates/spans.jsonl"), &test_error));
    for (;;) {
        template_result result;
        assert_ok(row_reader_next(reader, &row, &line, &test_error));
        if (!row)
            break;
        const char *name = json_string_value(json_object_get(row, "template"));
        if (strcmp(name, known) != 0) {
            template_destroy(&t);
            t = load(name, with_marks ? json_object_get(marks, name) : none);
            snprintf(known, sizeof known, "%s", name);
        }
        assert_ok(render_case(&result, t, row));
        assert_int_equal(result.text.length, json_integer_value(json_object_get(row, "bytes")));
        assert_int_equal(result.has_generation, with_marks);
        if (!has_spans(&result, json_object_get(row, "spans"))) {
            n_wrong++;
            print_message("%s, %s (line %lld): other spans %s\n", name,
                          json_string_value(json_object_get(row, "name")), (long long)line,
                          result.span_error.message);
        }
        n++;
        template_result_free(&result);
        json_decref(row);
    }
    row_reader_close(&reader);
    template_destroy(&t);
    json_decref(marks);
    json_decref(none);
    free(text);
    assert_int_equal(n_wrong, 0);
    assert_int_equal(n, 295);
}

static void spans_equal_hand_made_marks(void **state) {
    (void)state;
    compare_rows(false);
}

static void generation_blocks_equal_transformers(void **state) {
    (void)state;
    compare_rows(true);
}

static const char conversation[] =
    "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
    "\"Hello\"}, "
    "{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Hi\"}]";

/* The turns that are found, with a bar between them; "refused: ..." when they cannot be told. */
static const char *turns(const char *source, const char *messages, const char *variables) {
    static char shown[4096];
    template_result result;
    strbuf b = {0};
    assert_ok(render_source(&result, source, messages, variables));
    if (result.span_error.code != GRAFT_OK)
        strbuf_printf(&b, "refused: %s", result.span_error.message);
    for (size_t i = 0; i < result.n_spans; i++) {
        strbuf_add_text(&b, i ? "|" : "");
        strbuf_add(&b, result.text.data + result.spans[i].begin,
                   result.spans[i].end - result.spans[i].begin);
    }
    snprintf(shown, sizeof shown, "%s", strbuf_text(&b));
    strbuf_free(&b);
    template_result_free(&result);
    return shown;
}

static void chatml_turns(void **state) {
    (void)state;
    const char *chatml = template_builtin("chatml");
    assert_string_equal(turns(chatml, conversation, NULL), "Hello<|im_end|>|Hi<|im_end|>");
    assert_string_equal(turns(chatml, "[{\"role\": \"assistant\", \"content\": \"\"}]", NULL),
                        "<|im_end|>");
    template_result result;
    assert_ok(render_source(&result, chatml, conversation, NULL));
    assert_int_equal(result.n_spans, 2);
    assert_int_equal(result.spans[0].message, 1);
    assert_int_equal(result.spans[1].message, 3);
    assert_int_equal(result.spans[1].end, result.text.length - 1);
    template_result_free(&result);
}

static void builtin_templates_have_turns(void **state) {
    (void)state;
    const char *tokens = "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";
    for (size_t i = 0; template_builtin_name(i); i++) {
        const char *found = turns(template_builtin(template_builtin_name(i)), conversation, tokens);
        assert_int_equal(strncmp(found, "Hello<", 6), 0);
        assert_non_null(strstr(found, ">|Hi<"));
    }
    assert_null(template_builtin("no such template"));
}

static void a_loop_over_indices(void **state) {
    (void)state;
    assert_string_equal(turns("{% for i in range(messages|length) %}<{{ messages[i].role }}>"
                              "{{ messages[i].content }}<end>\n\n{% endfor %}"
                              "{% if add_generation_prompt %}<assistant>{% endif %}",
                              conversation, NULL),
                        "Hello<end>|Hi<end>");
}

static void a_macro_and_a_captured_block(void **state) {
    (void)state;
    assert_string_equal(
        turns("{% macro show(m) %}<{{ m.role }}>{{ m.content|upper }}<end>{% endmacro %}"
              "{% set body %}{% for m in messages %}{{ show(m) }}\n\n{% endfor %}{% endset %}"
              "{{ body|trim }}{% if add_generation_prompt %}\n<assistant>{% endif %}",
              conversation, NULL),
        "HELLO<end>|HI<end>");
}

static void text_added_up_in_a_namespace(void **state) {
    (void)state;
    assert_string_equal(
        turns("{% set ns = namespace(out='') %}{% for m in messages %}"
              "{% set ns.out = ns.out + '<' + m.role + '>' + m.content + '<end>' %}"
              "{% endfor %}{{ ns.out }}",
              conversation, NULL),
        "refused: test.jinja: cannot tell which text is the turn of message 2: its text "
        "is printed outside any loop. Put {% generation %} ... {% endgeneration %} "
        "around what the assistant says in the template, or give another template");
}

static void text_of_two_messages_in_one_turn_is_refused(void **state) {
    (void)state;
    const char *found = turns("{% for m in messages %}{{ m.content }}{% if loop.nextitem %}"
                              "{{ loop.nextitem.content }}{% endif %}{% endfor %}",
                              conversation, NULL);
    assert_non_null(strstr(found, "refused"));
    assert_non_null(strstr(found, "another message"));
}

static void a_turn_printed_twice_is_refused(void **state) {
    (void)state;
    const char *twice = "{% for m in messages %}{{ m.content }}.{% endfor %}"
                        "{% for m in messages %}{{ m.content }}.{% endfor %}";
    assert_non_null(strstr(turns(twice, conversation, NULL), "in several places"));
}

static void the_end_of_sequence_behind_the_last_turn(void **state) {
    (void)state;
    const char *source =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% else %}{{ eos_token }}{% endif %}";
    assert_string_equal(turns(source, conversation, "{\"eos_token\": \"<eos>\"}"),
                        "Hello<end>|Hi<end>\n\n<eos>");
}

static void a_turn_that_ends_in_white_space_only(void **state) {
    (void)state;
    assert_string_equal(
        turns("{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}", conversation,
              NULL),
        "Hello\n\n|Hi\n\n");
}

static void a_generation_prompt_in_the_last_iteration(void **state) {
    (void)state;
    chat_template *t = NULL;
    template_result result;
    const char *source =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n\n"
        "{% if loop.last and add_generation_prompt %}<assistant>{% endif %}{% endfor %}";
    json_t *messages = parse_json(conversation);
    const template_input input = {.messages = messages, .add_generation_prompt = true};
    assert_ok(template_parse(&t, source, strlen(source), "test", &test_error));
    assert_ok(template_render(t, &result, &input, &test_error));
    assert_int_equal(result.n_spans, 2);
    assert_int_equal(result.text.length - result.spans[1].end, strlen("\n\n<assistant>"));
    template_result_free(&result);
    template_destroy(&t);
    json_decref(messages);
}

static void a_header_printed_in_the_turn_before(void **state) {
    (void)state;
    assert_string_equal(
        turns("{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}<end>"
              "<assistant>{% else %}{{ m.content }}<end>{% endif %}{% endfor %}",
              conversation, NULL),
        "Hello<end>|Hi<end>");
}

static void turns_without_a_header(void **state) {
    (void)state;
    assert_string_equal(
        turns("{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] "
              "{{ m.content }} [/INST]{% else %} {{ m.content + ' ' + eos_token }}"
              "{% endif %}{% endfor %}",
              conversation, "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}"),
        " Hello </s>| Hi </s>");
}

static void a_prompt_that_is_part_of_the_header(void **state) {
    (void)state;
    assert_string_equal(
        turns("{% for m in messages %}{{ m.role|upper }}: {{ m.content }}</s>{% endfor %}"
              "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
              conversation, NULL),
        " Hello</s>| Hi</s>");
}

static void content_in_parts(void **state) {
    (void)state;
    assert_string_equal(
        turns(
            "{% for m in messages %}<{{ m.role }}>{% for p in m.content %}{{ p.text }}{% endfor %}"
            "<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
            "[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}]}, "
            "{\"role\": "
            "\"assistant\", \"content\": [{\"type\": \"text\", \"text\": \"b\"}, {\"type\": "
            "\"text\", "
            "\"text\": \"c\"}]}]",
            NULL),
        "bc<end>");
}

static void the_same_text_elsewhere_is_no_turn(void **state) {
    (void)state;
    assert_string_equal(turns("Hello<end>{{ 'Hi<end>' }}{% for m in messages %}<{{ m.role }}>"
                              "{{ m.content }}<end>{% endfor %}Hello<end>",
                              conversation, NULL),
                        "Hello<end>|Hi<end>");
    template_result result;
    assert_ok(render_source(&result,
                            "Hi{% for m in messages %}<{{ m.role }}>{{ m.content }}!{% endfor %}",
                            conversation, NULL));
    assert_int_equal(result.spans[0].begin, strlen("Hi<user>Hi!<assistant>"));
    template_result_free(&result);
}

static void a_message_the_template_leaves_out(void **state) {
    (void)state;
    assert_string_equal(
        turns("{% for m in messages %}{% if loop.last %}<{{ m.role }}>{{ m.content }}!"
              "{% endif %}{% endfor %}",
              conversation, NULL),
        "Hi!");
}

static void strings_keep_their_message_through_filters(void **state) {
    (void)state;
    static const char *const shown[] = {
        "m.content",
        "m.content|trim",
        "m.content[0:]",
        "m.content[::1]",
        "m.content.strip()",
        "m.content.split('x')[0]",
        "m.content|replace('q', 'z')",
        "[m.content]|join(',')",
        "'%s' % m.content",
        "'{}'.format(m.content)",
        "m.content ~ ''",
        "'' + m.content",
        "m.content|string",
        "m.content.removeprefix('q')",
        "m.content|indent",
        "m['content']|default('x')",
        "(m.content|list)|join",
        "m.content.splitlines()|join('')",
        "m.content.partition('q')[0]",
        "m.content|map('upper')|map('lower')|join|capitalize",
        "m.content|title",
        "m.get('content')",
        "(m|items|list)[1][1]",
        "m.content|center(2)",
        "m.content.ljust(2)",
        "m.content|truncate(100)",
        "m.content|safe",
        "m.content|e",
    };
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        char source[256];
        snprintf(source, sizeof source,
                 "{%% for m in messages %%}<{{ m.role }}>{{ %s }}<end>{%% endfor %%}", shown[i]);
        if (strcmp(turns(source, conversation, NULL), "Hello<end>|Hi<end>") != 0)
            fail_msg("%s: %s", shown[i], turns(source, conversation, NULL));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans_equal_hand_made_marks),
        cmocka_unit_test(generation_blocks_equal_transformers),
        cmocka_unit_test(chatml_turns),
        cmocka_unit_test(builtin_templates_have_turns),
        cmocka_unit_test(a_loop_over_indices),
        cmocka_unit_test(a_macro_and_a_captured_block),
        cmocka_unit_test(text_added_up_in_a_namespace),
        cmocka_unit_test(text_of_two_messages_in_one_turn_is_refused),
        cmocka_unit_test(a_turn_printed_twice_is_refused),
        cmocka_unit_test(the_end_of_sequence_behind_the_last_turn),
        cmocka_unit_test(a_turn_that_ends_in_white_space_only),
        cmocka_unit_test(a_generation_prompt_in_the_last_iteration),
        cmocka_unit_test(a_header_printed_in_the_turn_before),
        cmocka_unit_test(turns_without_a_header),
        cmocka_unit_test(a_prompt_that_is_part_of_the_header),
        cmocka_unit_test(content_in_parts),
        cmocka_unit_test(the_same_text_elsewhere_is_no_turn),
        cmocka_unit_test(a_message_the_template_leaves_out),
        cmocka_unit_test(strings_keep_their_message_through_filters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
