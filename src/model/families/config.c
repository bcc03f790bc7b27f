/* The reader of config.json's keys that families share. */
#include "model/families/families.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

/* Bounds that keep every product of sizes inside 64 bits, far above any model. */
enum {
    SIZE_MAX_CONFIG = 1 << 24,
    VOCAB_MAX = 1 << 26,
    HEADS_MAX = 1 << 16,
    HEAD_DIM_MAX = ATTENTION_HEAD_DIM_MAX
};

/* An id, a list of ids, or null. `fallback` when the key is left out. */
static graft_status read_eos(model_spec *spec, const json_t *config, int32_t fallback,
                             const char *origin, graft_error *err) {
    const json_t *value = json_object_get(config, "eos_token_id"), *item;
    size_t i, n_max = sizeof spec->eos_ids / sizeof spec->eos_ids[0];
    spec->n_eos = 0;
    if (!value && fallback >= 0)
        spec->eos_ids[spec->n_eos++] = fallback;
    if (json_is_array(value)) {
        if (json_array_size(value) > n_max)
            return error_set(err, GRAFT_E_INPUT, "%s: \"eos_token_id\" has %zu ids; at most %zu",
                             origin, json_array_size(value), n_max);
        json_array_foreach(value, i, item) {
            if (!json_is_integer(item) || json_integer_value(item) < 0 ||
                json_integer_value(item) > VOCAB_MAX)
                return error_set(err, GRAFT_E_INPUT,
                                 "%s: \"eos_token_id\"[%zu]: expected a token id", origin, i);
            spec->eos_ids[spec->n_eos++] = (int32_t)json_integer_value(item);
        }
        return GRAFT_OK;
    }
    int64_t id;
    graft_status status = json_get_i64(&id, config, "eos_token_id", -1, VOCAB_MAX, -1, origin, err);
    if (status == GRAFT_OK && id >= 0)
        spec->eos_ids[spec->n_eos++] = (int32_t)id;
    return status;
}

/* A left-out key means the class's default, null means none. */
static graft_status read_id(int32_t *out, const json_t *config, const char *key, int32_t fallback,
                            const char *origin, graft_error *err) {
    int64_t id;
    graft_status status = json_get_i64(&id, config, key, -1, VOCAB_MAX, -1, origin, err);
    *out = json_object_get(config, key) ? (int32_t)id : fallback;
    return status;
}

typedef struct size_key {
    const char *key, *own; /* own: what this family calls it; NULL: the same */
    int32_t *out;
    int32_t high, fallback; /* fallback 0: the key is needed */
} size_key;

/* Families with names of their own take the common ones too (Transformers' attribute_map). */
static const char *name_of(const size_key *key, const json_t *config) {
    bool takes_common =
        !key->own || (!json_object_get(config, key->own) && json_object_get(config, key->key));
    return takes_common ? key->key : key->own;
}

static graft_status read_sizes(model_spec *spec, const json_t *config,
                               const config_defaults *defaults, const char *origin,
                               graft_error *err) {
    const config_keys *own = &defaults->keys;
    const size_key keys[] = {
        {"hidden_size", own->hidden, &spec->hidden, SIZE_MAX_CONFIG, 0},
        {"num_hidden_layers", own->n_layers, &spec->n_layers, MODEL_LAYERS_MAX, defaults->n_layers},
        {"num_attention_heads", own->n_heads, &spec->n_heads, HEADS_MAX, defaults->n_heads},
        {"vocab_size", NULL, &spec->vocab, VOCAB_MAX, defaults->vocab},
        {"max_position_embeddings", own->max_positions, &spec->max_positions, INT32_MAX,
         defaults->max_positions},
        {"intermediate_size", own->intermediate, &spec->intermediate, SIZE_MAX_CONFIG,
         defaults->intermediate},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *key = name_of(&keys[i], config);
        int64_t value = keys[i].fallback;
        const json_t *given = json_object_get(config, key);
        graft_status status = GRAFT_OK;
        if (keys[i].out == &spec->intermediate && defaults->intermediate_of_hidden &&
            (!given || json_is_null(given)))
            value = (int64_t)defaults->intermediate_of_hidden * spec->hidden;
        else if (given || !keys[i].fallback)
            status = json_need_i64(&value, config, key, 1, keys[i].high, origin, err);
        if (status != GRAFT_OK)
            return status;
        *keys[i].out = (int32_t)value;
    }
    return GRAFT_OK;
}

static graft_status read_heads(model_spec *spec, const json_t *config,
                               const config_defaults *defaults, const char *origin,
                               graft_error *err) {
    int64_t kv_heads, head_dim;
    const char *kv_key =
        defaults->keys.n_kv_heads ? defaults->keys.n_kv_heads : "num_key_value_heads";
    /* null means derived, which differs from a left-out key where the class has a number. */
    int32_t left_out = json_object_get(config, kv_key) ? 0 : defaults->n_kv_heads;
    graft_status status = json_get_i64(&kv_heads, config, kv_key, 1, HEADS_MAX,
                                       left_out ? left_out : spec->n_heads, origin, err);
    if (status != GRAFT_OK)
        return status;
    left_out = json_object_get(config, "head_dim") ? 0 : defaults->head_dim;
    status = json_get_i64(&head_dim, config, "head_dim", 1, HEAD_DIM_MAX, left_out, origin, err);
    if (status != GRAFT_OK)
        return status;
    if (!head_dim && spec->hidden % spec->n_heads != 0)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"hidden_size\" %d is not a multiple of \"num_attention_heads\" %d, "
                         "and there is no \"head_dim\"",
                         origin, spec->hidden, spec->n_heads);
    spec->n_kv_heads = (int32_t)kv_heads;
    spec->head_dim = head_dim ? (int32_t)head_dim : spec->hidden / spec->n_heads;
    if (spec->n_heads % spec->n_kv_heads != 0)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"num_attention_heads\" %d is not a multiple of \"%s\" %d", origin,
                         spec->n_heads, kv_key, spec->n_kv_heads);
    if (spec->head_dim % 2 != 0 || (int64_t)spec->n_heads * spec->head_dim > SIZE_MAX_CONFIG)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: heads of size %d: expected an even size, and %d heads of it at most "
                         "%d wide together",
                         origin, spec->head_dim, spec->n_heads, SIZE_MAX_CONFIG);
    return GRAFT_OK;
}

static graft_status read_norms(model_spec *spec, const json_t *config,
                               const config_defaults *defaults, const char *origin,
                               graft_error *err) {
    double eps, fallback = defaults->norm_eps > 0 ? defaults->norm_eps : 1e-6;
    const char *key = defaults->keys.norm_eps ? defaults->keys.norm_eps : "rms_norm_eps";
    graft_status status = json_get_double(&eps, config, key, fallback, origin, err);
    if (status == GRAFT_OK && !(eps >= 0 && eps < 1))
        return error_set(err, GRAFT_E_INPUT, "%s: \"%s\": expected a small number from 0, found %g",
                         origin, key, eps);
    spec->norm_eps = (float)eps;
    return status;
}

static graft_status read_ids(model_spec *spec, const json_t *config,
                             const config_defaults *defaults, const char *origin,
                             graft_error *err) {
    graft_status status =
        read_id(&spec->bos_id, config, "bos_token_id", defaults->bos_id, origin, err);
    if (status == GRAFT_OK)
        status = read_id(&spec->pad_id, config, "pad_token_id", defaults->pad_id, origin, err);
    return status == GRAFT_OK ? read_eos(spec, config, defaults->eos_id, origin, err) : status;
}

static graft_status read_activation(model_spec *spec, const json_t *config,
                                    const config_defaults *defaults, const char *origin,
                                    graft_error *err) {
    static const struct {
        const char *name;
        activation_kind kind;
    } known[] = {{"silu", ACTIVATION_SILU},
                 {"swish", ACTIVATION_SILU},
                 {"gelu", ACTIVATION_GELU},
                 {"gelu_new", ACTIVATION_GELU_TANH},
                 {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
                 {"gelu_fast", ACTIVATION_GELU_TANH},
                 {"relu", ACTIVATION_RELU}};
    const char *key = defaults->keys.activation ? defaults->keys.activation : "hidden_act", *name;
    graft_status status = json_get_string(
        &name, config, key, defaults->activation ? defaults->activation : "silu", origin, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            spec->activation = known[i].kind;
            return GRAFT_OK;
        }
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s: \"%s\" is \"%.40s\"; supported are \"silu\", \"gelu\", \"gelu_new\", "
                     "\"gelu_pytorch_tanh\", \"gelu_fast\" and \"relu\"",
                     origin, key, name);
}

graft_status config_read_common(model_spec *spec, const json_t *config,
                                const config_defaults *defaults, const char *origin,
                                const message_sink *sink, graft_error *err) {
    graft_status status = read_sizes(spec, config, defaults, origin, err);
    if (status == GRAFT_OK)
        status = read_heads(spec, config, defaults, origin, err);
    if (status == GRAFT_OK)
        status = read_norms(spec, config, defaults, origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&spec->is_head_tied, config, "tie_word_embeddings",
                               defaults->is_head_tied, origin, err);
    if (status == GRAFT_OK)
        status = read_ids(spec, config, defaults, origin, err);
    if (status == GRAFT_OK)
        status = read_activation(spec, config, defaults, origin, err);
    if (status != GRAFT_OK)
        return status;
    spec->embedding_dim = spec->hidden;
    spec->value_dim = spec->head_dim;
    spec->attention_scale = 1 / sqrt((double)spec->head_dim);
    spec->layer_slides = mem_array((size_t)spec->n_layers, 1);
    spec->layer_rope = mem_array((size_t)spec->n_layers, 1);
    if (!spec->layer_slides || !spec->layer_rope)
        return error_memory(err, 2 * (size_t)spec->n_layers, origin);
    if (defaults->has_no_rope)
        memset(spec->layer_rope, LAYER_ROPE_NONE, (size_t)spec->n_layers);
    else if (!defaults->has_layered_rope)
        status = config_read_rope(spec, config, defaults, origin, sink, err);
    return status;
}

graft_status config_refuse(const json_t *config, const char *key, bool supported,
                           const char *origin, graft_error *err) {
    bool value;
    graft_status status = json_get_bool(&value, config, key, supported, origin, err);
    if (status == GRAFT_OK && value != supported)
        return error_set(err, GRAFT_E_UNSUPPORTED, "%s: \"%s\" %s is not supported", origin, key,
                         value ? "true" : "false");
    return status;
}

graft_status config_read_multiplier(double *out, const json_t *config, const char *key,
                                    double fallback, const char *origin, graft_error *err) {
    graft_status status = json_get_double(out, config, key, fallback, origin, err);
    if (status == GRAFT_OK && !(*out > 0 && isfinite(*out)))
        return error_set(err, GRAFT_E_INPUT, "%s: \"%s\": expected a number above 0, found %g",
                         origin, key, *out);
    return status;
}

graft_status config_read_limit(double *out, const json_t *config, const char *key, double fallback,
                               const char *origin, graft_error *err) {
    const json_t *value = json_object_get(config, key);
    *out = 0;
    if (value && json_is_null(value))
        return GRAFT_OK;
    if (!value && fallback == 0)
        return GRAFT_OK;
    return config_read_multiplier(out, config, key, fallback, origin, err);
}

void config_use_layer_norms(model_spec *spec) {
    spec->norms_are_centred = spec->norms_have_bias = true;
}

void config_set_biases(model_spec *spec, bool has_bias) {
    for (int slot = 0; slot < N_LINEAR_SLOTS; slot++)
        spec->has_bias[slot] = has_bias;
}

graft_status config_set_slopes(model_spec *spec, alibi_slopes kind, const char *origin,
                               graft_error *err) {
    spec->alibi_slopes = mem_array((size_t)spec->n_heads, sizeof(float));
    if (!spec->alibi_slopes)
        return error_memory(err, (size_t)spec->n_heads * sizeof(float), origin);
    int32_t power = 1, up;
    while (2 * power <= spec->n_heads)
        power *= 2;
    up = power < spec->n_heads ? 2 * power : power;
    spec->alibi_scale = 1;
    for (int32_t h = 0; h < spec->n_heads; h++) {
        double exponent;
        if (kind == ALIBI_MPT) { /* the slopes of `up` heads: every second one first */
            int32_t i = up == spec->n_heads ? h : h < up / 2 ? 2 * h + 1 : 2 * (h - up / 2);
            exponent = 8.0 * (i + 1) / up;
        } else /* the slopes of `power` heads, then every second one of twice as many */
            exponent = h < power ? 8.0 * (h + 1) / power : 4.0 * (2 * (h - power) + 1) / power;
        spec->alibi_slopes[h] = (float)exp2(-exponent);
    }
    return GRAFT_OK;
}

static graft_status read_biases(model_spec *spec, const linear_slot *slots, size_t n,
                                const json_t *config, const char *key, const char *origin,
                                graft_error *err) {
    bool has_bias;
    graft_status status = json_get_bool(&has_bias, config, key, false, origin, err);
    for (size_t i = 0; status == GRAFT_OK && i < n; i++)
        spec->has_bias[slots[i]] = has_bias;
    return status;
}

graft_status config_read_attention_bias(model_spec *spec, const json_t *config, const char *key,
                                        const char *origin, graft_error *err) {
    static const linear_slot slots[] = {LINEAR_Q, LINEAR_K, LINEAR_V, LINEAR_QKV, LINEAR_O};
    return read_biases(spec, slots, sizeof slots / sizeof slots[0], config, key, origin, err);
}

graft_status config_read_mlp_bias(model_spec *spec, const json_t *config, const char *key,
                                  const char *origin, graft_error *err) {
    static const linear_slot slots[] = {LINEAR_GATE, LINEAR_UP, LINEAR_GATE_UP, LINEAR_DOWN};
    return read_biases(spec, slots, sizeof slots / sizeof slots[0], config, key, origin, err);
}

graft_status config_read_window(int32_t *window, const json_t *config, int32_t fallback,
                                const char *origin, graft_error *err) {
    int64_t value;
    graft_status status =
        json_get_i64(&value, config, "sliding_window", 1, INT32_MAX, 0, origin, err);
    *window = json_object_get(config, "sliding_window") ? (int32_t)value : fallback;
    return status;
}

graft_status config_read_uniform_window(model_spec *spec, const json_t *config, int32_t fallback,
                                        const char *origin, graft_error *err) {
    graft_status status = config_read_window(&spec->window, config, fallback, origin, err);
    if (status == GRAFT_OK && spec->window > 0)
        memset(spec->layer_slides, 1, (size_t)spec->n_layers);
    return status;
}

/* layer_types: "full_attention" or "sliding_attention" for each layer. */
static graft_status read_layer_types(model_spec *spec, const json_t *types, const char *origin,
                                     graft_error *err) {
    if (!json_is_array(types) || json_array_size(types) != (size_t)spec->n_layers)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: \"layer_types\": expected a list of %d (\"num_hidden_layers\"), found "
            "%s of %zu",
            origin, spec->n_layers, json_type_name(types), json_array_size(types));
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type ||
            (strcmp(type, "full_attention") != 0 && strcmp(type, "sliding_attention") != 0))
            return error_set(err, GRAFT_E_UNSUPPORTED,
                             "%s: \"layer_types\"[%zu] is \"%.40s\"; supported are "
                             "\"full_attention\" and \"sliding_attention\"",
                             origin, i, type ? type : "not a string");
        spec->layer_slides[i] = type[0] == 's';
    }
    return GRAFT_OK;
}

graft_status config_read_window_pattern(model_spec *spec, const json_t *config, int32_t period,
                                        int32_t window, const char *origin, graft_error *err) {
    int64_t every = period;
    const json_t *types = json_object_get(config, "layer_types");
    graft_status status = config_read_window(&spec->window, config, window, origin, err);
    if (status != GRAFT_OK)
        return status;
    if (types && !json_is_null(types)) {
        status = read_layer_types(spec, types, origin, err);
    } else {
        status = json_get_i64(&every, config, "sliding_window_pattern", 1, INT32_MAX, period,
                              origin, err);
        for (int32_t i = 0; status == GRAFT_OK && i < spec->n_layers; i++)
            spec->layer_slides[i] = (i + 1) % every != 0;
    }
    if (status == GRAFT_OK && spec->window == 0 &&
        memchr(spec->layer_slides, 1, (size_t)spec->n_layers))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: some layers slide, but \"sliding_window\" is null: give its size",
                         origin);
    return status;
}

graft_status config_read_qwen_windows(model_spec *spec, const json_t *config, const char *origin,
                                      graft_error *err) {
    bool slides;
    int32_t window = 0;
    int64_t first;
    const json_t *types = json_object_get(config, "layer_types");
    graft_status status = json_get_bool(&slides, config, "use_sliding_window", false, origin, err);
    if (status == GRAFT_OK)
        status = json_get_i64(&first, config, "max_window_layers", 0, INT32_MAX, 28, origin, err);
    if (status == GRAFT_OK && slides)
        status = config_read_window(&window, config, 4096, origin, err);
    if (status == GRAFT_OK && types && !json_is_null(types))
        status = read_layer_types(spec, types, origin, err);
    else
        for (int64_t i = first; status == GRAFT_OK && window > 0 && i < spec->n_layers; i++)
            spec->layer_slides[i] = 1;
    if (status != GRAFT_OK)
        return status;
    if (!memchr(spec->layer_slides, 1, (size_t)spec->n_layers))
        return GRAFT_OK;
    if (window == 0)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: \"layer_types\" names sliding layers, but there is no window: set "
                         "\"use_sliding_window\" and \"sliding_window\"",
                         origin);
    spec->window = window;
    return GRAFT_OK;
}
