#include "adapter/virtual_tokens.h"

graft_status virtual_tokens_default(adapter *a, const char *key, int64_t value, graft_error *err) {
    if (!json_is_null(config_value(&a->config, key)) ||
        json_object_set_new(a->config.fields, key, json_integer(value)) == 0)
        return GRAFT_OK;
    return error_memory(err, 64, key);
}

static graft_status settle(adapter *a, const char *key, int64_t value, graft_error *err) {
    graft_status status = virtual_tokens_default(a, key, value, err);
    if (status != GRAFT_OK || config_integer(&a->config, key) == value)
        return status;
    return error_set(err, GRAFT_E_INPUT,
                     "%s: expected %lld as this %s model has, found %lld: the adapter was made for "
                     "another base; leave %s out to take the model's",
                     key, (long long)value, a->spec->model_type,
                     (long long)config_integer(&a->config, key), key);
}

graft_status virtual_tokens_settle(adapter *a, int64_t token_dim, int64_t heads, graft_error *err) {
    graft_status status = settle(a, "token_dim", token_dim, err);
    if (status == GRAFT_OK)
        status = settle(a, "num_layers", a->spec->n_layers, err);
    if (status == GRAFT_OK)
        status = settle(a, "num_attention_heads", heads, err);
    if (status == GRAFT_OK)
        status = settle(a, "num_transformer_submodules", 1, err);
    return status;
}

int32_t virtual_tokens_count(const adapter *a) {
    return (int32_t)config_integer(&a->config, "num_virtual_tokens");
}

void virtual_tokens_embed(const adapter *a, backend *dev, device_array *to,
                          const weight_source *weights, int64_t token) {
    weight_ref table = weight_source_outer(weights)->embedding;
    dev->ops->upload(dev, to,
                     (const char *)table.data +
                         token * table.row_stride * (int64_t)dtype_bytes(table.type),
                     table.type, a->spec->hidden);
}
