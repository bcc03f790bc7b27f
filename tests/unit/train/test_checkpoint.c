/* Checkpoints: what comes back, what a resume skips and why (table R of docs/bad-input.md). */
#include "tests/train/tiny.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TENSORS = TINY_TENSORS, PARTS = TINY_PARTS, ELEMENTS = TINY_ELEMENTS };

static tiny_run tiny;
static char messages[4096];

static void keep_message(void *context, message_level level, const char *text) {
    (void)context, (void)level;
    size_t used = strlen(messages);
    snprintf(messages + used, sizeof messages - used, "%s\n", text);
}
static const message_sink sink = {keep_message, NULL};

static int open_run(void **state) {
    (void)state;
    tiny_open(&tiny);
    return 0;
}

static int close_run(void **state) {
    (void)state;
    tiny_close(&tiny);
    return 0;
}

static const char *output_named(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    assert_ok(folder_create(path, &test_error));
    messages[0] = '\0';
    return path;
}

static void save_step(const char *output, const char *run_id, int64_t step) {
    assert_ok(tiny_save(&tiny, output, run_id, step, &test_error));
}

static const char *inside(const char *output, int64_t step, const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/checkpoint-%d%s%s", output, (int)step, *name ? "/" : "", name);
    return path;
}

/* Expects the newest to be this step, or with -1 that all are refused. */
static void expect_newest(const char *output, const char *run_id, int64_t step) {
    char *path = NULL;
    assert_ok(checkpoint_newest(&path, output, run_id, &sink, &test_error));
    assert_string_equal(path, inside(output, step, ""));
    free(path);
}

static void expect_message(const char *text) {
    if (!strstr(messages, text))
        fail_msg("no message has \"%s\": %s", text, messages);
}

static void change(const char *path, size_t at, unsigned char mask) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ mask, file), EOF);
    assert_int_equal(fclose(file), 0);
}

/* Puts other text into a file and signs it again, as only another program would. */
static void replace_and_sign(const char *output, int64_t step, const char *name, const char *from,
                             const char *to) {
    char *text;
    size_t n;
    char path[512];
    snprintf(path, sizeof path, "%s", inside(output, step, name));
    assert_ok(file_read_all(&text, &n, path, 1 << 20, &test_error));
    char *found = strstr(text, from);
    assert_non_null(found);
    strbuf changed = {0};
    strbuf_add(&changed, text, (size_t)(found - text));
    strbuf_add_text(&changed, to);
    strbuf_add_text(&changed, found + strlen(from));
    assert_ok(file_write_atomic(path, changed.data, changed.length, &test_error));
    strbuf_free(&changed);
    free(text);
    assert_ok(manifest_write(inside(output, step, ""), TINY_RUN_A, &test_error));
}

static void all_comes_back_to_the_bit(void **state) {
    (void)state;
    const char *output = output_named("whole");
    tiny_fill(&tiny, 1);
    save_step(output, TINY_RUN_A, 5);
    double before[TENSORS * PARTS * ELEMENTS], after[TENSORS * PARTS * ELEMENTS];
    tiny.dev->ops->download_f64(tiny.dev, before, tiny.memory, TENSORS * PARTS * ELEMENTS);
    tiny_fill(&tiny, -3);
    char *path = NULL;
    assert_ok(checkpoint_newest(&path, output, TINY_RUN_A, &sink, &test_error));
    assert_ok(checkpoint_load(&tiny.adapter, tiny.dev, path, &test_error));
    tiny.dev->ops->download_f64(tiny.dev, after, tiny.memory, TENSORS * PARTS * ELEMENTS);
    for (int i = 0; i < TENSORS; i++)
        for (int which = 0; which < PARTS; which++)
            if (which != 1) /* gradients are not kept */
                assert_memory_equal(after + (PARTS * i + which) * ELEMENTS,
                                    before + (PARTS * i + which) * ELEMENTS,
                                    (size_t)tiny.tensors[i].count * sizeof(double));
    checkpoint_state read;
    assert_ok(checkpoint_read(&read, path, &test_error));
    assert_int_equal(read.progress.step, 5);
    assert_int_equal(read.progress.updates, 4);
    assert_int_equal(read.progress.cursor.epoch, 1);
    assert_int_equal(read.progress.cursor.index, 2);
    assert_true(read.seed == 0xfedcba9876543210u && read.data_hash == 0x8000000000000001u);
    checkpoint_state_free(&read);
    free(path);
    assert_false(path_exists(inside(output, 5, "../checkpoint-5.tmp")));
}

static void newest_is_by_number_not_by_name(void **state) {
    (void)state;
    const char *output = output_named("numbers");
    save_step(output, TINY_RUN_A, 9);
    save_step(output, TINY_RUN_A, 10);
    expect_newest(output, TINY_RUN_A, 10);
    assert_string_equal(messages, "");
}

/* R1 */
static void checkpoint_without_manifest(void **state) {
    (void)state;
    const char *output = output_named("r1");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    assert_int_equal(unlink(inside(output, 2, "manifest.json")), 0);
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("the checkpoint was not finished");
}

/* R2 */
static void checkpoint_one_flipped_bit(void **state) {
    (void)state;
    const char *output = output_named("r2");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    struct stat about;
    assert_int_equal(stat(inside(output, 2, "state.safetensors"), &about), 0);
    change(inside(output, 2, "state.safetensors"), (size_t)about.st_size - 3, 0x10);
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("state.safetensors: damaged: expected xxh3");
}

static void checkpoint_file_cut_short(void **state) {
    (void)state;
    const char *output = output_named("cut");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    assert_int_equal(truncate(inside(output, 2, "state.safetensors"), 100), 0);
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("bytes, found 100");
}

/* R3 */
static void checkpoint_optimizer_shape_mismatch(void **state) {
    (void)state;
    const char *output = output_named("r3");
    save_step(output, TINY_RUN_A, 1);
    tiny.tensors[0].shape[0] = 6;
    tiny.tensors[0].shape[1] = 2;
    assert_refused(
        checkpoint_load(&tiny.adapter, tiny.dev, inside(output, 1, ""), &test_error), GRAFT_E_INPUT,
        "value.model.part0.weight: expected F64 [6, 2] as the adapter of this run has it, "
        "found F64 [4, 3]");
    tiny.tensors[0].shape[0] = 4;
    tiny.tensors[0].shape[1] = 3;
}

static void checkpoint_of_other_tensors(void **state) {
    (void)state;
    const char *output = output_named("names");
    save_step(output, TINY_RUN_A, 1);
    tiny.tensors[1].key[0] = 'M';
    assert_refused(checkpoint_load(&tiny.adapter, tiny.dev, inside(output, 1, ""), &test_error),
                   GRAFT_E_INPUT, "expected a tensor value.Model.part1.weight, found none");
    tiny.tensors[1].key[0] = 'm';
    tiny.adapter.n_tensors = 1;
    assert_refused(checkpoint_load(&tiny.adapter, tiny.dev, inside(output, 1, ""), &test_error),
                   GRAFT_E_INPUT, "expected 3 tensors");
    tiny.adapter.n_tensors = TENSORS;
}

/* R6 */
static void checkpoint_of_a_newer_format(void **state) {
    (void)state;
    const char *output = output_named("r6");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    char path[512];
    snprintf(path, sizeof path, "%s", inside(output, 2, "manifest.json"));
    char *text, *found;
    size_t n;
    assert_ok(file_read_all(&text, &n, path, 1 << 20, &test_error));
    found = strstr(text, "\"format_version\": 1");
    assert_non_null(found);
    found[strlen("\"format_version\": ")] = '2';
    assert_ok(file_write_atomic(path, text, n, &test_error));
    free(text);
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("a newer Graft wrote it");
}

/* R8 */
static void checkpoint_without_seed(void **state) {
    (void)state;
    const char *output = output_named("r8");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    replace_and_sign(output, 2, "state.json", "\"seed\": \"fedcba9876543210\"", "\"sead\": \"\"");
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("seed: expected 16 hexadecimal digits");
}

static void checkpoint_without_loader_position(void **state) {
    (void)state;
    const char *output = output_named("r8b");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    replace_and_sign(output, 2, "state.json", "\"rows_taken\"", "\"rows\"");
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("rows_taken");
}

static void checkpoint_negative_counter(void **state) {
    (void)state;
    const char *output = output_named("negative");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    replace_and_sign(output, 2, "state.json", "\"step\": 2", "\"step\": -2");
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("step");
}

static void manifest_names_a_file_elsewhere(void **state) {
    (void)state;
    const char *output = output_named("traversal");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    char path[512], *text;
    size_t n;
    snprintf(path, sizeof path, "%s", inside(output, 2, "manifest.json"));
    assert_ok(file_read_all(&text, &n, path, 1 << 20, &test_error));
    memcpy(strstr(text, "recipe.yaml"), "../../../aa", 11);
    assert_ok(file_write_atomic(path, text, n, &test_error));
    free(text);
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("expected the name of a file in the same folder");
}

/* R9 */
static void empty_checkpoint_999999(void **state) {
    (void)state;
    const char *output = output_named("r9");
    save_step(output, TINY_RUN_A, 3);
    assert_ok(folder_create(inside(output, 999999, ""), &test_error));
    expect_newest(output, TINY_RUN_A, 3);
    expect_message("checkpoint-999999");
}

/* R10 */
static void checkpoint_of_another_run(void **state) {
    (void)state;
    const char *output = output_named("r10");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_B, 8);
    expect_newest(output, TINY_RUN_A, 1);
    expect_message("of run bbbbbbbb");
    expect_newest(output, "", 8); /* a folder that lost its run.json */
}

/* R12 */
static void all_checkpoints_damaged(void **state) {
    (void)state;
    const char *output = output_named("r12");
    save_step(output, TINY_RUN_A, 1);
    save_step(output, TINY_RUN_A, 2);
    change(inside(output, 1, "state.json"), 40, 1);
    change(inside(output, 2, "state.json"), 40, 1);
    char *path = NULL;
    assert_refused(checkpoint_newest(&path, output, TINY_RUN_A, &sink, &test_error), GRAFT_E_IO,
                   "none of its 2 checkpoints can be used");
    assert_null(path);
}

static void resume_without_any_checkpoint(void **state) {
    (void)state;
    char *path = NULL;
    assert_refused(checkpoint_newest(&path, output_named("none"), TINY_RUN_A, &sink, &test_error),
                   GRAFT_E_INPUT, "found none");
    assert_refused(checkpoint_newest(&path, "/nonexistent/output", TINY_RUN_A, &sink, &test_error),
                   GRAFT_E_INPUT, "found none");
}

static void prune_keeps_two_and_other_runs(void **state) {
    (void)state;
    const char *output = output_named("prune");
    save_step(output, TINY_RUN_B, 1);
    for (int64_t step = 2; step <= 5; step++)
        save_step(output, TINY_RUN_A, step);
    checkpoint_prune(output, TINY_RUN_A, 5, 0, &sink); /* no limit */
    assert_true(path_exists(inside(output, 2, "")));
    checkpoint_prune(output, TINY_RUN_A, 5, 1, &sink); /* at least two stay */
    assert_true(path_exists(inside(output, 1, "")));
    assert_false(path_exists(inside(output, 2, "")));
    assert_false(path_exists(inside(output, 3, "")));
    assert_true(path_exists(inside(output, 4, "")));
    assert_true(path_exists(inside(output, 5, "")));
}

static void prune_does_not_count_what_a_resume_went_past(void **state) {
    (void)state;
    const char *output = output_named("past");
    for (int64_t step = 1; step <= 5; step++)
        save_step(output, TINY_RUN_A, step);
    checkpoint_prune(output, TINY_RUN_A, 3, 2, &sink);
    assert_false(path_exists(inside(output, 1, "")));
    for (int64_t step = 2; step <= 5; step++)
        assert_true(path_exists(inside(output, step, "")));
}

static void save_replaces_a_checkpoint_of_another_run(void **state) {
    (void)state;
    const char *output = output_named("replace");
    save_step(output, TINY_RUN_B, 4);
    save_step(output, TINY_RUN_A, 4);
    expect_newest(output, TINY_RUN_A, 4);
    assert_false(path_exists(inside(output, 4, "../checkpoint-4.replaced.tmp")));
}

static void sweep_removes_what_a_kill_left(void **state) {
    (void)state;
    const char *output = output_named("sweep");
    char path[300];
    snprintf(path, sizeof path, "%s/checkpoint-7.tmp", output);
    assert_ok(folder_create(path, &test_error));
    save_step(output, TINY_RUN_A, 6);
    checkpoint_sweep(output);
    assert_false(path_exists(path));
    assert_true(path_exists(inside(output, 6, "manifest.json")));
}

static void run_ids_differ_and_are_read_back(void **state) {
    (void)state;
    const char *output = output_named("id");
    char a[RUN_ID_BYTES], b[RUN_ID_BYTES], read[RUN_ID_BYTES];
    run_id_create(a);
    run_id_create(b);
    assert_int_equal(strlen(a), RUN_ID_BYTES - 1);
    assert_string_not_equal(a, b);
    assert_ok(run_id_read(read, output, &test_error));
    assert_string_equal(read, "");
    assert_ok(run_id_write(output, a, &test_error));
    assert_ok(run_id_read(read, output, &test_error));
    assert_string_equal(read, a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_comes_back_to_the_bit),
        cmocka_unit_test(newest_is_by_number_not_by_name),
        cmocka_unit_test(checkpoint_without_manifest),
        cmocka_unit_test(checkpoint_one_flipped_bit),
        cmocka_unit_test(checkpoint_file_cut_short),
        cmocka_unit_test(checkpoint_optimizer_shape_mismatch),
        cmocka_unit_test(checkpoint_of_other_tensors),
        cmocka_unit_test(checkpoint_of_a_newer_format),
        cmocka_unit_test(checkpoint_without_seed),
        cmocka_unit_test(checkpoint_without_loader_position),
        cmocka_unit_test(checkpoint_negative_counter),
        cmocka_unit_test(manifest_names_a_file_elsewhere),
        cmocka_unit_test(empty_checkpoint_999999),
        cmocka_unit_test(checkpoint_of_another_run),
        cmocka_unit_test(all_checkpoints_damaged),
        cmocka_unit_test(resume_without_any_checkpoint),
        cmocka_unit_test(prune_keeps_two_and_other_runs),
        cmocka_unit_test(prune_does_not_count_what_a_resume_went_past),
        cmocka_unit_test(save_replaces_a_checkpoint_of_another_run),
        cmocka_unit_test(sweep_removes_what_a_kill_left),
        cmocka_unit_test(run_ids_differ_and_are_read_back),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, open_run, close_run);
}
