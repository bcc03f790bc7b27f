/* Every method's gradients in double precision, against differences of the loss of a tiny model: a
 * line a method, or several where its config changes the way it computes. */
#include "tests/parity/adapter_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LORA_ON(targets, more)                                                                     \
    "{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": " targets more "}"

static const adapter_kind kinds[] = {
    {"lora", LORA_ON("\"all-linear\"", ", \"lora_dropout\": 0.25"), NULL},
    {"lora_embedding", LORA_ON("[\"embed_tokens\", \"lm_head\", \"v_proj\"]", ""), NULL},
    {"dora", LORA_ON("\"all-linear\"", ", \"use_dora\": true"), "lora_A lora_B"},
    {"dora_dropout",
     LORA_ON("[\"q_proj\", \"down_proj\", \"lm_head\"]",
             ", \"use_dora\": true, \"lora_dropout\": 0.25"),
     "lora_A lora_B"},
    {"dora_embedding", LORA_ON("[\"embed_tokens\", \"up_proj\"]", ", \"use_dora\": true"),
     "lora_A lora_B lora_embedding_A lora_embedding_B"},
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
    {"prompt_tuning", "{\"peft_type\": \"PROMPT_TUNING\", \"num_virtual_tokens\": 3}", NULL},
    {"prefix_tuning", "{\"peft_type\": \"PREFIX_TUNING\", \"num_virtual_tokens\": 3}", NULL},
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
    /* Below one of its layers PEFT's gradient, which C3A has, is not the slope: see c3a.c. */
    {"c3a",
     "{\"peft_type\": \"C3A\", \"target_modules\": [\"q_proj\"], \"block_size\": 4, "
     "\"layers_to_transform\": [0]}",
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
};

enum { CHECKED = 6 }; /* elements of a tensor */

/* Whether one of the space-separated words is part of the key. */
static bool is_detached(const char *words, const char *key) {
    char word[64];
    for (int used; words && sscanf(words, "%63s%n", word, &used) == 1; words += used)
        if (strstr(key, word))
            return true;
    return false;
}

static double loss_at(adapter_case *c, device_array *element, double value, bool prepares) {
    c->model.dev->ops->upload(c->model.dev, element, &value, DTYPE_F64, 1);
    if (prepares)
        adapter_case_prepare(c);
    return model_case_step(&c->model, false) + adapter_chain(c->adapter, c->model.dev);
}

/* Five-point difference: the error is of order step^4. */
static double difference(adapter_case *c, device_array *element, double value, bool prepares) {
    const double step = 3e-4;
    double far = loss_at(c, element, value + 2 * step, prepares) -
                 loss_at(c, element, value - 2 * step, prepares);
    double near =
        loss_at(c, element, value + step, prepares) - loss_at(c, element, value - step, prepares);
    loss_at(c, element, value, prepares);
    return (8 * near - far) / (12 * step);
}

static void check_tensor(adapter_case *c, const adapter_kind *kind, const adapter_tensor *t,
                         const double *gradient) {
    char what[300];
    double *value = model_case_download(&c->model, t->value, t->count), largest = 0;
    bool prepares = !is_detached(kind->detached, t->key);
    for (int64_t j = 0; j < t->count; j++)
        largest = fmax(largest, fabs(gradient[j]));
    snprintf(what, sizeof what, "%s: %s", kind->name, t->key);
    if (!(largest > 0))
        fail_msg("%s: no gradient", what);
    int64_t stride = t->count > CHECKED ? t->count / CHECKED : 1;
    for (int64_t j = 0; j < t->count; j += stride)
        test_assert_near(gradient[j],
                         difference(c, array_at(c->model.dev, t->value, j), value[j], prepares),
                         1e-7 * largest, 2e-6, what);
    free(value);
}

static void check_kind(void **state) {
    const adapter_kind *kind = *state;
    static adapter_case c;
    adapter_case_open(&c, test_backend(0), kind, true);
    adapter *a = c.adapter;
    double **gradients = calloc(a->n_tensors, sizeof *gradients);
    assert_non_null(gradients);
    adapter_zero_gradients(a, c.model.dev);
    model_case_step(&c.model, true);
    adapter_chain(a, c.model.dev);
    for (size_t i = 0; i < a->n_tensors; i++)
        if (!a->tensors[i].is_fixed)
            gradients[i] =
                model_case_download(&c.model, a->tensors[i].gradient, a->tensors[i].count);
    for (size_t i = 0; i < a->n_tensors; i++) {
        if (gradients[i])
            check_tensor(&c, kind, &a->tensors[i], gradients[i]);
        free(gradients[i]);
    }
    free(gradients);
    adapter_case_close(&c);
}

int main(void) {
    enum { N = sizeof kinds / sizeof *kinds };
    struct CMUnitTest tests[N];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){
            .name = kinds[i].name, .test_func = check_kind, .initial_state = (void *)&kinds[i]};
    return _cmocka_run_group_tests("gradcheck_adapters", tests, N, NULL, NULL);
}
