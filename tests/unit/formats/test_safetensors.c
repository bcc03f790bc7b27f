#include "tests/support/support.h"

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "formats/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Making files ---- */

static void add_length(strbuf *out, uint64_t length) {
    for (int i = 0; i < 8; i++)
        strbuf_add_char(out, (char)(length >> 8 * i));
}

/* A file of this header and `data_bytes` bytes 0, 1, 2, ... */
static const char *made(const char *name, const char *header, size_t header_bytes,
                        size_t data_bytes) {
    strbuf file = {0};
    add_length(&file, header_bytes);
    strbuf_add(&file, header, header_bytes);
    for (size_t i = 0; i < data_bytes; i++)
        strbuf_add_char(&file, (char)i);
    const char *path = test_file(name, file.data, file.length);
    strbuf_free(&file);
    return path;
}

static graft_status open_made(safetensors **out, const char *header, size_t data_bytes) {
    return safetensors_open(out, made("t.safetensors", header, strlen(header), data_bytes),
                            &test_error);
}

static void assert_header_refused(const char *header, size_t data_bytes, graft_status status,
                                  const char *message) {
    safetensors *st = NULL;
    assert_refused(open_made(&st, header, data_bytes), status, message);
    assert_null(st);
    if (!strstr(test_error.message, "/t.safetensors"))
        fail_msg("the file is not named: %s", test_error.message);
}

static void assert_header_accepted(const char *header, size_t data_bytes, size_t count) {
    safetensors *st = NULL;
    assert_ok(open_made(&st, header, data_bytes));
    assert_int_equal(safetensors_count(st), count);
    safetensors_close(&st);
    assert_null(st);
}

static void assert_bytes_refused(const void *bytes, size_t n, const char *message) {
    safetensors *st = NULL;
    assert_refused(safetensors_open(&st, test_file("t.safetensors", bytes, n), &test_error),
                   GRAFT_E_INPUT, message);
}

/* ---- Reading ---- */

static void tensors_are_sorted_and_found(void **state) {
    (void)state;
    safetensors *st = NULL;
    assert_ok(open_made(&st,
                        "{\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]},"
                        "\"__metadata__\":{\"format\":\"pt\",\"k\":\"\\u00e9\\ud83d\\ude00\"},"
                        "\"a\":{\"shape\":[2,1],\"data_offsets\":[0,8],\"dtype\":\"F32\"}}",
                        11));
    assert_int_equal(safetensors_count(st), 2);
    assert_string_equal(safetensors_name(st, 0), "a");
    assert_string_equal(safetensors_name(st, 1), "b");
    tensor_view view = safetensors_at(st, 0);
    assert_int_equal(view.type, DTYPE_F32);
    assert_int_equal(view.rank, 2);
    assert_int_equal(view.shape[0], 2);
    assert_true(safetensors_find(&view, st, "b"));
    assert_memory_equal(view.data, "\x08\x09\x0A", 3);
    assert_false(safetensors_find(&view, st, "c"));
    assert_string_equal(safetensors_metadata(st, "format"), "pt");
    assert_string_equal(safetensors_metadata(st, "k"), "\u00e9\U0001F600");
    assert_null(safetensors_metadata(st, "other"));
    assert_true(safetensors_bytes(st) > 100);
    assert_non_null(strstr(safetensors_file_of(st, 1), "t.safetensors"));
    assert_ok(safetensors_verify_unchanged(st, &test_error));
    safetensors_close(&st);
}

static void safetensors_scalar_and_empty_shapes(void **state) {
    (void)state;
    safetensors *st = NULL;
    assert_ok(open_made(&st,
                        "{\"none\":{\"dtype\":\"F32\",\"shape\":[2,0],\"data_offsets\":[4,4]},"
                        "\"one\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
                        4));
    tensor_view view;
    assert_true(safetensors_find(&view, st, "none"));
    assert_null(view.data);
    assert_true(safetensors_find(&view, st, "one"));
    assert_int_equal(view.rank, 0);
    assert_int_equal(tensor_bytes(&view), 4);
    safetensors_close(&st);
    assert_header_accepted("{}", 0, 0);
    assert_header_accepted("{\"__metadata__\":null}", 0, 0);
}

static void safetensors_header_with_leading_blanks(void **state) {
    (void)state;
    assert_header_accepted(" \n{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}  ",
                           1, 1);
}

static void safetensors_data_misaligned_by_old_writers(void **state) {
    (void)state;
    for (int blanks = 0; blanks < 8; blanks++) {
        char header[256];
        snprintf(header, sizeof header,
                 "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                 "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}%*s",
                 blanks, "");
        safetensors *st = NULL;
        assert_ok(open_made(&st, header, 5));
        tensor_view view;
        assert_true(safetensors_find(&view, st, "a"));
        assert_int_equal((uintptr_t)view.data % 4, 0);
        assert_memory_equal(view.data, "\x01\x02\x03\x04", 4);
        safetensors_close(&st);
    }
}

/* ---- Bad files: the rows of the table ---- */

static void safetensors_shorter_than_its_length(void **state) {
    (void)state;
    for (size_t n = 0; n < 8; n++)
        assert_bytes_refused("\1\0\0\0\0\0\0\0", n, "begins with 8 bytes of length");
}

static void safetensors_header_longer_than_file(void **state) {
    (void)state;
    assert_bytes_refused("\3\0\0\0\0\0\0\0{}", 10, "at most 2 bytes");
}

static void safetensors_header_length_wraps(void **state) {
    (void)state;
    assert_bytes_refused("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10, "18446744073709551615");
    assert_bytes_refused("\xF8\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10, "18446744073709551608");
}

static void safetensors_header_over_the_limit(void **state) {
    (void)state;
    strbuf head = {0};
    add_length(&head, 100000001);
    const char *path = test_file("big.safetensors", head.data, head.length);
    strbuf_free(&head);
    assert_int_equal(truncate(path, 8 + 100000001), 0);
    safetensors *st = NULL;
    assert_refused(safetensors_open(&st, path, &test_error), GRAFT_E_INPUT,
                   "(it may have 100000000), found a length of 100000001");
    unlink(path);
}

static void safetensors_header_empty_or_no_object(void **state) {
    (void)state;
    static const char *const headers[] = {"",      "   ", "[]",   "1",  "null",
                                          "\"a\"", "{",   "{}{}", "{}x"};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
        assert_header_refused(headers[i], 0, GRAFT_E_INPUT, "expected ");
}

static void safetensors_header_not_utf8(void **state) {
    (void)state;
    assert_header_refused("{\"\xFF\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
                          GRAFT_E_INPUT, "byte 10: expected UTF-8");
}

static void safetensors_duplicate_tensor(void **state) {
    (void)state;
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                          "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                          2, GRAFT_E_INPUT, "\"a\" is there twice");
    assert_header_refused(
        "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
        GRAFT_E_INPUT, "each once");
    assert_header_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, GRAFT_E_INPUT,
                          "only once");
}

static void safetensors_metadata_not_strings(void **state) {
    (void)state;
    assert_header_refused("{\"__metadata__\":{\"a\":1}}", 0, GRAFT_E_INPUT,
                          "a string in __metadata__");
    assert_header_refused("{\"__metadata__\":[]}", 0, GRAFT_E_INPUT, "expected {");
    assert_header_refused("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, GRAFT_E_INPUT,
                          "twice");
}

static void safetensors_shape_overflows(void **state) {
    (void)state;
    assert_header_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2,18446744073709551614],"
                          "\"data_offsets\":[0,0]}}",
                          0, GRAFT_E_INPUT, "a dimension");
    assert_header_refused("{\"a\":{\"dtype\":\"I32\",\"shape\":[2,9223372036854775807],"
                          "\"data_offsets\":[0,0]}}",
                          0, GRAFT_E_INPUT, "more bytes than 64 bits");
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551616],"
                          "\"data_offsets\":[0,0]}}",
                          0, GRAFT_E_INPUT, "a dimension");
}

static void safetensors_offsets_out_of_order_or_no_integers(void **state) {
    (void)state;
    static const char *const ranges[] = {"1,0",
                                         "-1,0",
                                         "0,1.0",
                                         "\"0\",1",
                                         "0,1e0",
                                         "0",
                                         "0,1,2",
                                         "00,1",
                                         "0,null",
                                         "",
                                         "0,99999999999999999999"};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        char header[256];
        snprintf(header, sizeof header,
                 "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%s]}}", ranges[i]);
        assert_header_refused(header, 1, GRAFT_E_INPUT, "expected ");
    }
}

static void safetensors_range_differs_from_shape(void **state) {
    (void)state;
    assert_header_refused(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, GRAFT_E_INPUT,
        "tensor \"a\": expected 8 bytes for shape [2] of F32, found data_offsets [0, 4]");
}

static void safetensors_tensors_share_bytes(void **state) {
    (void)state;
    strbuf header = {0};
    for (int i = 0; i < 10; i++)
        strbuf_printf(&header,
                      "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[16],\"data_offsets\":[0,16]}",
                      i ? "," : "{", i);
    strbuf_add_char(&header, '}');
    assert_header_refused(header.data, 16, GRAFT_E_INPUT, "used twice");
    strbuf_free(&header);
}

static void safetensors_hole_between_tensors(void **state) {
    (void)state;
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                          "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}",
                          3, GRAFT_E_INPUT, "left out before it");
}

static void safetensors_trailing_bytes(void **state) {
    (void)state;
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 3,
                          GRAFT_E_INPUT, "expected 1 bytes of data for its 1 tensors, found 3");
    assert_header_refused("{}", 1, GRAFT_E_INPUT, "expected 0 bytes of data");
}

static void safetensors_truncated_data(void **state) {
    (void)state;
    assert_header_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]}}", 7,
                          GRAFT_E_INPUT, "within the file's 7 bytes of data");
}

static void safetensors_unknown_dtype(void **state) {
    (void)state;
    assert_header_refused("{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1,
                          GRAFT_E_UNSUPPORTED, "\"F4\" is not known here");
}

static void safetensors_too_many_dimensions(void **state) {
    (void)state;
    strbuf header = {0};
    strbuf_add_text(&header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[");
    for (int i = 0; i < 1000000; i++)
        strbuf_add_text(&header, "1,");
    strbuf_add_text(&header, "1],\"data_offsets\":[0,1]}}");
    assert_header_refused(header.data, 1, GRAFT_E_UNSUPPORTED, "at most 8 dimensions");
    strbuf_free(&header);
}

static void safetensors_control_characters_in_name(void **state) {
    (void)state;
    static const char *const names[] = {"a\\u0000b", "a\\nb",   "\\u001b[31m", "\x7F",
                                        "a\nb",      "\\ud800", "\\x",         "\\"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char header[256];
        snprintf(header, sizeof header,
                 "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", names[i]);
        assert_header_refused(header, 1, GRAFT_E_INPUT, "expected ");
        assert_null(strchr(test_error.message, '\x1b'));
    }
}

static void safetensors_replaced_after_open(void **state) {
    (void)state;
    const char *header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
    safetensors *st = NULL;
    const char *path = made("r.safetensors", header, strlen(header), 1);
    assert_ok(safetensors_open(&st, path, &test_error));
    assert_int_equal(truncate(path, 4), 0);
    assert_refused(safetensors_verify_unchanged(st, &test_error), GRAFT_E_INPUT, "has 4 now");
    assert_int_equal(unlink(path), 0);
    assert_refused(safetensors_verify_unchanged(st, &test_error), GRAFT_E_INPUT, "vanished");
    safetensors_close(&st);
}

static void safetensors_deep_metadata(void **state) {
    (void)state;
    strbuf header = {0};
    strbuf_add_text(&header, "{\"__metadata__\":{\"a\":");
    for (int i = 0; i < 1000000; i++)
        strbuf_add_char(&header, '[');
    assert_header_refused(header.data, 0, GRAFT_E_INPUT, "a string in __metadata__");
    strbuf_free(&header);
}

static void safetensors_foreign_files(void **state) {
    (void)state;
    static const char pointer[] =
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    assert_bytes_refused(pointer, sizeof pointer - 1, "run `git lfs pull`");
    assert_bytes_refused("PK\3\4xxxxxxxxxxxxxxxx", 20, "zip archive");
    assert_bytes_refused("<!DOCTYPE html><html>", 21, "web page");
}

static void safetensors_not_a_regular_file(void **state) {
    (void)state;
    safetensors *st = NULL;
    assert_refused(safetensors_open(&st, test_folder(), &test_error), GRAFT_E_INPUT,
                   "found a folder");
    assert_refused(safetensors_open(&st, "/dev/null", &test_error), GRAFT_E_INPUT,
                   "found a device");
    char *path = path_join(test_folder(), "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused(safetensors_open(&st, path, &test_error), GRAFT_E_INPUT, "found a pipe");
    free(path);
    path = path_join(test_folder(), "loop");
    assert_int_equal(symlink("loop", path), 0);
    assert_refused(safetensors_open(&st, path, &test_error), GRAFT_E_INPUT, "in a circle");
    free(path);
    assert_refused(safetensors_open(&st, "/nonexistent", &test_error), GRAFT_E_INPUT,
                   "no such file");
}

/* ---- Writing ---- */

static named_tensor tensor_of(const char *name, dtype type, const void *data, int64_t n) {
    return (named_tensor){name, {.data = data, .type = type, .rank = 1, .shape = {n}}};
}

static void written_files_equal_the_librarys(void **state) {
    (void)state;
    static const float f32[3] = {1, -2.5f, 3};
    static const uint16_t half[2] = {0x3F80, 0x4000};
    static const int64_t i64[2] = {-1, 7};
    static const uint8_t u8[5] = {1, 2, 3, 4, 5};
    const named_tensor tensors[] = {
        tensor_of("u8", DTYPE_U8, u8, 5),
        tensor_of("z.f32", DTYPE_F32, f32, 3),
        tensor_of("a.f32", DTYPE_F32, f32, 2),
        tensor_of("f16", DTYPE_F16, half, 2),
        tensor_of("bf16", DTYPE_BF16, half, 2),
        tensor_of("i64", DTYPE_I64, i64, 2),
        tensor_of("bool", DTYPE_BOOL, u8, 1),
        {"scalar", {.data = f32, .type = DTYPE_F32}},
        {"empty", {.type = DTYPE_F32, .rank = 2, .shape = {2, 0}}},
        tensor_of("q\"\\\xC3\xA9", DTYPE_I8, u8, 1),
    };
    char *path = path_join(test_folder(), "written.safetensors");
    assert_ok(safetensors_write(path, tensors, sizeof tensors / sizeof tensors[0], &test_error));
    char *got, *expected;
    size_t n_got, n_expected;
    assert_ok(file_read_all(&got, &n_got, path, 1 << 20, &test_error));
    assert_ok(file_read_all(&expected, &n_expected, test_fixture("safetensors/library.safetensors"),
                            1 << 20, &test_error));
    assert_int_equal(n_got, n_expected);
    assert_memory_equal(got, expected, n_got);
    safetensors *st = NULL;
    assert_ok(safetensors_open(&st, path, &test_error));
    assert_int_equal(safetensors_count(st), 10);
    safetensors_close(&st);
    free(got);
    free(expected);
    free(path);
}

static void streaming_counts_its_bytes(void **state) {
    (void)state;
    static const float values[4] = {1, 2, 3, 4};
    const named_tensor shapes[] = {tensor_of("a", DTYPE_F32, NULL, 2),
                                   tensor_of("b", DTYPE_F32, NULL, 2)};
    char *path = path_join(test_folder(), "streamed.safetensors");
    safetensors_writer *writer = NULL;
    assert_ok(safetensors_writer_open(&writer, path, shapes, 2, &test_error));
    assert_ok(safetensors_writer_add(writer, values, 12, &test_error));
    assert_refused(safetensors_writer_add(writer, values, 5, &test_error), GRAFT_E_INTERNAL,
                   "more data");
    assert_refused(safetensors_writer_commit(&writer, &test_error), GRAFT_E_INTERNAL,
                   "got 12 bytes");
    assert_null(writer);
    assert_false(path_exists(path));
    assert_ok(safetensors_writer_open(&writer, path, shapes, 2, &test_error));
    assert_ok(safetensors_writer_add(writer, values, 16, &test_error));
    assert_ok(safetensors_writer_commit(&writer, &test_error));
    safetensors *st = NULL;
    assert_ok(safetensors_open(&st, path, &test_error));
    tensor_view view = safetensors_at(st, 1);
    assert_memory_equal(view.data, values + 2, 8);
    safetensors_close(&st);
    assert_ok(safetensors_writer_open(&writer, path, shapes, 2, &test_error));
    safetensors_writer_abandon(&writer);
    const named_tensor twice[] = {shapes[0], shapes[0]};
    assert_refused(safetensors_write(path, twice, 2, &test_error), GRAFT_E_INTERNAL, "\"a\"");
    assert_refused(safetensors_write("/nonexistent/x", shapes, 0, &test_error), GRAFT_E_INPUT,
                   "its folder does not exist");
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_sorted_and_found),
        cmocka_unit_test(safetensors_scalar_and_empty_shapes),
        cmocka_unit_test(safetensors_header_with_leading_blanks),
        cmocka_unit_test(safetensors_data_misaligned_by_old_writers),
        cmocka_unit_test(safetensors_shorter_than_its_length),
        cmocka_unit_test(safetensors_header_longer_than_file),
        cmocka_unit_test(safetensors_header_length_wraps),
        cmocka_unit_test(safetensors_header_over_the_limit),
        cmocka_unit_test(safetensors_header_empty_or_no_object),
        cmocka_unit_test(safetensors_header_not_utf8),
        cmocka_unit_test(safetensors_duplicate_tensor),
        cmocka_unit_test(safetensors_metadata_not_strings),
        cmocka_unit_test(safetensors_shape_overflows),
        cmocka_unit_test(safetensors_offsets_out_of_order_or_no_integers),
        cmocka_unit_test(safetensors_range_differs_from_shape),
        cmocka_unit_test(safetensors_tensors_share_bytes),
        cmocka_unit_test(safetensors_hole_between_tensors),
        cmocka_unit_test(safetensors_trailing_bytes),
        cmocka_unit_test(safetensors_truncated_data),
        cmocka_unit_test(safetensors_unknown_dtype),
        cmocka_unit_test(safetensors_too_many_dimensions),
        cmocka_unit_test(safetensors_control_characters_in_name),
        cmocka_unit_test(safetensors_replaced_after_open),
        cmocka_unit_test(safetensors_deep_metadata),
        cmocka_unit_test(safetensors_foreign_files),
        cmocka_unit_test(safetensors_not_a_regular_file),
        cmocka_unit_test(written_files_equal_the_librarys),
        cmocka_unit_test(streaming_counts_its_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
