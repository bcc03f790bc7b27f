#include "model/spec.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "model/families/families.h"

#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 16 << 20 };

const model_family *model_family_at(size_t i) {
    static const model_family *const families[] = {
        &family_llama,   &family_mistral,    &family_qwen2,       &family_qwen3,
        &family_gemma,   &family_gemma2,     &family_gemma3_text, &family_phi,
        &family_phi3,    &family_gpt2,       &family_gpt_neox,    &family_opt,
        &family_falcon,  &family_stablelm,   &family_starcoder2,  &family_olmo,
        &family_olmo2,   &family_olmo3,      &family_cohere,      &family_cohere2,
        &family_granite, &family_glm4,       &family_smollm3,     &family_bloom,
        &family_mpt,     &family_mixtral,    &family_qwen2_moe,   &family_qwen3_moe,
        &family_gpt_oss, &family_deepseek_v3};
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
    char list[512];
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

/* Dropout of the base, which Transformers applies in training. */
static graft_status warn_dropout(const json_t *config, const char *origin, const message_sink *sink,
                                 graft_error *err) {
    static const char *const keys[] = {
        "attention_dropout", "attn_pdrop",     "dropout",   "embd_pdrop",       "emb_pdrop",
        "embedding_dropout", "hidden_dropout", "layerdrop", "residual_dropout", "resid_pdrop"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        double dropout;
        graft_status status = json_get_double(&dropout, config, keys[i], 0, origin, err);
        if (status != GRAFT_OK)
            return status;
        if (dropout != 0)
            message_emit(sink, MESSAGE_WARNING, "%s: \"%s\" %g is not applied in training", origin,
                         keys[i], dropout);
    }
    return GRAFT_OK;
}

/* What would change the numbers, or the bytes, and is not there. */
static graft_status refuse_unsupported(const json_t *config, const char *origin,
                                       const message_sink *sink, graft_error *err) {
    const char *method;
    bool is_causal;
    graft_status status = json_get_bool(&is_causal, config, "is_causal", true, origin, err);
    if (status == GRAFT_OK)
        status = warn_dropout(config, origin, sink, err);
    if (status != GRAFT_OK)
        return status;
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

/* Everything the family has a name for, and scales of 1; parse takes away. */
static void assume_whole(model_spec *spec) {
    for (int slot = 0; slot < N_LINEAR_SLOTS; slot++)
        spec->has_linear[slot] = spec->family->linear_names[slot] != NULL;
    for (int slot = 0; slot < N_NORM_SLOTS; slot++)
        spec->has_norm[slot] = spec->family->norm_names[slot] != NULL;
    spec->has_final_norm = spec->family->outer_norm_names[OUTER_NORM_FINAL] != NULL;
    spec->has_embedding_norm = spec->family->outer_norm_names[OUTER_NORM_EMBEDDING] != NULL;
    spec->activation = ACTIVATION_SILU;
    spec->embedding_scale = spec->input_scale = spec->residual_scale = spec->logit_scale = 1;
    spec->qkv_groups = 1;
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
    if (status == GRAFT_OK) {
        assume_whole(spec);
        status = spec->family->parse(spec, config, origin, sink, err);
        spec->padding_id = spec->family->trains_padding ? -1 : spec->pad_id;
    }
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
    free(spec->layer_rope);
    free(spec->layer_is_sparse);
    free(spec->alibi_slopes);
    free(spec->rope.long_factors);
    free(spec->rope.short_factors);
    free(spec->rope_sliding.long_factors);
    free(spec->rope_sliding.short_factors);
    *spec = (model_spec){0};
}
