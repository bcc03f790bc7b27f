/* LoRA (Hu et al., 2021; as PEFT's tuners/lora): y = W x + s B A dropout(x), s = alpha / r, with
 * rank-stabilised LoRA alpha / sqrt(r). On an embedding A is [rank, vocab], and nothing is dropped.
 */
#include "adapter/freed.h"
#include "adapter/methods.h"
#include "adapter/peft_keys.h"
#include "adapter/targets.h"
#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Shape ---- */

static adapter_tensor *add_tensor(adapter *a, size_t module, const char *suffix) {
    adapter_tensor *t = &a->tensors[a->n_tensors++];
    t->module = module;
    snprintf(t->key, sizeof t->key, PEFT_KEY_PREFIX "%s.%s", a->modules[module].name, suffix);
    return t;
}

static void add_factor(adapter *a, size_t module, tensor_role role, const char *suffix,
                       int64_t rows, int64_t cols) {
    adapter_tensor *t = add_tensor(a, module, suffix);
    t->role = role;
    t->rank = cols ? 2 : 1;
    t->shape[0] = rows;
    t->shape[1] = cols;
    t->count = cols ? rows * cols : rows;
}

static void add_low_rank(adapter *a, size_t module, const module_target *target) {
    const model_module *m = &a->modules[module];
    bool is_embedding = m->kind == MODULE_EMBEDDING;
    double divisor = a->config.use_rslora ? sqrt((double)target->rank) : (double)target->rank;
    a->terms[a->n_terms++] = (low_rank_term){
        .scale = (float)(target->alpha / divisor),
        .rank = target->rank,
        .job = a->job,
        .dropout = is_embedding ? 0 : (float)a->config.lora_dropout,
        .dropout_stream = (uint32_t)module,
    };
    if (is_embedding) {
        add_factor(a, module, ROLE_LORA_EMBEDDING_A, "lora_embedding_A", target->rank, m->rows);
        add_factor(a, module, ROLE_LORA_EMBEDDING_B, "lora_embedding_B", m->cols, target->rank);
        return;
    }
    add_factor(a, module, ROLE_LORA_A, "lora_A.weight", target->rank, m->cols);
    add_factor(a, module, ROLE_LORA_B, "lora_B.weight", m->rows, target->rank);
    if (a->config.lora_bias)
        add_factor(a, module, ROLE_LORA_BIAS, "lora_B.bias", m->rows, 0);
}

static void add_freed(adapter *a, size_t module, const module_target *target, bool is_bias) {
    adapter_tensor described, *t;
    const char *suffix = !is_bias ? "weight" : target->rank ? "base_layer.bias" : "bias";
    freed_tensor(&described, a, module, is_bias);
    t = add_tensor(a, module, suffix);
    memcpy(described.key, t->key, sizeof described.key);
    *t = described;
}

static int by_key(const void *left, const void *right) {
    return strcmp(((const adapter_tensor *)left)->key, ((const adapter_tensor *)right)->key);
}

static saved_copy *add_copy(adapter *a, size_t module, const char *suffix) {
    saved_copy *copy = &a->copies[a->n_copies++];
    const model_module *m = &a->modules[module];
    snprintf(copy->key, sizeof copy->key, PEFT_KEY_PREFIX "%s.%s", m->name, suffix);
    copy->shape[0] = m->rows;
    copy->shape[1] = m->cols;
    return copy;
}

static size_t embedding_tensor(const adapter *a) {
    size_t i = 0;
    while (a->tensors[i].role != ROLE_FREED ||
           a->modules[a->tensors[i].module].kind != MODULE_EMBEDDING)
        i++;
    return i;
}

/* What the file holds beside the tensors; needs them sorted. */
static graft_status add_copies(adapter *a, const module_target *targets, graft_error *err) {
    bool save_embeddings;
    graft_status status =
        targets_save_embeddings(&save_embeddings, &a->config, a->modules, a->n_modules, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        module_kind kind = a->modules[i].kind;
        if (targets[i].shares_embedding) {
            saved_copy *copy = add_copy(a, i, "weight");
            copy->is_written = true;
            copy->tensor = embedding_tensor(a);
        } else if (targets[i].rank && (kind == MODULE_EMBEDDING || kind == MODULE_HEAD)) {
            saved_copy *copy = add_copy(a, i, "base_layer.weight");
            copy->is_base = true;
            copy->is_written = save_embeddings;
            freed_base_name(copy->base_name, sizeof copy->base_name, a, i, false);
        }
    }
    return status;
}

/* An adapter that is suddenly as large as the embedding surprises people: it is said before it is
 * trained. */
static void tell_copies(const adapter *a, const message_sink *sink) {
    for (size_t i = 0; i < a->n_copies; i++) {
        const saved_copy *copy = &a->copies[i];
        double bytes =
            (double)copy->shape[0] * (double)copy->shape[1] * (double)dtype_bytes(a->spec->stored);
        if (copy->is_base && copy->is_written)
            message_emit(sink, MESSAGE_INFO,
                         "the adapter file will also hold the base's %s (%.1f MiB), as PEFT's "
                         "does; target_modules with the module's full name leaves it out",
                         copy->base_name, bytes / (1 << 20));
    }
}

static graft_status reserve(adapter *a, const module_target *targets, graft_error *err) {
    size_t tensors = 0, terms = 0;
    for (size_t i = 0; i < a->n_modules; i++) {
        terms += targets[i].rank > 0;
        tensors += (targets[i].rank ? 3u : 0u) + targets[i].frees_weight + targets[i].frees_bias;
    }
    a->tensors = mem_array(tensors, sizeof *a->tensors);
    a->terms = mem_array(terms, sizeof *a->terms);
    a->copies = mem_array(2, sizeof *a->copies); /* of the embedding and the head */
    if (!a->tensors || !a->terms || !a->copies)
        return error_memory(err, tensors * sizeof *a->tensors, "the adapter's tensors");
    return GRAFT_OK;
}

static graft_status lora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    module_target *targets = mem_array(a->n_modules, sizeof *targets);
    if (!targets)
        return error_memory(err, a->n_modules * sizeof *targets, "the adapter's targets");
    graft_status status =
        targets_resolve(targets, &a->config, a->spec, a->modules, a->n_modules, sink, err);
    if (status == GRAFT_OK)
        status = reserve(a, targets, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (targets[i].rank)
            add_low_rank(a, i, &targets[i]);
        if (targets[i].frees_weight)
            add_freed(a, i, &targets[i], false);
        if (targets[i].frees_bias)
            add_freed(a, i, &targets[i], true);
    }
    if (status == GRAFT_OK) {
        qsort(a->tensors, a->n_tensors, sizeof *a->tensors, by_key);
        status = add_copies(a, targets, err);
    }
    if (status == GRAFT_OK)
        tell_copies(a, sink);
    free(targets);
    return status;
}

/* ---- First values ---- */

typedef enum distribution { DRAW_ZERO, DRAW_UNIFORM, DRAW_NORMAL } distribution;

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
        *spread = 1;
        return init == LORA_INIT_RANDOM ? DRAW_NORMAL : DRAW_ZERO;
    case ROLE_LORA_EMBEDDING_B:
        *spread = 1;
        return DRAW_NORMAL;
    case ROLE_LORA_B:
    case ROLE_LORA_BIAS:
        *spread = 1.0 / sqrt((double)rank);
        return init == LORA_INIT_RANDOM ? DRAW_UNIFORM : DRAW_ZERO;
    case ROLE_FREED: /* starts from the base */
        break;
    }
    return DRAW_ZERO;
}

static void draw(const adapter_tensor *t, backend *dev, distribution from, double spread,
                 rng *random) {
    float chunk[1024];
    if (from == DRAW_ZERO) {
        dev->ops->fill(dev, t->value, 0, t->count);
        return;
    }
    for (int64_t done = 0; done < t->count;) {
        int64_t n = t->count - done < 1024 ? t->count - done : 1024;
        for (int64_t i = 0; i < n; i++)
            chunk[i] = (float)(spread * (from == DRAW_NORMAL ? rng_normal(random)
                                                             : 2 * rng_uniform(random) - 1));
        dev->ops->upload(dev, array_at(dev, t->value, done), chunk, DTYPE_F32, n);
        done += n;
    }
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
        adapter_tensor *t = &a->tensors[i];
        if (t->role == ROLE_FREED) {
            graft_status status = freed_init(a, t, dev, weights, err);
            if (status != GRAFT_OK)
                return status;
            continue;
        }
        double spread;
        distribution from = first_values(a, t, term_of(a, t->module)->rank, &spread);
        draw(t, dev, from, spread, random);
    }
    return GRAFT_OK;
}

/* ---- Where it acts ---- */

static void bind_tensor(adapter *a, const adapter_tensor *t, model_hooks *hooks) {
    if (t->role == ROLE_FREED) {
        freed_bind(a, t, hooks);
        return;
    }
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
        bind_tensor(a, &a->tensors[i], hooks);
    for (size_t i = 0; i < a->n_terms; i++) {
        linear_hook *hook = model_hooks_linear(hooks, &a->modules[a->terms[i].dropout_stream]);
        hook->terms = &a->terms[i];
        hook->n_terms = 1;
    }
    for (size_t i = 0; i < a->n_copies; i++)
        if (!a->copies[i].is_base)
            freed_bind_tied_head(a, &a->tensors[a->copies[i].tensor], hooks);
}

const adapter_method lora_method = {
    .peft_type = "LORA",
    .name = "lora",
    .summary = "low-rank updates of linear layers and embeddings (LoRA, rsLoRA)",
    .shape = lora_shape,
    .init = lora_init_values,
    .bind = lora_bind,
    .load = peft_load,
    .save = peft_save,
};
