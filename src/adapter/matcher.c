#include "adapter/matcher.h"

#include "adapter/module_tree.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static void set_free(pattern_set *set) {
    for (size_t i = 0; i < set->n; i++)
        pattern_destroy(&set->items[i]);
    free(set->items);
    *set = (pattern_set){0};
}

static graft_status set_reserve(pattern_set *set, size_t n, graft_error *err) {
    set->items = mem_array(n, sizeof *set->items);
    return set->items ? GRAFT_OK : error_memory(err, n * sizeof *set->items, "patterns");
}

static graft_status set_of_names(pattern_set *set, const text_list *names, pattern_form form,
                                 const char *what, graft_error *err) {
    graft_status status = set_reserve(set, names->n, err);
    for (size_t i = 0; i < names->n && status == GRAFT_OK; i++) {
        status = pattern_create(&set->items[i], names->items[i], form, what, err);
        set->n = i + (status == GRAFT_OK);
    }
    return status;
}

static graft_status set_of_values(pattern_set *set, const pattern_value *values, size_t n,
                                  const char *what, graft_error *err) {
    graft_status status = set_reserve(set, n, err);
    for (size_t i = 0; i < n && status == GRAFT_OK; i++) {
        status = pattern_create(&set->items[i], values[i].pattern, PATTERN_END, what, err);
        set->n = i + (status == GRAFT_OK);
    }
    return status;
}

/* Without layers_pattern, the first number that follows two names is the layer's. */
static graft_status create_layers(matcher *m, const adapter_config *config, graft_error *err) {
    if (config->layers_pattern.n)
        return set_of_names(&m->layers, &config->layers_pattern, PATTERN_LAYER, "layers_pattern",
                            err);
    graft_status status = set_reserve(&m->layers, 1, err);
    if (status == GRAFT_OK)
        status = pattern_create(&m->layers.items[0], "[^.]+\\.[^.]*", PATTERN_LAYER,
                                "layers_to_transform", err);
    m->layers.n = status == GRAFT_OK;
    return status;
}

graft_status matcher_create(matcher *m, const adapter_config *config, const text_list *saved,
                            graft_error *err) {
    *m = (matcher){.config = config};
    graft_status status = GRAFT_OK;
    if (config->target_regex)
        status =
            pattern_create(&m->target, config->target_regex, PATTERN_WHOLE, "target_modules", err);
    if (status == GRAFT_OK && config->exclude_regex)
        status = pattern_create(&m->exclude, config->exclude_regex, PATTERN_WHOLE,
                                "exclude_modules", err);
    if (status == GRAFT_OK)
        status = set_of_names(&m->saved, saved, PATTERN_WITHIN, "modules_to_save", err);
    if (status == GRAFT_OK && config->n_layers_to_transform)
        status = create_layers(m, config, err);
    if (status == GRAFT_OK)
        status = set_of_values(&m->ranks, config->rank_pattern, config->n_rank_pattern,
                               "rank_pattern", err);
    if (status == GRAFT_OK)
        status = set_of_values(&m->alphas, config->alpha_pattern, config->n_alpha_pattern,
                               "alpha_pattern", err);
    if (status != GRAFT_OK)
        matcher_free(m);
    return status;
}

void matcher_free(matcher *m) {
    pattern_destroy(&m->target);
    pattern_destroy(&m->exclude);
    set_free(&m->saved);
    set_free(&m->layers);
    set_free(&m->ranks);
    set_free(&m->alphas);
}

graft_status pattern_set_first(size_t *index, const pattern_set *set, const char *name,
                               graft_error *err) {
    for (*index = 0; *index < set->n; (*index)++) {
        bool matched;
        graft_status status = pattern_match(&matched, set->items[*index], name, err);
        if (status != GRAFT_OK || matched)
            return status;
    }
    return GRAFT_OK;
}

static bool list_has_end(const text_list *names, const char *name) {
    for (size_t i = 0; i < names->n; i++)
        if (module_ends_with(name, names->items[i]))
            return true;
    return false;
}

static bool list_has(const text_list *names, const char *name) {
    for (size_t i = 0; i < names->n; i++)
        if (!strcmp(names->items[i], name))
            return true;
    return false;
}

static graft_status is_in_layers(bool *out, const matcher *m, const char *name, graft_error *err) {
    const adapter_config *config = m->config;
    int64_t layer = -1;
    *out = false;
    for (size_t i = 0; i < m->layers.n && layer < 0; i++) {
        graft_status status = pattern_layer(&layer, m->layers.items[i], name, err);
        if (status != GRAFT_OK)
            return status;
    }
    for (size_t i = 0; i < config->n_layers_to_transform; i++)
        *out = *out || config->layers_to_transform[i] == layer;
    return GRAFT_OK;
}

/* A name given in full is taken whatever its layer: PEFT looks at layers only for ends of names. */
static graft_status is_named(bool *out, const matcher *m, const char *name, graft_error *err) {
    if (m->target)
        return pattern_match(out, m->target, name, err);
    *out = list_has(&m->config->target_modules, name);
    if (*out)
        return GRAFT_OK;
    *out = list_has_end(&m->config->target_modules, name);
    if (*out && m->config->n_layers_to_transform)
        return is_in_layers(out, m, name, err);
    return GRAFT_OK;
}

static graft_status is_excluded(bool *out, const matcher *m, const char *name, graft_error *err) {
    graft_status status = GRAFT_OK;
    if (m->exclude)
        status = pattern_match(out, m->exclude, name, err);
    else
        *out = list_has_end(&m->config->exclude_modules, name);
    if (status != GRAFT_OK || *out)
        return status;
    size_t index;
    status = pattern_set_first(&index, &m->saved, name, err);
    *out = index < m->saved.n;
    return status;
}

graft_status matcher_target(match_kind *out, const matcher *m, const char *name, graft_error *err) {
    bool named, excluded = false;
    *out = MATCH_NONE;
    graft_status status = is_named(&named, m, name, err);
    if (status == GRAFT_OK && named)
        status = is_excluded(&excluded, m, name, err);
    if (status == GRAFT_OK && named)
        *out = excluded ? MATCH_EXCLUDED : MATCH_TARGET;
    return status;
}
