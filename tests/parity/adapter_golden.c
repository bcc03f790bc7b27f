/* Adapters that PEFT saved, on the model they were made for: the logits, the loss and the gradients
 * of the first step that PEFT computed (data/golden), on every backend; and full fine-tuning
 * against Transformers. */
#include "tests/parity/model_case.h"
#include "tests/support/golden.h"

#include "adapter/adapter.h"
#include "base/atomic_file.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What data/golden/README.md calls a right float32 implementation. */
static const double logits_absolute = 3e-4, loss_relative = 1e-5, norm_relative = 2e-4,
                    gradient_relative = 3e-4;

static const char *const cases[] = {
    "lora",
    "lora_all_linear",
    "lora_rslora",
    "lora_bias",
    "lora_gaussian",
    "lora_default_targets",
    "lora_regex_target",
    "lora_exclude_modules",
    "lora_layers_to_transform",
    "lora_rank_alpha_pattern",
    "lora_modules_to_save",
    "lora_modules_to_save_lm_head",
    "lora_modules_to_save_suffix",
    "lora_modules_to_save_tied",
    "lora_embedding",
    "lora_embedding_lm_head",
    "lora_pissa_converted",
    "lora_pissa_rslora_converted",
    "lora_olora_converted",
    "lora_dora",
    "lora_dora_embedding",
    "lora_trainable_tokens",
    "trainable_tokens",
    "lora_pissa",
    "lora_olora",
    "lora_orthogonal",
    "lora_mica",
    "lora_kasa",
    "lora_bdlora",
    "lora_target_parameters",
    "adalora",
    "ia3",
    "ia3_explicit",
    "loha",
    "hira",
    "lokr",
    "lokr_low_rank",
    "lokr_decompose_both",
    "glora",
    "glora_vector",
    "miss",
    "miss_bat",
    "miss_mini",
    "delora",
    "gralora",
    "gralora_hybrid",
    "vera",
    "vera_no_projection",
    "pvera",
    "randlora",
    "vblora",
    "unilora",
    "unilora_saved_indices",
    "tinylora",
    "deft",
    "deft_qr_para",
    "vblora_topk",
    "prompt_tuning",
    "prefix_tuning",
    "prefix_tuning_zero",
    "frod",
    "prefix_tuning_projection",
    "prompt_tuning_text",
    "p_tuning",
    "p_tuning_lstm",
    "cartridge",
    "cpt",
    "multitask_prompt_tuning",
    "osf",
    "peanut",
    "road_1",
    "road_2",
    "road_4",
    "fourierft",
    "waveft",
    "waveft_db4",
    "c3a",
    "oft_neumann",
    "oft_cayley",
    "oft_share_coft",
    "boft",
    "hra",
    "hra_gs",
    "ln_tuning",
    "beft",
    "shira",
    "supertuning",
    "supertuning_supra",
    "psoft",
    "psoft_neumann",
};

enum { ROWS = 2, SEQ = 48 };

typedef struct golden_case {
    model_case model;
    adapter *adapter;
    void *memory;
    safetensors *expect, *batch;
    int32_t ids[ROWS][SEQ], targets[ROWS][SEQ], length[ROWS], n_labelled;
    double **turns; /* [n_tensors] of PSOFT: see turn_rotations; an entry or all NULL */
} golden_case;

static tensor_view find(const safetensors *file, const char *name) {
    tensor_view view = {0};
    if (!safetensors_find(&view, file, name))
        fail_msg("no %s", name);
    return view;
}

static const float *values_of(const safetensors *file, const char *name) {
    tensor_view view = find(file, name);
    assert_int_equal(view.type, DTYPE_F32);
    return view.data;
}

static safetensors *open_file(const char *name, const char *file) {
    char path[256];
    safetensors *opened;
    snprintf(path, sizeof path, "golden/%s/%s", name, file);
    assert_ok(safetensors_open(&opened, test_data(path), &test_error));
    return opened;
}

/* Batch 0: labels are unshifted there, and rows are padded on the right. */
static void read_rows(golden_case *g) {
    const int64_t *ids = find(g->batch, "input_ids").data;
    const int64_t *labels = find(g->batch, "labels").data;
    const int64_t *mask = find(g->batch, "attention_mask").data;
    for (int row = 0; row < ROWS; row++)
        for (int t = 0; t < SEQ; t++) {
            int at = row * SEQ + t;
            bool has_label = t + 1 < SEQ && labels[at + 1] >= 0;
            g->ids[row][t] = (int32_t)ids[at];
            g->targets[row][t] = has_label ? (int32_t)labels[at + 1] : -1;
            g->n_labelled += has_label;
            g->length[row] += mask[at] != 0;
        }
}

static void lay_out_adapter(golden_case *g) {
    backend *dev = g->model.dev;
    layout counted = layout_counting();
    adapter_layout(g->adapter, &counted, dev->element_bytes, true);
    g->memory = dev->ops->alloc(dev, counted.high_water);
    assert_non_null(g->memory);
    layout assigned = layout_over(g->memory, counted.high_water);
    adapter_layout(g->adapter, &assigned, dev->element_bytes, true);
}

/* Trained tensors that PEFT's file does not have as they are, under PEFT's parameter names. */
static void load_unsaved(golden_case *g, const char *name) {
    char folder[256], path[4352], key[256];
    safetensors *file = NULL;
    snprintf(folder, sizeof folder, "golden/%s", name);
    snprintf(path, sizeof path, "%s/start_unsaved.safetensors", test_data(folder));
    if (!path_exists(path))
        return;
    assert_ok(safetensors_open(&file, path, &test_error));
    for (size_t i = 0; i < g->adapter->n_tensors; i++) {
        const adapter_tensor *t = &g->adapter->tensors[i];
        tensor_view view;
        snprintf(key, sizeof key, "%s.default", t->key);
        if (safetensors_find(&view, file, key))
            g->model.dev->ops->upload(g->model.dev, t->value, view.data, view.type, t->count);
    }
    safetensors_close(&file);
}

/* PSOFT's file does not hold the singular directions, and their signs are the LAPACK library's. The
 * golden's (constants.safetensors) tell which of ours are turned; a rotation is turned with them,
 * and its gradient: element (i, j) by the signs of i and j. */
static void turn_rotation(golden_case *g, const safetensors *constants, size_t index,
                          const low_rank_term *term) {
    const adapter_tensor *t = &g->adapter->tensors[index];
    const model_module *m = &g->adapter->modules[t->module];
    char key[256];
    snprintf(key, sizeof key, "base_model.model.%s._psoft_A_cache", m->name);
    const float *golden = values_of(constants, key);
    double *ours = model_case_download(&g->model, term->a, term->rank * m->cols), signs[64],
           *values = model_case_download(&g->model, t->value, t->count);
    double *turns = g->turns[index] = mem_array((size_t)t->count, sizeof *turns);
    assert_non_null(turns);
    for (int32_t i = 0; i < term->rank; i++) {
        double along = 0, length = 0;
        for (int64_t j = 0; j < m->cols; j++) {
            along += ours[i * m->cols + j] * (double)golden[i * m->cols + j];
            length += ours[i * m->cols + j] * ours[i * m->cols + j];
        }
        signs[i] = along > 0 ? 1 : -1;
        test_assert_near(fabs(along), length, 0, 1e-3, "PSOFT's singular directions");
    }
    for (int32_t i = 0, at = 0; i < term->rank; i++)
        for (int32_t j = i + 1; j < term->rank; j++, at++)
            values[at] *= turns[at] = signs[i] * signs[j];
    g->model.dev->ops->upload(g->model.dev, t->value, values, DTYPE_F64, t->count);
    free(ours);
    free(values);
}

static void turn_rotations(golden_case *g, const char *name) {
    safetensors *constants = open_file(name, "constants.safetensors");
    g->turns = mem_array(g->adapter->n_tensors, sizeof *g->turns);
    assert_non_null(g->turns);
    for (size_t i = 0; i < g->adapter->n_tensors; i++)
        for (size_t k = 0; k < g->adapter->n_terms; k++)
            if (strstr(g->adapter->tensors[i].key, "psoft_R.weight") &&
                g->adapter->terms[k].dropout_stream == g->adapter->tensors[i].module)
                turn_rotation(g, constants, i, &g->adapter->terms[k]);
    safetensors_close(&constants);
    assert_ok(adapter_prepare(g->adapter, g->model.dev, g->model.weights, &test_error));
}

/* The adapter of the case; without one, every weight trains. */
static void make_adapter(golden_case *g, const char *name) {
    bool is_full = !strcmp(name, "full");
    adapter_config config;
    const char *path = golden_adapter(name);
    if (is_full)
        assert_ok(adapter_config_default(&config, "full", &test_error));
    else
        assert_ok(adapter_config_read(&config, path, NULL, &test_error));
    assert_ok(adapter_create(&g->adapter, &config, &g->model.spec, 0, NULL, &test_error));
    adapter_config_free(&config);
    lay_out_adapter(g);
    if (is_full)
        assert_ok(adapter_init(g->adapter, g->model.dev, g->model.weights, NULL, &test_error));
    else
        assert_ok(adapter_load(g->adapter, g->model.dev, g->model.weights, path, &test_error));
    if (!is_full)
        load_unsaved(g, name);
    adapter_bind(g->adapter, &g->model.hooks);
    assert_ok(adapter_prepare(g->adapter, g->model.dev, g->model.weights, &test_error));
    if (!strcmp(g->adapter->method->peft_type, "PSOFT"))
        turn_rotations(g, name);
}

/* The goldens of methods with tasks have row 0 of task 0, row 1 of task 1. */
static bool has_tasks(const char *name) {
    return !strcmp(name, "multitask_prompt_tuning") || !strcmp(name, "poly");
}

static void open_case(golden_case *g, const char *name, int which) {
    step_limits limits = {.max_labelled = ROWS * SEQ, .max_segments = ROWS, .training = true};
    memset(g, 0, sizeof *g);
    g->expect = open_file(name, "expect.safetensors");
    g->batch = open_file(name, "batch.safetensors");
    read_rows(g);
    model_case_open(&g->model, test_backend(which), test_data("models/stories260K"), "config.json");
    make_adapter(g, name);
    limits.max_tokens = ROWS * (SEQ + g->model.hooks.sequence.n_virtual);
    model_case_layout(&g->model, &limits);
    model_case_batch_begin(&g->model, true, 1);
    int32_t labelled = g->n_labelled + ROWS * g->model.hooks.sequence.n_labelled;
    for (int row = 0; row < ROWS; row++)
        model_case_add_row(&g->model, &(batch_row){.ids = g->ids[row],
                                                   .targets = g->targets[row],
                                                   .n = g->length[row],
                                                   .weight = 1.0f / (float)labelled,
                                                   .task = has_tasks(name) ? row : 0,
                                                   .row_id = (uint64_t)row});
}

static void close_case(golden_case *g) {
    g->model.dev->ops->release(g->model.dev, g->memory);
    for (size_t i = 0; g->turns && i < g->adapter->n_tensors; i++)
        free(g->turns[i]);
    free(g->turns);
    adapter_destroy(&g->adapter);
    model_case_close(&g->model);
    safetensors_close(&g->expect);
    safetensors_close(&g->batch);
}

static void check_logits(golden_case *g, const char *name) {
    model_run run = model_case_run(&g->model);
    int32_t n = g->length[0] + g->length[1], vocab = g->model.spec.vocab;
    const float *expected = values_of(g->expect, "logits");
    float *logits = mem_array((size_t)n * (size_t)vocab, sizeof *logits);
    int32_t rows[ROWS * SEQ];
    double most = 0;
    assert_non_null(logits);
    const segment *segments = g->model.batch->segments;
    for (int32_t i = 0; i < n; i++) {
        const segment *s = &segments[i >= g->length[0]];
        rows[i] = s->token_begin + s->n_virtual + (i < g->length[0] ? i : i - g->length[0]);
    }
    assert_ok(step_forward(&run, &g->model.buffers, g->model.batch, &test_error));
    assert_ok(step_logits(logits, &run, &g->model.buffers, g->model.batch, rows, n, &test_error));
    for (int32_t i = 0; i < n; i++) {
        int32_t at = i < g->length[0] ? i : SEQ + i - g->length[0];
        for (int32_t v = 0; v < vocab; v++)
            most =
                fmax(most, fabs((double)logits[i * vocab + v] - (double)expected[at * vocab + v]));
    }
    free(logits);
    if (!(most <= logits_absolute))
        fail_msg("%s: logits are off by %g", name, most);
}

/* Relative L2 distance of one gradient; its squared norm is added to *squares. */
static double gradient_distance(const golden_case *g, const adapter_tensor *t,
                                const float *expected, double *squares) {
    double *got = model_case_download(&g->model, t->gradient, t->count), apart = 0, norm = 0;
    const double *turns = g->turns ? g->turns[t - g->adapter->tensors] : NULL;
    for (int64_t i = 0; turns && i < t->count; i++)
        got[i] *= turns[i];
    for (int64_t i = 0; i < t->count; i++) {
        *squares += got[i] * got[i];
        if (!expected)
            continue;
        apart += (got[i] - (double)expected[i]) * (got[i] - (double)expected[i]);
        norm += (double)expected[i] * (double)expected[i];
    }
    free(got);
    return expected ? sqrt(apart / norm) : 0;
}

static void check_step(golden_case *g, const char *name) {
    double loss = model_case_step(&g->model, true), squares = 0;
    loss += adapter_chain(g->adapter, g->model.dev);
    test_assert_near(loss, (double)values_of(g->expect, "losses")[0], 0, loss_relative, name);
    for (size_t i = 0; i < g->adapter->n_tensors; i++) {
        const adapter_tensor *t = &g->adapter->tensors[i];
        char key[256];
        if (t->is_fixed)
            continue;
        tensor_view view;
        snprintf(key, sizeof key, "grad_unsaved.%s.default", t->key);
        if (!safetensors_find(&view, g->expect, key))
            snprintf(key, sizeof key, "%s.%s", t->is_unsaved ? "grad_unsaved" : "grad", t->key);
        const float *expected = strcmp(name, "full") ? values_of(g->expect, key) : NULL;
        double apart = gradient_distance(g, t, expected, &squares);
        if (!(apart <= gradient_relative))
            fail_msg("%s: %s is off by %g of its norm", name, key, apart);
    }
    test_assert_near(sqrt(squares), (double)values_of(g->expect, "grad_norms")[0], 0, norm_relative,
                     name);
}

static void check_case(const char *name) {
    for (int which = 0; which < BACKENDS; which++) {
        golden_case g;
        open_case(&g, name, which);
        check_logits(&g, name);
        check_step(&g, name);
        close_case(&g);
    }
}

static void adapters_compute_what_peft_computes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(cases[i]);
}

static void full_fine_tuning_computes_what_transformers_computes(void **state) {
    (void)state;
    check_case("full");
}

/* ---- Other families (data/arch) ---- */

/* Everything of the file has its place: saving gives it back. */
static void check_arch(const char *name, const char *adapter_folder) {
    char path[256], saved[256];
    golden_case g = {0};
    adapter_config config;
    snprintf(path, sizeof path, "arch/%s", name);
    model_case_open(&g.model, test_backend(0), test_data(path), "config.json");
    snprintf(path, sizeof path, "arch/%s/%s", name, adapter_folder);
    snprintf(saved, sizeof saved, "%s/%s", test_folder(), name);
    const char *folder = test_data(path);
    backend *dev = g.model.dev;
    assert_ok(adapter_config_read(&config, folder, NULL, &test_error));
    assert_ok(adapter_create(&g.adapter, &config, &g.model.spec, 0, NULL, &test_error));
    adapter_config_free(&config);
    lay_out_adapter(&g);
    assert_ok(adapter_load(g.adapter, dev, g.model.weights, folder, &test_error));
    assert_ok(adapter_save(g.adapter, dev, g.model.weights, saved, name, &test_error));
    assert_ok(adapter_load(g.adapter, dev, g.model.weights, saved, &test_error));
    close_case(&g);
}

static void adapters_of_every_family_load(void **state) {
    (void)state;
    static const char *const families[] = {
        "llama",
        "llama_bias",
        "llama_bf16",
        "llama_untied",
        "llama_head_dim",
        "llama_sharded",
        "llama_rope_llama3",
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
        "granite",
        "mpt",
        "olmo",
        "olmo2",
        "olmo3",
        "opt",
        "opt_350m_style",
        "phi",
        "phi3",
        "smollm3",
        "stablelm",
        "stablelm_qknorm_parallel",
        "starcoder2",
        "qwen2_moe",
        "gpt_oss",
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        check_arch(families[i], "adapter");
    check_arch("mixtral", "adapter_per_expert");
    check_arch("qwen3_moe", "adapter_per_expert");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapters_compute_what_peft_computes),
        cmocka_unit_test(full_fine_tuning_computes_what_transformers_computes),
        cmocka_unit_test(adapters_of_every_family_load),
    };
    return cmocka_run_group_tests_name("parity_adapter_golden", tests, NULL, NULL);
}
