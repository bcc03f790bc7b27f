/* BEFT (as PEFT's tuners/beft): a trained bias, y = W x + b + d, mostly of the values alone. */
#include "adapter/methods.h"
#include "adapter/shape.h"

#include <string.h>

static const config_key beft_keys[] = {
    TARGET_KEYS,
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

/* PEFT's TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING: v_proj where it names the type. */
static const char *const *default_targets(const char *model_type) {
    static const char *const values[] = {"v_proj", NULL};
    static const char *const types[] = {"opt",     "gptj",        "gpt_neo", "llama",
                                        "mistral", "mixtral",     "phi",     "gemma",
                                        "gemma2",  "gemma3_text", "qwen2",   "qwen3"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i], model_type))
            return values;
    return NULL;
}

static const char suffix[] = "beft_bias";

static void forward(const void *self, const form_pass *p, const base_linear *base, device_array *y,
                    const device_array *x, bool add) {
    const adapter_tensor *d = self;
    p->dev->ops->linear_fwd(p->dev, y, base->xa, x, base->call, add, base->scratch, p->tokens);
    p->dev->ops->add_rows(p->dev, y, d->value, p->tokens->n, d->count);
}

static void backward(const void *self, const form_pass *p, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const adapter_tensor *d = self;
    if (d->gradient)
        p->dev->ops->sum_cols(p->dev, d->gradient, dy, NULL, p->tokens->n, d->count, p->tokens);
    if (dx || base->call->d_weight || base->call->d_bias)
        p->dev->ops->linear_bwd(p->dev, dx, dy, x, base->xa, base->call, add, base->scratch,
                                p->tokens);
}

static const linear_form form = {.fwd = forward, .bwd = backward};

static graft_status beft_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target && !shape_matrix(a, i, suffix, 1, a->modules[i].rows, err))
            status = GRAFT_E_MEMORY;
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

static graft_status beft_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                              graft_error *err) {
    bool is_zero = config_flag(&a->config, "init_weights");
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].role == ROLE_OTHER)
            shape_fill(&a->tensors[i], dev, is_zero ? DRAW_CONSTANT : DRAW_NORMAL, is_zero ? 0 : 1,
                       random);
    return shape_init_freed(a, dev, weights, err);
}

static void beft_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->targets[i].is_target)
            continue;
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[i]);
        hook->form = &form;
        hook->form_self = adapter_tensor_at(a, i, suffix);
    }
    shape_bind_freed(a, hooks);
}

static graft_status beft_merge(adapter *a, backend *dev, size_t module, device_array *w,
                               device_array *bias, device_array *scratch, graft_error *err) {
    (void)w;
    (void)scratch;
    (void)err;
    const adapter_tensor *d = adapter_tensor_at(a, module, suffix);
    if (d)
        dev->ops->add(dev, bias, d->value, d->count);
    return GRAFT_OK;
}

static const char *beft_merge_obstacle(const adapter *a) {
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->targets[i].is_target && !a->modules[i].has_bias)
            return "the base's layers have no biases that the trained ones could be added to";
    return NULL;
}

const adapter_method beft_method = {
    .peft_type = "BEFT",
    .name = "beft",
    .summary = "trained biases of the values (BEFT)",
    .family = "scales",
    .paper = "Huang et al. 2025, arXiv:2509.15974",
    .target_kinds = TARGET_LINEAR,
    .keys = beft_keys,
    .default_targets = default_targets,
    .shape = beft_shape,
    .init = beft_init,
    .bind = beft_bind,
    .merge = beft_merge,
    .merge_obstacle = beft_merge_obstacle,
    .load = peft_load,
    .save = peft_save,
};
