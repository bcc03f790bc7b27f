#include "api/adapter_options.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Options of LoRA. Beside a file that says what the adapter is, or another method, they would be a
 * second opinion. */
static const char *const described[] = {
    "lora_r",     "lora_alpha",   "lora_dropout",  "target_modules",      "exclude_modules",
    "use_rslora", "rank_pattern", "alpha_pattern", "layers_to_transform", "modules_to_save",
    "bias",       "lora_bias",    "use_dora",      "init_lora_weights",
};

enum { N_DESCRIBED = sizeof described / sizeof *described };

/* The option whose value is the adapter's description; NULL: the options are. */
static const char *describing_option(const graft_recipe *recipe) {
    return recipe_text(recipe, "adapter_config") ? "adapter_config"
           : recipe_text(recipe, "init_adapter") ? "init_adapter"
                                                 : NULL;
}

/* Options of LoRA beside `owner`: refused, unless they only stand in a recipe that a flag
 * overrules. */
static graft_status refuse_described(const graft_recipe *recipe, const char *owner,
                                     graft_error *err) {
    for (size_t i = 0; i < N_DESCRIBED; i++)
        if (recipe_has(recipe, described[i]) &&
            recipe_level_of(recipe, described[i]) >= recipe_level_of(recipe, owner))
            return error_set(err, GRAFT_E_USAGE,
                             "%s: %s \"%s\" already says what is trained; leave out one of them",
                             described[i], owner, recipe_text(recipe, owner));
    return GRAFT_OK;
}

static bool same_patterns(const pattern_value *a, size_t n_a, const pattern_value *b, size_t n_b) {
    bool same = n_a == n_b;
    for (size_t i = 0; same && i < n_a; i++)
        same = !strcmp(a[i].pattern, b[i].pattern) && a[i].value == b[i].value;
    return same;
}

/* --init-adapter beside --adapter-config gives the first values alone. Tensors that do not fit are
 * refused when they are loaded; another scale would fit, and make another adapter of them. */
static graft_status check_init_adapter(const adapter_config *config, const graft_recipe *recipe,
                                       const message_sink *messages, graft_error *err) {
    const char *folder = recipe_text(recipe, "init_adapter");
    adapter_config own = {0};
    graft_status status = adapter_config_read(&own, folder, messages, err);
    if (status == GRAFT_OK && strcmp(own.method, config->method))
        status = error_set(err, GRAFT_E_USAGE,
                           "init_adapter %s is of method %s, adapter_config of method %s", folder,
                           own.method, config->method);
    else if (status == GRAFT_OK &&
             (own.lora_alpha != config->lora_alpha || own.use_rslora != config->use_rslora))
        status = error_set(err, GRAFT_E_USAGE,
                           "init_adapter %s has lora_alpha %g%s, adapter_config %g%s: the same "
                           "tensors would be another "
                           "adapter; make them equal, or leave out adapter_config",
                           folder, own.lora_alpha, own.use_rslora ? " with use_rslora" : "",
                           config->lora_alpha, config->use_rslora ? " with use_rslora" : "");
    else if (status == GRAFT_OK && !same_patterns(own.alpha_pattern, own.n_alpha_pattern,
                                                  config->alpha_pattern, config->n_alpha_pattern))
        status =
            error_set(err, GRAFT_E_USAGE,
                      "init_adapter %s and adapter_config have different alpha_pattern", folder);
    adapter_config_free(&own);
    return status;
}

static graft_status config_from_file(adapter_config *out, const char *owner,
                                     const graft_recipe *recipe, const message_sink *messages,
                                     graft_error *err) {
    const char *path = recipe_text(recipe, owner);
    graft_status status = refuse_described(recipe, owner, err);
    if (status == GRAFT_OK)
        status = adapter_config_read(out, path, messages, err);
    if (status == GRAFT_OK && !strcmp(owner, "adapter_config") &&
        recipe_text(recipe, "init_adapter"))
        status = check_init_adapter(out, recipe, messages, err);
    if (status == GRAFT_OK && recipe_has(recipe, "method") &&
        strcmp(out->method, recipe_text(recipe, "method")))
        status = error_set(err, GRAFT_E_USAGE, "%s is of method %s, --method says %s", path,
                           out->method, recipe_text(recipe, "method"));
    return status;
}

void adapter_options_omit(graft_recipe *recipe) {
    bool has_file = describing_option(recipe) != NULL;
    if (!has_file && !strcmp(recipe_text(recipe, "method"), "lora"))
        return;
    for (size_t i = 0; i < N_DESCRIBED; i++)
        recipe_omit(recipe, described[i]);
    if (has_file)
        recipe_omit(recipe, "method");
}

static bool is_regex(const char *text) {
    return strpbrk(text, "()[]{}*+^$\\?|") != NULL;
}

/* A list of module names, or one regular expression (or "all-linear"). */
static graft_status module_list(text_list *names, char **regex, const graft_recipe *recipe,
                                const char *option, graft_error *err) {
    size_t n = recipe_list_count(recipe, option);
    if (n == 1) {
        const char *only = recipe_list_item(recipe, option, 0);
        if (is_regex(only) || !strcmp(only, "all-linear"))
            return (*regex = mem_text(only, strlen(only)))
                       ? GRAFT_OK
                       : error_memory(err, strlen(only), option);
    }
    for (size_t i = 0; i < n; i++) {
        graft_status status = text_list_add(names, recipe_list_item(recipe, option, i), err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static graft_status pattern_list(pattern_value **out, size_t *n, const graft_recipe *recipe,
                                 const char *option, graft_error *err) {
    size_t count = recipe_list_count(recipe, option);
    *out = mem_array(count, sizeof **out);
    if (!*out)
        return error_memory(err, count, option);
    for (size_t i = 0; i < count; i++) {
        const char *text = recipe_list_item(recipe, option, i), *equals = strrchr(text, '=');
        char *end = NULL;
        double value = equals ? strtod(equals + 1, &end) : 0;
        if (!equals || end == equals + 1 || *end)
            return error_set(err, GRAFT_E_USAGE, "%s: expected PATTERN=NUMBER, found \"%s\"",
                             option, text);
        if (!((*out)[i].pattern = mem_text(text, (size_t)(equals - text))))
            return error_memory(err, strlen(text), option);
        (*out)[i].value = value;
        *n = i + 1;
    }
    return GRAFT_OK;
}

static graft_status layer_list(adapter_config *out, const graft_recipe *recipe, graft_error *err) {
    size_t n = recipe_list_count(recipe, "layers_to_transform");
    if (!n)
        return GRAFT_OK;
    if (!(out->layers_to_transform = mem_array(n, sizeof *out->layers_to_transform)))
        return error_memory(err, n, "layers_to_transform");
    for (size_t i = 0; i < n; i++) {
        const char *text = recipe_list_item(recipe, "layers_to_transform", i);
        char *end;
        long value = strtol(text, &end, 10);
        if (end == text || *end || value < 0 || value > INT32_MAX)
            return error_set(err, GRAFT_E_USAGE,
                             "layers_to_transform: expected layer numbers, found \"%s\"", text);
        out->layers_to_transform[i] = (int32_t)value;
    }
    out->n_layers_to_transform = n;
    return GRAFT_OK;
}

static void scalar_options(adapter_config *out, const graft_recipe *recipe) {
    out->r = (int32_t)recipe_integer(recipe, "lora_r");
    out->lora_alpha = recipe_number(recipe, "lora_alpha");
    out->lora_dropout = recipe_number(recipe, "lora_dropout");
    out->use_rslora = recipe_flag(recipe, "use_rslora");
    out->lora_bias = recipe_flag(recipe, "lora_bias");
    const char *init = recipe_text(recipe, "init_lora_weights");
    out->init = !strcmp(init, "gaussian") ? LORA_INIT_GAUSSIAN
                : !strcmp(init, "false")  ? LORA_INIT_RANDOM
                                          : LORA_INIT_DEFAULT;
    const char *bias = recipe_text(recipe, "bias");
    out->bias = !strcmp(bias, "all")         ? BIAS_ALL
                : !strcmp(bias, "lora_only") ? BIAS_LORA_ONLY
                                             : BIAS_NONE;
}

static graft_status config_from_options(adapter_config *out, const graft_recipe *recipe,
                                        graft_error *err) {
    if (recipe_flag(recipe, "use_dora"))
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "use_dora: DoRA is not supported; leave it out to train LoRA");
    graft_status status = adapter_config_default(out, recipe_text(recipe, "method"), err);
    if (status == GRAFT_OK && strcmp(out->method, "lora"))
        return refuse_described(recipe, "method", err);
    if (status != GRAFT_OK)
        return status;
    scalar_options(out, recipe);
    status = module_list(&out->target_modules, &out->target_regex, recipe, "target_modules", err);
    if (status == GRAFT_OK)
        status =
            module_list(&out->exclude_modules, &out->exclude_regex, recipe, "exclude_modules", err);
    if (status == GRAFT_OK)
        status =
            pattern_list(&out->rank_pattern, &out->n_rank_pattern, recipe, "rank_pattern", err);
    if (status == GRAFT_OK)
        status =
            pattern_list(&out->alpha_pattern, &out->n_alpha_pattern, recipe, "alpha_pattern", err);
    if (status == GRAFT_OK)
        status = layer_list(out, recipe, err);
    for (size_t i = 0; status == GRAFT_OK && i < recipe_list_count(recipe, "modules_to_save"); i++)
        status = text_list_add(&out->modules_to_save,
                               recipe_list_item(recipe, "modules_to_save", i), err);
    return status;
}

graft_status adapter_config_from_recipe(adapter_config *out, const graft_recipe *recipe,
                                        const message_sink *messages, graft_error *err) {
    *out = (adapter_config){0};
    const char *owner = describing_option(recipe);
    graft_status status = owner ? config_from_file(out, owner, recipe, messages, err)
                                : config_from_options(out, recipe, err);
    if (status != GRAFT_OK)
        adapter_config_free(out);
    return status;
}
