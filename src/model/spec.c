#include "model/spec.h"

#include "backend/ops.h"
#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/strbuf.h"
#include "model/families/families.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 16 << 20 };

/* Bounds that keep every product of sizes inside 64 bits, far above any model. */
enum {
    SIZE_MAX_CONFIG = 1 << 24,
    VOCAB_MAX = 1 << 26,
    HEADS_MAX = 1 << 16,
    HEAD_DIM_MAX = ATTENTION_HEAD_DIM_MAX
};

const model_family *model_family_at(size_t i) {
    static const model_family *const families[] = {&family_llama, &family_mistral, &family_qwen2,
                                                   &family_qwen3};
    return i < sizeof families / sizeof families[0] ? families[i] : NULL;
}

const model_family *model_family_find(const char *model_type) {
    const model_family *family;
    for (size_t i = 0; (family = model_family_at(i)); i++)
        if (strcmp(family->model_type, model_type) == 0)
            return family;
    return NULL;
}

/* "llama, mistral, ..." into text. */
static const char *supported_families(char *text, size_t capacity) {
    const model_family *family;
    text[0] = '\0';
    for (size_t i = 0; (family = model_family_at(i)); i++) {
        strncat(text, i ? ", " : "", capacity - strlen(text) - 1);
        strncat(text, family->model_type, capacity - strlen(text) - 1);
    }
    return text;
}

static graft_status find_family(model_spec *spec, const json_t *config, const char *origin,
                                graft_error *err) {
    const char *type, *code = "";
    char list[256];
    graft_status status = json_get_string(&type, config, "model_type", NULL, origin, err);
    if (status != GRAFT_OK)
        return status;
    spec->family = type ? model_family_find(type) : NULL;
    if (spec->family) {
        strncpy(spec->model_type, type, sizeof spec->model_type - 1);
        return GRAFT_OK;
    }
    if (json_object_get(config, "auto_map"))
        code = " (\"auto_map\" points to code beside the model, which Graft never runs)";
    supported_families(list, sizeof list);
    if (!type)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: no \"model_type\"%s; expected one of %s. Use a model of these",
                         origin, code, list);
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s: \"model_type\" is \"%.40s\", which is not supported%s. Use a model of %s",
                     origin, type, code, list);
}

/* What would change the numbers, or the bytes, and is not there. */
static graft_status refuse_unsupported(const json_t *config, const char *origin,
                                       const message_sink *sink, graft_error *err) {
    const char *activation, *method;
    bool is_causal;
    double dropout;
    graft_status status = json_get_string(&activation, config, "hidden_act", "silu", origin, err);
    if (status == GRAFT_OK)
        status = json_get_bool(&is_causal, config, "is_causal", true, origin, err);
    if (status == GRAFT_OK)
        status = json_get_double(&dropout, config, "attention_dropout", 0, origin, err);
    if (status != GRAFT_OK)
        return status;
    if (strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: \"hidden_act\" is \"%.40s\"; only \"silu\" is supported", origin,
                         activation);
    if (!is_causal)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: \"is_causal\" is false: only causal attention is supported", origin);
    static const char *const quantisation[] = {"quantization_config", "compression_config"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_object_get(config, quantisation[i]);
        if (!value || json_is_null(value))
            continue;
        method = json_string_value(json_object_get(value, "quant_method"));
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: \"%s\" (%.40s): quantised checkpoints are not supported. Use the "
                         "model in float32, bfloat16 or float16",
                         origin, quantisation[i], method ? method : "no quant_method");
    }
    if (dropout != 0)
        message_emit(sink, MESSAGE_WARNING,
                     "%s: \"attention_dropout\" %g is not applied in training", origin, dropout);
    return GRAFT_OK;
}

static graft_status read_stored(model_spec *spec, const json_t *config, const char *origin,
                                graft_error *err) {
    static const struct {
        const char *name;
        dtype type;
    } known[] = {{"float32", DTYPE_F32}, {"bfloat16", DTYPE_BF16}, {"float16", DTYPE_F16}};
    const char *key = json_object_get(config, "dtype") ? "dtype" : "torch_dtype", *name;
    graft_status status = json_get_string(&name, config, key, "float32", origin, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            spec->stored = known[i].type;
            return GRAFT_OK;
        }
    return error_set(err, GRAFT_E_UNSUPPORTED,
                     "%s: \"%s\" is \"%.40s\"; expected \"float32\", \"bfloat16\" or \"float16\"",
                     origin, key, name);
}

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
    const char *key;
    int32_t *out;
    int32_t high, fallback; /* fallback 0: the key is needed */
} size_key;

static graft_status read_sizes(model_spec *spec, const json_t *config,
                               const config_defaults *defaults, const char *origin,
                               graft_error *err) {
    const size_key keys[] = {
        {"hidden_size", &spec->hidden, SIZE_MAX_CONFIG, 0},
        {"intermediate_size", &spec->intermediate, SIZE_MAX_CONFIG, defaults->intermediate},
        {"num_hidden_layers", &spec->n_layers, MODEL_LAYERS_MAX, defaults->n_layers},
        {"num_attention_heads", &spec->n_heads, HEADS_MAX, defaults->n_heads},
        {"vocab_size", &spec->vocab, VOCAB_MAX, defaults->vocab},
        {"max_position_embeddings", &spec->max_positions, INT32_MAX, defaults->max_positions},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int64_t value = keys[i].fallback;
        graft_status status = GRAFT_OK;
        if (json_object_get(config, keys[i].key) || !keys[i].fallback)
            status = json_need_i64(&value, config, keys[i].key, 1, keys[i].high, origin, err);
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
    /* null means derived, which differs from a left-out key where the class has a number. */
    int32_t left_out = json_object_get(config, "num_key_value_heads") ? 0 : defaults->n_kv_heads;
    graft_status status = json_get_i64(&kv_heads, config, "num_key_value_heads", 1, HEADS_MAX,
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
                         "%s: \"num_attention_heads\" %d is not a multiple of "
                         "\"num_key_value_heads\" %d",
                         origin, spec->n_heads, spec->n_kv_heads);
    if (spec->head_dim % 2 != 0 || (int64_t)spec->n_heads * spec->head_dim > SIZE_MAX_CONFIG)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: heads of size %d: expected an even size, and %d heads of it at most "
                         "%d wide together",
                         origin, spec->head_dim, spec->n_heads, SIZE_MAX_CONFIG);
    return GRAFT_OK;
}

graft_status config_read_common(model_spec *spec, const json_t *config,
                                const config_defaults *defaults, const char *origin,
                                const message_sink *sink, graft_error *err) {
    double eps;
    graft_status status = read_sizes(spec, config, defaults, origin, err);
    if (status == GRAFT_OK)
        status = read_heads(spec, config, defaults, origin, err);
    if (status == GRAFT_OK)
        status = json_get_double(&eps, config, "rms_norm_eps", 1e-6, origin, err);
    if (status == GRAFT_OK && !(eps >= 0 && eps < 1))
        status = error_set(err, GRAFT_E_INPUT,
                           "%s: \"rms_norm_eps\": expected a small number from 0, found %g", origin,
                           eps);
    if (status == GRAFT_OK)
        status =
            json_get_bool(&spec->is_head_tied, config, "tie_word_embeddings", false, origin, err);
    if (status == GRAFT_OK)
        status = read_id(&spec->bos_id, config, "bos_token_id", defaults->bos_id, origin, err);
    if (status == GRAFT_OK)
        status = read_id(&spec->pad_id, config, "pad_token_id", -1, origin, err);
    if (status == GRAFT_OK)
        status = read_eos(spec, config, defaults->eos_id, origin, err);
    if (status == GRAFT_OK)
        status = config_read_rope(spec, config, origin, sink, err);
    if (status != GRAFT_OK)
        return status;
    spec->norm_eps = (float)eps;
    spec->layer_slides = mem_array((size_t)spec->n_layers, 1);
    return spec->layer_slides ? GRAFT_OK : error_memory(err, (size_t)spec->n_layers, origin);
}

graft_status config_read_attention_bias(model_spec *spec, const json_t *config, const char *key,
                                        const char *origin, graft_error *err) {
    bool has_bias;
    graft_status status = json_get_bool(&has_bias, config, key, false, origin, err);
    for (int slot = LINEAR_Q; status == GRAFT_OK && slot <= LINEAR_O; slot++)
        spec->has_bias[slot] = has_bias;
    return status;
}

graft_status config_read_window(int32_t *window, const json_t *config, int32_t fallback,
                                const char *origin, graft_error *err) {
    int64_t value;
    graft_status status =
        json_get_i64(&value, config, "sliding_window", 1, INT32_MAX, 0, origin, err);
    *window = json_object_get(config, "sliding_window") ? (int32_t)value : fallback;
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

graft_status model_spec_parse(model_spec *spec, const json_t *config, const char *origin,
                              const message_sink *sink, graft_error *err) {
    *spec = (model_spec){0};
    if (!json_is_object(config))
        return error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", origin,
                         json_type_name(config));
    graft_status status = find_family(spec, config, origin, err);
    if (status == GRAFT_OK)
        status = refuse_unsupported(config, origin, sink, err);
    if (status == GRAFT_OK)
        status = read_stored(spec, config, origin, err);
    if (status == GRAFT_OK)
        status = spec->family->parse(spec, config, origin, sink, err);
    if (status != GRAFT_OK)
        model_spec_free(spec);
    return status;
}

graft_status model_spec_read(model_spec *spec, const char *folder, const message_sink *sink,
                             graft_error *err) {
    *spec = (model_spec){0};
    json_t *config = NULL;
    char *path = path_is_folder(folder) || !path_exists(folder) ? path_join(folder, "config.json")
                                                                : mem_text(folder, strlen(folder));
    graft_status status = path ? json_read_file(&config, path, CONFIG_BYTES_MAX, err)
                               : error_memory(err, strlen(folder), "a path");
    if (status == GRAFT_OK)
        status = model_spec_parse(spec, config, path, sink, err);
    json_decref(config);
    free(path);
    return status;
}

void model_spec_free(model_spec *spec) {
    free(spec->layer_slides);
    *spec = (model_spec){0};
}
