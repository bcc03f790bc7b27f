/* DeepSeek V3 and R1 (Transformers' configuration_deepseek_v3.py): q, k and v through latents,
 * experts chosen by sigmoids from the best groups, one shared, plain MLPs in the first layers. */
#include "model/families/families.h"

#include <math.h>

/* Sizes of the latents, of what of each head rotates and does not, and of its values. */
static graft_status read_latents(model_spec *spec, const json_t *config,
                                 const config_defaults *defaults, const char *origin,
                                 const message_sink *sink, graft_error *err) {
    const struct {
        const char *key;
        int64_t low, high, fallback;
    } keys[] = {{"qk_rope_head_dim", 2, ATTENTION_HEAD_DIM_MAX, 64},
                {"qk_nope_head_dim", 1, ATTENTION_HEAD_DIM_MAX, 128},
                {"v_head_dim", 1, ATTENTION_HEAD_DIM_MAX, 128},
                {"kv_lora_rank", 1, 1 << 20, 512},
                {"q_lora_rank", 1, 1 << 20, 1536}};
    int64_t values[5];
    bool has_bias;
    for (size_t i = 0; i < 5; i++) {
        const json_t *given = json_object_get(config, keys[i].key);
        bool is_none = i == 4 && given && json_is_null(given);
        graft_status status =
            json_get_i64(&values[i], config, keys[i].key, keys[i].low, keys[i].high,
                         is_none ? 0 : keys[i].fallback, origin, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (values[0] + values[1] > ATTENTION_HEAD_DIM_MAX || spec->n_kv_heads != spec->n_heads)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: heads of %d elements, and %d key heads for %d: expected at most %d "
                         "elements, and as many key heads as heads",
                         origin, (int)(values[0] + values[1]), spec->n_kv_heads, spec->n_heads,
                         ATTENTION_HEAD_DIM_MAX);
    graft_status status = json_get_bool(&has_bias, config, "attention_bias", false, origin, err);
    if (status == GRAFT_OK)
        status =
            json_get_bool(&spec->rope_is_interleaved, config, "rope_interleave", true, origin, err);
    spec->head_dim = (int32_t)values[0]; /* rope is read for the part that rotates */
    if (status == GRAFT_OK)
        status = config_read_rope(spec, config, defaults, origin, sink, err);
    if (status != GRAFT_OK)
        return status;
    spec->head_plain = (int32_t)values[1];
    spec->head_dim = (int32_t)(values[0] + values[1]);
    spec->value_dim = (int32_t)values[2];
    spec->kv_latent = (int32_t)values[3];
    spec->q_latent = (int32_t)values[4];
    spec->has_linear[LINEAR_Q] = spec->q_latent == 0;
    spec->has_linear[LINEAR_Q_A] = spec->has_linear[LINEAR_Q_B] = spec->has_norm[NORM_Q_A] =
        spec->q_latent > 0;
    spec->has_bias[LINEAR_Q_A] = spec->has_bias[LINEAR_KV_A] = spec->has_bias[LINEAR_O] = has_bias;
    spec->attention_scale = config_yarn_scale(spec, config) / sqrt((double)spec->head_dim);
    return GRAFT_OK;
}

static graft_status read_router(model_spec *spec, const json_t *config, const char *origin,
                                graft_error *err) {
    int64_t groups, chosen, first, shared;
    double scale;
    graft_status status =
        json_get_i64(&groups, config, "n_group", 1, spec->n_experts, 8, origin, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&chosen, config, "topk_group", 1, groups, 4, origin, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&first, config, "first_k_dense_replace", 0, MODEL_LAYERS_MAX, 3,
                              origin, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&shared, config, "n_shared_experts", 1, 1024, 1, origin, err);
    if (status == GRAFT_OK)
        status = config_read_multiplier(&scale, config, "routed_scaling_factor", 2.5, origin, err);
    if (status != GRAFT_OK)
        return status;
    if (spec->n_experts % groups != 0 || spec->n_experts / groups < 2 ||
        spec->router.n_chosen > spec->n_experts / groups * chosen)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %d experts in %d groups, of which %d are chosen, for %d experts a "
                         "token: expected equal groups of at least 2 that have enough experts",
                         origin, spec->n_experts, (int)groups, (int)chosen, spec->router.n_chosen);
    spec->router.n_groups = (int32_t)groups;
    spec->router.n_chosen_groups = (int32_t)chosen;
    spec->router.scale = (float)scale;
    spec->has_router_correction = true;
    spec->shared_intermediate = (int32_t)shared * spec->expert_intermediate;
    for (int32_t i = 0; i < spec->n_layers && i < first; i++)
        spec->layer_is_sparse[i] = 0;
    return GRAFT_OK;
}

static graft_status deepseek_v3_parse(model_spec *spec, const json_t *config, const char *origin,
                                      const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 129280,
                                             .intermediate = 18432,
                                             .n_layers = 61,
                                             .n_heads = 128,
                                             .max_positions = 4096,
                                             .bos_id = 0,
                                             .eos_id = 1,
                                             .pad_id = -1,
                                             .n_kv_heads = 128,
                                             .has_layered_rope = true};
    static const expert_keys keys = {.n_experts = "n_routed_experts",
                                     .n_experts_other = "num_local_experts",
                                     .n_experts_default = 256,
                                     .n_chosen_default = 8,
                                     .intermediate = "moe_intermediate_size",
                                     .intermediate_default = 2048,
                                     .router = {ROUTER_SIGMOID, .normalises = true}};
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = read_latents(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = config_read_experts(spec, config, &keys, origin, err);
    return status == GRAFT_OK ? read_router(spec, config, origin, err) : status;
}

const model_family family_deepseek_v3 = {
    .model_type = "deepseek_v3",
    .parse = deepseek_v3_parse,
    .linear_names = {[LINEAR_Q] = "self_attn.q_proj",
                     [LINEAR_Q_A] = "self_attn.q_a_proj",
                     [LINEAR_Q_B] = "self_attn.q_b_proj",
                     [LINEAR_KV_A] = "self_attn.kv_a_proj_with_mqa",
                     [LINEAR_KV_B] = "self_attn.kv_b_proj",
                     [LINEAR_O] = "self_attn.o_proj",
                     [LINEAR_GATE] = "mlp.gate_proj",
                     [LINEAR_UP] = "mlp.up_proj",
                     [LINEAR_DOWN] = "mlp.down_proj",
                     [LINEAR_ROUTER] = "mlp.gate",
                     [LINEAR_SHARED_GATE] = "mlp.shared_experts.gate_proj",
                     [LINEAR_SHARED_UP] = "mlp.shared_experts.up_proj",
                     [LINEAR_SHARED_DOWN] = "mlp.shared_experts.down_proj"},
    .norm_names = {LLAMA_NORM_NAMES, [NORM_Q_A] = "self_attn.q_a_layernorm",
                   [NORM_KV_A] = "self_attn.kv_a_layernorm"},
    .experts_path = "mlp.experts",
    .expert_names =
        {[EXPERT_GATE] = "gate_proj", [EXPERT_UP] = "up_proj", [EXPERT_DOWN] = "down_proj"},
    .router_correction_name = "mlp.gate.e_score_correction_bias",
    LLAMA_OUTER_NAMES,
};
