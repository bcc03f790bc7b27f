/* What HF PEFT computed, replayed through the program: `graft train --init-adapter CASE
 * --adapter-config ...` on the goldens' rows as pre-tokenised JSONL. Losses, gradient norms,
 * learning rates of ten steps, the final adapter, and step 0's gradients through `graft eval
 * --gradients`. Tolerances: those of the goldens' README. */
#include "tests/cli/cli.h"
#include "tests/support/golden.h"

#include "base/atomic_file.h"
#include "formats/json.h"
#include "formats/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct golden_case {
    const char *name;
    const char *options[8]; /* beside the common ones; NULL-terminated */
    int micro_batches;      /* of a step */
    bool is_full;
} golden_case;

/* PEFT multiplies in bfloat16 there, and A has no gradient. */
static bool is_lora_fa(const golden_case *c) {
    return !strcmp(c->name, "lora_fa");
}

static const golden_case cases[] = {
    {"lora", {NULL}, 1, false},
    {"lora_all_linear", {NULL}, 1, false},
    {"lora_rslora", {NULL}, 1, false},
    {"lora_bias", {NULL}, 1, false},
    {"lora_gaussian", {NULL}, 1, false},
    {"lora_default_targets", {NULL}, 1, false},
    {"lora_regex_target", {NULL}, 1, false},
    {"lora_exclude_modules", {NULL}, 1, false},
    {"lora_layers_to_transform", {NULL}, 1, false},
    {"lora_rank_alpha_pattern", {NULL}, 1, false},
    {"lora_modules_to_save", {NULL}, 1, false},
    {"lora_modules_to_save_lm_head", {NULL}, 1, false},
    {"lora_modules_to_save_suffix", {NULL}, 1, false},
    {"lora_modules_to_save_tied", {NULL}, 1, false},
    {"lora_embedding", {NULL}, 1, false},
    {"lora_embedding_lm_head", {NULL}, 1, false},
    {"lora_accumulate", {"--gradient-accumulation-steps", "2", NULL}, 2, false},
    {"lora_clip", {"--max-grad-norm", "0.1", NULL}, 1, false},
    {"lora_cosine_warmup",
     {"--lr-scheduler-type", "cosine", "--warmup-steps", "3", NULL},
     1,
     false},
    {"lora_weighted_lr", {"--loraplus-lr-ratio", "16", NULL}, 1, false},
    {"lora_fa", {"--optim", "lora_fa", NULL}, 1, false},
    {"lora_riemannian", {"--optim", "riemannian", NULL}, 1, false},
    {"full", {"--method", "full", NULL}, 1, true},
    {"lora_dora", {NULL}, 1, false},
    {"lora_dora_embedding", {NULL}, 1, false},
    {"lora_trainable_tokens", {NULL}, 1, false},
    {"trainable_tokens", {NULL}, 1, false},
    {"lora_pissa", {"--no-portable", NULL}, 1, false},
    {"lora_olora", {"--no-portable", NULL}, 1, false},
    {"lora_orthogonal", {NULL}, 1, false},
    {"lora_mica", {NULL}, 1, false},
    {"lora_kasa", {NULL}, 1, false},
    {"lora_bdlora", {NULL}, 1, false},
    {"lora_target_parameters", {NULL}, 1, false},
    {"adalora", {NULL}, 1, false},
    {"ia3", {NULL}, 1, false},
    {"ia3_explicit", {NULL}, 1, false},
    {"loha", {NULL}, 1, false},
    {"hira", {NULL}, 1, false},
    {"lokr", {NULL}, 1, false},
    {"lokr_low_rank", {NULL}, 1, false},
    {"lokr_decompose_both", {NULL}, 1, false},
    {"glora", {NULL}, 1, false},
    {"glora_vector", {NULL}, 1, false},
    {"miss", {NULL}, 1, false},
    {"miss_bat", {NULL}, 1, false},
    {"miss_mini", {NULL}, 1, false},
    {"delora", {NULL}, 1, false},
    {"gralora", {NULL}, 1, false},
    {"gralora_hybrid", {NULL}, 1, false},
    {"vera", {NULL}, 1, false},
    {"vera_no_projection", {NULL}, 1, false},
    {"pvera", {NULL}, 1, false},
    {"randlora", {NULL}, 1, false},
    {"vblora", {NULL}, 1, false},
    {"unilora", {NULL}, 1, false},
    {"unilora_saved_indices", {NULL}, 1, false},
    {"tinylora", {NULL}, 1, false},
    {"deft", {NULL}, 1, false},
    {"deft_qr_para", {NULL}, 1, false},
    {"prompt_tuning", {NULL}, 1, false},
    {"prefix_tuning", {NULL}, 1, false},
    {"prefix_tuning_zero", {NULL}, 1, false},
    {"frod", {NULL}, 1, false},
    {"prefix_tuning_projection", {NULL}, 1, false},
    {"prompt_tuning_text", {NULL}, 1, false},
    {"p_tuning", {NULL}, 1, false},
    {"p_tuning_lstm", {NULL}, 1, false},
    {"cartridge", {NULL}, 1, false},
    {"cpt", {NULL}, 1, false},
    {"osf", {NULL}, 1, false},
    {"peanut", {NULL}, 1, false},
    {"road_1", {NULL}, 1, false},
    {"road_2", {NULL}, 1, false},
    {"road_4", {NULL}, 1, false},
    {"fourierft", {NULL}, 1, false},
    {"waveft", {NULL}, 1, false},
    {"waveft_db4", {NULL}, 1, false},
    {"c3a", {NULL}, 1, false},
    {"oft_neumann", {NULL}, 1, false},
    {"oft_cayley", {NULL}, 1, false},
    {"oft_share_coft", {NULL}, 1, false},
    {"boft", {NULL}, 1, false},
    {"hra", {NULL}, 1, false},
    {"hra_gs", {NULL}, 1, false},
    {"ln_tuning", {NULL}, 1, false},
    {"beft", {NULL}, 1, false},
    {"shira", {NULL}, 1, false},
    {"supertuning", {NULL}, 1, false},
    {"supertuning_supra", {NULL}, 1, false},
    {"multitask_prompt_tuning", {NULL}, 1, false},
};

enum { STEPS = 10, ROWS = 2, TOKENS = 48 };

/* ---- The goldens' files ---- */

static char *golden_path(const char *name, const char *file) {
    char relative[256];
    snprintf(relative, sizeof relative, "golden/%s/%s", name, file);
    return strdup(test_data(relative));
}

static safetensors *open_tensors(const char *path) {
    safetensors *file = NULL;
    assert_ok(safetensors_open(&file, path, &test_error));
    return file;
}

static const void *tensor_data(const safetensors *file, const char *name, dtype type,
                               size_t count) {
    tensor_view view;
    if (!safetensors_find(&view, file, name))
        fail_msg("no tensor %s", name);
    assert_int_equal(view.type, type);
    assert_int_equal(tensor_count(&view), count);
    return view.data;
}

/* The batches as pre-tokenised rows, padding left off; a batch's rows are of task 0 and 1. */
static char *write_rows(const char *name, int micro_batches) {
    char *path = golden_path(name, "batch.safetensors");
    safetensors *file = open_tensors(path);
    size_t rows = (size_t)(STEPS * micro_batches * ROWS);
    const int64_t *ids = tensor_data(file, "input_ids", DTYPE_I64, rows * TOKENS);
    const int64_t *mask = tensor_data(file, "attention_mask", DTYPE_I64, rows * TOKENS);
    const int64_t *labels = tensor_data(file, "labels", DTYPE_I64, rows * TOKENS);
    strbuf text = {0};
    for (size_t r = 0; r < rows; r++) {
        int n = 0;
        while (n < TOKENS && mask[r * TOKENS + (size_t)n])
            n++;
        strbuf_add_text(&text, "{\"input_ids\": [");
        for (int t = 0; t < n; t++)
            strbuf_printf(&text, "%s%d", t ? ", " : "", (int)ids[r * TOKENS + (size_t)t]);
        strbuf_add_text(&text, "], \"labels\": [");
        for (int t = 0; t < n; t++)
            strbuf_printf(&text, "%s%d", t ? ", " : "", (int)labels[r * TOKENS + (size_t)t]);
        strbuf_printf(&text, "], \"task_id\": %d}\n", (int)(r % ROWS));
    }
    char *rows_path = strdup(test_file("rows.jsonl", text.data, text.length));
    strbuf_free(&text);
    safetensors_close(&file);
    free(path);
    return rows_path;
}

/* ---- Comparing ---- */

static void compare_metrics(const golden_case *c, const char *folder, const safetensors *expect) {
    const double loss_off = is_lora_fa(c) ? 1e-4 : 1e-5, norm_off = is_lora_fa(c) ? 2e-3 : 2e-4;
    const float *losses = tensor_data(expect, "losses", DTYPE_F32, STEPS);
    const float *norms = tensor_data(expect, "grad_norms", DTYPE_F32, STEPS);
    const float *rates = tensor_data(expect, "lrs", DTYPE_F32, STEPS);
    char path[4200], line[4096];
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    int step = 0;
    for (; fgets(line, sizeof line, file); step++) {
        json_t *row = NULL;
        assert_ok(json_parse(&row, line, strlen(line), path, &test_error));
        assert_true(step < STEPS);
        test_assert_near(json_number_value(json_object_get(row, "loss")), losses[step], 0, loss_off,
                         "loss");
        test_assert_near(json_number_value(json_object_get(row, "grad_norm")), norms[step], 0,
                         norm_off, "grad_norm");
        test_assert_near(json_number_value(json_object_get(row, "learning_rate")), rates[step],
                         1e-12, 1e-6, "learning_rate");
        json_decref(row);
    }
    fclose(file);
    assert_int_equal(step, STEPS);
}

static double distance(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

static double norm(const float *a, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)a[i];
    return sqrt(sum);
}

/* Every tensor of the final adapter: within 2e-4 of its norm, and within 5e-3 of its change in
 * training. */
static void compare_adapter(const char *folder, const golden_case *c) {
    const char *name = c->name;
    const double off_norm = is_lora_fa(c) ? 5e-3 : 2e-4, off_change = is_lora_fa(c) ? 3e-2 : 5e-3;
    char ours_path[4200];
    snprintf(ours_path, sizeof ours_path, "%s/adapter_model.safetensors", folder);
    char *final_path = golden_path(name, "adapter_final.safetensors"),
         *start_path = golden_path(name, "adapter_model.safetensors");
    safetensors *ours = open_tensors(ours_path), *final = open_tensors(final_path),
                *start = open_tensors(start_path);
    assert_int_equal(safetensors_count(ours), safetensors_count(final));
    for (size_t i = 0; i < safetensors_count(final); i++) {
        const char *key = safetensors_name(final, i);
        tensor_view view = safetensors_at(final, i);
        size_t n = tensor_count(&view);
        if (view.type != DTYPE_F32) { /* indices stay as they were */
            assert_memory_equal(tensor_data(ours, key, view.type, n), view.data,
                                tensor_bytes(&view));
            continue;
        }
        const float *expected = view.data, *got = tensor_data(ours, key, DTYPE_F32, n);
        tensor_view first;
        assert_true(safetensors_find(&first, start, key));
        bool has_shape = tensor_count(&first) == n; /* ranks may be cut in training */
        double off = distance(got, expected, n),
               change = has_shape ? distance(first.data, expected, n) : norm(expected, n);
        if (!(off <= off_norm * norm(expected, n) + 1e-12) || !(off <= off_change * change + 1e-12))
            fail_msg("%s: off by %.3g, norm %.3g, change %.3g", key, off, norm(expected, n),
                     change);
    }
    safetensors_close(&start);
    safetensors_close(&final);
    safetensors_close(&ours);
    free(start_path);
    free(final_path);
}

/* Where training changed the config. */
static void compare_config(const char *folder, const char *name) {
    char path[4200], relative[256], final_path[4200];
    json_t *ours = NULL, *expected = NULL;
    snprintf(relative, sizeof relative, "golden/%s", name);
    snprintf(final_path, sizeof final_path, "%s/adapter_config_final.json", test_data(relative));
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    if (path_exists(final_path)) {
        assert_ok(json_read_file(&expected, final_path, 1 << 20, &test_error));
        assert_ok(json_read_file(&ours, path, 1 << 20, &test_error));
        assert_true(json_equal(json_object_get(ours, "rank_pattern"),
                               json_object_get(expected, "rank_pattern")));
        json_decref(expected);
        json_decref(ours);
    }
}

static void compare_gradients(const golden_case *c, const char *path, const safetensors *expect) {
    safetensors *ours = open_tensors(path);
    size_t compared = 0;
    for (size_t i = 0; i < safetensors_count(expect); i++) {
        const char *key = safetensors_name(expect, i);
        if (strncmp(key, "grad", 4))
            continue;
        const char *tensor = strchr(key, '.') + 1; /* of "grad." and "grad_unsaved." */
        if (!strncmp(key, "grad_norms", 10))
            continue;
        tensor_view view = safetensors_at(expect, i);
        size_t n = tensor_count(&view);
        double off = distance(tensor_data(ours, tensor, DTYPE_F32, n), view.data, n);
        if (!(off <= 3e-4 * norm(view.data, n)))
            fail_msg("gradient of %s: off by %.3g of %.3g", tensor, off, norm(view.data, n));
        compared++;
    }
    assert_true(compared > 0);
    assert_int_equal(compared * (is_lora_fa(c) ? 2 : 1), safetensors_count(ours));
    safetensors_close(&ours);
}

/* ---- The replay ---- */

static void train_case(const golden_case *c, const char *model, const char *rows, const char *out) {
    char *adapter = c->is_full ? NULL : golden_path(c->name, "adapter_config.json");
    const char *folder = c->is_full ? NULL : golden_adapter(c->name);
    const char *arguments[64] = {"train",
                                 "--quiet",
                                 "--model",
                                 model,
                                 "--data",
                                 rows,
                                 "--output-dir",
                                 out,
                                 "--no-shuffle",
                                 "--no-packing",
                                 "--per-device-train-batch-size",
                                 "2",
                                 "--num-train-epochs",
                                 "1",
                                 "--learning-rate",
                                 "1e-3",
                                 "--weight-decay",
                                 "0.01",
                                 "--save-steps",
                                 "0"};
    size_t n = 20;
    if (adapter) {
        arguments[n++] = "--init-adapter";
        arguments[n++] = folder;
        arguments[n++] = "--adapter-config";
        arguments[n++] = adapter;
    }
    bool schedules = false, clips = false;
    for (int i = 0; c->options[i]; i++) {
        schedules = schedules || !strcmp(c->options[i], "--lr-scheduler-type");
        clips = clips || !strcmp(c->options[i], "--max-grad-norm");
        arguments[n++] = c->options[i];
    }
    if (!schedules)
        arguments[n++] = "--lr-scheduler-type=constant";
    if (!clips)
        arguments[n++] = "--max-grad-norm=0";
    cli_result result = cli_ok(arguments);
    cli_free(&result);
    free(adapter);
}

static void gradients_of_case(const golden_case *c, const char *model, const char *rows,
                              const safetensors *expect) {
    const char *config = golden_adapter(c->name);
    char path[4096], max_rows[16];
    snprintf(path, sizeof path, "%s/gradients.safetensors", test_folder());
    snprintf(max_rows, sizeof max_rows, "%d", ROWS * c->micro_batches);
    cli_result result =
        cli_ok(ARGS("eval", "--quiet", "--model", model, "--adapter", config, "--data", rows,
                    "--max-rows", max_rows, "--gradients", path, "--json"));
    cli_free(&result);
    compare_gradients(c, path, expect);
}

static void replays_peft(void **state) {
    const golden_case *c = *state;
    char *model = strdup(test_data("models/stories260K"));
    char *expect_path = golden_path(c->name, "expect.safetensors");
    char *rows = write_rows(c->name, c->micro_batches);
    char out[4096];
    snprintf(out, sizeof out, "%s/out", test_folder());
    assert_ok(folder_remove(out, &test_error));
    safetensors *expect = open_tensors(expect_path);
    train_case(c, model, rows, out);
    compare_metrics(c, out, expect);
    if (!c->is_full) {
        compare_adapter(out, c);
        compare_config(out, c->name);
        gradients_of_case(c, model, rows, expect);
    }
    safetensors_close(&expect);
    free(rows);
    free(expect_path);
    free(model);
}

int main(void) {
    enum { N = sizeof cases / sizeof *cases };
    struct CMUnitTest tests[N];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = replays_peft, .initial_state = (void *)&cases[i]};
    return _cmocka_run_group_tests("golden", tests, N, NULL, NULL);
}
