#include "adapter/targets.h"

#include "adapter/matcher.h"
#include "adapter/module_tree.h"
#include "base/memory.h"
#include "base/strbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* From so many modules on PEFT writes "all-linear" as the ends of names, and below as full names.
 */
enum { SHORT_NAMES_FROM = 20 };

typedef struct resolution { /* what every step below needs */
    module_target *targets;
    adapter_config *config;
    const adapter_method *method;
    const model_spec *spec;
    const model_module *modules;
    size_t n;
    const message_sink *sink;
    text_list saved; /* modules_to_save as they count */
    bool shares;     /* the tied head trains as the embedding's second name */
    matcher match;
} resolution;

static const model_module *module_of_kind(const resolution *r, module_kind kind) {
    for (size_t i = 0; i < r->n; i++)
        if (r->modules[i].kind == kind)
            return &r->modules[i];
    return NULL;
}

/* ---- Targets that stand for others ---- */

static graft_status add_once(text_list *names, const char *name, graft_error *err) {
    for (size_t i = 0; i < names->n; i++)
        if (!strcmp(names->items[i], name))
            return GRAFT_OK;
    return text_list_add(names, name, err);
}

/* Every linear layer but the output head, as PEFT writes them. */
static graft_status expand_all_linear(resolution *r, graft_error *err) {
    size_t linear = 0;
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < r->n; i++)
        linear += r->modules[i].kind == MODULE_LINEAR;
    for (size_t i = 0; i < r->n && status == GRAFT_OK; i++) {
        const char *name = r->modules[i].name;
        if (r->modules[i].kind == MODULE_LINEAR)
            status = add_once(&r->config->target_modules,
                              linear < SHORT_NAMES_FROM ? name : module_last_part(name), err);
    }
    free(r->config->target_regex);
    r->config->target_regex = NULL;
    return status;
}

static const json_t *parameters_of(const resolution *r) {
    const json_t *given = config_value(r->config, "target_parameters");
    return json_array_size(given) ? given : NULL;
}

static graft_status expand_targets(resolution *r, graft_error *err) {
    adapter_config *config = r->config;
    if (config->target_regex && !strcasecmp(config->target_regex, "all-linear"))
        return expand_all_linear(r, err);
    if (config->target_regex || config->target_modules.n || parameters_of(r))
        return GRAFT_OK;
    const char *const *defaults = r->method->default_targets
                                      ? r->method->default_targets(r->spec->model_type)
                                      : r->spec->family->lora_default_targets;
    if (!defaults)
        return error_set(err, GRAFT_E_INPUT,
                         "target_modules: PEFT has no default for model_type %s: name the modules",
                         r->spec->model_type);
    graft_status status = GRAFT_OK;
    for (size_t i = 0; defaults[i] && status == GRAFT_OK; i++)
        status = text_list_add(&config->target_modules, defaults[i], err);
    return status;
}

/* ---- modules_to_save ---- */

static bool names_embedding(const char *name) {
    const char *last = module_last_part(name);
    return !strcmp(last, "embed_tokens") || !strcmp(last, "lm_head");
}

/* With ensure_weight_tying, PEFT turns an entry for either end of a tied pair into one for the
 * embedding, and lets the head share it. */
static graft_status prepare_saved(resolution *r, graft_error *err) {
    const text_list *given = &r->config->modules_to_save;
    const model_module *head = module_of_kind(r, MODULE_HEAD);
    for (size_t i = 0; i < given->n; i++)
        r->shares = r->shares || (head->is_tied && r->config->ensure_weight_tying &&
                                  names_embedding(given->items[i]));
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < given->n && status == GRAFT_OK; i++) {
        pattern *within = NULL;
        bool is_head = false;
        status = pattern_create(&within, given->items[i], PATTERN_WITHIN, "modules_to_save", err);
        if (status == GRAFT_OK)
            status = pattern_match(&is_head, within, head->name, err);
        pattern_destroy(&within);
        if (status == GRAFT_OK && !(r->shares && is_head))
            status = text_list_add(&r->saved, given->items[i], err);
    }
    if (status == GRAFT_OK && r->shares)
        status = add_once(&r->saved, module_of_kind(r, MODULE_EMBEDDING)->name, err);
    return status;
}

static bool ends_plainly(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

typedef struct saved_visit {
    resolution *r;
    const char *entry;
    size_t found;
} saved_visit;

/* PEFT looks for modules_to_save by plain ends of names, without a dot before: "norm" takes
 * input_layernorm too. */
static graft_status free_modules_within(void *context, const char *name, graft_error *err) {
    saved_visit *visit = context;
    resolution *r = visit->r;
    (void)err;
    if (!ends_plainly(name, visit->entry))
        return GRAFT_OK;
    for (size_t i = 0; i < r->n; i++)
        if (module_is_within(r->modules[i].name, name)) {
            r->targets[i].frees_weight = true;
            r->targets[i].frees_bias = r->modules[i].has_bias;
            visit->found++;
        }
    return GRAFT_OK;
}

static graft_status resolve_saved(resolution *r, graft_error *err) {
    for (size_t e = 0; e < r->saved.n; e++) {
        saved_visit visit = {.r = r, .entry = r->saved.items[e]};
        for (size_t i = 0; i < r->n; i++)
            free_modules_within(&visit, r->modules[i].name, err);
        graft_status status =
            module_tree_visit(r->spec, r->modules, r->n, free_modules_within, &visit, err);
        if (status != GRAFT_OK)
            return status;
        if (!visit.found)
            return error_set(err, GRAFT_E_INPUT,
                             "modules_to_save: \"%s\" is the end of no module's name; this model "
                             "has, among others, %s, %s and %s",
                             visit.entry, r->modules[0].name, r->modules[1].name,
                             r->modules[r->n - 1].name);
    }
    for (size_t i = 0; i < r->n; i++)
        if (r->shares && r->modules[i].kind == MODULE_HEAD)
            r->targets[i].shares_embedding = true;
    return GRAFT_OK;
}

/* ---- Targets ---- */

static graft_status check_layers(const resolution *r, graft_error *err) {
    for (size_t i = 0; i < r->config->n_layers_to_transform; i++)
        if (r->config->layers_to_transform[i] >= r->spec->n_layers)
            return error_set(err, GRAFT_E_INPUT,
                             "layers_to_transform: layer %d is not there: the model has layers 0 "
                             "to %d",
                             (int)r->config->layers_to_transform[i], (int)r->spec->n_layers - 1);
    return GRAFT_OK;
}

static graft_status refuse_kind(const resolution *r, const char *name, graft_error *err) {
    unsigned kinds = r->method->target_kinds;
    return error_set(
        err, GRAFT_E_INPUT,
        "target_modules reaches %s, which is %s (PEFT refuses it too): name only such layers, e.g. "
        "%s",
        name,
        kinds & TARGET_EMBEDDING ? "neither a linear layer nor an embedding"
        : kinds & TARGET_NORM    ? "no norm"
                                 : "no linear layer",
        module_last_part(kinds & TARGET_NORM ? r->spec->family->outer_norm_names[OUTER_NORM_FINAL]
                                             : r->spec->family->linear_names[LINEAR_O]));
}

static bool is_allowed(const resolution *r, const model_module *module) {
    static const unsigned kind_of[] = {[MODULE_EMBEDDING] = TARGET_EMBEDDING,
                                       [MODULE_POSITIONS] = 0,
                                       [MODULE_LINEAR] = TARGET_LINEAR,
                                       [MODULE_NORM] = TARGET_NORM,
                                       [MODULE_HEAD] = TARGET_LINEAR,
                                       [MODULE_ROUTER] = TARGET_LINEAR,
                                       [MODULE_EXPERT] = TARGET_EXPERT,
                                       [MODULE_EXPERTS] = 0,
                                       [MODULE_SINKS] = 0,
                                       [MODULE_BUFFER] = 0};
    return r->method->target_kinds & kind_of[module->kind];
}

static graft_status refuse_container(void *context, const char *name, graft_error *err) {
    const resolution *r = context;
    match_kind kind;
    graft_status status = matcher_target(&kind, &r->match, name, err);
    return status == GRAFT_OK && kind == MATCH_TARGET ? refuse_kind(r, name, err) : status;
}

static graft_status check_target(const resolution *r, const model_module *module,
                                 graft_error *err) {
    const adapter_config *config = r->config;
    if (module->kind == MODULE_EXPERT && r->method->target_kinds == TARGET_LINEAR)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "target_modules reaches %s, an expert's linear layer, where %s is not "
                         "supported (lora is): name other layers, e.g. %s",
                         module->name, r->method->name,
                         module_last_part(r->spec->family->linear_names[LINEAR_O]));
    if (!is_allowed(r, module))
        return refuse_kind(r, module->name, err);
    if (module->kind == MODULE_EMBEDDING && config->lora_bias)
        return error_set(err, GRAFT_E_INPUT,
                         "lora_bias does not go with LoRA on the embedding %s (nor in PEFT)",
                         module->name);
    bool is_end = module->kind == MODULE_EMBEDDING || module->kind == MODULE_HEAD;
    if (is_end && config->ensure_weight_tying && r->spec->is_head_tied)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "ensure_weight_tying with LoRA on %s is not supported: PEFT keeps two "
                         "transposed views of one storage there, and steps both. Leave it out, or "
                         "train the embedding itself with modules_to_save",
                         module->name);
    return GRAFT_OK;
}

static graft_status rank_and_alpha(module_target *target, const resolution *r, const char *name,
                                   bool *used_ranks, bool *used_alphas, graft_error *err) {
    const adapter_config *config = r->config;
    size_t rank, alpha;
    graft_status status = pattern_set_first(&rank, &r->match.ranks, name, err);
    if (status == GRAFT_OK)
        status = pattern_set_first(&alpha, &r->match.alphas, name, err);
    if (status != GRAFT_OK)
        return status;
    target->is_target = true;
    target->rank = config->r;
    target->alpha = config->lora_alpha;
    if (rank < r->match.ranks.n) {
        target->rank = (int32_t)config->rank_pattern[rank].value;
        used_ranks[rank] = true;
    }
    if (alpha < r->match.alphas.n) {
        target->alpha = config->alpha_pattern[alpha].value;
        used_alphas[alpha] = true;
    }
    return GRAFT_OK;
}

static void warn_unused(const resolution *r, const char *key, const pattern_value *patterns,
                        const bool *used, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!used[i])
            message_emit(r->sink, MESSAGE_WARNING,
                         "%s: \"%s\" is the first match of no targeted module and has no effect",
                         key, patterns[i].pattern);
}

/* ---- target_parameters: weights of linear layers by the names of parameters ---- */

static bool is_target_parameter(const resolution *r, const model_module *module) {
    char name[sizeof module->name + 8];
    const json_t *given = parameters_of(r);
    snprintf(name, sizeof name, "%s.weight", module->name);
    for (size_t i = 0; i < json_array_size(given); i++) {
        const char *entry = json_string_value(json_array_get(given, i));
        if (module->kind == MODULE_LINEAR && entry && module_ends_with(name, entry))
            return true;
    }
    return false;
}

/* As PEFT's ParamWrapper: nothing but A and B. */
static graft_status check_parameter(const resolution *r, const char *name, match_kind kind,
                                    graft_error *err) {
    const adapter_config *config = r->config;
    const char *obstacle = kind == MATCH_TARGET              ? "target_modules reaches it as well"
                           : config->lora_dropout > 0        ? "lora_dropout does not go with it"
                           : config->lora_bias               ? "lora_bias does not go with it"
                           : config_flag(config, "use_dora") ? "use_dora does not go with it"
                                                             : NULL;
    if (!obstacle)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT, "target_parameters: %s.weight: %s (nor in PEFT)", name,
                     obstacle);
}

static graft_status match_modules(resolution *r, size_t *found, size_t *excluded, bool *used_ranks,
                                  bool *used_alphas, graft_error *err) {
    for (size_t i = 0; i < r->n; i++) {
        match_kind kind;
        const model_module *module = &r->modules[i];
        graft_status status = matcher_target(&kind, &r->match, module->name, err);
        *excluded += kind == MATCH_EXCLUDED;
        if (status == GRAFT_OK && is_target_parameter(r, module)) {
            status = check_parameter(r, module->name, kind, err);
            kind = MATCH_TARGET;
        }
        *found += kind == MATCH_TARGET;
        if (status == GRAFT_OK && kind == MATCH_TARGET)
            status = check_target(r, module, err);
        if (status == GRAFT_OK && kind == MATCH_TARGET)
            status = rank_and_alpha(&r->targets[i], r, module->name, used_ranks, used_alphas, err);
        if (status != GRAFT_OK)
            return status;
    }
    return module_tree_visit(r->spec, r->modules, r->n, refuse_container, r, err);
}

static graft_status nothing_matched(const resolution *r, size_t excluded, graft_error *err) {
    const adapter_config *config = r->config;
    strbuf asked = {0};
    if (config->target_regex)
        strbuf_printf(&asked, "the expression \"%s\"", config->target_regex);
    for (size_t i = 0; i < config->target_modules.n && i < 8; i++)
        strbuf_printf(&asked, "%s\"%s\"", i ? ", " : "", config->target_modules.items[i]);
    graft_status status;
    if (excluded)
        status = error_set(err, GRAFT_E_INPUT,
                           "target_modules: every module that %s matches is excluded by "
                           "exclude_modules or modules_to_save",
                           strbuf_text(&asked));
    else
        status = error_set(
            err, GRAFT_E_INPUT,
            "target_modules: %s matches no module%s. Names are matched by their last parts (such "
            "as \"%s\"), an expression must match the whole name (such as \"%s\")",
            strbuf_text(&asked), config->n_layers_to_transform ? " of layers_to_transform" : "",
            module_last_part(module_of_kind(r, MODULE_LINEAR)->name),
            module_of_kind(r, MODULE_LINEAR)->name);
    strbuf_free(&asked);
    return status;
}

static graft_status resolve_targets(resolution *r, graft_error *err) {
    const adapter_config *config = r->config;
    size_t found = 0, excluded = 0;
    bool *used = mem_array(config->n_rank_pattern + config->n_alpha_pattern, sizeof *used);
    if (!used)
        return error_memory(err, config->n_rank_pattern + config->n_alpha_pattern, "patterns");
    bool *used_alphas = used + config->n_rank_pattern;
    graft_status status = match_modules(r, &found, &excluded, used, used_alphas, err);
    if (status == GRAFT_OK && !found)
        status = nothing_matched(r, excluded, err);
    if (status == GRAFT_OK) {
        warn_unused(r, "rank_pattern", config->rank_pattern, used, config->n_rank_pattern);
        warn_unused(r, "alpha_pattern", config->alpha_pattern, used_alphas,
                    config->n_alpha_pattern);
        if ((config->exclude_modules.n || config->exclude_regex) && !excluded)
            message_emit(r->sink, MESSAGE_WARNING,
                         "exclude_modules keeps out no module that target_modules matches");
    }
    free(used);
    return status;
}

/* ---- Biases, and what does not go together ---- */

static graft_status resolve_bias(resolution *r, graft_error *err) {
    if (r->config->bias == BIAS_NONE)
        return GRAFT_OK;
    for (size_t i = 0; i < r->n; i++) {
        if (!r->modules[i].has_bias)
            continue;
        if (r->config->bias == BIAS_ALL && r->targets[i].frees_weight)
            return error_set(err, GRAFT_E_UNSUPPORTED,
                             "bias \"all\" with %s in modules_to_save is not supported: PEFT saves "
                             "three copies of that bias. Use bias \"lora_only\"",
                             r->modules[i].name);
        if (r->config->bias == BIAS_ALL || r->targets[i].is_target)
            r->targets[i].frees_bias = true;
    }
    return GRAFT_OK;
}

static graft_status check_conflicts(const resolution *r, graft_error *err) {
    for (size_t i = 0; i < r->n; i++)
        if (r->targets[i].is_target &&
            (r->targets[i].frees_weight || r->targets[i].shares_embedding))
            return error_set(err, GRAFT_E_INPUT,
                             "%s is in target_modules and (by the end of its name) in "
                             "modules_to_save: it can be one of them (PEFT refuses it too)",
                             r->modules[i].name);
    return GRAFT_OK;
}

/* ---- Tied weights: what happens is said aloud ---- */

static void tell_tied(const resolution *r) {
    const model_module *embedding = module_of_kind(r, MODULE_EMBEDDING);
    const model_module *head = module_of_kind(r, MODULE_HEAD);
    if (r->method->keeps_ties)
        return;
    if (!head->is_tied) {
        if (r->config->ensure_weight_tying)
            message_emit(r->sink, MESSAGE_WARNING,
                         "ensure_weight_tying: this model's head is not tied; it has no effect");
        return;
    }
    const module_target *e = &r->targets[embedding - r->modules];
    const module_target *h = &r->targets[head - r->modules];
    if (h->shares_embedding)
        message_emit(r->sink, MESSAGE_INFO,
                     "%s and %s are tied: one weight trains for both, and is saved under both",
                     embedding->name, head->name);
    else if (e->frees_weight || h->frees_weight || e->is_target || h->is_target)
        message_emit(
            r->sink, MESSAGE_WARNING,
            "%s and %s are tied in the base, and the adapter unties them: %s%s%s changes, "
            "%s. %s",
            embedding->name, head->name, e->frees_weight || e->is_target ? embedding->name : "",
            (e->frees_weight || e->is_target) && (h->frees_weight || h->is_target) ? " and " : "",
            h->frees_weight || h->is_target ? head->name : "",
            (e->frees_weight || e->is_target) && (h->frees_weight || h->is_target)
                ? "each on its own"
                : "the other keeps the base's weight",
            e->is_target || h->is_target ? "PEFT does the same"
                                         : "Set ensure_weight_tying to train one weight for both");
    else if (r->config->ensure_weight_tying)
        message_emit(r->sink, MESSAGE_WARNING,
                     "ensure_weight_tying: the adapter touches neither %s nor %s; it has no effect",
                     embedding->name, head->name);
}

graft_status targets_resolve(module_target *targets, adapter_config *config,
                             const adapter_method *method, const model_spec *spec,
                             const model_module *modules, size_t n, const message_sink *sink,
                             graft_error *err) {
    resolution r = {.targets = targets,
                    .config = config,
                    .method = method,
                    .spec = spec,
                    .modules = modules,
                    .n = n,
                    .sink = sink};
    graft_status status = expand_targets(&r, err);
    if (status == GRAFT_OK)
        status = prepare_saved(&r, err);
    if (status == GRAFT_OK)
        status = matcher_create(&r.match, config, &r.saved, err);
    if (status == GRAFT_OK)
        status = resolve_saved(&r, err);
    if (status == GRAFT_OK)
        status = check_layers(&r, err);
    if (status == GRAFT_OK)
        status = resolve_targets(&r, err);
    if (status == GRAFT_OK)
        status = resolve_bias(&r, err);
    if (status == GRAFT_OK)
        status = check_conflicts(&r, err);
    if (status == GRAFT_OK)
        tell_tied(&r);
    matcher_free(&r.match);
    text_list_free(&r.saved);
    return status;
}

graft_status targets_save_embeddings(bool *out, const adapter_config *config,
                                     const model_module *modules, size_t n, graft_error *err) {
    *out = false;
    for (size_t i = 0; i < config->target_modules.n; i++)
        *out = *out || !strcmp(config->target_modules.items[i], "embed_tokens") ||
               !strcmp(config->target_modules.items[i], "lm_head");
    if (!config->target_regex)
        return GRAFT_OK;
    pattern *whole = NULL;
    graft_status status =
        pattern_create(&whole, config->target_regex, PATTERN_WHOLE, "target_modules", err);
    for (size_t i = 0; i < n && status == GRAFT_OK && !*out; i++)
        if (names_embedding(modules[i].name))
            status = pattern_match(out, whole, modules[i].name, err);
    pattern_destroy(&whole);
    return status;
}
