/* The reader of config.json's keys about experts. */
#include "model/families/families.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { EXPERT_SIZE_MAX = 1 << 24 };

graft_status config_refuse_nonzero(const json_t *config, const char *key, const char *origin,
                                   graft_error *err) {
    double value;
    graft_status status = json_get_double(&value, config, key, 0, origin, err);
    if (status == GRAFT_OK && value != 0)
        return error_set(err, GRAFT_E_UNSUPPORTED, "%s: \"%s\" %g is not supported (only 0)",
                         origin, key, value);
    return status;
}

/* A size that may be left out. */
static graft_status read_size(int32_t *out, const json_t *config, const char *key, int64_t high,
                              int32_t fallback, const char *origin, graft_error *err) {
    int64_t value;
    graft_status status = json_get_i64(&value, config, key, 1, high, fallback, origin, err);
    *out = (int32_t)value;
    return status;
}

graft_status config_read_experts(model_spec *spec, const json_t *config, const expert_keys *keys,
                                 const char *origin, graft_error *err) {
    bool is_other = keys->n_experts_other && !json_object_get(config, keys->n_experts);
    const char *count = is_other ? keys->n_experts_other : keys->n_experts;
    spec->router = keys->router;
    spec->router.scale = 1;
    graft_status status = read_size(&spec->n_experts, config, count, ROUTER_EXPERTS_MAX,
                                    keys->n_experts_default, origin, err);
    if (status == GRAFT_OK)
        status = read_size(&spec->router.n_chosen, config, "num_experts_per_tok", spec->n_experts,
                           keys->n_chosen_default, origin, err);
    spec->expert_intermediate = spec->intermediate;
    if (status == GRAFT_OK && keys->intermediate)
        status = read_size(&spec->expert_intermediate, config, keys->intermediate, EXPERT_SIZE_MAX,
                           keys->intermediate_default, origin, err);
    if (status == GRAFT_OK && keys->shared_intermediate)
        status = read_size(&spec->shared_intermediate, config, keys->shared_intermediate,
                           EXPERT_SIZE_MAX, keys->shared_default, origin, err);
    if (status == GRAFT_OK && keys->router.kind != ROUTER_SOFTMAX_CHOSEN)
        status = json_get_bool(&spec->router.normalises, config, "norm_topk_prob",
                               keys->router.normalises, origin, err);
    if (status == GRAFT_OK)
        status = config_refuse(config, "output_router_logits", false, origin, err);
    if (status != GRAFT_OK)
        return status;
    spec->router.n_experts = spec->n_experts;
    spec->router.n_groups = spec->router.n_chosen_groups = 1;
    if (spec->router.n_chosen > spec->n_experts)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"num_experts_per_tok\" is %d, and there are %d experts", origin,
                         spec->router.n_chosen, spec->n_experts);
    spec->layer_is_sparse = mem_array((size_t)spec->n_layers, 1);
    if (!spec->layer_is_sparse)
        return error_memory(err, (size_t)spec->n_layers, origin);
    memset(spec->layer_is_sparse, 1, (size_t)spec->n_layers);
    return GRAFT_OK;
}

graft_status config_read_sparse_layers(model_spec *spec, const json_t *config, const char *origin,
                                       graft_error *err) {
    const json_t *plain = json_object_get(config, "mlp_only_layers"), *item;
    int64_t step;
    size_t i;
    graft_status status =
        json_get_i64(&step, config, "decoder_sparse_step", 1, INT32_MAX, 1, origin, err);
    for (int32_t layer = 0; status == GRAFT_OK && layer < spec->n_layers; layer++)
        spec->layer_is_sparse[layer] = (layer + 1) % step == 0;
    if (status != GRAFT_OK || !plain || json_is_null(plain))
        return status;
    if (!json_is_array(plain))
        return error_set(err, GRAFT_E_INPUT, "%s: \"mlp_only_layers\": expected a list, found %s",
                         origin, json_type_name(plain));
    json_array_foreach(plain, i, item) {
        if (!json_is_integer(item))
            return error_set(err, GRAFT_E_INPUT,
                             "%s: \"mlp_only_layers\"[%zu]: expected the number of a layer", origin,
                             i);
        json_int_t layer = json_integer_value(item);
        if (layer >= 0 && layer < spec->n_layers)
            spec->layer_is_sparse[layer] = 0;
    }
    return GRAFT_OK;
}

double config_yarn_scale(const model_spec *spec, const json_t *config) {
    const json_t *parameters = json_object_get(config, "rope_scaling");
    if (!json_is_object(parameters))
        parameters = json_object_get(config, "rope_parameters");
    double all = json_number_value(json_object_get(parameters, "mscale_all_dim"));
    if (spec->rope.kind == ROPE_DEFAULT || all == 0 || spec->rope.factor <= 1)
        return 1;
    double mscale = 0.1 * all * log(spec->rope.factor) + 1;
    return mscale * mscale;
}
