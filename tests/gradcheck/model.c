/* Gradients of whole tiny models in double precision, against differences of the loss: every kind
 * of trained part, every path that backward may leave out. */
#include "tests/parity/model_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements of one parameter that are checked; spread over it. */
enum { CHECKED = 12, ROWS = 3, VOCAB = 19 };

static const char qwen3_config[] =
    "{\"model_type\": \"qwen3\", \"vocab_size\": 19, \"hidden_size\": 12, \"intermediate_size\": "
    "10,"
    " \"num_hidden_layers\": 3, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"head_dim\": 6,"
    " \"attention_bias\": true, \"use_sliding_window\": true, \"sliding_window\": 3,"
    " \"max_window_layers\": 1, \"tie_word_embeddings\": false}";

static const char llama_config[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 19, \"hidden_size\": 12, \"intermediate_size\": "
    "14,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 3, \"num_key_value_heads\": 1,"
    " \"attention_bias\": true, \"mlp_bias\": true, \"tie_word_embeddings\": true}";

static const step_limits limits = {.max_tokens = 24,
                                   .max_labelled = 20,
                                   .max_segments = ROWS,
                                   .max_jobs = 2,
                                   .training = true,
                                   .head_chunk = 4};

static void open_model(model_case *m, const char *config) {
    const char *folder = model_case_write("gradcheck", config, 5);
    model_case_open(m, test_backend(0), folder, "config.json");
}

/* Three rows of 7, 5 and 6 tokens; the last belongs to job 1; some tokens have no label. */
static void fill_batch(model_case *m, const kv_view *past) {
    static const int32_t lengths[ROWS] = {7, 5, 6};
    model_case_batch_begin(m, true, 99);
    for (int32_t row = 0; row < ROWS; row++) {
        int32_t ids[8], targets[8];
        for (int32_t t = 0; t < lengths[row]; t++) {
            ids[t] = (5 * row + 3 * t * t + 1) % VOCAB;
            targets[t] = t == 2 || t + 1 == lengths[row] ? -1 : (7 * row + t) % VOCAB;
        }
        model_case_add_row(m, &(batch_row){.ids = ids,
                                           .targets = targets,
                                           .n = lengths[row],
                                           .weight = 0.1f * (float)(row + 1),
                                           .position_first = past && row == 1 ? past->length : 0,
                                           .job = row == 2,
                                           .row_id = (uint64_t)row + 40,
                                           .past = row == 1 ? past : NULL});
    }
}

static double loss_at(model_case *m, device_array *element, double value) {
    m->dev->ops->upload(m->dev, element, &value, DTYPE_F64, 1);
    return model_case_step(m, false);
}

/* Five-point difference: the error is of order step^4. */
static double difference(model_case *m, device_array *element, double value) {
    const double step = 2e-4;
    double far = loss_at(m, element, value + 2 * step) - loss_at(m, element, value - 2 * step);
    double near = loss_at(m, element, value + step) - loss_at(m, element, value - step);
    loss_at(m, element, value);
    return (8 * near - far) / (12 * step);
}

/* Keys' biases, which softmax does not see; a position or an expert that no token of the batch has.
 */
static bool may_learn_nothing(const char *name) {
    return strstr(name, "k_proj.bias") || strstr(name, "k_proj.lora_bias") ||
           strstr(name, ".experts.");
}

static void check_parameter(model_case *m, const test_parameter *p, const double *gradient,
                            double relative) {
    double *value = model_case_download(m, p->value, p->n), largest = 0;
    for (int64_t j = 0; j < p->n; j++)
        largest = fmax(largest, fabs(gradient[j]));
    if (may_learn_nothing(p->name))
        largest = fmax(largest, 1e-3);
    assert_true(largest > 0);
    int64_t stride = p->n > CHECKED ? p->n / CHECKED : 1;
    for (int64_t j = 0; j < p->n; j += stride)
        test_assert_near(gradient[j], difference(m, array_at(m->dev, p->value, j), value[j]),
                         1e-7 * largest, relative, p->name);
    free(value);
}

static void check_gradients_within(model_case *m, double relative) {
    double *gradients[CASE_PARAMETERS_MAX];
    model_case_step(m, true);
    /* All first: the steps of the differences add to the head's gradients again. */
    for (size_t i = 0; i < m->n_parameters; i++)
        gradients[i] = model_case_download(m, m->parameters[i].gradient, m->parameters[i].n);
    for (size_t i = 0; i < m->n_parameters; i++) {
        check_parameter(m, &m->parameters[i], gradients[i], relative);
        free(gradients[i]);
    }
}

static void check_gradients(model_case *m) {
    check_gradients_within(m, 1e-6);
}

/* With caps, products of multipliers and scaled embeddings the differences are less exact. */
static const double SHAPES_RELATIVE = 2e-5;

/* What blocks keep; the last one mixes all, and ends on labelled rows alone. */
enum { KEEPING_ALL, KEEPING_INPUTS, KEEPING_SOME, N_KEEPING };

static void lay_out(model_case *m, int keeping) {
    step_limits with = limits;
    with.layers_from_input = keeping == KEEPING_INPUTS ? m->spec.n_layers : keeping == KEEPING_SOME;
    with.layers_without_mlp = keeping == KEEPING_SOME;
    with.labelled_only = keeping == KEEPING_SOME;
    model_case_layout(m, &with);
}

static void check_all_freed(const char *config, int keeping, double relative) {
    static model_case m;
    open_model(&m, config);
    model_case_train_all(&m);
    lay_out(&m, keeping);
    fill_batch(&m, NULL);
    check_gradients_within(&m, relative);
    model_case_close(&m);
}

static void all_freed_with_qk_norm_windows_and_biases(void **state) {
    (void)state;
    for (int keeping = 0; keeping < N_KEEPING; keeping++)
        check_all_freed(qwen3_config, keeping, 1e-6);
}

static void all_freed_with_a_tied_head(void **state) {
    (void)state;
    for (int keeping = 0; keeping < N_KEEPING; keeping++)
        check_all_freed(llama_config, keeping, 1e-6);
}

/* What the families differ in: each has something in its block, or around the blocks, that no other
 * here has. No multiplier or cap is at its default. */
static const char *const family_configs[] = {
    "{\"model_type\": \"gemma2\", \"pad_token_id\": null, \"vocab_size\": 19, \"hidden_size\": 12, "
    "\"intermediate_size\": "
    "10,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,"
    " \"head_dim\": 6, \"sliding_window\": 3, \"attn_logit_softcapping\": 1.5,"
    " \"final_logit_softcapping\": 2.5, \"query_pre_attn_scalar\": 5}",
    "{\"model_type\": \"gpt2\", \"vocab_size\": 19, \"n_embd\": 12, \"n_layer\": 2, \"n_head\": 3,"
    " \"n_positions\": 16}",
    "{\"model_type\": \"opt\", \"vocab_size\": 19, \"hidden_size\": 12, \"ffn_dim\": 10,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 3, \"max_position_embeddings\": 16,"
    " \"do_layer_norm_before\": false, \"word_embed_proj_dim\": 8, \"pad_token_id\": null,"
    " \"activation_function\": \"gelu\"}",
    "{\"model_type\": \"stablelm\", \"vocab_size\": 19, \"hidden_size\": 16,"
    " \"intermediate_size\": 10, \"num_hidden_layers\": 2, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"use_qkv_bias\": true, \"qk_layernorm\": true,"
    " \"use_parallel_residual\": true, \"partial_rotary_factor\": 0.5}",
    "{\"model_type\": \"gpt_neox\", \"vocab_size\": 19, \"hidden_size\": 12,"
    " \"intermediate_size\": 10, \"num_hidden_layers\": 2, \"num_attention_heads\": 3,"
    " \"rotary_pct\": 0.5}",
    "{\"model_type\": \"bloom\", \"vocab_size\": 19, \"hidden_size\": 12, \"n_layer\": 2,"
    " \"n_head\": 3}",
    "{\"model_type\": \"olmo2\", \"vocab_size\": 19, \"hidden_size\": 12, \"intermediate_size\": "
    "10,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 3, \"num_key_value_heads\": 1,"
    " \"pad_token_id\": null}",
    "{\"model_type\": \"cohere\", \"vocab_size\": 19, \"hidden_size\": 12, \"intermediate_size\": "
    "10,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 3, \"num_key_value_heads\": 1,"
    " \"use_qk_norm\": true, \"logit_scale\": 0.5, \"pad_token_id\": null}",
    "{\"model_type\": \"granite\", \"vocab_size\": 19, \"hidden_size\": 12,"
    " \"intermediate_size\": 10, \"num_hidden_layers\": 2, \"num_attention_heads\": 3,"
    " \"embedding_multiplier\": 3, \"attention_multiplier\": 0.4, \"residual_multiplier\": 0.6,"
    " \"logits_scaling\": 2}",
    "{\"model_type\": \"glm4\", \"vocab_size\": 19, \"hidden_size\": 12, \"intermediate_size\": 10,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
    " \"head_dim\": 8}",
    "{\"model_type\": \"gpt_oss\", \"vocab_size\": 19, \"hidden_size\": 12, \"intermediate_size\": "
    "10,"
    " \"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
    " \"head_dim\": 6, \"sliding_window\": 3, \"num_local_experts\": 3, \"num_experts_per_tok\": 2,"
    " \"rope_scaling\": null, \"rope_parameters\": {}}",
    "{\"model_type\": \"qwen2_moe\", \"vocab_size\": 19, \"hidden_size\": 12,"
    " \"intermediate_size\": 10, \"moe_intermediate_size\": 8,"
    " \"shared_expert_intermediate_size\": 6, \"num_hidden_layers\": 2, \"num_attention_heads\": 2,"
    " \"num_key_value_heads\": 1, \"num_experts\": 3, \"num_experts_per_tok\": 2,"
    " \"mlp_only_layers\": [0]}",
    "{\"model_type\": \"deepseek_v3\", \"vocab_size\": 19, \"hidden_size\": 12,"
    " \"intermediate_size\": 10, \"moe_intermediate_size\": 8, \"num_hidden_layers\": 2,"
    " \"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"n_routed_experts\": 4,"
    " \"num_experts_per_tok\": 2, \"n_group\": 2, \"topk_group\": 1, \"first_k_dense_replace\": 1,"
    " \"kv_lora_rank\": 6, \"q_lora_rank\": 5, \"qk_rope_head_dim\": 4, \"qk_nope_head_dim\": 3,"
    " \"v_head_dim\": 5}",
};

static void all_freed_in_every_shape_of_block(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof family_configs / sizeof *family_configs; i++) {
        print_message("%s\n", family_configs[i]);
        for (int keeping = 0; keeping < N_KEEPING; keeping++)
            check_all_freed(family_configs[i], keeping, SHAPES_RELATIVE);
    }
}

/* Two terms on every linear, one for each job; dropout; biases. On embedding and head one term for
 * all jobs. */
static void add_terms(model_case *m) {
    for (size_t i = 0; i < m->n_modules; i++) {
        const model_module *module = &m->modules[i];
        uint64_t seed = 100 + i;
        uint32_t stream = (uint32_t)i;
        bool is_inside = module->kind == MODULE_LINEAR || module->kind == MODULE_ROUTER ||
                         module->kind == MODULE_EXPERT;
        if (!is_inside && module->kind != MODULE_EMBEDDING && module->kind != MODULE_HEAD)
            continue;
        if (!is_inside) {
            low_rank_term term = {.scale = 1.5f, .rank = 2, .job = -1};
            model_case_add_term(m, module->name, term, false, seed);
            continue;
        }
        for (int32_t job = 0; job < 2; job++) {
            low_rank_term term = {.scale = 0.7f + (float)job,
                                  .rank = 2 + job,
                                  .job = job,
                                  .dropout = job ? 0.25f : 0,
                                  .dropout_stream = stream};
            model_case_add_term(m, module->name, term, job == 0, seed + 1000 * (uint64_t)job);
        }
    }
}

static void check_terms(const char *config, int keeping, double relative) {
    static model_case m;
    open_model(&m, config);
    add_terms(&m);
    lay_out(&m, keeping);
    fill_batch(&m, NULL);
    check_gradients_within(&m, relative);
    model_case_close(&m);
}

static void low_rank_terms_everywhere_with_jobs_and_dropout(void **state) {
    (void)state;
    for (int keeping = 0; keeping < N_KEEPING; keeping++)
        check_terms(qwen3_config, keeping, 1e-6);
}

/* Fused, transposed and projected linear layers, routers and experts. */
static void low_rank_terms_in_every_shape_of_block(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof family_configs / sizeof *family_configs; i++) {
        print_message("%s\n", family_configs[i]);
        check_terms(family_configs[i], (int)i % N_KEEPING, SHAPES_RELATIVE);
    }
}

/* A trained past in one segment, and nothing else trained in block 0. */
static void check_past(int keeping) {
    static model_case m;
    enum { LENGTH = 4, LAYERS = 3 };
    kv_view past[LAYERS];
    open_model(&m, qwen3_config);
    model_case_add_term(&m, "model.layers.2.mlp.down_proj",
                        (low_rank_term){.scale = 1, .rank = 2, .job = -1}, false, 3);
    int64_t n = LENGTH * (int64_t)m.spec.n_kv_heads * m.spec.head_dim;
    double *values = calloc((size_t)n, sizeof *values);
    tensor_view view = {.data = values, .type = DTYPE_F64, .rank = 1, .shape = {n}};
    for (int layer = 0; layer < LAYERS; layer++) {
        char name[64];
        for (int64_t i = 0; i < n; i++)
            values[i] = 0.3 * sin(1.7 * (double)(i + 11 * layer));
        snprintf(name, sizeof name, "past.%d.k", layer);
        test_parameter *k = model_case_parameter(&m, name, &view, n);
        snprintf(name, sizeof name, "past.%d.v", layer);
        test_parameter *v = model_case_parameter(&m, name, &view, n);
        past[layer] = (kv_view){
            .k = k->value, .v = v->value, .dk = k->gradient, .dv = v->gradient, .length = LENGTH};
    }
    free(values);
    /* model_case_layout finishes the hooks, which do not see a past: the layout is made again with
     * all blocks kept. */
    model_hooks_finish(&m.hooks, &m.spec);
    linear_hook *lowest = &m.hooks.layers[0].linear[LINEAR_Q];
    low_rank_term frozen = {.rank = 0, .job = -1};
    lowest->terms = &frozen;
    lowest->n_terms = 1;
    lay_out(&m, keeping);
    lowest->n_terms = 0;
    assert_int_equal(m.hooks.lowest_trained_layer, 0);
    fill_batch(&m, past);
    check_gradients(&m);
    model_case_close(&m);
}

static void trained_past(void **state) {
    (void)state;
    for (int keeping = 0; keeping < N_KEEPING; keeping++)
        check_past(keeping);
}

/* One part alone: backward leaves out all it can, and the rest must still be right. */
static void check_alone(size_t module_index, bool freed, int keeping) {
    static model_case m;
    open_model(&m, qwen3_config);
    const model_module *module = &m.modules[module_index];
    char name[128];
    tensor_view view;
    snprintf(name, sizeof name, "%s.weight", module->name);
    assert_true(weight_source_tensor(&view, m.weights, name));
    if (freed) {
        test_parameter *p = model_case_parameter(&m, name, &view, (int64_t)tensor_count(&view));
        freed_parameter parameter = {.value = p->value, .gradient = p->gradient, .is_freed = true};
        if (module->kind == MODULE_NORM)
            *model_hooks_parameter(&m.hooks, module, false) = parameter;
        else
            model_hooks_linear(&m.hooks, module)->weight = parameter;
    } else {
        model_case_add_term(&m, module->name, (low_rank_term){.scale = 1, .rank = 2, .job = -1},
                            false, 7);
    }
    lay_out(&m, keeping);
    fill_batch(&m, NULL);
    check_gradients(&m);
    model_case_close(&m);
}

static void every_part_alone(void **state) {
    (void)state;
    static model_case m;
    open_model(&m, qwen3_config);
    size_t n = m.n_modules;
    model_module *modules = m.modules;
    m.modules = NULL;
    model_case_close(&m);
    for (size_t i = 0; i < n; i++) {
        if (modules[i].layer == 0 || modules[i].layer == 2)
            continue; /* the middle one has trained parts neither above nor below */
        check_alone(i, true, (int)(i % N_KEEPING));
        if (modules[i].kind != MODULE_NORM)
            check_alone(i, false, (int)((i + 1) % N_KEEPING));
    }
    free(modules);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_freed_with_qk_norm_windows_and_biases),
        cmocka_unit_test(all_freed_with_a_tied_head),
        cmocka_unit_test(low_rank_terms_everywhere_with_jobs_and_dropout),
        cmocka_unit_test(all_freed_in_every_shape_of_block),
        cmocka_unit_test(low_rank_terms_in_every_shape_of_block),
        cmocka_unit_test(trained_past),
        cmocka_unit_test(every_part_alone),
    };
    return cmocka_run_group_tests_name("gradcheck_model", tests, NULL, NULL);
}
