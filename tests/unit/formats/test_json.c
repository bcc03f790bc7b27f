#include "tests/support/support.h"

#include "formats/json.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static graft_status parse_bytes(json_t **out, const char *text, size_t n) {
    return json_parse(out, text, n, "t.json", &test_error);
}

static graft_status parse(json_t **out, const char *text) {
    return parse_bytes(out, text, strlen(text));
}

static void assert_rewritten(const char *text, json_style style, bool sort_keys,
                             const char *expected) {
    json_t *value = NULL;
    assert_ok(parse(&value, text));
    strbuf out = {0};
    json_write(&out, value, style, sort_keys);
    assert_string_equal(strbuf_text(&out), expected);
    strbuf_free(&out);
    json_decref(value);
}

/* ---- JSONTestSuite ---- */

/* Accepted although the suite refuses them, or the other way round: see json.h. */
static bool is_exception(const char *name) {
    static const char *const names[] = {
        "n_number_NaN.json",
        "n_number_infinity.json",
        "n_number_minus_infinity.json",
        "y_object_duplicated_key.json",
        "y_object_duplicated_key_and_value.json",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

static void json_test_suite(void **state) {
    (void)state;
    const char *folder = test_data("json-suite/test_parsing");
    DIR *files = opendir(folder);
    assert_non_null(files);
    struct dirent *entry;
    int checked = 0;
    while ((entry = readdir(files))) {
        if (entry->d_name[0] == '.')
            continue;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        json_t *value = NULL;
        bool accepted = json_read_file(&value, path, 1 << 24, &test_error) == GRAFT_OK;
        assert_int_equal(accepted, value != NULL);
        json_decref(value);
        char expectation = entry->d_name[0];
        if (expectation == 'i')
            continue;
        bool expected = (expectation == 'y') != is_exception(entry->d_name);
        if (accepted != expected)
            fail_msg("%s: %s", entry->d_name, accepted ? "accepted" : test_error.message);
        checked++;
    }
    closedir(files);
    assert_true(checked > 250);
}

/* ---- what real files hold ---- */

static void integer_over_64_bits_saturates(void **state) {
    (void)state;
    assert_rewritten("{\"model_max_length\": 1000000000000000019884624838656}", JSON_TIGHT, false,
                     "{\"model_max_length\":9223372036854775807}");
    assert_rewritten("[9223372036854775807,9223372036854775808,-9223372036854775808,"
                     "-9223372036854775809,-99999999999999999999999]",
                     JSON_TIGHT, false,
                     "[9223372036854775807,9223372036854775807,-9223372036854775808,"
                     "-9223372036854775808,-9223372036854775808]");
    assert_rewritten("[\"99999999999999999999\",12345678901234567890.5]", JSON_TIGHT, false,
                     "[\"99999999999999999999\",1.2345678901234567e+19]");
}

static void nonfinite_numbers_are_read_and_never_used(void **state) {
    (void)state;
    assert_rewritten("[NaN, Infinity,-Infinity]", JSON_TIGHT, false,
                     "[{\"__float__\":\"NaN\"},{\"__float__\":\"Infinity\"},"
                     "{\"__float__\":\"-Infinity\"}]");
    json_t *value = NULL;
    double number;
    static const char *const texts[] = {"{\"rope_theta\": NaN}",
                                        "{\"rope_theta\": {\"__float__\": \"NaN\"}}"};
    for (int i = 0; i < 2; i++) {
        assert_ok(parse(&value, texts[i]));
        assert_refused(json_get_double(&number, value, "rope_theta", 1, "t.json", &test_error),
                       GRAFT_E_INPUT, "t.json: \"rope_theta\": expected a number, found NaN");
        json_decref(value);
    }
    assert_refused(parse(&value, "[-NaN]"), GRAFT_E_INPUT, "not valid JSON");
    assert_refused(parse(&value, "[- Infinity]"), GRAFT_E_INPUT, "not valid JSON");
    assert_refused(parse(&value, "[1-Infinity]"), GRAFT_E_INPUT, "not valid JSON");
    assert_refused(parse(&value, "[Infinity5]"), GRAFT_E_INPUT, "not valid JSON");
}

static void lone_surrogates_are_replaced(void **state) {
    (void)state;
    assert_rewritten("[\"a\\uD800b\",\"\\udc00\",\"\\ud83d\\ude00\",\"\\\\uD800\",\"\\ud800\\ud83d"
                     "\\ude00\",\"\\uD800\\n\"]",
                     JSON_TIGHT, false,
                     "[\"a\uFFFDb\",\"\uFFFD\",\"\U0001F600\",\"\\\\uD800\",\"\uFFFD\U0001F600\","
                     "\"\uFFFD\\n\"]");
    assert_rewritten("{\"a\\u0000b\" : \"\\u0000\"}", JSON_TIGHT, false,
                     "{\"a\uFFFDb\":\"\\u0000\"}");
}

static void byte_order_mark_is_passed_over(void **state) {
    (void)state;
    assert_rewritten("\xEF\xBB\xBF{}", JSON_TIGHT, false, "{}");
}

/* ---- refusals ---- */

static void json_utf16(void **state) {
    (void)state;
    json_t *value;
    assert_refused(parse_bytes(&value, "\xFF\xFE{\0}\0", 6), GRAFT_E_INPUT, "UTF-16");
    assert_refused(parse_bytes(&value, "{\0}\0", 4), GRAFT_E_INPUT, "UTF-16");
    assert_refused(parse_bytes(&value, "\0{\0}", 4), GRAFT_E_INPUT, "UTF-16");
}

static void json_git_lfs_pointer(void **state) {
    (void)state;
    json_t *value;
    assert_refused(parse(&value, "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
                   GRAFT_E_INPUT, "git lfs pull");
}

static void json_empty(void **state) {
    (void)state;
    json_t *value;
    assert_refused(parse(&value, ""), GRAFT_E_INPUT, "found nothing");
    assert_refused(parse(&value, "\xEF\xBB\xBF"), GRAFT_E_INPUT, "found nothing");
    assert_refused(parse(&value, " \n "), GRAFT_E_INPUT, "not valid JSON");
    assert_refused(parse_bytes(&value, "{}\0{}", 5), GRAFT_E_INPUT, "t.json: column 3: not valid JSON: expected the end");
}

static void json_truncated(void **state) {
    (void)state;
    json_t *value;
    assert_refused(parse(&value, "{\n\"a\": [1,"), GRAFT_E_INPUT, "t.json: line 2, column 9");
    assert_refused(parse(&value, "{\"a\": \"x"), GRAFT_E_INPUT, "cut off");
}

static void json_duplicate_keys(void **state) {
    (void)state;
    json_t *value;
    assert_refused(parse(&value, "{\"a\":1,\"a\":2}"), GRAFT_E_INPUT, "duplicate object key");
}

static void json_nested_deeper_than_the_limit(void **state) {
    (void)state;
    json_t *value;
    strbuf deep = {0};
    for (int i = 0; i < JSON_DEPTH_MAX; i++)
        strbuf_add_char(&deep, '[');
    for (int i = 0; i < JSON_DEPTH_MAX; i++)
        strbuf_add_char(&deep, ']');
    assert_ok(parse(&value, deep.data));
    json_decref(value);
    strbuf_clear(&deep);
    for (int i = 0; i < 1000000; i++)
        strbuf_add_char(&deep, '[');
    assert_refused(parse(&value, deep.data), GRAFT_E_INPUT,
                   "t.json: byte 512: expected at most 512 nested");
    strbuf_free(&deep);
}

static void json_more_values_than_the_limit(void **state) {
    (void)state;
    json_t *value;
    strbuf many = {0};
    for (int i = 0; i < JSON_VALUES_MAX + 1; i++)
        strbuf_add_text(&many, i ? ",1" : "[1");
    assert_refused(parse(&value, many.data), GRAFT_E_INPUT, "values");
    strbuf_free(&many);
}

static void json_file_missing_or_folder(void **state) {
    (void)state;
    json_t *value;
    assert_refused(json_read_file(&value, "/nonexistent/x.json", 100, &test_error), GRAFT_E_INPUT,
                   "/nonexistent/x.json: there is no such file");
    assert_refused(json_read_file(&value, test_folder(), 100, &test_error), GRAFT_E_INPUT,
                   "found a folder");
    const char *path = test_file("big.json", "[1,2,3]", 7);
    assert_refused(json_read_file(&value, path, 6, &test_error), GRAFT_E_INPUT,
                   "expected at most 6 bytes, found 7");
    assert_ok(json_read_file(&value, path, 7, &test_error));
    json_decref(value);
}

/* ---- members ---- */

static void members_have_types_and_ranges(void **state) {
    (void)state;
    json_t *object;
    int64_t integer = 0;
    double real = 0;
    bool flag = false;
    const char *text = NULL;
    assert_ok(parse(&object, "{\"whole\":4096.0,\"text\":\"4096\",\"half\":32.5,\"none\":null,"
                             "\"yes\":true,\"neg\":-1,\"huge\":1e300,\"nul\":\"a\\u0000b\"}"));
    assert_ok(json_need_i64(&integer, object, "whole", 1, 5000, "c", &test_error));
    assert_int_equal(integer, 4096);
    assert_ok(json_get_i64(&integer, object, "none", 1, 5000, 7, "c", &test_error));
    assert_int_equal(integer, 7);
    assert_ok(json_get_i64(&integer, object, "missing", 1, 5000, 8, "c", &test_error));
    assert_int_equal(integer, 8);
    assert_refused(json_get_i64(&integer, object, "text", 1, 5000, 7, "c", &test_error),
                   GRAFT_E_INPUT,
                   "c: \"text\": expected an integer from 1 to 5000, found the string \"4096\"");
    assert_refused(json_get_i64(&integer, object, "half", 1, 5000, 7, "c", &test_error),
                   GRAFT_E_INPUT, "found 32.5");
    assert_refused(json_get_i64(&integer, object, "huge", 1, INT64_MAX, 7, "c", &test_error),
                   GRAFT_E_INPUT, "an integer of at least 1, found 1e+300");
    assert_refused(json_need_i64(&integer, object, "neg", 0, 9, "c", &test_error), GRAFT_E_INPUT,
                   "found -1");
    assert_refused(json_need_i64(&integer, object, "missing", 0, 9, "c", &test_error),
                   GRAFT_E_INPUT, "found nothing");
    assert_refused(json_need_double(&real, object, "none", "c", &test_error), GRAFT_E_INPUT,
                   "found null");
    assert_ok(json_need_double(&real, object, "neg", "c", &test_error));
    assert_true(real == -1);
    assert_ok(json_get_bool(&flag, object, "yes", false, "c", &test_error));
    assert_true(flag);
    assert_refused(json_get_bool(&flag, object, "neg", false, "c", &test_error), GRAFT_E_INPUT,
                   "expected true or false");
    assert_ok(json_get_string(&text, object, "none", "other", "c", &test_error));
    assert_string_equal(text, "other");
    assert_refused(json_get_string(&text, object, "yes", NULL, "c", &test_error), GRAFT_E_INPUT,
                   "expected a string, found true");
    assert_refused(json_get_string(&text, object, "nul", NULL, "c", &test_error), GRAFT_E_INPUT,
                   "without NUL");
    json_decref(object);
}

/* ---- writing ---- */

static void styles_are_those_of_python(void **state) {
    (void)state;
    const char *text =
        "{\"b\":[1,2.50,{}],\"a\":{\"x\":null,\"\xC3\xA9\":[]},\"c\":\"q\\\"\\u001f/\\u007f\"}";
    assert_rewritten(
        text, JSON_TIGHT, false,
        "{\"b\":[1,2.5,{}],\"a\":{\"x\":null,\"\xC3\xA9\":[]},\"c\":\"q\\\"\\u001f/\x7F\"}");
    assert_rewritten(text, JSON_PYTHON, true,
                     "{\"a\": {\"x\": null, \"\xC3\xA9\": []}, \"b\": [1, 2.5, {}], \"c\": "
                     "\"q\\\"\\u001f/\x7F\"}");
    assert_rewritten(text, JSON_INDENT_2, false,
                     "{\n  \"b\": [\n    1,\n    2.5,\n    {}\n  ],\n  \"a\": {\n    \"x\": null,\n"
                     "    \"\xC3\xA9\": []\n  },\n  \"c\": \"q\\\"\\u001f/\x7F\"\n}");
}

static void assert_double(double value, const char *expected) {
    strbuf out = {0};
    json_write_double(&out, value);
    assert_string_equal(strbuf_text(&out), expected);
    strbuf_free(&out);
}

static void doubles_are_written_as_python_does(void **state) {
    (void)state;
    assert_double(0.1, "0.1");
    assert_double(1, "1.0");
    assert_double(-0.0, "-0.0");
    assert_double(1e-5, "1e-05");
    assert_double(1e-4, "0.0001");
    assert_double(1e15, "1000000000000000.0");
    assert_double(1e16, "1e+16");
    assert_double(1.5e300, "1.5e+300");
    assert_double(123456.789, "123456.789");
    assert_double(5e-324, "5e-324");
    assert_double(0x1p-44, "5.684341886080802e-14");
    assert_double(1.7976931348623157e308, "1.7976931348623157e+308");
    assert_double(9007199254740993.0, "9007199254740992.0");
    assert_double(-NAN, "NaN");
    assert_double(-INFINITY, "-Infinity");
}

/* Bits as 16 hex digits, a blank, Python's repr: made by doubles.py. */
static void doubles_equal_pythons_repr(void **state) {
    (void)state;
    FILE *file = fopen(test_fixture("json/doubles.txt"), "r");
    assert_non_null(file);
    char line[128];
    int n = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *end;
        uint64_t bits = strtoull(line, &end, 16);
        double value;
        memcpy(&value, &bits, sizeof value);
        assert_double(value, end + 1);
        n++;
    }
    fclose(file);
    assert_true(n > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_test_suite),
        cmocka_unit_test(integer_over_64_bits_saturates),
        cmocka_unit_test(nonfinite_numbers_are_read_and_never_used),
        cmocka_unit_test(lone_surrogates_are_replaced),
        cmocka_unit_test(byte_order_mark_is_passed_over),
        cmocka_unit_test(json_utf16),
        cmocka_unit_test(json_git_lfs_pointer),
        cmocka_unit_test(json_empty),
        cmocka_unit_test(json_truncated),
        cmocka_unit_test(json_duplicate_keys),
        cmocka_unit_test(json_nested_deeper_than_the_limit),
        cmocka_unit_test(json_more_values_than_the_limit),
        cmocka_unit_test(json_file_missing_or_folder),
        cmocka_unit_test(members_have_types_and_ranges),
        cmocka_unit_test(styles_are_those_of_python),
        cmocka_unit_test(doubles_are_written_as_python_does),
        cmocka_unit_test(doubles_equal_pythons_repr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
