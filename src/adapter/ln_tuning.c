/* LN tuning (Zhao et al., 2023; as PEFT's tuners/ln_tuning): the norms' own weights train, each a
 * full copy that takes the base's place. */
#include "adapter/freed.h"
#include "adapter/methods.h"
#include "adapter/shape.h"

#include <string.h>

static const config_key ln_tuning_keys[] = {TARGET_KEYS, EXCLUDE_KEY, {.name = NULL}};

/* PEFT's TRANSFORMERS_MODELS_TO_LNTUNING_TARGET_MODULES_MAPPING. */
typedef struct ln_default {
    const char *model_type;
    const char *targets[6];
} ln_default;

static const ln_default defaults[] = {
    {"llama", {"input_layernorm", "post_attention_layernorm", "norm"}},
    {"bloom", {"input_layernorm", "post_attention_layernorm", "ln_f"}},
    {"gpt2", {"ln_1", "ln_2", "ln_f"}},
    {"gptj", {"ln_1", "ln_f"}},
    {"falcon", {"input_layernorm", "post_attention_layernorm", "ln_f"}},
    {"mistral", {"input_layernorm", "post_attention_layernorm", "norm"}},
    {"phi", {"input_layernorm", "final_layernorm"}},
    {"gemma", {"input_layernorm", "post_attention_layernorm", "norm"}},
    {"gemma2",
     {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
      "post_feedforward_layernorm", "norm"}},
    {"gemma3_text",
     {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
      "post_feedforward_layernorm", "norm"}},
    {"qwen2", {"post_attention_layernorm"}},
    {"qwen3", {"post_attention_layernorm"}},
};

static const char *const *default_targets(const char *model_type) {
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        if (!strcmp(defaults[i].model_type, model_type))
            return defaults[i].targets;
    return NULL;
}

static const char weight_suffix[] = "ln_tuning_layers.weight",
                  bias_suffix[] = "ln_tuning_layers.bias";

static graft_status add_copy(adapter *a, size_t module, bool is_bias, graft_error *err) {
    adapter_tensor *t = shape_matrix(a, module, is_bias ? bias_suffix : weight_suffix,
                                     a->modules[module].rows, 0, err);
    if (!t)
        return GRAFT_E_MEMORY;
    t->role = ROLE_FREED;
    t->is_bias = is_bias;
    return GRAFT_OK;
}

static graft_status ln_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (!a->targets[i].is_target)
            continue;
        status = add_copy(a, i, false, err);
        if (status == GRAFT_OK && a->modules[i].has_bias)
            status = add_copy(a, i, true, err);
    }
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

static graft_status ln_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                            graft_error *err) {
    (void)random;
    return shape_init_freed(a, dev, weights, err);
}

static void ln_bind(adapter *a, model_hooks *hooks) {
    shape_bind_freed(a, hooks);
}

static graft_status ln_merge(adapter *a, backend *dev, size_t module, device_array *w,
                             device_array *bias, device_array *scratch, graft_error *err) {
    (void)scratch;
    (void)err;
    const adapter_tensor *t = adapter_tensor_at(a, module, weight_suffix),
                         *b = adapter_tensor_at(a, module, bias_suffix);
    if (t)
        dev->ops->copy(dev, w, t->value, t->count);
    if (b && bias)
        dev->ops->copy(dev, bias, b->value, b->count);
    return GRAFT_OK;
}

const adapter_method ln_tuning_method = {
    .peft_type = "LN_TUNING",
    .name = "ln_tuning",
    .summary = "the norms' weights (LN tuning)",
    .family = "scales",
    .paper = "Zhao et al. 2023, arXiv:2312.11420",
    .target_kinds = TARGET_NORM,
    .keys = ln_tuning_keys,
    .default_targets = default_targets,
    .shape = ln_shape,
    .init = ln_init,
    .bind = ln_bind,
    .merge = ln_merge,
    .load = peft_load,
    .save = peft_save,
};
