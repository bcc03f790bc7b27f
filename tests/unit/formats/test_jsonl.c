#include "tests/support/support.h"

#include "formats/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* "LINE:JSON\n" for each row, in a buffer that the next call overwrites. */
static const char *rows_of(const char *path) {
    static char text[4096];
    strbuf out = {0};
    row_reader *reader = NULL;
    assert_ok(row_reader_open(&reader, path, &test_error));
    for (;;) {
        json_t *row;
        int64_t line;
        assert_ok(row_reader_next(reader, &row, &line, &test_error));
        if (!row)
            break;
        strbuf_printf(&out, "%lld:", (long long)line);
        json_write(&out, row, JSON_TIGHT, false);
        strbuf_add_char(&out, '\n');
        json_decref(row);
    }
    row_reader_close(&reader);
    snprintf(text, sizeof text, "%s", strbuf_text(&out));
    strbuf_free(&out);
    return text;
}

static void assert_rows(const char *name, const char *text, const char *expected) {
    assert_string_equal(rows_of(test_file(name, text, strlen(text))), expected);
}

/* Reads rows until one is refused. */
static graft_status read_until_refused(const char *path) {
    row_reader *reader = NULL;
    json_t *row = NULL;
    int64_t line;
    graft_status status = row_reader_open(&reader, path, &test_error);
    while (status == GRAFT_OK) {
        status = row_reader_next(reader, &row, &line, &test_error);
        if (!row)
            break;
        json_decref(row);
    }
    row_reader_close(&reader);
    return status;
}

static void assert_rows_refused(const char *name, const void *text, size_t n, const char *message) {
    const char *path = test_file(name, text, n);
    assert_refused(read_until_refused(path), GRAFT_E_INPUT, message);
    if (!strstr(test_error.message, path))
        fail_msg("the file is not named: %s", test_error.message);
}

/* ---- What must work ---- */

static void jsonl_blank_lines_crlf_and_bom(void **state) {
    (void)state;
    assert_rows("a.jsonl", "\xEF\xBB\xBF{\"a\":1}\r\n\r\n  \n{\"b\":\"\xC3\xA9\"}\n\n",
                "1:{\"a\":1}\n4:{\"b\":\"\xC3\xA9\"}\n");
    assert_rows("A.JSONL", "{\"a\":1}", "1:{\"a\":1}\n");
    assert_rows("a.ndjson", "\n{}\n", "2:{}\n");
}

static void json_file_is_an_array_or_lines(void **state) {
    (void)state;
    assert_rows("a.json", " [ {\"a\":1},\n {\"b\":2} ]\n", "1:{\"a\":1}\n2:{\"b\":2}\n");
    assert_rows("b.json", "\xEF\xBB\xBF[{}]", "1:{}\n");
    assert_rows("c.json", "\n{\"a\":1}\n{\"b\":2}\n", "2:{\"a\":1}\n3:{\"b\":2}\n");
}

static void text_file_is_one_row(void **state) {
    (void)state;
    assert_rows("a.txt", "\xEF\xBB\xBFtwo\r\nlines\n", "1:{\"text\":\"two\\r\\nlines\\n\"}\n");
    const char *path = test_file("nul.txt", "a\0b", 3);
    assert_string_equal(rows_of(path), "1:{\"text\":\"a\\u0000b\"}\n");
}

static void jsonl_tool_arguments_as_string_or_object(void **state) {
    (void)state;
    assert_rows("t.jsonl", "{\"arguments\":\"{\\\"a\\\": 1}\"}\n{\"arguments\":{\"a\":1}}\n",
                "1:{\"arguments\":\"{\\\"a\\\": 1}\"}\n2:{\"arguments\":{\"a\":1}}\n");
}

static void long_lines_cross_chunks(void **state) {
    (void)state;
    strbuf file = {0};
    for (int row = 0; row < 5; row++) {
        strbuf_add_text(&file, "{\"text\":\"");
        for (int i = 0; i < 700000; i++)
            strbuf_add_char(&file, (char)('a' + (row + i) % 26));
        strbuf_add_text(&file, "\"}\n");
    }
    row_reader *reader = NULL;
    assert_ok(
        row_reader_open(&reader, test_file("long.jsonl", file.data, file.length), &test_error));
    strbuf_free(&file);
    for (int row = 0; row < 5; row++) {
        json_t *object;
        int64_t line;
        assert_ok(row_reader_next(reader, &object, &line, &test_error));
        assert_int_equal(line, row + 1);
        const char *text = json_string_value(json_object_get(object, "text"));
        assert_int_equal(strlen(text), 700000);
        assert_int_equal(text[699999], 'a' + (row + 699999) % 26);
        json_decref(object);
    }
    row_reader_close(&reader);
}

static const char *packed_gzip(const char *name, const char *const *members, size_t n) {
    const char *path = test_file(name, "", 0);
    for (size_t i = 0; i < n; i++) {
        gzFile file = gzopen(path, "ab");
        assert_non_null(file);
        assert_int_equal(gzwrite(file, members[i], (unsigned)strlen(members[i])),
                         strlen(members[i]));
        assert_int_equal(gzclose(file), Z_OK);
    }
    return path;
}

static const char *packed_zstd(const char *name, const char *const *frames, size_t n) {
    strbuf packed = {0};
    for (size_t i = 0; i < n; i++) {
        char frame[512];
        size_t bytes = ZSTD_compress(frame, sizeof frame, frames[i], strlen(frames[i]), 3);
        assert_false(ZSTD_isError(bytes));
        strbuf_add(&packed, frame, bytes);
    }
    const char *path = test_file(name, packed.data, packed.length);
    strbuf_free(&packed);
    return path;
}

static void packed_files_are_unpacked(void **state) {
    (void)state;
    static const char *const parts[] = {"{\"a\":1}\n{\"b\"", ":2}\n"};
    static const char expected[] = "1:{\"a\":1}\n2:{\"b\":2}\n";
    assert_string_equal(rows_of(packed_gzip("a.jsonl.gz", parts, 2)), expected);
    assert_string_equal(rows_of(packed_zstd("a.jsonl.zst", parts, 2)), expected);
    assert_string_equal(rows_of(packed_gzip("a.json.GZ", parts, 2)), expected);
    static const char *const text[] = {"words"};
    assert_string_equal(rows_of(packed_zstd("a.txt.zst", text, 1)), "1:{\"text\":\"words\"}\n");
}

static void real_files_are_read(void **state) {
    (void)state;
    row_reader *reader = NULL;
    assert_ok(
        row_reader_open(&reader, test_data("instruction/instruction-data.json"), &test_error));
    int64_t rows = 0;
    for (json_t *row;; rows++) {
        int64_t line;
        assert_ok(row_reader_next(reader, &row, &line, &test_error));
        if (!row)
            break;
        assert_int_equal(line, rows + 1);
        json_decref(row);
    }
    assert_true(rows > 1000);
    row_reader_close(&reader);
}

static void hash_tells_edited_files(void **state) {
    (void)state;
    uint64_t a, b, empty;
    assert_ok(file_hash(&a, test_file("h", "abc", 3), &test_error));
    assert_ok(file_hash(&b, test_file("h", "abd", 3), &test_error));
    assert_ok(file_hash(&empty, test_file("h", "", 0), &test_error));
    assert_int_equal(a, 0x78AF5F94892F3950u); /* XXH3-64 of "abc" */
    assert_int_equal(empty, 0x2D06800538D394C2u);
    assert_int_not_equal(a, b);
    assert_refused(file_hash(&a, "/nonexistent", &test_error), GRAFT_E_INPUT, "no such file");
}

/* ---- Bad files: the rows of the table ---- */

static void jsonl_empty_file(void **state) {
    (void)state;
    static const char *const names[] = {"e.jsonl", "e.json", "e.txt"};
    for (size_t i = 0; i < 3; i++)
        assert_rows_refused(names[i], "", 0, "expected rows of data, found none");
    assert_rows_refused("e.json", "[]", 2, "found none");
    assert_rows_refused("e.jsonl", "\n \n", 3, "found none");
}

static void jsonl_truncated_last_line(void **state) {
    (void)state;
    assert_rows_refused("t.jsonl", "{\"a\":1}\n{\"b\":", 13, "t.jsonl:2: column 6: not valid JSON");
    assert_non_null(strstr(test_error.message, "cut off"));
    assert_rows_refused("t.json", "[{\"a\":1},", 9, "cut off");
}

static void jsonl_invalid_utf8(void **state) {
    (void)state;
    assert_rows_refused("u.jsonl", "{}\n{\"a\":\"\xFF\"}\n", 13, "u.jsonl:2: ");
    assert_rows_refused("u.txt", "ab\xC3(", 4, "byte 2: expected UTF-8 text, found byte 0xc3");
    assert_rows_refused("u.txt",
                        "\xFF\xFE"
                        "a\0",
                        4, "UTF-16");
}

static void jsonl_line_over_the_limit(void **state) {
    (void)state;
    size_t n = (size_t)ROW_BYTES_MAX + 2;
    char *text = malloc(n);
    memset(text, ' ', n);
    text[0] = '\n';
    assert_rows_refused("long.jsonl", text, n,
                        "long.jsonl:2: expected a line of at most 67108864 bytes");
    free(text);
    test_file("long.jsonl", "", 0);
}

static void jsonl_line_not_an_object(void **state) {
    (void)state;
    static const char *const lines[] = {"[1]", "1", "\"a\"", "null", "true"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_rows_refused("o.jsonl", lines[i], strlen(lines[i]),
                            "o.jsonl:1: expected a JSON object");
    assert_rows_refused("o.json", "[{},2]", 6,
                        "o.json:2: expected a JSON object, found an integer");
    assert_rows_refused("o.json", "{\n\"a\":\n1}", 9, "an array of objects, or one object a line");
}

static void jsonl_duplicate_keys(void **state) {
    (void)state;
    assert_rows_refused("d.jsonl", "{}\n\n{\"a\":1,\"a\":2}", 17,
                        "d.jsonl:3: column 8: not valid JSON: duplicate");
}

static void jsonl_decompression_bomb(void **state) {
    (void)state;
    size_t n = (size_t)192 << 20;
    char *zeros = calloc(n, 1);
    size_t room = ZSTD_compressBound(n);
    char *packed = malloc(room);
    memset(zeros, '\n', n); /* blank lines: nothing else would stop it */
    size_t bytes = ZSTD_compress(packed, room, zeros, n, 1);
    assert_false(ZSTD_isError(bytes));
    assert_rows_refused("bomb.jsonl.zst", packed, bytes, "at most 1000 times its packed bytes");
    free(zeros);
    free(packed);
}

static void jsonl_packed_and_cut_off(void **state) {
    (void)state;
    static const char *const parts[] = {"{\"a\":\"some words to pack\"}\n"};
    char bytes[512];
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(
            i ? packed_zstd("c.jsonl.zst", parts, 1) : packed_gzip("c.jsonl.gz", parts, 1), "rb");
        size_t n = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        const char *name = i ? "cut.jsonl.zst" : "cut.jsonl.gz";
        for (size_t cut = 1; cut < n; cut++)
            assert_rows_refused(name, bytes, cut, "it is cut off");
        bytes[n - 1] ^= 0x55; /* gzip's length; zstd frames need not have a checksum */
        if (i == 0)
            assert_rows_refused(name, bytes, n, "damaged");
        assert_rows_refused(name, "not packed at all", 17, "damaged");
    }
}

static void data_in_other_formats(void **state) {
    (void)state;
    static const struct {
        const char *name, *message;
    } files[] = {{"x.parquet", "read_parquet"}, {"x.arrow", "Dataset.from_file"},
                 {"x.feather", "read_feather"}, {"x.csv", "read_csv"},
                 {"x.csv.gz", "read_csv"},      {"x.tsv", "sep="}};
    row_reader *reader = NULL;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        assert_refused(row_reader_open(&reader, files[i].name, &test_error), GRAFT_E_UNSUPPORTED,
                       files[i].message);
    assert_refused(row_reader_open(&reader, "x.bin", &test_error), GRAFT_E_INPUT, "another ending");
    assert_refused(row_reader_open(&reader, "jsonl", &test_error), GRAFT_E_INPUT, "another ending");
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:1\n";
    assert_rows_refused("p.jsonl", pointer, sizeof pointer - 1, "git lfs pull");
    assert_rows_refused("p.txt", pointer, sizeof pointer - 1, "git lfs pull");
    assert_rows_refused("p.jsonl", "PAR1\n", 5, "Parquet");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jsonl_blank_lines_crlf_and_bom),
        cmocka_unit_test(json_file_is_an_array_or_lines),
        cmocka_unit_test(text_file_is_one_row),
        cmocka_unit_test(jsonl_tool_arguments_as_string_or_object),
        cmocka_unit_test(long_lines_cross_chunks),
        cmocka_unit_test(packed_files_are_unpacked),
        cmocka_unit_test(real_files_are_read),
        cmocka_unit_test(hash_tells_edited_files),
        cmocka_unit_test(jsonl_empty_file),
        cmocka_unit_test(jsonl_truncated_last_line),
        cmocka_unit_test(jsonl_invalid_utf8),
        cmocka_unit_test(jsonl_line_over_the_limit),
        cmocka_unit_test(jsonl_line_not_an_object),
        cmocka_unit_test(jsonl_duplicate_keys),
        cmocka_unit_test(jsonl_decompression_bomb),
        cmocka_unit_test(jsonl_packed_and_cut_off),
        cmocka_unit_test(data_in_other_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
