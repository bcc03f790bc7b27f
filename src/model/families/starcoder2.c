/* StarCoder 2 (Transformers' configuration_starcoder2.py): layer norms, a plain MLP, biases, all
 * layers may slide. */
#include "model/families/families.h"

static graft_status starcoder2_parse(model_spec *spec, const json_t *config, const char *origin,
                                     const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 49152,
                                             .intermediate = 12288,
                                             .n_layers = 30,
                                             .n_heads = 24,
                                             .max_positions = 4096,
                                             .bos_id = 50256,
                                             .eos_id = 50256,
                                             .pad_id = -1,
                                             .n_kv_heads = 2,
                                             .norm_eps = 1e-5,
                                             .activation = "gelu_pytorch_tanh",
                                             .is_head_tied = true,
                                             .keys = {.norm_eps = "norm_epsilon"}};
    bool has_bias;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&has_bias, config, "use_bias", true, origin, err);
    if (status != GRAFT_OK)
        return status;
    config_use_layer_norms(spec);
    config_set_biases(spec, has_bias);
    return config_read_uniform_window(spec, config, 0, origin, err);
}

const model_family family_starcoder2 = {
    .model_type = "starcoder2",
    .parse = starcoder2_parse,
    .linear_names = {LLAMA_ATTENTION_NAMES, [LINEAR_UP] = "mlp.c_fc", [LINEAR_DOWN] = "mlp.c_proj"},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
};
