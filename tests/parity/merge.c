/* A merged model computes what the base with its adapter computes: a line a method that merges. */
#include "tests/parity/adapter_case.h"

#include "adapter/targets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LORA_ON(targets, more)                                                                     \
    "{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": " targets more "}"

static const adapter_kind kinds[] = {
    {"lora", LORA_ON("\"all-linear\"", ", \"lora_bias\": true, \"lora_dropout\": 0.25"), NULL},
    {"lora_embedding",
     LORA_ON("[\"embed_tokens\", \"lm_head\", \"v_proj\"]", ", \"use_rslora\": true"), NULL},
    {"dora", LORA_ON("\"all-linear\"", ", \"use_dora\": true"), NULL},
    {"dora_embedding",
     LORA_ON("[\"embed_tokens\", \"lm_head\", \"up_proj\"]", ", \"use_dora\": true"), NULL},
    {"trainable_tokens", "{\"peft_type\": \"TRAINABLE_TOKENS\", \"token_indices\": [1, 2, 3, 14]}",
     NULL},
    {"lora_trainable_tokens", LORA_ON("[\"v_proj\"]", ", \"trainable_token_indices\": [14, 2, 1]"),
     NULL},
    {"kasa", LORA_ON("[\"q_proj\", \"down_proj\"]", ", \"kasa_config\": {\"beta\": 0.0001}"), NULL},
    {"bdlora",
     LORA_ON("[\"q_proj\", \"o_proj\", \"down_proj\"]",
             ", \"use_bdlora\": {\"nblocks\": 3, \"target_modules_bd_a\": [\"o_proj\"], "
             "\"target_modules_bd_b\": [\"q_proj\"], \"match_strict\": false}"),
     NULL},
    {"target_parameters",
     LORA_ON("[\"v_proj\"]", ", \"target_parameters\": [\"mlp.up_proj.weight\"]"), NULL},
    {"ia3", "{\"peft_type\": \"IA3\"}", NULL},
    {"loha", "{\"peft_type\": \"LOHA\", \"r\": 3, \"target_modules\": \"all-linear\"}", NULL},
    {"adalora",
     "{\"peft_type\": \"ADALORA\", \"target_modules\": \"all-linear\", \"init_r\": 3, "
     "\"lora_dropout\": 0.25}",
     NULL},
    {"hira", "{\"peft_type\": \"HIRA\", \"target_modules\": \"all-linear\", \"r\": 3}", NULL},
    {"lokr", "{\"peft_type\": \"LOKR\", \"target_modules\": \"all-linear\", \"r\": 1}", NULL},
    {"lokr_decompose_both",
     "{\"peft_type\": \"LOKR\", \"target_modules\": \"all-linear\", \"r\": 1, \"decompose_both\": "
     "true, \"decompose_factor\": 4}",
     NULL},
    {"glora", "{\"peft_type\": \"GLORA\", \"target_modules\": \"all-linear\", \"r\": 3}", NULL},
    {"glora_vector",
     "{\"peft_type\": \"GLORA\", \"target_modules\": \"all-linear\", \"config_A_B\": \"vector\", "
     "\"config_C\": \"vector\", \"config_D_E\": \"vector\"}",
     NULL},
    {"glora_constant",
     "{\"peft_type\": \"GLORA\", \"target_modules\": \"all-linear\", \"config_A_B\": \"constant\", "
     "\"config_C\": \"none\"}",
     NULL},
    {"miss",
     "{\"peft_type\": \"MISS\", \"target_modules\": \"all-linear\", \"r\": 5, \"miss_dropout\": "
     "0.25}",
     NULL},
    {"miss_bat",
     "{\"peft_type\": \"MISS\", \"target_modules\": \"all-linear\", \"r\": 2, \"init_weights\": "
     "\"bat\"}",
     NULL},
    {"miss_mini",
     "{\"peft_type\": \"MISS\", \"target_modules\": \"all-linear\", \"r\": 3, \"init_weights\": "
     "\"mini\", \"mini_r\": 2}",
     NULL},
    {"delora",
     "{\"peft_type\": \"DELORA\", \"target_modules\": \"all-linear\", \"delora_lambda\": 1, \"r\": "
     "3, "
     "\"module_dropout\": 0.25}",
     NULL},
    {"gralora",
     "{\"peft_type\": \"GRALORA\", \"target_modules\": \"all-linear\", \"r\": 4, \"gralora_k\": 2, "
     "\"hybrid_r\": 2}",
     NULL},
    {"vera",
     "{\"peft_type\": \"VERA\", \"target_modules\": \"all-linear\", \"r\": 5, \"vera_dropout\": "
     "0.25}",
     NULL},
    {"pvera", "{\"peft_type\": \"PVERA\", \"target_modules\": \"all-linear\", \"r\": 5}", NULL},
    {"randlora",
     "{\"peft_type\": \"RANDLORA\", \"target_modules\": \"all-linear\", \"r\": 5, "
     "\"randlora_alpha\": 4}",
     NULL},
    {"vblora",
     "{\"peft_type\": \"VBLORA\", \"target_modules\": \"all-linear\", \"r\": 3, \"num_vectors\": "
     "5, \"vector_length\": 2, \"topk\": 2}",
     NULL},
    {"unilora",
     "{\"peft_type\": \"UNILORA\", \"target_modules\": \"all-linear\", \"r\": 2, "
     "\"theta_d_length\": 31}",
     NULL},
    {"tinylora",
     "{\"peft_type\": \"TINYLORA\", \"target_modules\": \"all-linear\", \"u\": 3, "
     "\"weight_tying\": 0.6}",
     NULL},
    {"deft",
     "{\"peft_type\": \"DEFT\", \"target_modules\": \"all-linear\", \"r\": 3, \"alpha\": 2}", NULL},
    {"deft_qr",
     "{\"peft_type\": \"DEFT\", \"target_modules\": \"all-linear\", \"r\": 3, "
     "\"decomposition_method\": \"qr\"}",
     NULL},
    {"deft_qr_para",
     "{\"peft_type\": \"DEFT\", \"target_modules\": \"all-linear\", \"r\": 3, "
     "\"decomposition_method\": \"qr\", \"para\": true}",
     NULL},
    {"oft", "{\"peft_type\": \"OFT\", \"target_modules\": \"all-linear\", \"oft_block_size\": 4}",
     NULL},
    {"oft_cayley",
     "{\"peft_type\": \"OFT\", \"target_modules\": \"all-linear\", \"oft_block_size\": 0, \"r\": "
     "2, \"use_cayley_neumann\": false}",
     NULL},
    {"oft_terms",
     "{\"peft_type\": \"OFT\", \"target_modules\": \"all-linear\", \"oft_block_size\": 4, "
     "\"block_share\": true, \"num_cayley_neumann_terms\": 7}",
     NULL},
    {"boft",
     "{\"peft_type\": \"BOFT\", \"target_modules\": \"all-linear\", \"boft_block_size\": 2}", NULL},
    {"hra", "{\"peft_type\": \"HRA\", \"target_modules\": \"all-linear\", \"r\": 3}", NULL},
    {"hra_gs",
     "{\"peft_type\": \"HRA\", \"target_modules\": \"all-linear\", \"r\": 3, \"apply_GS\": true, "
     "\"init_weights\": false}",
     NULL},
    {"road_1", "{\"peft_type\": \"ROAD\", \"target_modules\": \"all-linear\", \"group_size\": 2}",
     NULL},
    {"road_2",
     "{\"peft_type\": \"ROAD\", \"target_modules\": [\"q_proj\", \"down_proj\"], \"group_size\": "
     "4, \"variant\": \"road_2\"}",
     NULL},
    {"road_4",
     "{\"peft_type\": \"ROAD\", \"target_modules\": \"all-linear\", \"group_size\": 2, "
     "\"variant\": \"road_4\"}",
     NULL},
    {"psoft",
     "{\"peft_type\": \"PSOFT\", \"target_modules\": \"all-linear\", \"r\": 3, \"psoft_dropout\": "
     "0.25}",
     NULL},
    {"psoft_bounded",
     "{\"peft_type\": \"PSOFT\", \"target_modules\": [\"q_proj\", \"up_proj\"], \"r\": 4, "
     "\"use_cayley_neumann\": true, \"cayley_neumann_eps\": 0.2, \"ab_svd_init\": \"pissa_init\", "
     "\"psoft_svd\": \"lowrank\"}",
     NULL},
    {"psoft_plain",
     "{\"peft_type\": \"PSOFT\", \"target_modules\": [\"q_proj\", \"up_proj\"], \"r\": 3, "
     "\"psoft_orth\": false, \"psoft_mag_a\": false}",
     NULL},
    {"fourierft",
     "{\"peft_type\": \"FOURIERFT\", \"target_modules\": \"all-linear\", \"n_frequency\": 9, "
     "\"scaling\": 10.0}",
     NULL},
    {"waveft",
     "{\"peft_type\": \"WAVEFT\", \"target_modules\": \"all-linear\", \"n_frequency\": 20, "
     "\"scaling\": 2.0, \"wavelet_family\": \"db2\"}",
     NULL},
    {"waveft_plain",
     "{\"peft_type\": \"WAVEFT\", \"target_modules\": \"all-linear\", \"n_frequency\": 20, "
     "\"scaling\": 0.5, \"use_idwt\": false, \"proportional_parameters\": true}",
     NULL},
    {"c3a", "{\"peft_type\": \"C3A\", \"target_modules\": \"all-linear\", \"block_size\": 2}",
     NULL},
    {"shira", "{\"peft_type\": \"SHIRA\", \"target_modules\": \"all-linear\", \"r\": 1}", NULL},
    {"supertuning",
     "{\"peft_type\": \"SUPERTUNING\", \"target_modules\": \"all-linear\", \"sparsity\": 0.7}",
     NULL},
    {"supra",
     "{\"peft_type\": \"SUPERTUNING\", \"target_modules\": \"all-linear\", \"sparsity\": 0.7, "
     "\"select_top\": false, \"r\": 2, \"lora_dropout\": 0.25}",
     NULL},
    {"ln_tuning", "{\"peft_type\": \"LN_TUNING\"}", NULL},
    {"beft", "{\"peft_type\": \"BEFT\"}", NULL},
    {"peanut",
     "{\"peft_type\": \"PEANUT\", \"target_modules\": \"all-linear\", \"r\": 3, \"depth\": 2, "
     "\"act_fn\": \"tanh\"}",
     NULL},
    {"frod", "{\"peft_type\": \"FROD\", \"target_modules\": \"all-linear\", \"sparse_rate\": 0.1}",
     NULL},
    {"osf", "{\"peft_type\": \"OSF\", \"target_modules\": \"all-linear\"}", NULL},
};

/* The module's weight (and bias) as the adapter makes them, in place of the base's. */
static void merge_module(adapter_case *from, model_case *to, size_t index) {
    backend *dev = to->dev;
    const model_module *module = &to->modules[index];
    char name[160];
    tensor_view weight, bias = {0};
    snprintf(name, sizeof name, "%s.weight", module->is_tied ? to->modules[0].name : module->name);
    assert_true(weight_source_tensor(&weight, to->weights, name));
    snprintf(name, sizeof name, "%s.weight", module->name);
    test_parameter *w = model_case_parameter(to, name, &weight, module->rows * module->cols),
                   *b = NULL;
    snprintf(name, sizeof name, "%s.bias", module->name);
    if (module->has_bias) {
        assert_true(weight_source_tensor(&bias, to->weights, name));
        b = model_case_parameter(to, name, &bias, module->rows);
    }
    void *scratch = dev->ops->alloc(
        dev, dev->element_bytes * (size_t)(1 + adapter_merge_scratch(from->adapter, index)));
    assert_non_null(scratch);
    assert_ok(adapter_merge(from->adapter, dev, index, w->value, b ? b->value : NULL, scratch,
                            &test_error));
    dev->ops->release(dev, scratch);
    linear_hook *hook = model_hooks_linear(&to->hooks, module);
    hook->weight = (freed_parameter){.value = w->value, .is_freed = true};
    if (b)
        hook->bias = (freed_parameter){.value = b->value, .is_freed = true};
}

static void merge_norm(adapter_case *from, model_case *to, size_t index) {
    const model_module *module = &to->modules[index];
    char name[160];
    tensor_view weight;
    snprintf(name, sizeof name, "%s.weight", module->name);
    assert_true(weight_source_tensor(&weight, to->weights, name));
    test_parameter *w = model_case_parameter(to, name, &weight, module->rows);
    assert_ok(adapter_merge(from->adapter, to->dev, index, w->value, NULL, NULL, &test_error));
    *model_hooks_parameter(&to->hooks, module, false) =
        (freed_parameter){.value = w->value, .is_freed = true};
}

/* The adapter's device makes the merged weights, so both models live on it. */
static void check_merge(const adapter_kind *kind, int which) {
    static adapter_case c;
    static model_case merged;
    adapter_case_open(&c, test_backend(which), kind, false);
    const int32_t n = c.model.batch->tokens.n * c.model.spec.vocab;
    float *with_adapter = adapter_case_logits(&c.model), largest = 0;
    model_case_open(&merged, test_backend(which), c.folder, "config.json");
    for (size_t i = 0; i < merged.n_modules; i++)
        if (merged.modules[i].kind != MODULE_NORM)
            merge_module(&c, &merged, i);
        else if (c.adapter->targets[i].is_target)
            merge_norm(&c, &merged, i);
    model_case_layout(&merged, &adapter_case_limits);
    adapter_case_fill(&merged, false);
    float *alone = adapter_case_logits(&merged);
    for (int32_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(with_adapter[i]));
    for (int32_t i = 0; i < n; i++)
        test_assert_near((double)alone[i], (double)with_adapter[i],
                         (which ? 2e-5 : 1e-6) * (double)largest, 0, kind->name);
    free(with_adapter);
    free(alone);
    model_case_close(&merged);
    adapter_case_close(&c);
}

static void check_kind(void **state) {
    for (int which = 0; which < BACKENDS; which++)
        check_merge(*state, which);
}

int main(void) {
    enum { N = sizeof kinds / sizeof *kinds };
    struct CMUnitTest tests[N];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){
            .name = kinds[i].name, .test_func = check_kind, .initial_state = (void *)&kinds[i]};
    return _cmocka_run_group_tests("parity_merge", tests, N, NULL, NULL);
}
