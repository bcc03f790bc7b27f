#include "adapter/peft_keys.h"

#include "adapter/module_tree.h"
#include "adapter/tensor_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Keys ---- */

static bool is_lora_part(const char *rest) {
    return !strncmp(rest, ".lora_", 6);
}

static const model_module *module_of_key(const adapter *a, const char *name, const char **rest) {
    for (size_t i = 0; i < a->n_modules; i++)
        if (module_is_within(name, a->modules[i].name)) {
            *rest = name + strlen(a->modules[i].name);
            return &a->modules[i];
        }
    return NULL;
}

/* The layer number in a name under "model.layers.", -1 without one. */
static long layer_of(const adapter *a, const char *name) {
    const char *path = a->spec->family->layers_path;
    size_t n = strlen(path);
    char *end;
    if (strncmp(name, path, n) || name[n] != '.')
        return -1;
    long layer = strtol(name + n + 1, &end, 10);
    return end != name + n + 1 && *end == '.' ? layer : -1;
}

static graft_status refuse_name(const adapter *a, const char *key, const char *name,
                                const char *path, graft_error *err) {
    const char *rest = "";
    const model_module *module = module_of_key(a, name, &rest);
    long layer = layer_of(a, name);
    if (layer >= a->spec->n_layers)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s: layer %ld is not there: the model has layers 0 to %d; the "
                         "adapter was made for another base",
                         path, key, layer, (int)a->spec->n_layers - 1);
    if (module && strstr(rest, "lora_magnitude_vector"))
        return error_set(err, GRAFT_E_UNSUPPORTED, "%s: %s belongs to DoRA, which is not supported",
                         path, key);
    if (module && strstr(rest, "trainable_tokens_delta"))
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s: %s belongs to trainable tokens, which are not supported", path, key);
    if (module && is_lora_part(rest))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s: adapter_config.json does not target %s so: its target_modules "
                         "and other settings do not describe this file",
                         path, key, module->name);
    if (module)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s is an orphan: adapter_config.json asks for no such tensor of %s "
                         "(modules_to_save, bias)",
                         path, key, module->name);
    return error_set(err, GRAFT_E_INPUT,
                     "%s: %s names no module of this %s model; the adapter was made for another "
                     "base",
                     path, key, a->spec->model_type);
}

graft_status peft_refuse_key(const adapter *a, const char *key, const char *path,
                             graft_error *err) {
    size_t n = strlen(PEFT_KEY_PREFIX);
    if (strstr(key, ".default.") || module_ends_with(key, "default"))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s is a name from inside PEFT: a saved file does not have "
                         "\".default\" in it; save the adapter with save_pretrained()",
                         path, key);
    if (strncmp(key, PEFT_KEY_PREFIX, n))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s does not begin with \"" PEFT_KEY_PREFIX "\" as PEFT's keys do; "
                         "save the adapter with save_pretrained() of the PeftModel",
                         path, key);
    return refuse_name(a, key, key + n, path, err);
}

/* ---- What is missing ---- */

/* The other factor's key, "...lora_A.weight" for "...lora_B.weight"; "" for other tensors. */
static void partner_key(char *out, size_t capacity, const char *key) {
    const char *letter = strstr(key, ".lora_A");
    if (!letter)
        letter = strstr(key, ".lora_B");
    if (!letter)
        letter = strstr(key, ".lora_embedding_");
    snprintf(out, capacity, "%s", letter ? key : "");
    if (!letter)
        return;
    size_t at =
        (size_t)(letter - key) + (letter[6] == 'e' ? strlen(".lora_embedding_") : strlen(".lora_"));
    out[at] = out[at] == 'A' ? 'B' : 'A';
}

graft_status peft_refuse_missing(const adapter_tensor *t, const safetensors *file, const char *path,
                                 graft_error *err) {
    char partner[sizeof t->key];
    tensor_view view;
    partner_key(partner, sizeof partner, t->key);
    if (*partner && t->role != ROLE_LORA_BIAS && safetensors_find(&view, file, partner))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s is missing, though %s is there: one without the other is no LoRA; "
                         "the file is incomplete",
                         path, t->key, partner);
    return error_set(err, GRAFT_E_INPUT,
                     "%s: %s is missing, and adapter_config.json asks for it: the file is "
                     "incomplete, or the config belongs to another adapter",
                     path, t->key);
}

/* ---- Shapes ---- */

/* Which of the dimensions is the LoRA rank; -1: none. */
static int rank_dimension(tensor_role role) {
    if (role == ROLE_LORA_A || role == ROLE_LORA_EMBEDDING_A)
        return 0;
    return role == ROLE_LORA_B || role == ROLE_LORA_EMBEDDING_B ? 1 : -1;
}

graft_status peft_refuse_shape(const adapter *a, const adapter_tensor *t, const tensor_view *found,
                               const char *path, graft_error *err) {
    char expected[64], shape[128];
    int rank = rank_dimension(t->role);
    const char *reason = "the adapter was made for another base";
    tensor_expected_shape(t, expected, sizeof expected);
    tensor_shape_text(found, shape, sizeof shape);
    if (found->rank == 2 && t->rank == 2) {
        if (found->shape[0] == t->shape[1] && found->shape[1] == t->shape[0])
            reason = "it is transposed";
        else if (rank >= 0 && found->shape[1 - rank] == t->shape[1 - rank])
            reason = "its rank is not the one that r and rank_pattern in adapter_config.json give";
    }
    if (t->module == (size_t)MODULE_NONE)
        return error_set(err, GRAFT_E_INPUT, "%s: %s has shape %s, expected %s: %s", path, t->key,
                         shape, expected, reason);
    const model_module *module = &a->modules[t->module];
    return error_set(err, GRAFT_E_INPUT,
                     "%s: %s has shape %s, expected %s (%s is [%lld, %lld]): %s", path, t->key,
                     shape, expected, module->name, (long long)module->rows,
                     (long long)module->cols, reason);
}
