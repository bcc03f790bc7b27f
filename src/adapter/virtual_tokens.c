#include "adapter/virtual_tokens.h"

static graft_status settle(adapter *a, const char *key, int64_t value, graft_error *err) {
    json_int_t given = config_integer(&a->config, key);
    if (json_is_null(config_value(&a->config, key)))
        return json_object_set_new(a->config.fields, key, json_integer(value)) == 0
                   ? GRAFT_OK
                   : error_memory(err, 64, key);
    if (given == value)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT,
                     "%s: expected %lld as this %s model has, found %lld: the adapter was made for "
                     "another base; leave %s out to take the model's",
                     key, (long long)value, a->spec->model_type, (long long)given, key);
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
