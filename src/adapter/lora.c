/* LoRA (Hu et al., 2021; as PEFT's tuners/lora): y = W x + s B A dropout(x), s = alpha / r, with
 * rank-stabilised LoRA alpha / sqrt(r). On an embedding A is [rank, vocab], and nothing is dropped.
 */
#include "adapter/config_keys.h"
#include "adapter/methods.h"
#include "adapter/shape.h"
#include "base/memory.h"

#include <assert.h>
#include <math.h>

/* ---- Shape ---- */

static graft_status add_factor(adapter *a, size_t module, tensor_role role, const char *suffix,
                               int64_t rows, int64_t cols, graft_error *err) {
    adapter_tensor *t = shape_matrix(a, module, suffix, rows, cols, err);
    if (!t)
        return GRAFT_E_MEMORY;
    t->role = role;
    return GRAFT_OK;
}

static graft_status add_low_rank(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    const module_target *target = &a->targets[module];
    bool is_embedding = m->kind == MODULE_EMBEDDING;
    double divisor = a->config.use_rslora ? sqrt((double)target->rank) : (double)target->rank;
    a->terms[a->n_terms++] = (low_rank_term){
        .scale = (float)(target->alpha / divisor),
        .rank = target->rank,
        .job = a->job,
        .dropout = is_embedding ? 0 : (float)a->config.lora_dropout,
        .dropout_stream = (uint32_t)module,
    };
    const char *a_name = is_embedding ? "lora_embedding_A" : "lora_A.weight";
    const char *b_name = is_embedding ? "lora_embedding_B" : "lora_B.weight";
    int64_t in = is_embedding ? m->rows : m->cols, out = is_embedding ? m->cols : m->rows;
    graft_status status = add_factor(a, module, is_embedding ? ROLE_LORA_EMBEDDING_A : ROLE_LORA_A,
                                     a_name, target->rank, in, err);
    if (status == GRAFT_OK)
        status = add_factor(a, module, is_embedding ? ROLE_LORA_EMBEDDING_B : ROLE_LORA_B, b_name,
                            out, target->rank, err);
    if (status == GRAFT_OK && a->config.lora_bias && !is_embedding)
        status = add_factor(a, module, ROLE_LORA_BIAS, "lora_B.bias", out, 0, err);
    return status;
}

static graft_status lora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    if (status != GRAFT_OK)
        return status;
    a->terms = mem_array(a->n_modules, sizeof *a->terms);
    if (!a->terms)
        return error_memory(err, a->n_modules * sizeof *a->terms, "the adapter's terms");
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_low_rank(a, i, err);
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}

/* ---- First values ---- */

/* PEFT's: A as nn.Linear draws it (Kaiming uniform with a = sqrt 5 is U(-1, 1) / sqrt(inputs)) or
 * Gaussian, B zero; on an embedding A zero and B standard normal. Without an initialisation all are
 * as their layer is born. */
static distribution first_values(const adapter *a, const adapter_tensor *t, int32_t rank,
                                 double *spread) {
    const model_module *m = &a->modules[t->module];
    lora_init init = a->config.init;
    switch (t->role) {
    case ROLE_LORA_A:
        *spread = init == LORA_INIT_GAUSSIAN ? 1.0 / rank : 1.0 / sqrt((double)m->cols);
        return init == LORA_INIT_GAUSSIAN ? DRAW_NORMAL : DRAW_UNIFORM;
    case ROLE_LORA_EMBEDDING_A:
        *spread = init == LORA_INIT_RANDOM;
        return init == LORA_INIT_RANDOM ? DRAW_NORMAL : DRAW_CONSTANT;
    case ROLE_LORA_EMBEDDING_B:
        *spread = 1;
        return DRAW_NORMAL;
    case ROLE_LORA_B:
    case ROLE_LORA_BIAS:
        *spread = init == LORA_INIT_RANDOM ? 1.0 / sqrt((double)rank) : 0;
        return init == LORA_INIT_RANDOM ? DRAW_UNIFORM : DRAW_CONSTANT;
    case ROLE_FREED: /* starts from the base */
    case ROLE_OTHER:
        break;
    }
    *spread = 0;
    return DRAW_CONSTANT;
}

/* Terms are in the modules' order. */
static low_rank_term *term_of(const adapter *a, size_t module) {
    size_t low = 0, high = a->n_terms;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (a->terms[middle].dropout_stream <= module)
            low = middle;
        else
            high = middle;
    }
    assert(a->terms[low].dropout_stream == module);
    return &a->terms[low];
}

static graft_status lora_init_values(adapter *a, backend *dev, const weight_source *weights,
                                     rng *random, graft_error *err) {
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role == ROLE_FREED)
            continue;
        double spread;
        distribution from = first_values(a, t, term_of(a, t->module)->rank, &spread);
        shape_fill(t, dev, from, spread, random);
    }
    return shape_init_freed(a, dev, weights, err);
}

/* ---- Where it acts ---- */

static void bind_tensor(adapter *a, const adapter_tensor *t) {
    low_rank_term *term = term_of(a, t->module);
    switch (t->role) {
    case ROLE_LORA_A:
    case ROLE_LORA_EMBEDDING_A:
        term->a = t->value;
        term->da = t->gradient;
        break;
    case ROLE_LORA_B:
    case ROLE_LORA_EMBEDDING_B:
        term->b = t->value;
        term->db = t->gradient;
        break;
    default:
        term->bias = t->value;
        term->dbias = t->gradient;
    }
}

static void lora_bind(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].role != ROLE_FREED)
            bind_tensor(a, &a->tensors[i]);
    for (size_t i = 0; i < a->n_terms; i++) {
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[a->terms[i].dropout_stream]);
        hook->terms = &a->terms[i];
        hook->n_terms = 1;
    }
    shape_bind_freed(a, hooks);
}

/* ---- Merging ---- */

/* w += s B A, and the bias of B. On an embedding w is [vocab, hidden], and A^T B^T is added. */
static graft_status lora_merge(adapter *a, backend *dev, size_t module, device_array *w,
                               device_array *bias, device_array *scratch, graft_error *err) {
    (void)scratch;
    if (!a->targets[module].is_target)
        return GRAFT_OK;
    const low_rank_term *term = term_of(a, module);
    const model_module *m = &a->modules[module];
    bool is_embedding = m->kind == MODULE_EMBEDDING;
    if (term->bias && !bias)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "lora_bias on %s cannot be merged: the layer has no bias to add it to",
                         m->name);
    const matmul_call product = {
        .c = w,
        .c_stride = m->cols,
        .rows = m->rows,
        .cols = m->cols,
        .k = term->rank,
        .a = {is_embedding ? term->a : term->b, is_embedding ? m->rows : term->rank, is_embedding},
        .b = {is_embedding ? term->b : term->a, is_embedding ? term->rank : m->cols, is_embedding},
        .scale = (double)term->scale,
        .add = true,
    };
    dev->ops->matmul(dev, &product);
    if (term->bias)
        dev->ops->add_scaled(dev, bias, term->bias, (double)term->scale, m->rows);
    return GRAFT_OK;
}

const adapter_method lora_method = {
    .peft_type = "LORA",
    .name = "lora",
    .summary = "low-rank updates of linear layers and embeddings (LoRA, rsLoRA)",
    .family = "low rank",
    .paper = "Hu et al. 2021, arXiv:2106.09685",
    .target_kinds = TARGET_LINEAR | TARGET_EMBEDDING,
    .keys = lora_keys,
    .shape = lora_shape,
    .init = lora_init_values,
    .bind = lora_bind,
    .merge = lora_merge,
    .load = peft_load,
    .save = peft_save,
};
