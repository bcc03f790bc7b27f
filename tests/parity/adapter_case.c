#include "tests/parity/adapter_case.h"

#include "base/memory.h"
#include "formats/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 19 };

static const char model_config[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 19, \"hidden_size\": 12, \"intermediate_size\": "
    "14,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 3, \"num_key_value_heads\": 1,"
    " \"attention_bias\": true, \"mlp_bias\": true, \"tie_word_embeddings\": true}";

const step_limits adapter_case_limits = {.max_tokens = 64,
                                         .max_labelled = 40,
                                         .max_segments = ADAPTER_CASE_ROWS,
                                         .training = true,
                                         .head_chunk = 4};

void adapter_case_lay_out(adapter_case *c) {
    backend *dev = c->model.dev;
    layout counted = layout_counting();
    adapter_layout(c->adapter, &counted, dev->element_bytes, true);
    c->memory = dev->ops->alloc(dev, counted.high_water);
    assert_non_null(c->memory);
    layout assigned = layout_over(c->memory, counted.high_water);
    adapter_layout(c->adapter, &assigned, dev->element_bytes, true);
}

/* Zeros and ones are where mistakes hide. */
static void add_noise(adapter_case *c, rng *random) {
    for (size_t i = 0; i < c->adapter->n_tensors; i++) {
        const adapter_tensor *t = &c->adapter->tensors[i];
        if (t->is_fixed)
            continue;
        double *values = model_case_download(&c->model, t->value, t->count);
        for (int64_t j = 0; j < t->count; j++)
            values[j] += 0.2 * rng_normal(random);
        c->model.dev->ops->upload(c->model.dev, t->value, values, DTYPE_F64, t->count);
        free(values);
    }
}

void adapter_case_prepare(adapter_case *c) {
    assert_ok(adapter_prepare(c->adapter, c->model.dev, c->model.weights, &test_error));
}

static void open_case(adapter_case *c, backend *dev, const adapter_kind *kind, bool training,
                      bool with_noise) {
    adapter_config config;
    json_t *parsed = NULL;
    rng random = rng_create(11, 1);
    memset(c, 0, sizeof *c);
    snprintf(c->folder, sizeof c->folder, "%s", model_case_write("adapter_case", model_config, 5));
    model_case_open(&c->model, dev, c->folder, "config.json");
    assert_ok(json_parse(&parsed, kind->config, strlen(kind->config), kind->name, &test_error));
    assert_ok(adapter_config_parse(&config, parsed, kind->name, NULL, &test_error));
    json_decref(parsed);
    assert_ok(adapter_create(&c->adapter, &config, &c->model.spec, 0, NULL, &test_error));
    adapter_config_free(&config);
    adapter_case_lay_out(c);
    adapter_bind(c->adapter, &c->model.hooks);
    assert_ok(adapter_init(c->adapter, dev, c->model.weights, &random, &test_error));
    adapter_case_prepare(c);
    if (with_noise)
        add_noise(c, &random);
    adapter_case_prepare(c);
    model_case_layout(&c->model, &adapter_case_limits);
    adapter_case_fill(&c->model, training);
}

void adapter_case_open(adapter_case *c, backend *dev, const adapter_kind *kind, bool training) {
    open_case(c, dev, kind, training, true);
}

void adapter_case_open_new(adapter_case *c, backend *dev, const adapter_kind *kind, bool training) {
    open_case(c, dev, kind, training, false);
}

void adapter_case_close(adapter_case *c) {
    c->model.dev->ops->release(c->model.dev, c->memory);
    adapter_destroy(&c->adapter);
    model_case_close(&c->model);
}

/* Rows of 7, 5 and 6 tokens; some have no label. */
void adapter_case_fill(model_case *m, bool training) {
    static const int32_t lengths[ADAPTER_CASE_ROWS] = {7, 5, 6};
    model_case_batch_begin(m, training, 99);
    for (int32_t row = 0; row < ADAPTER_CASE_ROWS; row++) {
        int32_t ids[8], targets[8];
        for (int32_t t = 0; t < lengths[row]; t++) {
            ids[t] = (5 * row + 3 * t * t + 1) % VOCAB;
            targets[t] = t == 2 || t + 1 == lengths[row] ? -1 : (7 * row + t) % VOCAB;
        }
        model_case_add_row(m, &(batch_row){.ids = ids,
                                           .targets = targets,
                                           .n = lengths[row],
                                           .weight = 0.1f * (float)(row + 1),
                                           .row_id = (uint64_t)row + 40});
    }
}

float *adapter_case_logits(model_case *m) {
    model_run run = model_case_run(m);
    int32_t n = m->batch->tokens.n, rows[64];
    float *logits = mem_array((size_t)n * (size_t)m->spec.vocab, sizeof *logits);
    assert_non_null(logits);
    for (int32_t i = 0; i < n; i++)
        rows[i] = i;
    assert_ok(step_forward(&run, &m->buffers, m->batch, &test_error));
    assert_ok(step_logits(logits, &run, &m->buffers, m->batch, rows, n, &test_error));
    return logits;
}
