/* Ten steps of training against PEFT and torch (goldens of the shared test data), on both backends:
 * losses, gradient norms, learning rates and the final adapter. Tolerances are those that the
 * goldens' own manual derives from float64 runs. */
#include "tests/train/bench.h"

#include "base/atomic_file.h"
#include "formats/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 10 };

static const double LOSS_RELATIVE = 1e-5, LAST_LOSS_RELATIVE = 5e-6, NORM_RELATIVE = 2e-4;
static const double TENSOR_RELATIVE = 2e-4, CHANGE_RELATIVE = 5e-3;

typedef struct golden_case {
    const char *name;
    int32_t accumulation;
    double max_grad_norm, loraplus_lr_ratio;
    int64_t warmup; /* >= 0: cosine */
} golden_case;

static const golden_case cases[] = {
    {"lora", 1, 0, 0, -1},
    {"lora_all_linear", 1, 0, 0, -1},
    {"lora_rslora", 1, 0, 0, -1},
    {"lora_bias", 1, 0, 0, -1},
    {"lora_gaussian", 1, 0, 0, -1},
    {"lora_default_targets", 1, 0, 0, -1},
    {"lora_regex_target", 1, 0, 0, -1},
    {"lora_exclude_modules", 1, 0, 0, -1},
    {"lora_layers_to_transform", 1, 0, 0, -1},
    {"lora_rank_alpha_pattern", 1, 0, 0, -1},
    {"lora_modules_to_save", 1, 0, 0, -1},
    {"lora_modules_to_save_lm_head", 1, 0, 0, -1},
    {"lora_modules_to_save_suffix", 1, 0, 0, -1},
    {"lora_modules_to_save_tied", 1, 0, 0, -1},
    {"lora_embedding", 1, 0, 0, -1},
    {"lora_embedding_lm_head", 1, 0, 0, -1},
    {"lora_accumulate", 2, 0, 0, -1},
    {"lora_clip", 1, 0.1, 0, -1},
    {"lora_cosine_warmup", 1, 0, 0, 3},
    {"lora_weighted_lr", 1, 0, 16, -1},
};

static const golden_case full_case = {"full", 1, 0, 0, -1};

static const char *case_file(const golden_case *c, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "golden/%s/%s", c->name, name);
    return test_data(path);
}

static tensor_view need_tensor(const safetensors *file, const char *name) {
    tensor_view view;
    if (!safetensors_find(&view, file, name))
        fail_msg("no tensor %s", name);
    return view;
}

/* Rows of batch.safetensors without their padding. */
static void read_rows(train_bench *b, const golden_case *c) {
    safetensors *file = NULL;
    assert_ok(safetensors_open(&file, case_file(c, "batch.safetensors"), &test_error));
    tensor_view ids = need_tensor(file, "input_ids"), mask = need_tensor(file, "attention_mask");
    tensor_view labels = need_tensor(file, "labels");
    int64_t rows = ids.shape[0] * ids.shape[1], width = ids.shape[2];
    assert_ok(dataset_create(&b->data, &test_error));
    for (int64_t row = 0; row < rows; row++) {
        int32_t row_ids[64], row_labels[64], n = 0;
        assert_true(width <= 64);
        for (int64_t i = row * width; i < (row + 1) * width; i++) {
            if (!((const int64_t *)mask.data)[i])
                continue;
            row_ids[n] = (int32_t)((const int64_t *)ids.data)[i];
            row_labels[n++] = (int32_t)((const int64_t *)labels.data)[i];
        }
        assert_ok(dataset_add(b->data, row_ids, row_labels, n, (data_source){.line = row + 1},
                              &test_error));
    }
    safetensors_close(&file);
}

static void open_case(train_bench *b, const golden_case *c, bench_backend kind) {
    adapter_config config = {0};
    char name[64];
    bool is_full = strcmp(c->name, "full") == 0;
    const char *folder = case_file(c, "");
    snprintf(name, sizeof name, "%s-%d", c->name, (int)kind);
    if (is_full)
        assert_ok(adapter_config_default(&config, "full", &test_error));
    else
        assert_ok(adapter_config_read(&config, folder, NULL, &test_error));
    bench_open(b, kind, 2, &config, name);
    adapter_config_free(&config);
    read_rows(b, c);
    b->config.gradient_accumulation_steps = c->accumulation;
    b->config.max_grad_norm = c->max_grad_norm;
    b->config.loraplus_lr_ratio = c->loraplus_lr_ratio;
    if (c->warmup >= 0) {
        b->config.schedule = SCHEDULE_COSINE;
        b->config.warmup_steps = c->warmup;
    }
}

static void compare_curves(const train_bench *b, const golden_case *c) {
    safetensors *file = NULL;
    assert_ok(safetensors_open(&file, case_file(c, "expect.safetensors"), &test_error));
    const float *losses = need_tensor(file, "losses").data;
    const float *norms = need_tensor(file, "grad_norms").data;
    const float *rates = need_tensor(file, "lrs").data;
    assert_int_equal(b->n_steps, STEPS);
    for (int i = 0; i < STEPS; i++) {
        char what[96];
        snprintf(what, sizeof what, "%s, loss of step %d", c->name, i);
        test_assert_near(b->losses[i], (double)losses[i], 0,
                         i + 1 == STEPS ? LAST_LOSS_RELATIVE : LOSS_RELATIVE, what);
        snprintf(what, sizeof what, "%s, gradient norm of step %d", c->name, i);
        test_assert_near(b->norms[i], (double)norms[i], 0, NORM_RELATIVE, what);
        snprintf(what, sizeof what, "%s, learning rate of step %d", c->name, i);
        test_assert_near(b->rates[i], (double)rates[i], 1e-12, 1e-6, what);
    }
    safetensors_close(&file);
}

typedef struct distance {
    double error, size, change; /* L2 norms: got - expected, expected, expected - start */
} distance;

static distance distance_of(const tensor_view *got, const tensor_view *expected,
                            const tensor_view *start) {
    distance d = {0};
    const float *g = got->data, *e = expected->data, *s = start->data;
    assert_int_equal(tensor_count(got), tensor_count(expected));
    for (size_t i = 0; i < tensor_count(expected); i++) {
        d.error += pow((double)g[i] - (double)e[i], 2);
        d.size += pow((double)e[i], 2);
        d.change += pow((double)e[i] - (double)s[i], 2);
    }
    return (distance){sqrt(d.error), sqrt(d.size), sqrt(d.change)};
}

/* Every tensor that training should change, by its distance from PEFT's. */
static void compare_adapter(const train_bench *b, const golden_case *c) {
    safetensors *start = NULL, *expected = NULL, *got = NULL;
    assert_ok(safetensors_open(&start, case_file(c, "adapter_model.safetensors"), &test_error));
    assert_ok(safetensors_open(&expected, case_file(c, "adapter_final.safetensors"), &test_error));
    assert_ok(safetensors_open(&got, bench_path(b, "adapter_model.safetensors"), &test_error));
    assert_int_equal(safetensors_count(got), safetensors_count(expected));
    for (size_t i = 0; i < safetensors_count(expected); i++) {
        const char *name = safetensors_name(expected, i);
        tensor_view a = need_tensor(got, name), e = safetensors_at(expected, i);
        tensor_view s = need_tensor(start, name);
        distance d = distance_of(&a, &e, &s);
        if (!(d.error <= TENSOR_RELATIVE * d.size) ||
            !(d.error <= CHANGE_RELATIVE * d.change + 1e-9))
            fail_msg("%s, %s: error %.3g, size %.3g, change in training %.3g", c->name, name,
                     d.error, d.size, d.change);
    }
    safetensors_close(&start);
    safetensors_close(&expected);
    safetensors_close(&got);
}

static void replay(const golden_case *c, bench_backend kind) {
    train_bench b;
    open_case(&b, c, kind);
    char folder[BENCH_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s", case_file(c, ""));
    b.inputs.init_adapter = folder;
    assert_ok(bench_run(&b));
    compare_curves(&b, c);
    compare_adapter(&b, c);
    bench_close(&b);
}

/* run.json has norms only: of each weight before and of its change. */
static void compare_weights(const train_bench *b) {
    safetensors *before = NULL, *after = NULL;
    json_t *run = NULL;
    assert_ok(json_read_file(&run, case_file(&full_case, "run.json"), 1 << 20, &test_error));
    assert_ok(
        safetensors_open(&before, test_data("models/stories260K/model.safetensors"), &test_error));
    assert_ok(safetensors_open(&after, bench_path(b, "model.safetensors"), &test_error));
    const char *name;
    json_t *norms;
    json_object_foreach(json_object_get(run, "weight_change"), name, norms) {
        tensor_view got = need_tensor(after, name), start = need_tensor(before, name);
        distance d = distance_of(&got, &start, &start);
        double expected = json_number_value(json_object_get(norms, "norm_of_change"));
        test_assert_near(d.error, expected, 0, CHANGE_RELATIVE, name);
    }
    json_decref(run);
    safetensors_close(&before);
    safetensors_close(&after);
}

static void replay_full(bench_backend kind) {
    train_bench b;
    open_case(&b, &full_case, kind);
    assert_ok(bench_run(&b));
    compare_curves(&b, &full_case);
    compare_weights(&b);
    assert_true(path_exists(bench_path(&b, "config.json")));
    assert_true(path_exists(bench_path(&b, "tokenizer.json")));
    bench_close(&b);
}

static void golden_on_cpu(void **state) {
    replay(*state, BENCH_CPU);
}

static void golden_on_reference(void **state) {
    replay(*state, BENCH_REFERENCE);
}

static void full_on_cpu(void **state) {
    (void)state;
    replay_full(BENCH_CPU);
}

static void full_on_reference(void **state) {
    (void)state;
    replay_full(BENCH_REFERENCE);
}

int main(void) {
    enum { CASES = sizeof cases / sizeof *cases };
    static struct CMUnitTest tests[2 * CASES + 2];
    static char names[2 * CASES][96];
    for (size_t i = 0; i < CASES; i++) {
        void *c = (void *)(uintptr_t)&cases[i];
        snprintf(names[2 * i], sizeof names[0], "%s on cpu", cases[i].name);
        snprintf(names[2 * i + 1], sizeof names[0], "%s on reference", cases[i].name);
        tests[2 * i] = (struct CMUnitTest){names[2 * i], golden_on_cpu, NULL, NULL, c};
        tests[2 * i + 1] =
            (struct CMUnitTest){names[2 * i + 1], golden_on_reference, NULL, NULL, c};
    }
    tests[2 * CASES] = (struct CMUnitTest){"full on cpu", full_on_cpu, NULL, NULL, NULL};
    tests[2 * CASES + 1] =
        (struct CMUnitTest){"full on reference", full_on_reference, NULL, NULL, NULL};
    return cmocka_run_group_tests_name("golden training", tests, NULL, NULL);
}
