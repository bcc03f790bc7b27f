#include "adapter/adapter.h"

#include "adapter/config_fields.h"
#include "adapter/config_keys.h"
#include "base/memory.h"
#include "base/strbuf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Lists of names ---- */

graft_status text_list_add(text_list *list, const char *item, graft_error *err) {
    if (list->n >= ADAPTER_NAMES_MAX)
        return error_set(err, GRAFT_E_INPUT, "a list of module names has more than %d entries",
                         ADAPTER_NAMES_MAX);
    char **grown = realloc(list->items, (list->n + 1) * sizeof *grown);
    if (!grown)
        return error_memory(err, (list->n + 1) * sizeof *grown, "a list of names");
    list->items = grown;
    list->items[list->n] = mem_text(item, strlen(item));
    if (!list->items[list->n])
        return error_memory(err, strlen(item) + 1, "a name");
    list->n++;
    return GRAFT_OK;
}

graft_status text_list_copy(text_list *out, const text_list *list, graft_error *err) {
    *out = (text_list){0};
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < list->n && status == GRAFT_OK; i++)
        status = text_list_add(out, list->items[i], err);
    return status;
}

void text_list_free(text_list *list) {
    for (size_t i = 0; i < list->n; i++)
        free(list->items[i]);
    free(list->items);
    *list = (text_list){0};
}

/* ---- The life of a config ---- */

graft_status adapter_config_default(adapter_config *out, const char *method, graft_error *err) {
    *out = (adapter_config){0};
    const adapter_method *found = adapter_method_find(method);
    if (!found) {
        strbuf known = {0};
        for (size_t i = 0; adapter_method_at(i); i++)
            strbuf_printf(&known, "%s%s", i ? ", " : "", adapter_method_at(i)->name);
        graft_status refused =
            error_set(err, GRAFT_E_USAGE, "method: \"%s\" is not supported; there are: %s", method,
                      strbuf_text(&known));
        strbuf_free(&known);
        return refused;
    }
    snprintf(out->method, sizeof out->method, "%s", found->name);
    const config_key *r = config_key_find(found, "r");
    out->r = r && r->kind == KEY_OURS ? (int32_t)strtol(r->fallback, NULL, 10) : 8;
    out->lora_alpha = 8;
    return found->keys ? config_fields_read(&out->fields, found, NULL, "defaults", err) : GRAFT_OK;
}

static graft_status copy_text(char **out, const char *text, graft_error *err) {
    *out = NULL;
    if (text && !(*out = mem_text(text, strlen(text))))
        return error_memory(err, strlen(text) + 1, "an adapter's settings");
    return GRAFT_OK;
}

static graft_status copy_patterns(pattern_value **out, size_t *n, const pattern_value *from,
                                  size_t count, graft_error *err) {
    *n = 0;
    *out = mem_array(count, sizeof **out);
    if (!*out)
        return error_memory(err, count * sizeof **out, "patterns");
    for (size_t i = 0; i < count; i++) {
        graft_status status = copy_text(&(*out)[i].pattern, from[i].pattern, err);
        if (status != GRAFT_OK)
            return status;
        (*out)[i].value = from[i].value;
        *n = i + 1;
    }
    return GRAFT_OK;
}

static graft_status copy_owned(adapter_config *out, const adapter_config *from, graft_error *err) {
    graft_status status = text_list_copy(&out->target_modules, &from->target_modules, err);
    if (status == GRAFT_OK)
        status = text_list_copy(&out->exclude_modules, &from->exclude_modules, err);
    if (status == GRAFT_OK)
        status = text_list_copy(&out->layers_pattern, &from->layers_pattern, err);
    if (status == GRAFT_OK)
        status = text_list_copy(&out->modules_to_save, &from->modules_to_save, err);
    if (status == GRAFT_OK)
        status = copy_text(&out->target_regex, from->target_regex, err);
    if (status == GRAFT_OK)
        status = copy_text(&out->exclude_regex, from->exclude_regex, err);
    if (status == GRAFT_OK)
        status = copy_text(&out->base_model, from->base_model, err);
    if (status == GRAFT_OK)
        status = copy_text(&out->revision, from->revision, err);
    if (status == GRAFT_OK)
        status = copy_patterns(&out->rank_pattern, &out->n_rank_pattern, from->rank_pattern,
                               from->n_rank_pattern, err);
    if (status == GRAFT_OK)
        status = copy_patterns(&out->alpha_pattern, &out->n_alpha_pattern, from->alpha_pattern,
                               from->n_alpha_pattern, err);
    if (status != GRAFT_OK || !from->n_layers_to_transform)
        return status;
    size_t bytes = from->n_layers_to_transform * sizeof *from->layers_to_transform;
    if (!(out->layers_to_transform = malloc(bytes)))
        return error_memory(err, bytes, "layers_to_transform");
    memcpy(out->layers_to_transform, from->layers_to_transform, bytes);
    out->n_layers_to_transform = from->n_layers_to_transform;
    return GRAFT_OK;
}

graft_status adapter_config_copy(adapter_config *out, const adapter_config *from,
                                 graft_error *err) {
    *out = (adapter_config){
        .r = from->r,
        .lora_alpha = from->lora_alpha,
        .lora_dropout = from->lora_dropout,
        .use_rslora = from->use_rslora,
        .lora_bias = from->lora_bias,
        .ensure_weight_tying = from->ensure_weight_tying,
        .init = from->init,
        .bias = from->bias,
    };
    memcpy(out->method, from->method, sizeof out->method);
    memcpy(out->init_name, from->init_name, sizeof out->init_name);
    graft_status status = copy_owned(out, from, err);
    if (status == GRAFT_OK && from->fields && !(out->fields = json_deep_copy(from->fields)))
        status = error_memory(err, 1024, "an adapter's settings");
    if (status != GRAFT_OK)
        adapter_config_free(out);
    return status;
}

void adapter_config_free(adapter_config *config) {
    text_list_free(&config->target_modules);
    text_list_free(&config->exclude_modules);
    text_list_free(&config->layers_pattern);
    text_list_free(&config->modules_to_save);
    for (size_t i = 0; i < config->n_rank_pattern; i++)
        free(config->rank_pattern[i].pattern);
    for (size_t i = 0; i < config->n_alpha_pattern; i++)
        free(config->alpha_pattern[i].pattern);
    free(config->rank_pattern);
    free(config->alpha_pattern);
    free(config->layers_to_transform);
    json_decref(config->fields);
    free(config->target_regex);
    free(config->exclude_regex);
    free(config->base_model);
    free(config->revision);
    *config = (adapter_config){0};
}

/* ---- What can be said without the model ---- */

static graft_status check_patterns(const adapter_config *config, const char *origin,
                                   graft_error *err) {
    for (size_t i = 0; i < config->n_rank_pattern; i++) {
        double rank = config->rank_pattern[i].value;
        if (!(rank >= 1 && rank <= LORA_RANK_MAX && rank == floor(rank)))
            return error_set(err, GRAFT_E_INPUT,
                             "%s: rank_pattern \"%s\": expected a whole number from 1 to %d, "
                             "found %g",
                             origin, config->rank_pattern[i].pattern, LORA_RANK_MAX, rank);
    }
    for (size_t i = 0; i < config->n_alpha_pattern; i++)
        if (!isfinite((float)config->alpha_pattern[i].value))
            return error_set(err, GRAFT_E_INPUT,
                             "%s: alpha_pattern \"%s\": expected a finite number, found %g", origin,
                             config->alpha_pattern[i].pattern, config->alpha_pattern[i].value);
    return GRAFT_OK;
}

static graft_status check_layers(const adapter_config *config, const char *origin,
                                 graft_error *err) {
    if (config->target_regex && (config->n_layers_to_transform || config->layers_pattern.n))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s works only with target_modules as a list of names, and it is a "
                         "regular expression; put the layer numbers into the expression",
                         origin,
                         config->layers_pattern.n ? "layers_pattern" : "layers_to_transform");
    if (config->layers_pattern.n && !config->n_layers_to_transform)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: layers_pattern says where layers are numbered, and "
                         "layers_to_transform, which would pick some, is missing",
                         origin);
    for (size_t i = 0; i < config->n_layers_to_transform; i++)
        if (config->layers_to_transform[i] < 0)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: layers_to_transform: layers are counted from 0, found %d", origin,
                             (int)config->layers_to_transform[i]);
    return GRAFT_OK;
}

graft_status adapter_config_check(const adapter_config *config, const char *origin,
                                  graft_error *err) {
    if (config->r < 1 || config->r > LORA_RANK_MAX)
        return error_set(err, GRAFT_E_INPUT, "%s: r: expected a rank from 1 to %d, found %d",
                         origin, LORA_RANK_MAX, (int)config->r);
    if (!isfinite((float)config->lora_alpha))
        return error_set(err, GRAFT_E_INPUT, "%s: lora_alpha: expected a finite number, found %g",
                         origin, config->lora_alpha);
    if (!(config->lora_dropout >= 0 && config->lora_dropout < 1))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: lora_dropout: expected a share of at least 0 and below 1, found %g",
                         origin, config->lora_dropout);
    graft_status status = check_patterns(config, origin, err);
    return status == GRAFT_OK ? check_layers(config, origin, err) : status;
}
