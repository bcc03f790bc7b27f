#include "model/linear_hooked.h"

#include <assert.h>

linear_call linear_hooked(const backend *dev, const weight_ref *weight, const device_array *bias,
                          const linear_hook *hook) {
    linear_call call = {
        .weight = *weight, .bias = bias, .terms = hook->terms, .n_terms = hook->n_terms};
    if (hook->weight.is_freed) {
        call.weight.data = hook->weight.value;
        call.weight.type = dev->element;
        call.weight.row_stride = weight->is_transposed ? weight->rows : weight->cols;
        call.d_weight = hook->weight.gradient;
        call.is_exact = true;
    }
    if (hook->bias.is_freed) {
        call.bias = hook->bias.value;
        call.d_bias = hook->bias.gradient;
    }
    return call;
}

static form_pass pass_of(const hooked_linear *l, const token_rows *tokens, const batch *b) {
    return (form_pass){
        .dev = l->dev, .tokens = tokens, .batch = b, .kept = l->kept, .scratch = l->form_scratch};
}

void hooked_linear_fwd(const hooked_linear *l, device_array *y, const device_array *x, bool add,
                       const token_rows *tokens, const batch *b) {
    const linear_form *form = l->hook->form;
    if (!form) {
        l->dev->ops->linear_fwd(l->dev, y, l->xa, x, &l->call, add, l->scratch, tokens);
        return;
    }
    form_pass pass = pass_of(l, tokens, b);
    const base_linear base = {&l->call, l->xa, l->scratch};
    form->fwd(l->hook->form_self, &pass, &base, y, x, add);
}

void hooked_linear_bwd(const hooked_linear *l, device_array *dx, const device_array *dy,
                       const device_array *x, bool add, const token_rows *tokens, const batch *b) {
    const linear_form *form = l->hook->form;
    if (!dx && !hooked_linear_trains(l))
        return;
    if (!form) {
        l->dev->ops->linear_bwd(l->dev, dx, dy, x, l->xa, &l->call, add, l->scratch, tokens);
        return;
    }
    form_pass pass = pass_of(l, tokens, b);
    const base_linear base = {&l->call, l->xa, l->scratch};
    form->bwd(l->hook->form_self, &pass, &base, dx, dy, x, add);
}

/* Layers without forms go to the op together. */
static bool has_form(const hooked_linear *l, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        if (l[i].hook->form)
            return true;
    return false;
}

static void branches_of(linear_branch *branches, const hooked_linear *l, int32_t n,
                        device_array *const *y) {
    assert(n <= LINEAR_BRANCHES_MAX);
    for (int32_t i = 0; i < n; i++)
        branches[i] = (linear_branch){.call = &l[i].call, .y = y[i], .xa = l[i].xa};
}

void hooked_linears_fwd(const hooked_linear *l, int32_t n, device_array *const *y,
                        const device_array *x, const token_rows *tokens, const batch *b) {
    if (has_form(l, n)) {
        for (int32_t i = 0; i < n; i++)
            hooked_linear_fwd(&l[i], y[i], x, false, tokens, b);
        return;
    }
    linear_branch branches[LINEAR_BRANCHES_MAX];
    branches_of(branches, l, n, y);
    l->dev->ops->linear_group_fwd(l->dev, branches, n, x, false, l->scratch, tokens);
}

void hooked_linears_bwd(const hooked_linear *l, int32_t n, device_array *dx,
                        device_array *const *dy, const device_array *x, bool add,
                        const token_rows *tokens, const batch *b) {
    if (has_form(l, n)) {
        for (int32_t i = 0; i < n; i++)
            hooked_linear_bwd(&l[i], dx, dy[i], x, add || i > 0, tokens, b);
        return;
    }
    linear_branch branches[LINEAR_BRANCHES_MAX];
    branches_of(branches, l, n, dy);
    l->dev->ops->linear_group_bwd(l->dev, dx, branches, n, x, add, l->scratch, tokens);
}

bool hooked_linear_trains(const hooked_linear *l) {
    const linear_call *call = &l->call;
    for (int32_t i = 0; i < call->n_terms; i++)
        if (call->terms[i].da || call->terms[i].db || call->terms[i].dbias)
            return true;
    return call->d_weight || call->d_bias || l->hook->form;
}

bool hooked_linear_needs_input(const hooked_linear *l, const token_rows *tokens) {
    const linear_call *call = &l->call;
    for (int32_t i = 0; i < call->n_terms; i++)
        if (call->terms[i].da || (tokens->training && call->terms[i].dropout > 0))
            return true;
    return call->d_weight || l->hook->form;
}

int64_t form_kept_elements(const form_memory *memory, const void *self, int64_t n) {
    return memory && memory->kept_elements ? memory->kept_elements(self, n) : 0;
}

int64_t form_scratch_elements(const form_memory *memory, const void *self, int64_t n) {
    return memory && memory->scratch_elements ? memory->scratch_elements(self, n) : 0;
}

norm_call norm_hooked(const model_spec *spec, const device_array *weight,
                      const freed_parameter *weight_freed, const device_array *bias,
                      const freed_parameter *bias_freed) {
    return (norm_call){.weight = weight_freed->is_freed ? weight_freed->value : weight,
                       .bias = bias_freed->is_freed ? bias_freed->value : bias,
                       .d_weight = weight_freed->gradient,
                       .d_bias = bias_freed->gradient,
                       .eps = spec->norm_eps,
                       .is_centred = spec->norms_are_centred,
                       .adds_one = spec->norms_add_one};
}
