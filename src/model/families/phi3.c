/* Phi-3, 3.5 and 4 (Transformers' configuration_phi3.py): Llama with q, k, v and gate, up fused,
 * and longrope. */
#include "model/families/families.h"

static graft_status phi3_parse(model_spec *spec, const json_t *config, const char *origin,
                               const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 32064,
                                             .intermediate = 8192,
                                             .n_layers = 32,
                                             .n_heads = 32,
                                             .max_positions = 4096,
                                             .bos_id = 1,
                                             .eos_id = 32000,
                                             .pad_id = 32000,
                                             .norm_eps = 1e-5,
                                             .partial_rotary_factor = 1};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    return status == GRAFT_OK ? config_read_uniform_window(spec, config, 0, origin, err) : status;
}

const model_family family_phi3 = {
    .model_type = "phi3",
    .parse = phi3_parse,
    .linear_names = {[LINEAR_QKV] = "self_attn.qkv_proj",
                     [LINEAR_O] = "self_attn.o_proj",
                     [LINEAR_GATE_UP] = "mlp.gate_up_proj",
                     [LINEAR_DOWN] = "mlp.down_proj"},
    .norm_names = {LLAMA_NORM_NAMES},
    LLAMA_OUTER_NAMES,
};
