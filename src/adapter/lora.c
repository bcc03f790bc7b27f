/* LoRA (Hu et al., 2021; as PEFT's tuners/lora): y = W x + s B A dropout(x), s = alpha / r, with
 * rank-stabilised LoRA alpha / sqrt(r). On an embedding A is [rank, vocab], and nothing is dropped.
 */
#include "adapter/lora.h"

#include "adapter/base_weight.h"
#include "adapter/methods.h"
#include "adapter/module_tree.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

/* ---- Variants ---- */

static const lora_variant *const variants[] = {
    &lora_bdlora,
    &lora_dora,
    &lora_kasa,
};

static bool is_asked(const adapter_config *config, const lora_variant *variant) {
    const json_t *value = config_value(config, variant->key);
    return json_is_true(value) || json_array_size(value) || json_object_size(value);
}

graft_status lora_variant_of(const lora_variant **out, const adapter_config *config,
                             graft_error *err) {
    *out = NULL;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        if (!is_asked(config, variants[i]))
            continue;
        if (*out)
            return error_set(err, GRAFT_E_INPUT,
                             "%s and %s cannot be combined (nor in PEFT): leave out one of them",
                             (*out)->key, variants[i]->key);
        *out = variants[i];
    }
    return GRAFT_OK;
}

/* ---- Shape ---- */

static graft_status add_factor(adapter *a, size_t module, tensor_role role, const char *suffix,
                               int64_t rows, int64_t cols, graft_error *err) {
    adapter_tensor *t = shape_matrix(a, module, suffix, rows, cols, err);
    if (!t)
        return GRAFT_E_MEMORY;
    t->role = role;
    return GRAFT_OK;
}

static const char *a_name(const lora_layer *l) {
    return l->is_embedding ? "lora_embedding_A" : "lora_A.weight";
}

static const char *b_name(const lora_layer *l) {
    return l->is_embedding ? "lora_embedding_B" : "lora_B.weight";
}

static const char start_a_name[] = "lora_A.start", start_b_name[] = "lora_B.start";

/* What the start takes out of the base is a frozen term: the base's file stays as it is. */
graft_status lora_add_removed(lora_layer *l, double scale, graft_error *err) {
    adapter_tensor *a = shape_matrix(l->adapter, l->module, start_a_name, l->rank, l->in, err);
    if (!a)
        return GRAFT_E_MEMORY;
    a->is_fixed = a->is_rebuilt = true;
    adapter_tensor *b = shape_matrix(l->adapter, l->module, start_b_name, l->out, l->rank, err);
    if (!b)
        return GRAFT_E_MEMORY;
    b->is_fixed = b->is_rebuilt = true;
    l->terms[1] = (low_rank_term){.scale = (float)-scale, .rank = l->rank, .job = l->adapter->job};
    l->n_terms = 2;
    return GRAFT_OK;
}

static graft_status add_start(lora_layer *l, const lora_start *start, graft_error *err) {
    if (start->needs_rank && (l->rank > l->in || l->rank > l->out))
        return error_set(err, GRAFT_E_INPUT,
                         "init_lora_weights %s wants a rank of at most the smaller side of %s "
                         "[%lld, %lld], found %d",
                         l->adapter->config.init_name, l->adapter->modules[l->module].name,
                         (long long)l->out, (long long)l->in, (int)l->rank);
    if (l->adapter->config.lora_bias)
        return error_set(
            err, GRAFT_E_INPUT,
            "lora_bias goes with init_lora_weights true or false alone (in PEFT, too)");
    return start->changes_base ? lora_add_removed(l, l->scale, err) : GRAFT_OK;
}

static void describe_layer(lora_layer *l, adapter *a, size_t module) {
    const model_module *m = &a->modules[module];
    const module_target *target = &a->targets[module];
    double divisor = a->config.use_rslora ? sqrt((double)target->rank) : (double)target->rank;
    *l = (lora_layer){.adapter = a,
                      .module = module,
                      .is_embedding = m->kind == MODULE_EMBEDDING,
                      .rank = target->rank,
                      .scale = target->alpha / divisor,
                      .n_terms = 1};
    l->in = l->is_embedding ? m->rows : m->cols;
    l->out = l->is_embedding ? m->cols : m->rows;
    l->a_cols = l->in;
    l->b_cols = l->rank;
    l->terms[0] = (low_rank_term){
        .scale = (float)l->scale,
        .rank = l->rank,
        .job = a->job,
        .dropout = l->is_embedding ? 0 : (float)a->config.lora_dropout,
        .dropout_stream = (uint32_t)module,
    };
}

static graft_status add_factors(lora_layer *l, bool freezes_b, graft_error *err) {
    adapter *a = l->adapter;
    graft_status status =
        add_factor(a, l->module, l->is_embedding ? ROLE_LORA_EMBEDDING_A : ROLE_LORA_A, a_name(l),
                   l->rank, l->a_cols, err);
    if (status == GRAFT_OK)
        status = add_factor(a, l->module, l->is_embedding ? ROLE_LORA_EMBEDDING_B : ROLE_LORA_B,
                            b_name(l), l->out, l->b_cols, err);
    if (status == GRAFT_OK && freezes_b)
        a->tensors[a->n_tensors - 1].is_fixed = true;
    if (status == GRAFT_OK && a->config.lora_bias && !l->is_embedding)
        status = add_factor(a, l->module, ROLE_LORA_BIAS, "lora_B.bias", l->out, 0, err);
    return status;
}

static graft_status add_layer(adapter *a, size_t module, graft_error *err) {
    lora_state *state = a->state;
    lora_layer *l = &state->layers[state->n_layers++];
    describe_layer(l, a, module);
    const lora_variant *variant = state->variant;
    const lora_start *start = l->is_embedding ? NULL : state->start;
    if (l->is_embedding && variant && !variant->goes_on_embedding)
        return error_set(err, GRAFT_E_INPUT,
                         "%s does not go with LoRA on the embedding %s (nor in PEFT)", variant->key,
                         a->modules[module].name);
    if (variant && l->adapter->modules[l->module].kind == MODULE_EXPERT)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "%s on an expert's linear layer (%s) is not supported: leave it out, or "
                         "name other layers",
                         variant->key, l->adapter->modules[l->module].name);
    graft_status status = variant ? variant->shape(l, err) : GRAFT_OK;
    if (status == GRAFT_OK && start)
        status = add_start(l, start, err);
    return status == GRAFT_OK ? add_factors(l, start && start->freezes_b, err) : status;
}

/* ---- trainable_token_indices ---- */

static const char tokens_suffix[] = "token_adapter.trainable_tokens_delta";

static graft_status add_tokens_of(adapter *a, size_t module, const json_t *ids, graft_error *err) {
    lora_state *state = a->state;
    const module_target *target = &a->targets[module];
    if (target->is_target || target->frees_weight)
        return error_set(err, GRAFT_E_INPUT,
                         "trainable_token_indices: %s is also in %s: it can be one of them (PEFT "
                         "refuses it too)",
                         a->modules[module].name,
                         target->is_target ? "target_modules" : "modules_to_save");
    trained_tokens *t = &state->tokens[state->n_tokens++];
    graft_status status =
        trained_tokens_shape(t, a, module, ids, "trainable_token_indices", tokens_suffix, err);
    if (status == GRAFT_OK && t->head != module && t->head != (size_t)MODULE_NONE &&
        (a->targets[t->head].is_target || a->targets[t->head].frees_weight))
        status = error_set(
            err, GRAFT_E_UNSUPPORTED,
            "trainable_token_indices: the tied head %s, which uses the rows, cannot be trained in "
            "another way as well",
            a->modules[t->head].name);
    return status;
}

static const json_t *embedding_ids(const adapter *a, const json_t *given) {
    const char *name;
    json_t *value;
    for (size_t i = 0; i < a->n_modules; i++)
        json_object_foreach((json_t *)(uintptr_t)given, name,
                            value) if (a->modules[i].kind == MODULE_EMBEDDING &&
                                       module_ends_with(a->modules[i].name, name)) return value;
    return NULL;
}

/* A list for the embedding, or an object of lists by the ends of module names. The head comes
 * first: it is tied to the embedding's rows only without its own. */
static graft_status add_tokens(adapter *a, graft_error *err) {
    const json_t *given = config_value(&a->config, "trainable_token_indices");
    size_t found = 0;
    graft_status status = GRAFT_OK;
    if (json_is_null(given) || (json_is_array(given) && !json_array_size(given)))
        return GRAFT_OK;
    for (size_t i = a->n_modules; i-- > 0 && status == GRAFT_OK;) {
        const model_module *m = &a->modules[i];
        if (m->kind != MODULE_EMBEDDING && m->kind != MODULE_HEAD)
            continue;
        const json_t *ids = m->kind == MODULE_EMBEDDING && json_is_array(given) ? given : NULL;
        const char *name;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)given, name, value) ids =
            module_ends_with(m->name, name) ? value : ids;
        found += ids != NULL;
        if (ids && !(m->is_tied && json_equal(ids, embedding_ids(a, given))))
            status = add_tokens_of(a, i, ids, err);
    }
    if (status == GRAFT_OK && (!found || found < json_object_size(given)))
        status = error_set(
            err, GRAFT_E_INPUT,
            "trainable_token_indices: expected a list of token ids, or an object of lists for the "
            "embedding and the head by name");
    return status;
}

static void find_tensors(lora_layer *l, const lora_variant *variant) {
    l->a = adapter_tensor_at(l->adapter, l->module, a_name(l));
    l->b = adapter_tensor_at(l->adapter, l->module, b_name(l));
    l->bias = adapter_tensor_at(l->adapter, l->module, "lora_B.bias");
    l->start_a = adapter_tensor_at(l->adapter, l->module, start_a_name);
    l->start_b = adapter_tensor_at(l->adapter, l->module, start_b_name);
    if (variant && variant->own_suffix)
        l->own = adapter_tensor_at(l->adapter, l->module, variant->own_suffix);
}

static graft_status lora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    if (status != GRAFT_OK)
        return status;
    lora_state *state = a->state = mem_array(1, sizeof *state);
    if (state)
        state->layers = mem_array(a->n_modules, sizeof *state->layers);
    if (!state || !state->layers)
        return error_memory(err, a->n_modules * sizeof *state->layers, "the adapter's layers");
    status = lora_variant_of(&state->variant, &a->config, err);
    state->start = a->config.init == LORA_INIT_START ? lora_start_find(a->config.init_name) : NULL;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_layer(a, i, err);
    if (status == GRAFT_OK)
        status = add_tokens(a, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    for (size_t i = 0; i < state->n_tokens && status == GRAFT_OK; i++)
        trained_tokens_find(&state->tokens[i], tokens_suffix);
    for (size_t i = 0; i < state->n_layers && status == GRAFT_OK; i++)
        find_tensors(&state->layers[i], state->variant);
    return status;
}

static void lora_destroy(adapter *a) {
    lora_state *state = a->state;
    for (size_t i = 0; state && i < state->n_tokens; i++)
        trained_tokens_free(&state->tokens[i]);
    if (state)
        free(state->layers);
    free(state);
    a->state = NULL;
}

/* ---- First values ---- */

/* PEFT's: A as nn.Linear draws it (Kaiming uniform with a = sqrt 5 is U(-1, 1) / sqrt(inputs)) or
 * Gaussian, B zero; on an embedding A zero and B standard normal. Without an initialisation all are
 * as their layer is born. */
static void draw_linear(const lora_layer *l, backend *dev, lora_init init, rng *random) {
    if (init == LORA_INIT_GAUSSIAN)
        shape_fill(l->a, dev, DRAW_NORMAL, 1.0 / l->rank, random);
    else
        shape_fill(l->a, dev, DRAW_UNIFORM, 1.0 / sqrt((double)l->in), random);
    distribution from = init == LORA_INIT_RANDOM ? DRAW_UNIFORM : DRAW_CONSTANT;
    double spread = init == LORA_INIT_RANDOM ? 1.0 / sqrt((double)l->rank) : 0;
    shape_fill(l->b, dev, from, spread, random);
    if (l->bias)
        shape_fill(l->bias, dev, from, spread, random);
}

static void draw_embedding(const lora_layer *l, backend *dev, lora_init init, rng *random) {
    bool all = init == LORA_INIT_RANDOM;
    shape_fill(l->a, dev, all ? DRAW_NORMAL : DRAW_CONSTANT, all, random);
    shape_fill(l->b, dev, DRAW_NORMAL, 1, random);
}

/* ---- Starts from the base ---- */

/* Makes a layer's start, and puts what belongs into A and B (is_new) and into what is taken out of
 * the base. */
static graft_status run_start(const lora_layer *l, const lora_start *start, backend *dev,
                              const weight_source *weights, bool is_new, rng *random,
                              graft_error *err) {
    const int64_t n = l->out * l->in, n_a = l->rank * l->in, n_b = l->out * l->rank;
    double *memory = mem_array((size_t)(n + n_a + n_b), sizeof *memory);
    /* What is taken out of the base has to come out the same when it is made again. */
    rng fixed = rng_create((uint64_t)l->module, 0);
    if (!memory)
        return error_memory(err, (size_t)n * sizeof *memory, "first values from the base");
    start_values v = {.w = memory,
                      .a = memory + n,
                      .b = memory + n + n_a,
                      .out = l->out,
                      .in = l->in,
                      .rank = l->rank,
                      .scale = l->scale,
                      .iterations = lora_start_iterations(start, l->adapter->config.init_name),
                      .random = start->changes_base ? &fixed : random};
    graft_status status = base_weight_rows(v.w, l->adapter, l->module, weights, 0, l->out, err);
    if (status == GRAFT_OK)
        status = start->make(&v, err);
    if (status != GRAFT_OK)
        error_prefix(err, "%s", l->adapter->modules[l->module].name);
    if (status == GRAFT_OK && is_new) {
        dev->ops->upload(dev, l->a->value, v.a, DTYPE_F64, n_a);
        dev->ops->upload(dev, l->b->value, v.b, DTYPE_F64, n_b);
    }
    if (status == GRAFT_OK && start->changes_base) {
        dev->ops->upload(dev, l->start_a->value, v.a, DTYPE_F64, n_a);
        dev->ops->upload(dev, l->start_b->value, v.b, DTYPE_F64, n_b);
    }
    free(memory);
    return status;
}

static graft_status rebuild_layers(lora_state *state, backend *dev, const weight_source *weights,
                                   graft_error *err) {
    graft_status status = GRAFT_OK;
    if (state->variant && state->variant->rebuild)
        for (size_t i = 0; i < state->n_layers && status == GRAFT_OK; i++)
            status = state->variant->rebuild(&state->layers[i], dev, weights, err);
    return status;
}

/* A file saved without conversion: its base is made again, as PEFT does. */
static graft_status lora_load(adapter *a, backend *dev, const weight_source *weights,
                              const char *folder, graft_error *err) {
    lora_state *state = a->state;
    graft_status status = peft_load(a, dev, weights, folder, err);
    if (status == GRAFT_OK)
        status = rebuild_layers(state, dev, weights, err);
    for (size_t i = 0; i < state->n_layers && status == GRAFT_OK; i++)
        if (state->start && state->start->changes_base && !state->layers[i].is_embedding)
            status = run_start(&state->layers[i], state->start, dev, weights, false, NULL, err);
    return status;
}

static graft_status lora_save(const adapter *a, backend *dev, const weight_source *weights,
                              const char *folder, const char *base_name, graft_error *err) {
    const lora_state *state = lora_state_of(a);
    bool converts = a->is_portable && state->start && state->start->changes_base;
    return (converts ? lora_save_portable : peft_save)(a, dev, weights, folder, base_name, err);
}

static graft_status lora_init_values(adapter *a, backend *dev, const weight_source *weights,
                                     rng *random, graft_error *err) {
    lora_state *state = a->state;
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < state->n_layers && status == GRAFT_OK; i++) {
        lora_layer *l = &state->layers[i];
        if (state->start && !l->is_embedding)
            status = run_start(l, state->start, dev, weights, true, random, err);
        else
            (l->is_embedding ? draw_embedding : draw_linear)(l, dev, a->config.init, random);
        if (status == GRAFT_OK && state->variant && state->variant->init)
            status = state->variant->init(l, dev, weights, random, err);
    }
    if (status == GRAFT_OK)
        status = rebuild_layers(state, dev, weights, err);
    for (size_t i = 0; i < state->n_tokens && status == GRAFT_OK; i++)
        status = trained_tokens_init(&state->tokens[i], dev, weights, true, random, err);
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

/* ---- Where it acts ---- */

static void bind_layer(lora_layer *l, const lora_variant *variant, model_hooks *hooks) {
    low_rank_term *term = &l->terms[0];
    term->a = l->a->value;
    term->da = l->a->gradient;
    term->b = l->b->value;
    term->db = l->b->gradient;
    if (l->start_a) {
        l->terms[1].a = l->start_a->value;
        l->terms[1].b = l->start_b->value;
    }
    if (l->bias) {
        term->bias = l->bias->value;
        term->dbias = l->bias->gradient;
    }
    linear_hook *hook = model_hooks_linear(hooks, &l->adapter->modules[l->module]);
    hook->terms = l->terms;
    hook->n_terms = l->n_terms;
    if (variant)
        variant->bind(l, hooks);
}

static void lora_bind(adapter *a, model_hooks *hooks) {
    lora_state *state = a->state;
    for (size_t i = 0; i < state->n_layers; i++)
        bind_layer(&state->layers[i], state->variant, hooks);
    for (size_t i = 0; i < state->n_tokens; i++)
        trained_tokens_bind(&state->tokens[i], hooks);
    shape_bind_freed(a, hooks);
}

static graft_status lora_prepare(adapter *a, backend *dev, weight_source *weights,
                                 graft_error *err) {
    lora_state *state = a->state;
    graft_status status = GRAFT_OK;
    bool has_variant = state->variant && state->variant->prepare;
    for (size_t i = 0; has_variant && i < state->n_layers && status == GRAFT_OK; i++)
        status = state->variant->prepare(&state->layers[i], dev, weights, err);
    for (size_t i = 0; i < state->n_tokens && status == GRAFT_OK; i++)
        status = trained_tokens_prepare(&state->tokens[i], dev, weights, err);
    return status;
}

static double lora_chain(adapter *a, backend *dev) {
    lora_state *state = a->state;
    if (state->variant && state->variant->chain)
        for (size_t i = 0; i < state->n_layers; i++)
            state->variant->chain(&state->layers[i], dev);
    return 0;
}

/* ---- Merging ---- */

static const lora_layer *layer_of(const adapter *a, size_t module) {
    const lora_state *state = a->state;
    for (size_t i = 0; i < state->n_layers; i++)
        if (state->layers[i].module == module)
            return &state->layers[i];
    return NULL;
}

/* w += s B A. On an embedding w is [vocab, hidden], and A^T B^T is added. */
static void merge_term(const lora_layer *l, const low_rank_term *term, backend *dev,
                       device_array *w) {
    const model_module *m = &l->adapter->modules[l->module];
    const matmul_call product = {
        .c = w,
        .c_stride = m->cols,
        .rows = m->rows,
        .cols = m->cols,
        .k = term->rank,
        .a = {l->is_embedding ? term->a : term->b, l->is_embedding ? m->rows : term->rank,
              l->is_embedding},
        .b = {l->is_embedding ? term->b : term->a, l->is_embedding ? term->rank : m->cols,
              l->is_embedding},
        .scale = (double)term->scale,
        .add = true,
    };
    dev->ops->matmul(dev, &product);
}

static graft_status lora_merge(adapter *a, backend *dev, size_t module, device_array *w,
                               device_array *bias, device_array *scratch, graft_error *err) {
    (void)scratch;
    const lora_state *state = a->state;
    const lora_layer *l = layer_of(a, module);
    for (size_t i = 0; i < state->n_tokens; i++)
        trained_tokens_merge(&state->tokens[i], dev, module, w);
    if (!l)
        return GRAFT_OK;
    if (l->bias && !bias)
        return error_set(err, GRAFT_E_UNSUPPORTED,
                         "lora_bias on %s cannot be merged: the layer has no bias to add it to",
                         a->modules[module].name);
    for (int32_t i = 0; i < l->n_terms; i++)
        merge_term(l, &l->terms[i], dev, w);
    if (state->variant && state->variant->merge)
        state->variant->merge(l, dev, w);
    if (l->bias)
        dev->ops->add_scaled(dev, bias, l->bias->value, l->scale, l->out);
    return GRAFT_OK;
}

static const char *lora_obstacle(const adapter *a) {
    const lora_state *state = a->state;
    return state->variant ? state->variant->obstacle : NULL;
}

const adapter_method lora_method = {
    .peft_type = "LORA",
    .name = "lora",
    .summary = "low-rank updates of linear layers and embeddings (LoRA, rsLoRA)",
    .family = "low rank",
    .paper = "Hu et al. 2021, arXiv:2106.09685",
    .target_kinds = TARGET_LINEAR | TARGET_EMBEDDING | TARGET_EXPERT,
    .keys = lora_keys,
    .shape = lora_shape,
    .destroy = lora_destroy,
    .init = lora_init_values,
    .bind = lora_bind,
    .prepare = lora_prepare,
    .chain = lora_chain,
    .merge = lora_merge,
    .merge_obstacle = lora_obstacle,
    .load = lora_load,
    .save = lora_save,
};
