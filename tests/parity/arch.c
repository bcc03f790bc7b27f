/* Every family's tiny model against the numbers that Transformers and PEFT compute from it
 * (data/arch). */
#include "tests/parity/model_case.h"

#include "base/memory.h"
#include "generate/kv_cache.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const supported[] = {"llama",
                                        "llama_untied",
                                        "llama_bias",
                                        "llama_head_dim",
                                        "llama_rope_llama3",
                                        "llama_rope_linear",
                                        "llama_rope_dynamic",
                                        "llama_rope_yarn",
                                        "llama_sharded",
                                        "llama_bf16",
                                        "mistral",
                                        "qwen2",
                                        "qwen2_sliding",
                                        "qwen3",
                                        "bloom",
                                        "cohere",
                                        "cohere2",
                                        "cohere_qknorm",
                                        "falcon_7b_style",
                                        "falcon_new",
                                        "falcon_rw_style",
                                        "gemma",
                                        "gemma2",
                                        "gemma3_text",
                                        "glm4",
                                        "gpt2",
                                        "gpt_neox",
                                        "gpt_neox_sequential",
                                        "granite",
                                        "mpt",
                                        "olmo",
                                        "olmo2",
                                        "olmo3",
                                        "opt",
                                        "opt_350m_style",
                                        "phi",
                                        "phi3",
                                        "phi3_longrope_long",
                                        "phi3_longrope_short",
                                        "smollm3",
                                        "stablelm",
                                        "stablelm_qknorm_parallel",
                                        "starcoder2",
                                        "deepseek_v3",
                                        "gpt_oss",
                                        "mixtral",
                                        "qwen2_moe",
                                        "qwen3_moe"};

/* golden.safetensors, and the two rows in it. */
typedef struct golden {
    safetensors *files;
    int32_t seq, length[2]; /* length: tokens whose attention_mask is 1 */
    int32_t *ids, *targets; /* [2, seq] */
    int32_t n_labelled;
} golden;

static tensor_view golden_tensor(const golden *g, const char *name) {
    tensor_view view = {0};
    if (!safetensors_find(&view, g->files, name))
        fail_msg("golden.safetensors has no %s", name);
    return view;
}

static const float *golden_values(const golden *g, const char *name) {
    tensor_view view = golden_tensor(g, name);
    assert_int_equal(view.type, DTYPE_F32);
    return view.data;
}

static void golden_open(golden *g, const char *folder) {
    char path[4200];
    memset(g, 0, sizeof *g);
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    assert_ok(safetensors_open(&g->files, path, &test_error));
    tensor_view ids = golden_tensor(g, "input_ids");
    const int64_t *id = ids.data, *label = golden_tensor(g, "labels").data;
    const int64_t *mask = golden_tensor(g, "attention_mask").data;
    g->seq = (int32_t)ids.shape[1];
    g->ids = mem_array(2 * (size_t)g->seq, sizeof *g->ids);
    g->targets = mem_array(2 * (size_t)g->seq, sizeof *g->targets);
    assert_true(g->ids && g->targets);
    for (int32_t row = 0; row < 2; row++)
        for (int32_t t = 0; t < g->seq; t++) {
            int32_t at = row * g->seq + t;
            bool has_label = t + 1 < g->seq && label[at + 1] >= 0;
            g->ids[at] = (int32_t)id[at];
            g->targets[at] = has_label ? (int32_t)label[at + 1] : -1;
            g->n_labelled += has_label;
            g->length[row] += mask[at] != 0;
        }
}

static void golden_close(golden *g) {
    safetensors_close(&g->files);
    free(g->ids);
    free(g->targets);
}

/* Rows of dynamic rope and longrope take their frequencies from the padded length: padding is kept
 * for loss and gradients there (no real token sees it), and left out everywhere else. */
static void fill_batch(model_case *m, const golden *g, bool keeps_padding) {
    model_case_batch_begin(m, true, 1);
    for (int32_t row = 0; row < 2; row++)
        model_case_add_row(m, &(batch_row){.ids = g->ids + row * g->seq,
                                           .targets = g->targets + row * g->seq,
                                           .n = keeps_padding ? g->seq : g->length[row],
                                           .weight = 1.0f / (float)g->n_labelled,
                                           .row_id = (uint64_t)row});
}

static const step_limits limits = {
    .max_tokens = 80, .max_labelled = 80, .max_segments = 2, .training = true, .head_chunk = 16};

/* Row `row` of the batch, its tokens, against `expected` [length, vocab]. */
static void check_logits(model_case *m, int32_t row, const float *expected, const char *what) {
    model_run run = model_case_run(m);
    const segment *s = &m->batch->segments[row];
    int32_t n = s->token_end - s->token_begin, vocab = m->spec.vocab;
    float *logits = mem_array((size_t)n * (size_t)vocab, sizeof *logits);
    int32_t *rows = mem_array((size_t)n, sizeof *rows);
    assert_true(logits && rows);
    for (int32_t i = 0; i < n; i++)
        rows[i] = s->token_begin + i;
    assert_ok(step_logits(logits, &run, &m->buffers, m->batch, rows, n, &test_error));
    for (int32_t i = 0; i < n * vocab; i++)
        test_assert_near((double)logits[i], (double)expected[i], 1e-4, 0, what);
    free(logits);
    free(rows);
}

/* Logits and loss; with `prefix` "lora." the adapter's. */
static void check_forward(model_case *m, const golden *g, const char *prefix) {
    bool is_dynamic = m->spec.rope.kind == ROPE_DYNAMIC || m->spec.rope.kind == ROPE_LONGROPE;
    char name[64], alone[64];
    snprintf(name, sizeof name, "%slogits", prefix);
    snprintf(alone, sizeof alone, "row1_alone.%slogits", prefix);
    const float *logits = golden_values(g, name);
    fill_batch(m, g, false);
    model_run run = model_case_run(m);
    assert_ok(step_forward(&run, &m->buffers, m->batch, &test_error));
    check_logits(m, 0, logits, name);
    check_logits(m, 1, is_dynamic ? golden_values(g, alone) : logits + g->seq * m->spec.vocab,
                 name);
    fill_batch(m, g, is_dynamic);
    snprintf(name, sizeof name, "%sloss", prefix);
    test_assert_near(model_case_step(m, true), (double)golden_values(g, name)[0], 1e-5, 0, name);
}

static double largest(const double *values, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs(values[i]));
    return most;
}

/* What is nothing in exact arithmetic: the gradient of keys' biases, which softmax does not see. */
static const double NOTHING = 1e-7;

/* Transformers holds these in memory in another form than on disk, and the golden has no gradient
 * of them. */
static bool is_without_golden(const char *name) {
    return strstr(name, "embed_out.") || (strstr(name, ".experts.") && strstr(name, ".weight")) ||
           strstr(name, "block_sparse_moe.gate.") || strstr(name, "e_score_correction_bias");
}

static void check_base_gradients(model_case *m, const golden *g) {
    char name[192];
    for (size_t i = 0; i < m->n_parameters; i++) {
        const test_parameter *p = &m->parameters[i];
        snprintf(name, sizeof name, "base_grad_norm.%s", p->name);
        if (is_without_golden(p->name))
            continue;
        double *gradient = model_case_download(m, p->gradient, p->n), squares = 0;
        double most = largest(gradient, p->n);
        for (int64_t j = 0; j < p->n; j++)
            squares += gradient[j] * gradient[j];
        snprintf(name, sizeof name, "base_grad_norm.%s", p->name);
        test_assert_near(sqrt(squares), (double)golden_values(g, name)[0], NOTHING, 1e-4, name);
        snprintf(name, sizeof name, "base_grad_head.%s", p->name);
        for (int64_t j = 0; j < 8 && j < p->n; j++)
            test_assert_near(gradient[j], (double)golden_values(g, name)[j], NOTHING + 1e-4 * most,
                             0, name);
        free(gradient);
    }
}

static void check_lora_gradients(model_case *m, const golden *g, const char *prefix) {
    char name[192];
    for (size_t i = 0; i < m->n_parameters; i++) {
        const test_parameter *p = &m->parameters[i];
        double *gradient = model_case_download(m, p->gradient, p->n);
        double most = largest(gradient, p->n);
        snprintf(name, sizeof name, "%s.%s", prefix, p->name);
        const float *expected = golden_values(g, name);
        for (int64_t j = 0; j < p->n; j++)
            test_assert_near(gradient[test_parameter_place(p, j)], (double)expected[j], 1e-4 * most,
                             0, name);
        free(gradient);
    }
}

/* An adapter of the directory, where there is one: its logits, loss and (gradients not NULL)
 * gradients under these names. */
static void check_adapter(const golden *g, const char *folder, const char *config, int backend_kind,
                          const char *name, const char *prefix, const char *gradients) {
    static model_case m;
    char adapter[4200], weights[4240];
    snprintf(adapter, sizeof adapter, "%s/%s", folder, name);
    snprintf(weights, sizeof weights, "%s/adapter_model.safetensors", adapter);
    if (access(weights, R_OK) != 0) {
        assert_string_not_equal(name, "adapter"); /* every directory has that one */
        return;
    }
    model_case_open(&m, test_backend(backend_kind), folder, config);
    model_case_train_lora(&m, adapter);
    model_case_layout(&m, &limits);
    check_forward(&m, g, prefix);
    if (gradients)
        check_lora_gradients(&m, g, gradients);
    model_case_close(&m);
}

static void check_model(const char *directory, const char *config, int backend_kind) {
    char relative[256], folder[4096];
    golden g;
    static model_case m;
    snprintf(relative, sizeof relative, "arch/%s", directory);
    snprintf(folder, sizeof folder, "%s", test_data(relative));
    print_message("%s, %s, %s\n", directory, config, backend_kind ? "cpu" : "reference");
    golden_open(&g, folder);

    model_case_open(&m, test_backend(backend_kind), folder, config);
    model_case_train_all(&m);
    model_case_layout(&m, &limits);
    check_forward(&m, &g, "");
    check_base_gradients(&m, &g);
    model_case_close(&m);

    check_adapter(&g, folder, config, backend_kind, "adapter", "lora.", "grad");
    check_adapter(&g, folder, config, backend_kind, "adapter_params", "params.", "params.grad");
    check_adapter(&g, folder, config, backend_kind, "adapter_per_expert", "per_expert.", NULL);
    golden_close(&g);
}

/* Row 0 in pieces, over a cache of keys and values: the last token's logits of each piece. */
static void check_cache(const char *directory) {
    static model_case m;
    enum { FIRST = 17 };
    char relative[256];
    golden g;
    kv_cache cache;
    snprintf(relative, sizeof relative, "arch/%s", directory);
    const char *folder = test_data(relative);
    golden_open(&g, folder);
    model_case_open(&m, test_cpu_backend(2), folder, "config.json");
    const step_limits pieces = {.max_tokens = FIRST, .max_labelled = 1, .max_segments = 1};
    model_case_layout(&m, &pieces);
    void *memory =
        m.dev->ops->alloc(m.dev, kv_cache_bytes(&m.spec, g.length[0], m.dev->element_bytes));
    assert_non_null(memory);
    assert_ok(kv_cache_create(&cache, m.dev, &m.spec, g.length[0], memory, &test_error));
    model_run run = model_case_run(&m);
    float *logits = mem_array((size_t)m.spec.vocab, sizeof *logits);
    assert_non_null(logits);
    for (int32_t at = 0, n = FIRST; at < g.length[0]; at += n, n = at % 3 ? 1 : 2) {
        n = n < g.length[0] - at ? n : g.length[0] - at;
        model_case_batch_begin(&m, false, 0);
        model_case_add_row(&m, &(batch_row){.ids = g.ids + at,
                                            .n = n,
                                            .position_first = at,
                                            .past = at ? cache.views : NULL});
        assert_ok(step_embed(&run, &m.buffers, m.batch, &test_error));
        for (int32_t layer = 0; layer < m.spec.n_layers; layer++) {
            layer_weights weights;
            assert_ok(layer_acquire(&weights, m.weights, layer, 1, &test_error));
            block_fwd(&run, layer, &weights, m.batch, &m.buffers, &m.saved[layer]);
            kv_cache_append(&cache, m.dev, layer, m.saved[layer].k, m.saved[layer].v, n);
            layer_release(m.weights, layer);
        }
        kv_cache_advance(&cache, n);
        int32_t last = n - 1;
        assert_ok(step_logits(logits, &run, &m.buffers, m.batch, &last, 1, &test_error));
        const float *expected = golden_values(&g, "logits") + (at + last) * m.spec.vocab;
        for (int32_t v = 0; v < m.spec.vocab; v++)
            test_assert_near((double)logits[v], (double)expected[v], 1e-4, 0, "cached logits");
    }
    free(logits);
    kv_cache_free(&cache);
    m.dev->ops->release(m.dev, memory);
    model_case_close(&m);
    golden_close(&g);
}

/* Frequencies of dynamic rope and longrope follow the length so far: cached keys are turned
 * otherwise. */
static bool has_moving_frequencies(const char *directory) {
    return strstr(directory, "dynamic") || strstr(directory, "longrope_long");
}

static void equals_transformers(void **state) {
    const char *directory = *state;
    for (int kind = 0; kind < BACKENDS; kind++) {
        check_model(directory, "config.json", kind);
        check_model(directory, "config_v4.json", kind);
    }
    if (!has_moving_frequencies(directory))
        check_cache(directory);
}

int main(void) {
    enum { MODELS = sizeof supported / sizeof supported[0] };
    struct CMUnitTest tests[MODELS];
    for (size_t i = 0; i < MODELS; i++)
        tests[i] = (struct CMUnitTest){.name = supported[i],
                                       .test_func = equals_transformers,
                                       .initial_state = (void *)(uintptr_t)supported[i]};
    return cmocka_run_group_tests_name("parity_arch", tests, NULL, NULL);
}
