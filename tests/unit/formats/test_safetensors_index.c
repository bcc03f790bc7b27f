#include "tests/support/support.h"

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "formats/safetensors.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char warning[1024];

static void keep_warning(void *context, message_level level, const char *text) {
    (void)context;
    assert_int_equal(level, MESSAGE_WARNING);
    snprintf(warning, sizeof warning, "%s", text);
}

static const message_sink sink = {keep_warning, NULL};

/* A fresh folder of a model in test_folder(). */
static const char *model_folder(void) {
    static char path[4096];
    static int count;
    snprintf(path, sizeof path, "%s/m%d", test_folder(), count++);
    assert_ok(folder_create(path, &test_error));
    return path;
}

static void write_text(const char *folder, const char *name, const char *text) {
    char *path = path_join(folder, name);
    assert_ok(file_write_atomic(path, text, strlen(text), &test_error));
    free(path);
}

/* A shard with one-byte tensors of the given one-letter names. */
static void write_shard(const char *folder, const char *name, const char *letters) {
    char names[8][2];
    named_tensor tensors[8];
    size_t n = strlen(letters);
    for (size_t i = 0; i < n; i++) {
        names[i][0] = letters[i];
        names[i][1] = '\0';
        tensors[i] = (named_tensor){
            names[i], {.data = &letters[i], .type = DTYPE_U8, .rank = 1, .shape = {1}}};
    }
    char *path = path_join(folder, name);
    assert_ok(safetensors_write(path, tensors, n, &test_error));
    free(path);
}

#define INDEX "model.safetensors.index.json"

static void assert_index_refused(const char *folder, const char *index, const char *message) {
    safetensors *st = NULL;
    write_text(folder, INDEX, index);
    assert_refused(safetensors_open_model(&st, folder, &sink, &test_error), GRAFT_E_INPUT, message);
    assert_null(st);
}

/* ---- What must work ---- */

static void shards_are_one_model(void **state) {
    (void)state;
    const char *folder = model_folder();
    write_shard(folder, "s1.safetensors", "ac");
    write_shard(folder, "s2.safetensors", "b");
    write_text(folder, INDEX,
               "{\"metadata\":{\"total_size\":3},\"weight_map\":{\"a\":\"s1.safetensors\","
               "\"b\":\"s2.safetensors\",\"c\":\"s1.safetensors\"}}");
    safetensors *st = NULL;
    warning[0] = '\0';
    assert_ok(safetensors_open_model(&st, folder, &sink, &test_error));
    assert_string_equal(warning, "");
    assert_int_equal(safetensors_count(st), 3);
    tensor_view view;
    for (const char *name = "abc"; *name; name++) {
        assert_true(safetensors_find(&view, st, (char[]){*name, '\0'}));
        assert_memory_equal(view.data, name, 1);
    }
    assert_non_null(strstr(safetensors_file_of(st, 1), "s2.safetensors"));
    assert_ok(safetensors_verify_unchanged(st, &test_error));
    safetensors_close(&st);
}

static void index_total_size_wrong_or_negative_only_warns(void **state) {
    (void)state;
    const char *folder = model_folder();
    write_shard(folder, "s1.safetensors", "a");
    static const char *const totals[] = {"5", "-1", "\"x\"", "1e30"};
    for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++) {
        char index[256];
        snprintf(index, sizeof index,
                 "{\"metadata\":{\"total_size\":%s},\"weight_map\":{\"a\":\"s1.safetensors\"}}",
                 totals[i]);
        write_text(folder, INDEX, index);
        safetensors *st = NULL;
        warning[0] = '\0';
        assert_ok(safetensors_open_model(&st, folder, &sink, &test_error));
        assert_non_null(strstr(warning, "metadata.total_size: expected 1, found "));
        safetensors_close(&st);
        assert_ok(safetensors_open_model(&st, folder, NULL, &test_error));
        safetensors_close(&st);
    }
}

static void single_file_wins_over_index(void **state) {
    (void)state;
    const char *folder = model_folder();
    write_shard(folder, "model.safetensors", "ab");
    write_text(folder, INDEX, "{}");
    safetensors *st = NULL;
    assert_ok(safetensors_open_model(&st, folder, &sink, &test_error));
    assert_int_equal(safetensors_count(st), 2);
    safetensors_close(&st);
}

static void link_into_blobs_of_a_hub_cache(void **state) {
    (void)state;
    const char *root = model_folder();
    char *snapshot = path_join(root, "snapshots/0123abc"), *blobs = path_join(root, "blobs");
    assert_ok(folder_create(snapshot, &test_error));
    assert_ok(folder_create(blobs, &test_error));
    write_shard(blobs, "f00d", "a");
    char *link = path_join(snapshot, "s1.safetensors");
    assert_int_equal(symlink("../../blobs/f00d", link), 0);
    write_text(snapshot, INDEX, "{\"weight_map\":{\"a\":\"s1.safetensors\"}}");
    safetensors *st = NULL;
    assert_ok(safetensors_open_model(&st, snapshot, &sink, &test_error));
    safetensors_close(&st);
    free(link);
    free(blobs);
    free(snapshot);
}

static int n_written_again;

/* Reading a library's file and writing its tensors gives the same bytes. */
static void assert_written_again(const safetensors *st, const char *path) {
    size_t n = safetensors_count(st);
    named_tensor *tensors = calloc(n, sizeof *tensors);
    for (size_t i = 0; i < n; i++)
        tensors[i] = (named_tensor){safetensors_name(st, i), safetensors_at(st, i)};
    char *again = path_join(test_folder(), "again.safetensors");
    assert_ok(safetensors_write(again, tensors, n, &test_error));
    file_map a, b;
    assert_ok(file_map_open(&a, path, &test_error));
    assert_ok(file_map_open(&b, again, &test_error));
    if (a.size != b.size || memcmp(a.data, b.data, a.size))
        fail_msg("%s: other bytes when written again", path);
    file_map_close(&a);
    file_map_close(&b);
    free(again);
    free(tensors);
    n_written_again++;
}

static int read_one(const char *path, const struct stat *about, int kind, struct FTW *place) {
    (void)about, (void)place;
    size_t n = strlen(path);
    if (kind != FTW_F || n < 12 || strcmp(path + n - 12, ".safetensors"))
        return 0;
    safetensors *st = NULL;
    assert_ok(safetensors_open(&st, path, &test_error));
    assert_true(safetensors_count(st) > 0);
    const char *format = safetensors_metadata(st, "format");
    if (format && !strcmp(format, "pt") && !safetensors_metadata(st, "made_with"))
        assert_written_again(st, path);
    safetensors_close(&st);
    return 0;
}

static void files_of_real_libraries_are_read_and_written_alike(void **state) {
    (void)state;
    n_written_again = 0;
    assert_int_equal(nftw(test_data("golden"), read_one, 16, FTW_PHYS), 0);
    assert_int_equal(nftw(test_data("arch"), read_one, 16, FTW_PHYS), 0);
    assert_true(n_written_again > 100);
    safetensors *st = NULL;
    assert_ok(safetensors_open_model(&st, test_data("models/stories260K"), NULL, &test_error));
    assert_string_equal(safetensors_metadata(st, "format"), "pt");
    safetensors_close(&st);
}

/* ---- Bad indexes: the rows of the table ---- */

static void index_shard_outside_folder(void **state) {
    (void)state;
    const char *folder = model_folder();
    static const char *const names[] = {
        "../x.safetensors", "/etc/passwd", "a\\\\b", "a\\u0000b", "..", ".", "",
        "sub/s1",           "\\u0000"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char index[256];
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        assert_index_refused(folder, index, "expected the plain name of a file");
    }
}

static void index_shard_links_outside_folder(void **state) {
    (void)state;
    const char *folder = model_folder();
    write_shard(test_folder(), "outside.safetensors", "a");
    char *link = path_join(folder, "s1.safetensors");
    assert_int_equal(symlink("../outside.safetensors", link), 0);
    free(link);
    assert_index_refused(folder, "{\"weight_map\":{\"a\":\"s1.safetensors\"}}",
                         "found a symbolic link");
}

static void index_shard_missing(void **state) {
    (void)state;
    assert_index_refused(model_folder(), "{\"weight_map\":{\"a\":\"s1.safetensors\"}}",
                         "no such file");
}

static void index_tensor_absent_from_shard(void **state) {
    (void)state;
    const char *folder = model_folder();
    write_shard(folder, "s1.safetensors", "a");
    write_shard(folder, "s2.safetensors", "b");
    assert_index_refused(folder,
                         "{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\","
                         "\"c\":\"s1.safetensors\"}}",
                         "\"c\" should be in s1.safetensors, which does not have it");
    assert_index_refused(folder,
                         "{\"weight_map\":{\"a\":\"s2.safetensors\",\"b\":\"s1.safetensors\"}}",
                         "\"a\" should be in s2.safetensors, but is in");
}

static void index_tensor_in_two_shards_or_unmapped(void **state) {
    (void)state;
    const char *folder = model_folder();
    write_shard(folder, "s1.safetensors", "ab");
    write_shard(folder, "s2.safetensors", "b");
    assert_index_refused(folder,
                         "{\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\"}}",
                         "\"b\" is in two shards");
    assert_index_refused(folder, "{\"weight_map\":{\"a\":\"s1.safetensors\"}}",
                         "\"b\" is not in the weight_map");
}

static void index_with_too_many_shards(void **state) {
    (void)state;
    strbuf index = {0};
    for (int i = 0; i < 100000; i++)
        strbuf_printf(&index, "%s\"t%d\":\"s%d\"", i ? "," : "{\"weight_map\":{", i, i);
    strbuf_add_text(&index, "}}");
    assert_index_refused(model_folder(), index.data, "at most 4096 shards, found 100000");
    strbuf_free(&index);
}

static void index_weight_map_empty_or_no_object(void **state) {
    (void)state;
    const char *folder = model_folder();
    static const char *const texts[] = {"{}", "[]", "{\"weight_map\":{}}", "{\"weight_map\":[]}",
                                        "{\"weight_map\":null}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_index_refused(folder, texts[i], "\"weight_map\": expected an object");
    assert_index_refused(folder, "{\"weight_map\":{\"a\":1}}", "expected the name of a shard");
    assert_index_refused(folder, "{\"weight_map\":{\"a\":", "not valid JSON");
}

static void model_only_as_pickle(void **state) {
    (void)state;
    const char *folder = model_folder();
    safetensors *st = NULL;
    assert_refused(safetensors_open_model(&st, folder, &sink, &test_error), GRAFT_E_INPUT,
                   "found neither");
    write_text(folder, "pytorch_model.bin", "PK");
    assert_refused(safetensors_open_model(&st, folder, &sink, &test_error), GRAFT_E_INPUT,
                   "found only pytorch_model.bin, a pickle");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_one_model),
        cmocka_unit_test(index_total_size_wrong_or_negative_only_warns),
        cmocka_unit_test(single_file_wins_over_index),
        cmocka_unit_test(link_into_blobs_of_a_hub_cache),
        cmocka_unit_test(files_of_real_libraries_are_read_and_written_alike),
        cmocka_unit_test(index_shard_outside_folder),
        cmocka_unit_test(index_shard_links_outside_folder),
        cmocka_unit_test(index_shard_missing),
        cmocka_unit_test(index_tensor_absent_from_shard),
        cmocka_unit_test(index_tensor_in_two_shards_or_unmapped),
        cmocka_unit_test(index_with_too_many_shards),
        cmocka_unit_test(index_weight_map_empty_or_no_object),
        cmocka_unit_test(model_only_as_pickle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
