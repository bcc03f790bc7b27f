/* Falcon (Transformers' configuration_falcon.py), in its three shapes: new (40B: fused by key
 * heads, two norms side by side), 7B (one key head, one norm for both branches), RW (one branch
 * after the other, often with ALiBi, whose bias is rounded to bfloat16 and scaled with the scores).
 */
#include "model/families/families.h"

#include <math.h>
#include <string.h>

#define FALCON_LINEAR_NAMES                                                                        \
    [LINEAR_QKV] = "self_attention.query_key_value", [LINEAR_O] = "self_attention.dense",          \
    [LINEAR_UP] = "mlp.dense_h_to_4h", [LINEAR_DOWN] = "mlp.dense_4h_to_h"
#define FALCON_OUTER_NAMES                                                                         \
    .layers_path = "transformer.h", .embedding_name = "transformer.word_embeddings",               \
    .head_name = "lm_head", .outer_norm_names = {[OUTER_NORM_FINAL] = "transformer.ln_f"}

static const model_family family_falcon_new;

typedef struct falcon_shape {
    bool is_new, is_multi_query, is_parallel, has_bias, has_alibi;
    int64_t n_norms; /* before the two branches: 2 have the new shape's names */
} falcon_shape;

static graft_status read_shape(falcon_shape *shape, const json_t *config, const char *origin,
                               graft_error *err) {
    const struct {
        const char *key;
        bool *out, fallback;
    } switches[] = {{"new_decoder_architecture", &shape->is_new, false},
                    {"multi_query", &shape->is_multi_query, true},
                    {"parallel_attn", &shape->is_parallel, true},
                    {"bias", &shape->has_bias, false},
                    {"alibi", &shape->has_alibi, false}};
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < sizeof switches / sizeof switches[0] && status == GRAFT_OK; i++)
        status = json_get_bool(switches[i].out, config, switches[i].key, switches[i].fallback,
                               origin, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&shape->n_norms, config, "num_ln_in_parallel_attn", 1, 2,
                              shape->is_new ? 2 : 1, origin, err);
    if (status == GRAFT_OK &&
        (shape->is_new ? !shape->is_parallel : shape->n_norms == 2 && shape->is_parallel))
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: \"new_decoder_architecture\" %s with \"parallel_attn\" %s and "
                         "\"num_ln_in_parallel_attn\" %d is no shape that a released model has",
                         origin, shape->is_new ? "true" : "false",
                         shape->is_parallel ? "true" : "false", (int)shape->n_norms);
    if (status == GRAFT_OK && !shape->is_parallel)
        shape->n_norms = 1;
    return status;
}

static graft_status use_alibi(model_spec *spec, const char *origin, graft_error *err) {
    graft_status status = config_set_slopes(spec, ALIBI_BLOOM, origin, err);
    for (int32_t h = 0; status == GRAFT_OK && h < spec->n_heads; h++)
        spec->alibi_slopes[h] = bf16_to_f32(f32_to_bf16(spec->alibi_slopes[h]));
    spec->alibi_is_bf16 = true;
    spec->alibi_scale = 1 / sqrt((double)spec->head_dim);
    memset(spec->layer_rope, LAYER_ROPE_NONE, (size_t)spec->n_layers);
    return status;
}

static graft_status falcon_parse(model_spec *spec, const json_t *config, const char *origin,
                                 const message_sink *sink, graft_error *err) {
    static const config_defaults defaults = {.vocab = 65024,
                                             .n_layers = 32,
                                             .n_heads = 71,
                                             .max_positions = 2048,
                                             .bos_id = 11,
                                             .eos_id = 11,
                                             .pad_id = -1,
                                             .intermediate_of_hidden = 4,
                                             .norm_eps = 1e-5,
                                             .activation = "gelu",
                                             .is_head_tied = true,
                                             .keys = {.intermediate = "ffn_hidden_size",
                                                      .n_kv_heads = "num_kv_heads",
                                                      .norm_eps = "layer_norm_epsilon",
                                                      .activation = "activation"}};
    falcon_shape shape;
    graft_status status = config_read_common(spec, config, &defaults, origin, sink, err);
    if (status == GRAFT_OK)
        status = read_shape(&shape, config, origin, err);
    if (status != GRAFT_OK)
        return status;
    config_use_layer_norms(spec);
    config_set_biases(spec, shape.has_bias);
    spec->is_parallel = shape.is_new || shape.is_parallel;
    spec->has_norm[NORM_MLP] = !spec->is_parallel || shape.n_norms == 2;
    if (!shape.is_new)
        spec->n_kv_heads = shape.is_multi_query ? 1 : spec->n_heads;
    spec->qkv_groups = spec->n_kv_heads;
    spec->family = shape.n_norms == 2 ? &family_falcon_new : &family_falcon;
    return shape.has_alibi ? use_alibi(spec, origin, err) : GRAFT_OK;
}

static const char *const lora_targets[] = {"query_key_value", NULL};

const model_family family_falcon = {
    .model_type = "falcon",
    .parse = falcon_parse,
    .linear_names = {FALCON_LINEAR_NAMES},
    .norm_names = {LLAMA_NORM_NAMES},
    FALCON_OUTER_NAMES,
    .trains_padding = true,
    .lora_default_targets = lora_targets,
};

/* The same model_type, with the names of the new shape's norms. */
static const model_family family_falcon_new = {
    .model_type = "falcon",
    .parse = falcon_parse,
    .linear_names = {FALCON_LINEAR_NAMES},
    .norm_names = {[NORM_ATTENTION] = "ln_attn", [NORM_MLP] = "ln_mlp"},
    FALCON_OUTER_NAMES,
    .trains_padding = true,
    .lora_default_targets = lora_targets,
};
