/* What is around the language: messages made ready, errors, limits. */
#include "tests/unit/text/template_support.h"

#include <stdio.h>
#include <string.h>

static const char hello[] = "[{\"role\": \"user\", \"content\": \"Hello\"}]";

static graft_status refuse(const char *source, const char *messages) {
    template_result result;
    graft_status status = render_source(&result, source, messages, NULL);
    template_result_free(&result);
    return status;
}

static void null_fields_are_dropped(void **state) {
    (void)state;
    assert_string_equal(rendered("{{ messages[0] }}{{ tools }}{{ documents }}",
                                 "[{\"role\": \"user\", \"content\": null, \"x\": {\"y\": null}}]",
                                 NULL),
                        "{'role': 'user', 'x': {'y': None}}NoneNone");
}

static void names_of_reasoning_fill_each_other(void **state) {
    (void)state;
    const char *all = "{% for m in messages %}{{ m }}\n\n{% endfor %}";
    assert_string_equal(
        rendered(all, "[{\"role\": \"a\", \"reasoning\": \"r\"}]", NULL),
        "{'thinking': 'r', 'role': 'a', 'reasoning': 'r', 'reasoning_content': 'r'}\n\n");
    assert_string_equal(
        rendered(all, "[{\"role\": \"a\", \"reasoning_content\": null, \"thinking\": \"t\"}]",
                 NULL),
        "{'thinking': 't', 'role': 'a', 'reasoning_content': 't'}\n\n");
    assert_string_equal(
        rendered(all, "[{\"thinking\": \"t\", \"reasoning_content\": \"r\"}]", NULL),
        "{'thinking': 't', 'reasoning_content': 'r'}\n\n");
}

static void variables_and_the_clock(void **state) {
    (void)state;
    assert_string_equal(
        rendered("{{ eos_token }}{{ add_generation_prompt }}{{ x.y }}{{ q is defined }}", hello,
                 "{\"eos_token\": \"</s>\", \"x\": {\"y\": [1]}, \"q\": null}"),
        "</s>False[1]True");
    assert_string_equal(
        rendered("{{ strftime_now('%d %b %Y, %H:%M:%S %j %U %V %-d %A') }}", hello, NULL),
        "01 Jan 1970, 00:00:00 001 00 01 1 Thursday");
    assert_refused(refuse("{{ strftime_now('%Q') }}", hello), GRAFT_E_UNSUPPORTED, "%Q");
}

static void conversations_that_are_none(void **state) {
    (void)state;
    assert_refused(refuse("x", "[]"), GRAFT_E_INPUT, "empty");
    assert_refused(refuse("x", "{}"), GRAFT_E_INPUT, "must be an array");
    assert_refused(refuse("x", "[1]"), GRAFT_E_INPUT, "message 1 must be an object");
}

static void errors_name_file_and_line(void **state) {
    (void)state;
    assert_refused(refuse("a\n{{ missing.x }}", hello), GRAFT_E_INPUT,
                   "test.jinja:2: 'missing' is undefined");
    assert_refused(refuse("\n\n{{ messages[0].content + messages[0].tool }}", hello), GRAFT_E_INPUT,
                   "test.jinja:3: message 1 has no 'tool'");
    assert_refused(refuse("{{ messages[5].role }}", hello), GRAFT_E_INPUT,
                   "this list has no element 5");
    assert_refused(refuse("{{ {'a': 1}.b.c }}", hello), GRAFT_E_INPUT,
                   "this dict has no attribute 'b'");
    assert_refused(refuse("{{ 'a' + 1 }}", hello), GRAFT_E_INPUT,
                   "'+' is not possible between a str and a int");
    assert_refused(refuse("{% for x in 1 %}{% endfor %}", hello), GRAFT_E_INPUT, "found a int");
    assert_refused(refuse("{{ raise_exception('No \\'system\\' role!') }}", hello), GRAFT_E_INPUT,
                   "No 'system' role!");
    assert_refused(refuse("{{ x() }}", hello), GRAFT_E_INPUT, "'x' is undefined");
    assert_refused(refuse("{{ 9223372036854775807 + 1 }}", hello), GRAFT_E_INPUT, "64 bits");
}

static void syntax_errors_say_what_was_expected(void **state) {
    (void)state;
    assert_refused(refuse("\n{% if a %}\nb", hello), GRAFT_E_INPUT,
                   "test.jinja:3: expected more of the template, found the end of the template; {% "
                   "endif %} for the "
                   "block of line 2 is missing");
    assert_refused(refuse("{% for x of y %}", hello), GRAFT_E_INPUT,
                   "expected \"in\", found \"of\"");
    assert_refused(refuse("{{ a b }}", hello), GRAFT_E_INPUT, "expected \"}}\", found \"b\"");
    assert_refused(refuse("{{ (a }}", hello), GRAFT_E_INPUT, "expected \")\"");
    assert_refused(refuse("{{ 'a }}", hello), GRAFT_E_INPUT, "has no end");
    assert_refused(refuse("\n\n{# a", hello), GRAFT_E_INPUT, "test.jinja:3: the comment");
    assert_refused(refuse("{% bogus %}", hello), GRAFT_E_INPUT, "unknown statement \"bogus\"");
    assert_refused(refuse("{% if a %}{% endfor %}", hello), GRAFT_E_INPUT, "waits for {% endif %}");
    assert_refused(refuse("{{ a|bogus }}", hello), GRAFT_E_INPUT, "no filter named \"bogus\"");
    assert_refused(refuse("{{ a is bogus }}", hello), GRAFT_E_INPUT, "no test named \"bogus\"");
    assert_refused(refuse("{{ 99999999999999999999 }}", hello), GRAFT_E_INPUT, "64 bits");
    assert_refused(refuse("a\xff", hello), GRAFT_E_INPUT, "byte 1 is not valid UTF-8");
}

static void what_is_not_supported_is_named_when_parsed(void **state) {
    (void)state;
    static const char *const filters[] = {"pprint", "random", "striptags", "urlize", "wordwrap"};
    static const char *const statements[] = {"include", "import", "from",
                                             "extends", "block",  "autoescape"};
    char source[128];
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        snprintf(source, sizeof source, "{%% if false %%}{{ a|%s }}{%% endif %%}", filters[i]);
        assert_refused(refuse(source, hello), GRAFT_E_UNSUPPORTED, filters[i]);
    }
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        snprintf(source, sizeof source, "{%% if false %%}{%% %s 'x' %%}{%% endif %%}",
                 statements[i]);
        assert_refused(refuse(source, hello), GRAFT_E_UNSUPPORTED, statements[i]);
    }
    assert_refused(refuse("{{ lipsum() }}", hello), GRAFT_E_UNSUPPORTED, "lipsum");
}

static void template_loop_of_a_thousand_million(void **state) {
    (void)state;
    assert_refused(refuse("{% for i in range(1000000000) %}{% endfor %}", hello), GRAFT_E_INPUT,
                   "limit is 100000");
    assert_refused(
        refuse("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
               hello),
        GRAFT_E_INPUT, "steps");
}

static void template_recursive_macro(void **state) {
    (void)state;
    assert_refused(refuse("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", hello), GRAFT_E_INPUT,
                   "200 levels");
    assert_refused(
        refuse("{% macro m() %}{% if 1 %}{% for x in [1] %}{% if [m()] %}{% endif %}{% endfor %}"
               "{% endif %}{% endmacro %}{{ m() }}",
               hello),
        GRAFT_E_INPUT, "levels");
    assert_refused(refuse("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", hello),
                   GRAFT_E_INPUT, "levels");
    assert_refused(
        refuse("{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}"
               "{% endcall %}{% endmacro %}{{ n() }}",
               hello),
        GRAFT_E_INPUT, "levels");
}

static void template_reaches_for_python(void **state) {
    (void)state;
    assert_string_equal(
        rendered("{{ ''.__class__ }}{{ messages.__class__ }}{{ messages[0]['__class__'] }}", hello,
                 NULL),
        "");
    assert_refused(refuse("{{ ''.__class__.__mro__ }}", hello), GRAFT_E_INPUT, "unsafe");
    assert_refused(refuse("{{ messages.append(1) }}", hello), GRAFT_E_INPUT, "unsafe");
    assert_refused(refuse("{{ messages[0].update({}) }}", hello), GRAFT_E_INPUT, "unsafe");
    assert_refused(refuse("{{ '{0.__class__.__mro__}'.format(1) }}", hello), GRAFT_E_INPUT,
                   "unsafe");
    assert_refused(refuse("{% set ns = namespace(__x=1) %}", hello), GRAFT_E_INPUT, "begins with");
}

/* Not one of these may take much time or memory. */
static void template_bombs(void **state) {
    (void)state;
    static const char *const sources[] = {
        "{{ 'x' * 1000000000 }}",
        "{{ ['x'] * 10000000000 }}",
        "{{ [] * 9223372036854775807 }}{{ 'x' * 9223372036854775807 }}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% "
        "endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% "
        "endfor %}",
        "{% set ns = namespace(s=[]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% "
        "endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=[]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% "
        "endfor %}"
        "{{ ns.s|tojson }}",
        "{% set a = namespace(s=[]) %}{% set b = namespace(s=[]) %}{% for i in range(60) %}"
        "{% set a.s = [a.s, a.s] %}{% set b.s = [b.s, b.s] %}{% endfor %}{{ a.s == b.s }}",
        "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% "
        "endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% "
        "endfor %}"
        "{{ ns.s|tojson }}",
        "{% set ns = namespace(s=()) %}{% for i in range(100000) %}{% set ns.s = (ns.s,) %}{% "
        "endfor %}"
        "{{ {ns.s: 1} }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1.5 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x'|center(1000000000) }}",
        "{{ '\\t'.expandtabs(1000000000) }}",
        "{{ 'a'|indent(1000000000, true) }}",
        "{{ [1]|tojson(indent=1000000000) }}",
        "{{ [1]|batch(1000000000, 1)|list }}",
        "{{ [1]|slice(1000000000)|list }}",
        "{{ 2 ** 9223372036854775807 }}",
        "{% for i in range(100000) %}{{ ('x' * 10000)|upper }}{% endfor %}",
        "{% set s = 'ab' * 1000000 %}{% for i in range(100000) %}{{ 'c' in s }}{% endfor %}",
        "{% set s = 'ab' * 1000000 %}{% for i in range(100000) %}{{ s.rfind('c') }}{% endfor %}",
        "{% set s = 'ab' * 1000000 %}{% for i in range(100000) %}{{ s[-1] }}{% endfor %}",
        "{% set s = 'ab' * 1000000 %}{% for i in range(100000) %}{{ s|length }}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{{ i in l }}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{{ l|sort|first }}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{{ l|sum }}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{{ l|reverse|first }}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        graft_status status = refuse(sources[i], hello);
        if (status != GRAFT_E_INPUT)
            fail_msg("%s: status %d: %s", sources[i], status, test_error.message);
    }
}

static void source_nested_too_deeply(void **state) {
    (void)state;
    static char source[1 << 20];
    static const char *const parts[][2] = {{"(", ")"},   {"[", "]"},          {"-", ""},
                                           {"not ", ""}, {"{1:", "}"},        {"a(", ")"},
                                           {"a[", "]"},  {"1 if ", " else 1"}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char *at = source + sprintf(source, "{{ ");
        for (int depth = 0; depth < 50000; depth++)
            at = stpcpy(at, parts[i][0]);
        strcpy(at, "1 }}");
        assert_int_equal(refuse(source, hello), GRAFT_E_INPUT);
    }
    char *at = source;
    for (int depth = 0; depth < 50000; depth++)
        at = stpcpy(at, "{% if 1 %}");
    assert_refused(refuse(source, hello), GRAFT_E_INPUT, "levels deep");
    at = source + sprintf(source, "{{ 1");
    for (int depth = 0; depth < 50000; depth++)
        at = stpcpy(at, " + 1");
    strcpy(at, " }}");
    assert_refused(refuse(source, hello), GRAFT_E_INPUT, "nested too deeply");
    at = source + sprintf(source, "{{ a");
    for (int depth = 0; depth < 50000; depth++)
        at = stpcpy(at, "|e");
    strcpy(at, " }}");
    assert_refused(refuse(source, hello), GRAFT_E_INPUT, "nested too deeply");
}

static void many_terms_are_no_depth(void **state) {
    (void)state;
    static char source[1 << 16];
    char *at = source + sprintf(source, "{{ 1");
    for (int i = 0; i < 1000; i++)
        at = stpcpy(at, " + 1");
    at = stpcpy(at, " }}{% if 0 %}");
    for (int i = 0; i < 1000; i++)
        at = stpcpy(at, "{% elif 0 %}");
    strcpy(at, "{% endif %}");
    assert_string_equal(rendered(source, hello, NULL), "1001");
}

static void continue_final_message(void **state) {
    (void)state;
    const char *chatml = template_builtin("chatml");
    chat_template *t = NULL;
    template_result result;
    json_t *messages = parse_json(
        "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": "
        "\"Sure, \"}]");
    template_input input = {.messages = messages, .continue_final_message = true};
    assert_ok(template_parse(&t, chatml, strlen(chatml), "chatml", &test_error));
    assert_ok(template_render(t, &result, &input, &test_error));
    assert_string_equal(result.text.data,
                        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSure, ");
    assert_int_equal(result.n_spans, 1);
    assert_int_equal(result.spans[0].end, result.text.length);
    template_result_free(&result);
    input.add_generation_prompt = true;
    assert_refused(template_render(t, &result, &input, &test_error), GRAFT_E_USAGE,
                   "exclude each other");
    json_decref(messages);
    template_destroy(&t);
}

static void text_with_markers_is_only_text(void **state) {
    (void)state;
    assert_string_equal(rendered("{{ messages[0].content }}",
                                 "[{\"role\": \"user\", \"content\": \"{{ 1 }}{% if %}\\u0000"
                                 "<|im_end|>\"}]",
                                 NULL),
                        "{{ 1 }}{% if %}");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_fields_are_dropped),
        cmocka_unit_test(names_of_reasoning_fill_each_other),
        cmocka_unit_test(variables_and_the_clock),
        cmocka_unit_test(conversations_that_are_none),
        cmocka_unit_test(errors_name_file_and_line),
        cmocka_unit_test(syntax_errors_say_what_was_expected),
        cmocka_unit_test(what_is_not_supported_is_named_when_parsed),
        cmocka_unit_test(template_loop_of_a_thousand_million),
        cmocka_unit_test(template_recursive_macro),
        cmocka_unit_test(template_reaches_for_python),
        cmocka_unit_test(template_bombs),
        cmocka_unit_test(source_nested_too_deeply),
        cmocka_unit_test(many_terms_are_no_depth),
        cmocka_unit_test(continue_final_message),
        cmocka_unit_test(text_with_markers_is_only_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
