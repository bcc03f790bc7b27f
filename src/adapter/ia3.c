/* IA3 (Liu et al., 2022; as PEFT's tuners/ia3): a learnt scale. y = l * (W x + b) over a layer's
 * outputs, or in feed-forward layers y = W (l * x) + b over its inputs. */
#include "adapter/methods.h"
#include "adapter/pattern.h"
#include "adapter/shape.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static const config_key ia3_keys[] = {
    {.name = "target_modules", .kind = KEY_OURS},
    {.name = "exclude_modules", .kind = KEY_OURS},
    {.name = "feedforward_modules", .kind = KEY_ANY, .fallback = "null"},
    {.name = "fan_in_fan_out", .kind = KEY_FLAG, .fallback = "false"}, /* the model decides */
    {.name = "init_ia3_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = "modules_to_save", .kind = KEY_OURS},
    {.name = NULL},
};

/* PEFT's TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING and ..._FEEDFORWARD_MODULES_MAPPING. */
typedef struct ia3_default {
    const char *model_type;
    const char *targets[4];
    const char *feedforward;
} ia3_default;

static const ia3_default defaults[] = {
    {"llama", {"k_proj", "v_proj", "down_proj"}, "down_proj"},
    {"mistral", {"k_proj", "v_proj", "down_proj"}, "down_proj"},
    {"qwen2", {"q_proj", "v_proj", "down_proj"}, "down_proj"},
    {"qwen3", {"q_proj", "v_proj", "down_proj"}, "down_proj"},
};

static const ia3_default *find_default(const char *model_type) {
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (!strcmp(defaults[i].model_type, model_type))
            return &defaults[i];
    return NULL;
}

static const char *const *default_targets(const char *model_type) {
    const ia3_default *found = find_default(model_type);
    return found ? found->targets : NULL;
}

/* ---- Form ---- */

typedef struct ia3_scale { /* of one module */
    bool is_feedforward;
    int64_t in, out;
    adapter_tensor *l; /* [out, 1], or [1, in] */
} ia3_scale;

/* Outputs are kept as they were before the scale. */
static int64_t kept_elements(const void *self, int64_t n) {
    const ia3_scale *s = self;
    return s->is_feedforward ? 0 : n * s->out;
}

static int64_t scratch_elements(const void *self, int64_t n) {
    const ia3_scale *s = self;
    return n * (s->is_feedforward ? s->in : s->out);
}

static void forward(const void *self, const form_pass *p, const base_linear *base, device_array *y,
                    const device_array *x, bool add) {
    const ia3_scale *s = self;
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    if (s->is_feedforward) {
        ops->scale_cols(p->dev, p->scratch, x, s->l->value, n, s->in, false);
        ops->linear_fwd(p->dev, y, base->xa, p->scratch, base->call, add, base->scratch, p->tokens);
        return;
    }
    ops->linear_fwd(p->dev, p->kept, base->xa, x, base->call, false, base->scratch, p->tokens);
    ops->scale_cols(p->dev, y, p->kept, s->l->value, n, s->out, add);
}

static void input_backward(const ia3_scale *s, const form_pass *p, const base_linear *base,
                           device_array *dx, const device_array *dy, const device_array *x,
                           bool add) {
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    linear_call call = *base->call;
    if (call.d_weight) { /* the base trains, too: its input was the scaled one */
        ops->scale_cols(p->dev, p->scratch, x, s->l->value, n, s->in, false);
        ops->linear_bwd(p->dev, NULL, dy, p->scratch, base->xa, &call, false, base->scratch,
                        p->tokens);
        call.d_weight = call.d_bias = NULL;
    }
    ops->linear_bwd(p->dev, p->scratch, dy, x, base->xa, &call, false, base->scratch, p->tokens);
    if (s->l->gradient)
        ops->sum_cols(p->dev, s->l->gradient, p->scratch, x, n, s->in, p->tokens);
    if (dx)
        ops->scale_cols(p->dev, dx, p->scratch, s->l->value, n, s->in, add);
}

static void backward(const void *self, const form_pass *p, const base_linear *base,
                     device_array *dx, const device_array *dy, const device_array *x, bool add) {
    const ia3_scale *s = self;
    const op_table *ops = p->dev->ops;
    int64_t n = p->tokens->n;
    if (s->is_feedforward) {
        input_backward(s, p, base, dx, dy, x, add);
        return;
    }
    if (s->l->gradient)
        ops->sum_cols(p->dev, s->l->gradient, dy, p->kept, n, s->out, p->tokens);
    ops->scale_cols(p->dev, p->scratch, dy, s->l->value, n, s->out, false);
    ops->linear_bwd(p->dev, dx, p->scratch, x, base->xa, base->call, add, base->scratch, p->tokens);
}

static const linear_form form = {
    .memory = {kept_elements, scratch_elements}, .fwd = forward, .bwd = backward};

/* ---- Shape ---- */

/* Without feedforward_modules, PEFT's for the model are written out. */
static graft_status settle_feedforward(adapter *a, graft_error *err) {
    if (!json_is_null(config_value(&a->config, "feedforward_modules")))
        return GRAFT_OK;
    const ia3_default *found = find_default(a->spec->model_type);
    if (!found)
        return error_set(
            err, GRAFT_E_INPUT,
            "feedforward_modules: PEFT has no default for model_type %s: name those of "
            "target_modules whose input is scaled ([] for none)",
            a->spec->model_type);
    json_t *names = json_pack("[s]", found->feedforward);
    if (!names || json_object_set_new(a->config.fields, "feedforward_modules", names) != 0)
        return error_memory(err, 64, "feedforward_modules");
    return GRAFT_OK;
}

/* feedforward_modules are plain ends of names, or one expression for the whole name. */
static graft_status is_feedforward(bool *out, const adapter *a, const char *name,
                                   graft_error *err) {
    const json_t *given = config_value(&a->config, "feedforward_modules");
    *out = false;
    if (json_is_string(given)) {
        pattern *whole = NULL;
        graft_status status = pattern_create(&whole, json_string_value(given), PATTERN_WHOLE,
                                             "feedforward_modules", err);
        if (status == GRAFT_OK)
            status = pattern_match(out, whole, name, err);
        pattern_destroy(&whole);
        return status;
    }
    if (!json_is_array(given))
        return error_set(err, GRAFT_E_INPUT,
                         "feedforward_modules: expected a list of names or an expression, found %s",
                         json_type_name(given));
    for (size_t i = 0; i < json_array_size(given); i++) {
        const char *end = json_string_value(json_array_get(given, i));
        size_t n = strlen(name), m = end ? strlen(end) : n + 1;
        *out = *out || (m <= n && !strcmp(name + n - m, end));
    }
    return GRAFT_OK;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    ia3_scale *s = (ia3_scale *)a->state + module;
    const model_module *m = &a->modules[module];
    *s = (ia3_scale){.in = m->cols, .out = m->rows};
    graft_status status = is_feedforward(&s->is_feedforward, a, m->name, err);
    if (status != GRAFT_OK)
        return status;
    return shape_matrix(a, module, "ia3_l", s->is_feedforward ? 1 : m->rows,
                        s->is_feedforward ? m->cols : 1, err)
               ? GRAFT_OK
               : GRAFT_E_MEMORY;
}

static graft_status ia3_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    if (status == GRAFT_OK)
        status = settle_feedforward(a, err);
    if (status == GRAFT_OK && !(a->state = mem_array(a->n_modules, sizeof(ia3_scale))))
        status = error_memory(err, a->n_modules * sizeof(ia3_scale), "the adapter's scales");
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        ((ia3_scale *)a->state)[i].l = adapter_tensor_at(a, i, "ia3_l");
    return status;
}

static void ia3_destroy(adapter *a) {
    free(a->state);
    a->state = NULL;
}

static graft_status ia3_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                             graft_error *err) {
    bool is_one = config_flag(&a->config, "init_ia3_weights");
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].role == ROLE_OTHER)
            shape_fill(&a->tensors[i], dev, is_one ? DRAW_CONSTANT : DRAW_NORMAL, 1, random);
    return shape_init_freed(a, dev, weights, err);
}

static void ia3_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_modules; i++) {
        if (!a->targets[i].is_target)
            continue;
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[i]);
        hook->form = &form;
        hook->form_self = (ia3_scale *)a->state + i;
    }
    shape_bind_freed(a, hooks);
}

static graft_status ia3_merge(adapter *a, backend *dev, size_t module, device_array *w,
                              device_array *bias, device_array *scratch, graft_error *err) {
    const ia3_scale *s = (const ia3_scale *)a->state + module;
    (void)scratch;
    (void)err;
    if (!a->targets[module].is_target)
        return GRAFT_OK;
    if (s->is_feedforward)
        dev->ops->scale_cols(dev, w, w, s->l->value, s->out, s->in, false);
    else
        dev->ops->scale_rows(dev, w, w, s->l->value, s->out, s->in, false);
    if (bias && !s->is_feedforward)
        dev->ops->mul(dev, bias, bias, s->l->value, s->out, false);
    return GRAFT_OK;
}

const adapter_method ia3_method = {
    .peft_type = "IA3",
    .name = "ia3",
    .summary = "learnt scales of keys, values and the MLP (IA3)",
    .family = "scales",
    .paper = "Liu et al. 2022, arXiv:2205.05638",
    .target_kinds = TARGET_LINEAR,
    .keys = ia3_keys,
    .default_targets = default_targets,
    .shape = ia3_shape,
    .destroy = ia3_destroy,
    .init = ia3_init,
    .bind = ia3_bind,
    .merge = ia3_merge,
    .load = peft_load,
    .save = peft_save,
};
