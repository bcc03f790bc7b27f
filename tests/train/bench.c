#include "tests/train/bench.h"

#include "base/atomic_file.h"
#include "base/file_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_metrics(void *context, train_event event, const train_metrics *m) {
    train_bench *b = context;
    if (event == TRAIN_EVENT_EVALUATION) {
        b->n_evaluations++;
        b->eval_loss = m->eval_loss;
        return;
    }
    assert_true(b->n_steps < BENCH_STEPS_MAX);
    b->losses[b->n_steps] = m->loss;
    b->norms[b->n_steps] = m->grad_norm;
    b->rates[b->n_steps] = m->learning_rate;
    b->n_steps++;
    if (m->step == b->stop_at)
        b->stop = 1;
}

static void on_saved(void *context, const char *path) {
    train_bench *b = context;
    (void)path;
    b->n_saved++;
}

static void on_message(void *context, message_level level, const char *text) {
    train_bench *b = context;
    (void)level;
    size_t used = strlen(b->messages);
    snprintf(b->messages + used, sizeof b->messages - used, "%s\n", text);
}

static void open_backend(train_bench *b, bench_backend kind, int32_t n_threads) {
    cpu_features features = cpu_features_detect();
    if (kind == BENCH_CPU)
        assert_ok(backend_create_cpu(&b->dev, n_threads, &features, &test_error));
    else
        assert_ok(backend_create_reference(&b->dev, &test_error));
}

static void open_adapter(train_bench *b, const adapter_config *config) {
    adapter_config own = {0};
    if (!config) {
        assert_ok(adapter_config_default(&own, "lora", &test_error));
        own.r = 4;
        own.lora_alpha = 8;
        assert_ok(text_list_add(&own.target_modules, "q_proj", &test_error));
        assert_ok(text_list_add(&own.target_modules, "v_proj", &test_error));
        config = &own;
    }
    assert_ok(adapter_create(&b->adapter, config, &b->spec, 0, &b->observer.messages, &test_error));
    adapter_config_free(&own);
}

void bench_open(train_bench *b, bench_backend kind, int32_t n_threads,
                const adapter_config *adapter_options, const char *name) {
    char model[BENCH_PATH_BYTES];
    snprintf(model, sizeof model, "%s", test_data("models/stories260K"));
    memset(b, 0, sizeof *b);
    snprintf(b->output, sizeof b->output, "%s/%s", test_folder(), name);
    b->observer = (train_observer){on_metrics, on_saved, {on_message, b}, b};
    open_backend(b, kind, n_threads);
    assert_ok(model_spec_read(&b->spec, model, &b->observer.messages, &test_error));
    assert_ok(weight_source_open(&b->weights, b->dev, &b->spec, model, &b->observer.messages,
                                 &test_error));
    open_adapter(b, adapter_options);
    b->config = (train_config){.num_train_epochs = 1,
                               .per_device_train_batch_size = 2,
                               .gradient_accumulation_steps = 1,
                               .learning_rate = 1e-3,
                               .weight_decay = 0.01,
                               .adam_beta1 = 0.9,
                               .adam_beta2 = 0.999,
                               .adam_epsilon = 1e-8,
                               .schedule = SCHEDULE_CONSTANT,
                               .seed = 42,
                               .logging_steps = 1,
                               .checkpointing = CHECKPOINTING_OFF,
                               .output_dir = b->output,
                               .recipe = "learning_rate: 0.001\n",
                               .base_name = "stories260K"};
    b->inputs = (train_inputs){.dev = b->dev,
                               .spec = &b->spec,
                               .weights = b->weights,
                               .adapter = b->adapter,
                               .config = &b->config,
                               .observer = &b->observer,
                               .stop = &b->stop};
}

void bench_close(train_bench *b) {
    dataset_close(&b->data);
    dataset_close(&b->eval_data);
    adapter_destroy(&b->adapter);
    weight_source_close(&b->weights);
    model_spec_free(&b->spec);
    backend_destroy(&b->dev);
}

void bench_add_rows(dataset *data, int64_t n, int32_t longest, uint32_t seed) {
    enum { VOCAB = 512, ROW_MAX = 512 };
    rng random = rng_create(seed, 99);
    int32_t ids[ROW_MAX], labels[ROW_MAX];
    assert_true(longest <= ROW_MAX);
    for (int64_t row = 0; row < n; row++) {
        int32_t length = 3 + (int32_t)rng_below(&random, (uint64_t)longest - 2);
        for (int32_t i = 0; i < length; i++) {
            ids[i] = i == 0 ? 1 : 3 + (int32_t)rng_below(&random, VOCAB - 3);
            labels[i] = i % 3 == 2 ? -100 : ids[i];
        }
        assert_ok(
            dataset_add(data, ids, labels, length, (data_source){.line = row + 1}, &test_error));
    }
}

void bench_data(train_bench *b, int64_t n, int32_t longest) {
    assert_ok(dataset_create(&b->data, &test_error));
    bench_add_rows(b->data, n, longest, 1);
}

graft_status bench_run(train_bench *b) {
    b->inputs.data = b->data;
    b->inputs.eval_data = b->eval_data;
    return train_run(&b->result, &b->inputs, &test_error);
}

const char *bench_path(const train_bench *b, const char *name) {
    static char paths[4][BENCH_PATH_BYTES * 2];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", b->output, name);
    return path;
}

void assert_same_file(const char *folder_a, const char *folder_b, const char *name) {
    char *text[2];
    size_t n[2];
    const char *const folders[2] = {folder_a, folder_b};
    for (int i = 0; i < 2; i++) {
        char *path = path_join(folders[i], name);
        assert_ok(file_read_all(&text[i], &n[i], path, 1 << 28, &test_error));
        free(path);
    }
    if (n[0] != n[1] || memcmp(text[0], text[1], n[0]) != 0)
        fail_msg("%s differs between %s and %s", name, folder_a, folder_b);
    free(text[0]);
    free(text[1]);
}
