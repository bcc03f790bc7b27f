#include "tests/parity/model_case.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

backend *test_cpu_backend(int32_t n_threads) {
    backend *dev = NULL;
    cpu_features features = cpu_features_detect();
    assert_ok(backend_create_cpu(&dev, n_threads, &features, &test_error));
    return dev;
}

backend *test_backend(int which) {
    backend *dev = NULL;
    if (which != 0)
        return test_cpu_backend(2);
    assert_ok(backend_create_reference(&dev, &test_error));
    return dev;
}

/* A random tensor of the model being written. */
static void random_tensor(named_tensor *out, const model_module *module, bool is_bias,
                          rng *random) {
    tensor_view view = {.type = DTYPE_F32, .rank = 1, .shape = {module->rows}};
    if (!is_bias)
        view.rank = model_stored_shape(view.shape, module);
    else if (module->n_stacked)
        view = (tensor_view){
            .type = DTYPE_F32, .rank = 2, .shape = {module->n_stacked, module->rows}};
    size_t n = tensor_count(&view);
    char *name = malloc(128);
    float *values = mem_array(n, sizeof *values);
    assert_true(name && values);
    model_tensor_name(name, 128, module, is_bias);
    bool is_one = module->kind == MODULE_NORM && !is_bias;
    for (size_t i = 0; i < n; i++)
        values[i] = (float)((is_one ? 1 : 0) + 0.3 * rng_normal(random));
    view.data = values;
    *out = (named_tensor){.name = name, .view = view};
}

const char *model_case_write(const char *name, const char *config, uint64_t seed) {
    static char folders[4][4096];
    static unsigned turn;
    char *folder = folders[turn++ % 4], path[4200];
    model_spec spec;
    model_module *modules;
    json_t *parsed = NULL;
    static named_tensor tensors[1024];
    size_t n, n_tensors = 0;
    rng random = rng_create(seed, 1);
    snprintf(folder, sizeof folders[0], "%s/%s", test_folder(), name);
    assert_ok(folder_create(folder, &test_error));
    assert_ok(json_parse(&parsed, config, strlen(config), name, &test_error));
    assert_ok(model_spec_parse(&spec, parsed, name, NULL, &test_error));
    assert_ok(model_modules(&modules, &n, &spec, &test_error));
    for (size_t i = 0; i < n; i++) {
        if (!modules[i].is_tied)
            random_tensor(&tensors[n_tensors++], &modules[i], false, &random);
        if (modules[i].has_bias)
            random_tensor(&tensors[n_tensors++], &modules[i], true, &random);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(safetensors_write(path, tensors, n_tensors, &test_error));
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_ok(file_write_atomic(path, config, strlen(config), &test_error));
    for (size_t i = 0; i < n_tensors; i++) {
        free((void *)(uintptr_t)tensors[i].name);
        free((void *)(uintptr_t)tensors[i].view.data);
    }
    free(modules);
    json_decref(parsed);
    model_spec_free(&spec);
    return folder;
}

void model_case_open(model_case *m, backend *dev, const char *folder, const char *config) {
    json_t *parsed = NULL;
    char path[4096];
    memset(m, 0, sizeof *m);
    m->dev = dev;
    snprintf(path, sizeof path, "%s/%s", folder, config);
    assert_ok(json_read_file(&parsed, path, 1 << 20, &test_error));
    assert_ok(model_spec_parse(&m->spec, parsed, path, NULL, &test_error));
    json_decref(parsed);
    assert_ok(weight_source_open(&m->weights, dev, &m->spec, folder, NULL, &test_error));
    assert_ok(model_modules(&m->modules, &m->n_modules, &m->spec, &test_error));
    assert_ok(model_hooks_create(&m->hooks, &m->spec, &test_error));
}

void model_case_close(model_case *m) {
    for (size_t i = 0; i < m->n_parameters; i++) {
        m->dev->ops->release(m->dev, m->parameters[i].value);
        m->dev->ops->release(m->dev, m->parameters[i].gradient);
    }
    if (m->device_memory)
        m->dev->ops->release(m->dev, m->device_memory);
    free(m->host_memory);
    free(m->saved);
    free(m->modules);
    model_hooks_free(&m->hooks);
    weight_source_close(&m->weights);
    model_spec_free(&m->spec);
    backend_destroy(&m->dev);
}

model_run model_case_run(const model_case *m) {
    return (model_run){.dev = m->dev, .spec = &m->spec, .weights = m->weights, .hooks = &m->hooks};
}

/* ---- What is trained ---- */

test_parameter *model_case_parameter(model_case *m, const char *name, const tensor_view *values,
                                     int64_t n) {
    assert_true(m->n_parameters < CASE_PARAMETERS_MAX);
    test_parameter *p = &m->parameters[m->n_parameters++];
    size_t bytes = (size_t)n * m->dev->element_bytes;
    snprintf(p->name, sizeof p->name, "%s", name);
    p->n = n;
    p->value = m->dev->ops->alloc(m->dev, bytes);
    p->gradient = m->dev->ops->alloc(m->dev, bytes);
    assert_non_null(p->value);
    assert_non_null(p->gradient);
    if (values) {
        assert_int_equal(tensor_count(values), n);
        m->dev->ops->upload(m->dev, p->value, values->data, values->type, n);
    }
    return p;
}

test_parameter *model_case_find(model_case *m, const char *name) {
    for (size_t i = 0; i < m->n_parameters; i++)
        if (strcmp(m->parameters[i].name, name) == 0)
            return &m->parameters[i];
    fail_msg("nothing is trained under the name %s", name);
    return NULL;
}

static freed_parameter free_tensor(model_case *m, const model_module *module, bool is_bias) {
    char name[128];
    tensor_view view;
    model_tensor_name(name, sizeof name, module, is_bias);
    assert_true(weight_source_tensor(&view, m->weights, name));
    test_parameter *p = model_case_parameter(m, name, &view, (int64_t)tensor_count(&view));
    return (freed_parameter){.value = p->value, .gradient = p->gradient, .is_freed = true};
}

void model_case_train_all(model_case *m) {
    for (size_t i = 0; i < m->n_modules; i++) {
        const model_module *module = &m->modules[i];
        if (module->kind == MODULE_BUFFER)
            continue;
        *model_hooks_parameter(&m->hooks, module, false) =
            module->is_tied ? m->hooks.embedding.weight : free_tensor(m, module, false);
        if (module->has_bias)
            *model_hooks_parameter(&m->hooks, module, true) = free_tensor(m, module, true);
    }
}

/* The terms of one module lie in one array: a module gets all of its terms before the next. */
static low_rank_term *new_term(model_case *m, linear_hook *hook) {
    assert_true(m->n_terms < CASE_TERMS_MAX);
    low_rank_term *term = &m->terms[m->n_terms++];
    if (hook->n_terms == 0)
        hook->terms = term;
    assert_ptr_equal(&hook->terms[hook->n_terms], term);
    hook->n_terms++;
    return term;
}

/* B of stacked experts, as the experts' own one behind the other. */
static test_parameter *stacked_b(model_case *m, const char *name, const tensor_view *b,
                                 int32_t n_experts, int32_t rank) {
    int64_t n = (int64_t)tensor_count(b);
    test_parameter *p = model_case_parameter(m, name, NULL, n);
    float *values = mem_array((size_t)n, sizeof *values);
    assert_non_null(values);
    assert_int_equal(b->type, DTYPE_F32);
    p->n_experts = n_experts;
    p->rank = rank;
    for (int64_t i = 0; i < n; i++)
        values[test_parameter_place(p, i)] = ((const float *)b->data)[i];
    m->dev->ops->upload(m->dev, p->value, values, DTYPE_F32, n);
    free(values);
    return p;
}

static void stacked_term(model_case *m, int32_t layer, int32_t expert, expert_slot slot,
                         const low_rank_term *of, int64_t b_first) {
    linear_hook *hook = &m->hooks.layers[layer].experts[expert * N_EXPERT_SLOTS + (int32_t)slot];
    low_rank_term *term = new_term(m, hook);
    *term = *of;
    term->b = array_at_const(m->dev, of->b, b_first);
    term->db = array_at(m->dev, of->db, b_first);
}

/* LoRA on the parameters that hold all experts, as PEFT's target_parameters has it: under `name`
 * one of the two products, with the rows of gate before those of up. */
static bool train_stacked(model_case *m, const safetensors *files, int32_t layer,
                          const char *name) {
    char a_name[160], b_name[160];
    tensor_view a, b;
    const int64_t hidden = m->spec.hidden, width = m->spec.expert_intermediate;
    snprintf(a_name, sizeof a_name, "base_model.model.model.layers.%d.mlp.%s.lora_A.weight", layer,
             name);
    snprintf(b_name, sizeof b_name, "base_model.model.model.layers.%d.mlp.%s.lora_B.weight", layer,
             name);
    if (!safetensors_find(&a, files, a_name) || !safetensors_find(&b, files, b_name))
        return false;
    int32_t experts = m->spec.n_experts, rank = (int32_t)(a.shape[0] / experts);
    int64_t in = a.shape[1], out = b.shape[0];
    test_parameter *pa = model_case_parameter(m, a_name, &a, (int64_t)tensor_count(&a));
    test_parameter *pb = stacked_b(m, b_name, &b, experts, rank);
    for (int32_t e = 0; e < experts; e++) {
        low_rank_term term = {.a = array_at(m->dev, pa->value, e * rank * in),
                              .da = array_at(m->dev, pa->gradient, e * rank * in),
                              .b = array_at(m->dev, pb->value, e * out * rank),
                              .db = array_at(m->dev, pb->gradient, e * out * rank),
                              .scale = 2, /* alpha is twice r in every golden */
                              .rank = rank,
                              .job = -1};
        if (in != hidden)
            stacked_term(m, layer, e, EXPERT_DOWN, &term, 0);
        else if (m->spec.family->expert_names[EXPERT_GATE_UP])
            stacked_term(m, layer, e, EXPERT_GATE_UP, &term, 0);
        else {
            stacked_term(m, layer, e, EXPERT_GATE, &term, 0);
            stacked_term(m, layer, e, EXPERT_UP, &term, width * rank);
        }
    }
    return true;
}

void model_case_train_lora(model_case *m, const char *adapter_folder) {
    safetensors *files = NULL;
    char path[4096], a_name[160], b_name[160];
    tensor_view a, b;
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", adapter_folder);
    assert_ok(safetensors_open(&files, path, &test_error));
    for (size_t i = 0; i < m->n_modules; i++) {
        snprintf(a_name, sizeof a_name, "base_model.model.%s.lora_A.weight", m->modules[i].name);
        snprintf(b_name, sizeof b_name, "base_model.model.%s.lora_B.weight", m->modules[i].name);
        if (!safetensors_find(&a, files, a_name) || !safetensors_find(&b, files, b_name))
            continue;
        test_parameter *pa = model_case_parameter(m, a_name, &a, (int64_t)tensor_count(&a));
        test_parameter *pb = model_case_parameter(m, b_name, &b, (int64_t)tensor_count(&b));
        low_rank_term *term = new_term(m, model_hooks_linear(&m->hooks, &m->modules[i]));
        *term = (low_rank_term){.a = pa->value,
                                .b = pb->value,
                                .da = pa->gradient,
                                .db = pb->gradient,
                                .scale = 2, /* alpha 8, r 4 */
                                .rank = (int32_t)a.shape[0],
                                .job = -1};
    }
    for (int32_t layer = 0; layer < m->spec.n_layers; layer++) {
        if (!model_layer_is_sparse(&m->spec, layer))
            continue;
        train_stacked(m, files, layer, "experts.base_layer");
        train_stacked(m, files, layer, "experts");
    }
    assert_int_equal(m->n_parameters, safetensors_count(files));
    safetensors_close(&files);
}

static test_parameter *random_parameter(model_case *m, const char *module, const char *what,
                                        int64_t n, rng *random) {
    char name[160];
    double *values = mem_array((size_t)n, sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < n; i++)
        values[i] = 0.1 * rng_normal(random);
    tensor_view view = {.data = values, .type = DTYPE_F64, .rank = 1, .shape = {n}};
    snprintf(name, sizeof name, "%s.lora_%s%zu", module, what, m->n_terms);
    test_parameter *p = model_case_parameter(m, name, &view, n);
    free(values);
    return p;
}

void model_case_add_term(model_case *m, const char *name, low_rank_term shape, bool has_bias,
                         uint64_t seed) {
    rng random = rng_create(seed, 0);
    for (size_t i = 0; i < m->n_modules; i++) {
        const model_module *module = &m->modules[i];
        if (strcmp(module->name, name) != 0)
            continue;
        /* On an embedding A is [rank, vocab] and B [hidden, rank]. */
        bool is_embedding = module->kind == MODULE_EMBEDDING;
        int64_t in = is_embedding ? module->rows : module->cols;
        int64_t out = is_embedding ? module->cols : module->rows;
        low_rank_term *term = new_term(m, model_hooks_linear(&m->hooks, module));
        test_parameter *a = random_parameter(m, name, "A", shape.rank * in, &random);
        test_parameter *b = random_parameter(m, name, "B", shape.rank * out, &random);
        *term = shape;
        term->a = a->value;
        term->da = a->gradient;
        term->b = b->value;
        term->db = b->gradient;
        if (has_bias) {
            test_parameter *bias = random_parameter(m, name, "bias", out, &random);
            term->bias = bias->value;
            term->dbias = bias->gradient;
        }
        return;
    }
    fail_msg("no module %s", name);
}

/* ---- Steps ---- */

void model_case_layout(model_case *m, const step_limits *limits) {
    layout device = layout_counting(), host = layout_counting();
    m->saved = mem_array((size_t)m->spec.n_layers, sizeof *m->saved);
    assert_non_null(m->saved);
    model_hooks_finish(&m->hooks, &m->spec);
    for (int pass = 0; pass < 2; pass++) {
        assert_ok(step_layout(&m->buffers, m->saved, &device, &host, &m->spec, &m->hooks, limits,
                              m->dev->element_bytes, &test_error));
        batch_builder_layout(&m->builder, &host, limits->max_tokens, limits->max_segments,
                             limits->max_jobs, &m->hooks.sequence);
        if (pass == 1)
            break;
        m->device_memory = m->dev->ops->alloc(m->dev, device.high_water);
        m->host_memory = aligned_alloc(LAYOUT_ALIGNMENT, host.high_water);
        assert_non_null(m->device_memory);
        assert_non_null(m->host_memory);
        device = layout_over(m->device_memory, device.high_water);
        host = layout_over(m->host_memory, host.high_water);
    }
    assert_int_equal(device.used, device.capacity);
    assert_int_equal(host.used, host.capacity);
}

void model_case_batch_begin(model_case *m, bool training, uint64_t dropout_key) {
    batch_builder_begin(&m->builder, training, dropout_key);
    m->batch = batch_builder_finish(&m->builder);
}

void model_case_add_row(model_case *m, const batch_row *row) {
    assert_true(batch_builder_add(&m->builder, row));
}

void model_case_zero_gradients(model_case *m) {
    for (size_t i = 0; i < m->n_parameters; i++)
        m->dev->ops->fill(m->dev, m->parameters[i].gradient, 0, m->parameters[i].n);
}

double model_case_step(model_case *m, bool backward) {
    model_run run = model_case_run(m);
    int32_t n = 0;
    double sum = 0;
    if (backward)
        model_case_zero_gradients(m);
    assert_ok(step_forward(&run, &m->buffers, m->batch, &test_error));
    assert_ok(step_loss(&n, &run, &m->buffers, m->batch, &test_error));
    double *losses = model_case_download(m, m->buffers.loss, n);
    for (int32_t i = 0; i < n; i++)
        sum += (double)m->batch->weights[m->buffers.labelled.index[i]] * losses[i];
    free(losses);
    if (backward)
        assert_ok(step_backward(&run, &m->buffers, m->batch, &test_error));
    return sum;
}

double *model_case_download(const model_case *m, const device_array *array, int64_t n) {
    double *values = mem_array((size_t)n, sizeof *values);
    assert_non_null(values);
    m->dev->ops->download_f64(m->dev, values, array, n);
    return values;
}
