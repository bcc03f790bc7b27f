/* The methods' table: a line a method, or several where its config changes the way it computes. A
 * line says which checks it passes; where a check needs a config of its own, there are two of a
 * name. */
#include "tests/parity/adapter_case.h"

#define LORA_ON(targets, more)                                                                     \
    "{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": " targets more "}"

typedef struct line {
    adapter_kind kind;
    unsigned checks; /* adapter_check, or-ed */
} line;

static const line lines[] = {
    {{"lora", LORA_ON("\"all-linear\"", ", \"lora_dropout\": 0.25"), NULL}, CHECK_GRADIENTS},
    {{"lora", LORA_ON("\"all-linear\"", ", \"lora_bias\": true, \"lora_dropout\": 0.25"), NULL},
     CHECK_MERGE},
    {{"lora_embedding", LORA_ON("[\"embed_tokens\", \"lm_head\", \"v_proj\"]", ""), NULL},
     CHECK_GRADIENTS},
    {{"lora_embedding",
      LORA_ON("[\"embed_tokens\", \"lm_head\", \"v_proj\"]", ", \"use_rslora\": true"), NULL},
     CHECK_MERGE},
    {{"dora", LORA_ON("\"all-linear\"", ", \"use_dora\": true"), "lora_A lora_B"},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"dora_dropout",
      LORA_ON("[\"q_proj\", \"down_proj\", \"lm_head\"]",
              ", \"use_dora\": true, \"lora_dropout\": 0.25"),
      "lora_A lora_B"},
     CHECK_GRADIENTS},
    {{"dora_embedding", LORA_ON("[\"embed_tokens\", \"up_proj\"]", ", \"use_dora\": true"),
      "lora_A lora_B lora_embedding_A lora_embedding_B"},
     CHECK_GRADIENTS},
    {{"dora_embedding",
      LORA_ON("[\"embed_tokens\", \"lm_head\", \"up_proj\"]", ", \"use_dora\": true"), NULL},
     CHECK_MERGE},
    {{"trainable_tokens", "{\"peft_type\": \"TRAINABLE_TOKENS\", \"token_indices\": [1, 2, 3, 14]}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"lora_trainable_tokens", LORA_ON("[\"v_proj\"]", ", \"trainable_token_indices\": [14, 2, 1]"),
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"kasa", LORA_ON("[\"q_proj\", \"down_proj\"]", ", \"kasa_config\": {\"beta\": 0.0001}"),
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"bdlora",
      LORA_ON("[\"q_proj\", \"o_proj\", \"down_proj\"]",
              ", \"use_bdlora\": {\"nblocks\": 3, \"target_modules_bd_a\": [\"o_proj\"], "
              "\"target_modules_bd_b\": [\"q_proj\"], \"match_strict\": false}"),
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"target_parameters",
      LORA_ON("[\"v_proj\"]", ", \"target_parameters\": [\"mlp.up_proj.weight\"]"), NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"ia3", "{\"peft_type\": \"IA3\"}", NULL}, CHECK_GRADIENTS | CHECK_MERGE},
    {{"loha", "{\"peft_type\": \"LOHA\", \"r\": 3, \"target_modules\": \"all-linear\"}", NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"prompt_tuning", "{\"peft_type\": \"PROMPT_TUNING\", \"num_virtual_tokens\": 3}", NULL},
     CHECK_GRADIENTS},
    {{"prefix_tuning", "{\"peft_type\": \"PREFIX_TUNING\", \"num_virtual_tokens\": 3}", NULL},
     CHECK_GRADIENTS},
    {{"adalora",
      "{\"peft_type\": \"ADALORA\", \"target_modules\": \"all-linear\", \"init_r\": 3, "
      "\"lora_dropout\": 0.25}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"hira", "{\"peft_type\": \"HIRA\", \"target_modules\": \"all-linear\", \"r\": 3}", NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"lokr", "{\"peft_type\": \"LOKR\", \"target_modules\": \"all-linear\", \"r\": 1}", NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"lokr_decompose_both",
      "{\"peft_type\": \"LOKR\", \"target_modules\": \"all-linear\", \"r\": 1, \"decompose_both\": "
      "true, \"decompose_factor\": 4}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"glora", "{\"peft_type\": \"GLORA\", \"target_modules\": \"all-linear\", \"r\": 3}", NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"glora_vector",
      "{\"peft_type\": \"GLORA\", \"target_modules\": \"all-linear\", \"config_A_B\": \"vector\", "
      "\"config_C\": \"vector\", \"config_D_E\": \"vector\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"glora_constant",
      "{\"peft_type\": \"GLORA\", \"target_modules\": \"all-linear\", \"config_A_B\": "
      "\"constant\", "
      "\"config_C\": \"none\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"miss",
      "{\"peft_type\": \"MISS\", \"target_modules\": \"all-linear\", \"r\": 5, \"miss_dropout\": "
      "0.25}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"miss_bat",
      "{\"peft_type\": \"MISS\", \"target_modules\": \"all-linear\", \"r\": 2, \"init_weights\": "
      "\"bat\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"miss_mini",
      "{\"peft_type\": \"MISS\", \"target_modules\": \"all-linear\", \"r\": 3, \"init_weights\": "
      "\"mini\", \"mini_r\": 2}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"delora",
      "{\"peft_type\": \"DELORA\", \"target_modules\": \"all-linear\", \"delora_lambda\": 1, "
      "\"r\": "
      "3, "
      "\"module_dropout\": 0.25}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"gralora",
      "{\"peft_type\": \"GRALORA\", \"target_modules\": \"all-linear\", \"r\": 4, \"gralora_k\": "
      "2, "
      "\"hybrid_r\": 2}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"vera",
      "{\"peft_type\": \"VERA\", \"target_modules\": \"all-linear\", \"r\": 5, \"vera_dropout\": "
      "0.25}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"pvera", "{\"peft_type\": \"PVERA\", \"target_modules\": \"all-linear\", \"r\": 5}", NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"randlora",
      "{\"peft_type\": \"RANDLORA\", \"target_modules\": \"all-linear\", \"r\": 5, "
      "\"randlora_alpha\": 4}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"vblora",
      "{\"peft_type\": \"VBLORA\", \"target_modules\": \"all-linear\", \"r\": 3, \"num_vectors\": "
      "5, \"vector_length\": 2, \"topk\": 2}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"unilora",
      "{\"peft_type\": \"UNILORA\", \"target_modules\": \"all-linear\", \"r\": 2, "
      "\"theta_d_length\": 31}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"tinylora",
      "{\"peft_type\": \"TINYLORA\", \"target_modules\": \"all-linear\", \"u\": 3, "
      "\"weight_tying\": 0.6}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"deft",
      "{\"peft_type\": \"DEFT\", \"target_modules\": \"all-linear\", \"r\": 3, \"alpha\": 2}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"deft_qr",
      "{\"peft_type\": \"DEFT\", \"target_modules\": \"all-linear\", \"r\": 3, "
      "\"decomposition_method\": \"qr\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"deft_qr_para",
      "{\"peft_type\": \"DEFT\", \"target_modules\": \"all-linear\", \"r\": 3, "
      "\"decomposition_method\": \"qr\", \"para\": true}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"oft", "{\"peft_type\": \"OFT\", \"target_modules\": \"all-linear\", \"oft_block_size\": 4}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"oft_cayley",
      "{\"peft_type\": \"OFT\", \"target_modules\": \"all-linear\", \"oft_block_size\": 0, \"r\": "
      "2, \"use_cayley_neumann\": false}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"oft_terms",
      "{\"peft_type\": \"OFT\", \"target_modules\": \"all-linear\", \"oft_block_size\": 4, "
      "\"block_share\": true, \"num_cayley_neumann_terms\": 7}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"boft",
      "{\"peft_type\": \"BOFT\", \"target_modules\": \"all-linear\", \"boft_block_size\": 2}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"hra", "{\"peft_type\": \"HRA\", \"target_modules\": \"all-linear\", \"r\": 3}", NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"hra_gs",
      "{\"peft_type\": \"HRA\", \"target_modules\": \"all-linear\", \"r\": 3, \"apply_GS\": true, "
      "\"init_weights\": false}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"road_1", "{\"peft_type\": \"ROAD\", \"target_modules\": \"all-linear\", \"group_size\": 2}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"road_2",
      "{\"peft_type\": \"ROAD\", \"target_modules\": [\"q_proj\", \"down_proj\"], \"group_size\": "
      "4, \"variant\": \"road_2\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"road_4",
      "{\"peft_type\": \"ROAD\", \"target_modules\": \"all-linear\", \"group_size\": 2, "
      "\"variant\": \"road_4\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"psoft",
      "{\"peft_type\": \"PSOFT\", \"target_modules\": \"all-linear\", \"r\": 3, \"psoft_dropout\": "
      "0.25}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"psoft_bounded",
      "{\"peft_type\": \"PSOFT\", \"target_modules\": [\"q_proj\", \"up_proj\"], \"r\": 4, "
      "\"use_cayley_neumann\": true, \"cayley_neumann_eps\": 0.2, \"ab_svd_init\": \"pissa_init\", "
      "\"psoft_svd\": \"lowrank\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"psoft_plain",
      "{\"peft_type\": \"PSOFT\", \"target_modules\": [\"q_proj\", \"up_proj\"], \"r\": 3, "
      "\"psoft_orth\": false, \"psoft_mag_a\": false}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"fourierft",
      "{\"peft_type\": \"FOURIERFT\", \"target_modules\": \"all-linear\", \"n_frequency\": 9, "
      "\"scaling\": 10.0}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"waveft",
      "{\"peft_type\": \"WAVEFT\", \"target_modules\": \"all-linear\", \"n_frequency\": 20, "
      "\"scaling\": 2.0, \"wavelet_family\": \"db2\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"waveft_plain",
      "{\"peft_type\": \"WAVEFT\", \"target_modules\": \"all-linear\", \"n_frequency\": 20, "
      "\"scaling\": 0.5, \"use_idwt\": false, \"proportional_parameters\": true}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    /* Below one of its layers PEFT's gradient, which C3A has, is not the slope: see c3a.c. */
    {{"c3a",
      "{\"peft_type\": \"C3A\", \"target_modules\": [\"q_proj\"], \"block_size\": 4, "
      "\"layers_to_transform\": [0]}",
      NULL},
     CHECK_GRADIENTS},
    {{"c3a", "{\"peft_type\": \"C3A\", \"target_modules\": \"all-linear\", \"block_size\": 2}",
      NULL},
     CHECK_MERGE},
    {{"shira", "{\"peft_type\": \"SHIRA\", \"target_modules\": \"all-linear\", \"r\": 1}", NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"supertuning",
      "{\"peft_type\": \"SUPERTUNING\", \"target_modules\": \"all-linear\", \"sparsity\": 0.7}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"supra",
      "{\"peft_type\": \"SUPERTUNING\", \"target_modules\": \"all-linear\", \"sparsity\": 0.7, "
      "\"select_top\": false, \"r\": 2, \"lora_dropout\": 0.25}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"ln_tuning", "{\"peft_type\": \"LN_TUNING\"}", NULL}, CHECK_GRADIENTS | CHECK_MERGE},
    {{"beft", "{\"peft_type\": \"BEFT\"}", NULL}, CHECK_GRADIENTS | CHECK_MERGE},
    {{"peanut",
      "{\"peft_type\": \"PEANUT\", \"target_modules\": \"all-linear\", \"r\": 3, \"depth\": 2, "
      "\"act_fn\": \"tanh\"}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"frod", "{\"peft_type\": \"FROD\", \"target_modules\": \"all-linear\", \"sparse_rate\": 0.1}",
      NULL},
     CHECK_GRADIENTS | CHECK_MERGE},
    {{"osf", "{\"peft_type\": \"OSF\", \"target_modules\": \"all-linear\"}", NULL}, CHECK_MERGE},
};

enum { N_LINES = sizeof lines / sizeof *lines };

int adapter_kinds_run(const char *group, adapter_check check, CMUnitTestFunction function) {
    struct CMUnitTest tests[N_LINES];
    size_t n = 0;
    for (size_t i = 0; i < N_LINES; i++)
        if (lines[i].checks & (unsigned)check)
            tests[n++] = (struct CMUnitTest){.name = lines[i].kind.name,
                                             .test_func = function,
                                             .initial_state = (void *)&lines[i].kind};
    return _cmocka_run_group_tests(group, tests, n, NULL, NULL);
}
