#include "tests/support/support.h"

#include "formats/yaml.h"

#include <stdio.h>
#include <string.h>

static graft_status keep(void *context, const char *key, int index, const char *value, int line,
                         graft_error *err) {
    (void)err;
    strbuf_printf(context, "%d %s[%d]=%s\n", line, key, index, value ? value : "(null)");
    return GRAFT_OK;
}

static void assert_values(const char *text, const char *expected) {
    strbuf out = {0};
    assert_ok(yaml_read_text(text, strlen(text), "r.yaml", keep, &out, &test_error));
    assert_string_equal(strbuf_text(&out), expected);
    strbuf_free(&out);
}

static void assert_yaml_refused(const char *text, const char *message) {
    strbuf out = {0};
    assert_refused(yaml_read_text(text, strlen(text), "r.yaml", keep, &out, &test_error),
                   GRAFT_E_INPUT, message);
    assert_int_equal(out.length, 0); /* nothing was handed on before the file was checked */
    strbuf_free(&out);
    assert_non_null(strstr(test_error.message, "r.yaml"));
}

static void scalars_lists_and_nested_mappings(void **state) {
    (void)state;
    assert_values("# a recipe\n"
                  "model: base\n"
                  "learning_rate: 1e-4\n"
                  "lora:\n"
                  "  r: 8\n"
                  "  target_modules: [q_proj, \"v_proj\"]\n"
                  "data:\n"
                  "  - a.jsonl\n"
                  "  - b.jsonl\n"
                  "text: |\n"
                  "  two\n"
                  "  lines\n",
                  "2 model[-1]=base\n3 learning_rate[-1]=1e-4\n5 lora.r[-1]=8\n"
                  "6 lora.target_modules[0]=q_proj\n6 lora.target_modules[1]=v_proj\n"
                  "8 data[0]=a.jsonl\n9 data[1]=b.jsonl\n11 text[-1]=two\nlines\n\n");
}

static void null_and_quoted_null(void **state) {
    (void)state;
    assert_values("a: null\nb: ~\nc:\nd: \"null\"\ne: ''\nf: [null, x]\n",
                  "1 a[-1]=(null)\n2 b[-1]=(null)\n3 c[-1]=(null)\n4 d[-1]=null\n5 e[-1]=\n"
                  "6 f[0]=(null)\n6 f[1]=x\n");
}

static void anchors_stand_for_their_values(void **state) {
    (void)state;
    assert_values("a: &x [1, 2]\nb: *x\nc: &y 5\nd: *y\n",
                  "1 a[0]=1\n1 a[1]=2\n1 b[0]=1\n1 b[1]=2\n3 c[-1]=5\n3 d[-1]=5\n");
}

static void empty_text_has_no_values(void **state) {
    (void)state;
    assert_values("", "");
    assert_values("# nothing\n", "");
    assert_values("---\n...\n", "");
    assert_values("\xEF\xBB\xBF"
                  "a: 1\n",
                  "1 a[-1]=1\n");
    assert_values("a: 1\r\nb: 2\r\n", "1 a[-1]=1\n2 b[-1]=2\n");
}

static void yaml_duplicate_keys(void **state) {
    (void)state;
    assert_yaml_refused("a: 1\nb: 2\na: 3\n", "r.yaml:3: ");
    assert_yaml_refused("lora.r: 1\nlora:\n  r: 2\n",
                        "r.yaml:3: \"lora.r\": expected each option once, found it on line 1");
    assert_yaml_refused("lora.r: [1, 2]\nlora: {r: 2}\n", "expected each option once");
}

static void yaml_several_documents(void **state) {
    (void)state;
    assert_yaml_refused("a: 1\n---\nb: 2\n", "expected one YAML document, found a second");
    assert_yaml_refused("a: 1\n---\nb: [2\n", "r.yaml:");
}

static void yaml_values_that_are_no_options(void **state) {
    (void)state;
    assert_yaml_refused("- a\n", "expected a mapping of option names");
    assert_yaml_refused("just words\n", "expected a mapping of option names");
    assert_yaml_refused("a:\n  - [1, 2]\n",
                        "r.yaml:1: \"a\": expected a list of plain values, found a list");
    assert_yaml_refused("a:\n  - {b: 1}\n", "found a mapping");
    assert_yaml_refused("a: []\n", "found an empty list");
    assert_yaml_refused("a: {}\n", "found an empty mapping");
    assert_yaml_refused("? [a]\n: 1\n", "expected option names as keys");
    assert_yaml_refused("x: &x {a: 1}\ny:\n  <<: *x\n",
                        "r.yaml:3: \"y\": expected option names as keys, found a merge");
    assert_yaml_refused("a: !!python/object:os.system x\n", "found a tag");
    assert_yaml_refused("a: \"x\\0y\"\n", "found a NUL");
    assert_yaml_refused("a: *nowhere\n", "r.yaml:1: ");
}

static void yaml_syntax_errors(void **state) {
    (void)state;
    assert_yaml_refused("a: 1\nb: [1, 2\nc: 3\n", "not valid YAML");
    assert_yaml_refused("a: 1\n\tb: 2\n", "r.yaml:1: column 4: not valid YAML");
    assert_yaml_refused("a: \"open\n", "not valid YAML");
    assert_yaml_refused("a: 1\nb: \xFF\n", "r.yaml:2: expected UTF-8 text, found byte 0xff");
}

static void yaml_alias_bomb_and_circle(void **state) {
    (void)state;
    assert_yaml_refused("a: &a {b: *a}\n", "r.yaml:1: ");
    strbuf bomb = {0};
    strbuf_add_text(&bomb,
                    "l0: &l0 {a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7, h: 8, i: 9, j: 10}\n");
    for (int i = 1; i < 10; i++) {
        strbuf_printf(&bomb, "l%d: &l%d {", i, i);
        for (int j = 0; j < 10; j++)
            strbuf_printf(&bomb, "%s%c: *l%d", j ? ", " : "", 'a' + j, i - 1);
        strbuf_add_text(&bomb, "}\n");
    }
    assert_yaml_refused(bomb.data, "at most 100000 values");
    strbuf_clear(&bomb);
    strbuf_add_text(&bomb, "a: ");
    for (int i = 0; i < 100000; i++)
        strbuf_add_text(&bomb, "{a: ");
    assert_yaml_refused(bomb.data, "r.yaml");
    strbuf_clear(&bomb);
    strbuf_add_text(&bomb, "a: ");
    for (int i = 0; i < 100000; i++)
        strbuf_add_text(&bomb, "[");
    assert_yaml_refused(bomb.data, "r.yaml");
    strbuf_free(&bomb);
}

static void yaml_file_missing(void **state) {
    (void)state;
    strbuf out = {0};
    assert_refused(yaml_read_file("/nonexistent.yaml", keep, &out, &test_error), GRAFT_E_INPUT,
                   "no such file");
    assert_ok(yaml_read_file(test_file("r.yaml", "a: 1\n", 5), keep, &out, &test_error));
    assert_string_equal(out.data, "1 a[-1]=1\n");
    strbuf_free(&out);
}

static graft_status compare(void *context, const char *key, int index, const char *value, int line,
                            graft_error *err) {
    (void)key, (void)index, (void)line, (void)err;
    assert_non_null(value);
    assert_string_equal(value, *(const char **)context);
    return GRAFT_OK;
}

static void written_scalars_read_back(void **state) {
    (void)state;
    static const char *const values[] = {
        "plain",  "1e-4", "-1",       "- a",   "null", "~",     "",        " lead",
        "trail ", "a: b", "a #b",     "#x",    "'q'",  "\"q\"", "back\\s", "two\nline",
        "[a]",    "{a}",  "a,b",      "*x",    "&x",   "!x",    "%x",      "@x",
        "`x",     "true", "\xC3\xA9", "tab\t", "x:",   "-",     "--- a",   "---",
        "...",    "?",    "? a",      "a]",    "=",    "<<",    "\x7F",    "..."};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        strbuf text = {0};
        const char *expected = values[i];
        strbuf_add_text(&text, "key: ");
        yaml_write_scalar(&text, expected);
        strbuf_add_text(&text, "\nlist:\n  - ");
        yaml_write_scalar(&text, expected);
        strbuf_add_text(&text, "\nflow: [");
        yaml_write_scalar(&text, expected);
        strbuf_add_text(&text, "]\n");
        assert_ok(
            yaml_read_text(text.data, text.length, values[i], compare, &expected, &test_error));
        strbuf_free(&text);
    }
    strbuf plain = {0};
    yaml_write_scalar(&plain, "1e-4");
    yaml_write_scalar(&plain, "-1");
    assert_string_equal(plain.data, "1e-4-1");
    strbuf_free(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_lists_and_nested_mappings),
        cmocka_unit_test(null_and_quoted_null),
        cmocka_unit_test(anchors_stand_for_their_values),
        cmocka_unit_test(empty_text_has_no_values),
        cmocka_unit_test(yaml_duplicate_keys),
        cmocka_unit_test(yaml_several_documents),
        cmocka_unit_test(yaml_values_that_are_no_options),
        cmocka_unit_test(yaml_syntax_errors),
        cmocka_unit_test(yaml_alias_bomb_and_circle),
        cmocka_unit_test(yaml_file_missing),
        cmocka_unit_test(written_scalars_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
