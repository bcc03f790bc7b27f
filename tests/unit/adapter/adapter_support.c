#include "tests/unit/adapter/adapter_support.h"

#include "base/file_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void keep_message(void *context, message_level level, const char *text) {
    char *messages = context;
    size_t used = strlen(messages);
    snprintf(messages + used, 4096 - used, "%s%s\n", level == MESSAGE_WARNING ? "warning: " : "",
             text);
}

static void start(bench *b) {
    *b = (bench){0};
    b->sink = (message_sink){keep_message, b->messages};
    assert_ok(backend_create_reference(&b->dev, &test_error));
}

void bench_open(bench *b, const char *model) {
    const char *folder = test_data(model);
    start(b);
    assert_ok(model_spec_read(&b->spec, folder, &b->sink, &test_error));
    assert_ok(weight_source_open(&b->weights, b->dev, &b->spec, folder, &b->sink, &test_error));
}

void bench_open_spec(bench *b, const json_t *config) {
    start(b);
    assert_ok(model_spec_parse(&b->spec, config, "config.json", &b->sink, &test_error));
}

void bench_close(bench *b) {
    adapter_destroy(&b->adapter);
    if (b->memory)
        b->dev->ops->release(b->dev, b->memory);
    weight_source_close(&b->weights);
    model_spec_free(&b->spec);
    backend_destroy(&b->dev);
}

graft_status bench_create(bench *b, const adapter_config *config) {
    adapter_destroy(&b->adapter);
    return adapter_create(&b->adapter, config, &b->spec, 0, &b->sink, &test_error);
}

graft_status bench_create_from(bench *b, const char *config_path) {
    adapter_config config;
    graft_status status = adapter_config_read(&config, config_path, &b->sink, &test_error);
    if (status == GRAFT_OK)
        status = bench_create(b, &config);
    adapter_config_free(&config);
    return status;
}

void bench_layout(bench *b, bool training) {
    layout counted = layout_counting();
    adapter_layout(b->adapter, &counted, b->dev->element_bytes, training);
    assert_false(counted.overflow);
    if (b->memory)
        b->dev->ops->release(b->dev, b->memory);
    b->memory = b->dev->ops->alloc(b->dev, counted.high_water);
    assert_non_null(b->memory);
    layout assigned = layout_over(b->memory, counted.high_water);
    adapter_layout(b->adapter, &assigned, b->dev->element_bytes, training);
    assert_int_equal(assigned.high_water, counted.high_water);
}

char *read_file(const char *path, size_t *n) {
    char *text = NULL;
    assert_ok(file_read_all(&text, n, path, 1 << 24, &test_error));
    return text;
}

void assert_files_equal(const char *got, const char *expected) {
    safetensors *a = NULL, *b = NULL;
    assert_ok(safetensors_open(&a, got, &test_error));
    assert_ok(safetensors_open(&b, expected, &test_error));
    assert_int_equal(safetensors_count(a), safetensors_count(b));
    for (size_t i = 0; i < safetensors_count(a); i++) {
        tensor_view left = safetensors_at(a, i), right = safetensors_at(b, i);
        assert_string_equal(safetensors_name(a, i), safetensors_name(b, i));
        assert_int_equal(left.type, right.type);
        assert_int_equal(left.rank, right.rank);
        assert_memory_equal(left.shape, right.shape, (size_t)left.rank * sizeof *left.shape);
        assert_memory_equal(left.data, right.data, tensor_bytes(&left));
    }
    assert_string_equal(safetensors_metadata(a, "format"), "pt");
    safetensors_close(&a);
    safetensors_close(&b);
}

const char *scratch(const char *name) {
    static char paths[8][4096];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder(), name);
    return path;
}
