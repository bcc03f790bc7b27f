/* AdaLoRA (Zhang et al., 2023; as PEFT's tuners/adalora): W' = W + s B diag(E) A, s = alpha /
 * init_r, with a penalty that keeps A and B orthonormal, and a budget of ranks over all layers that
 * falls from init_r to target_r a layer: after each update the triplets (row of A, column of B,
 * entry of E) with the least importance lose their entry of E. Files hold the ranks that are left
 * (rank_pattern).
 *
 * As a low-rank term: A' = diag(E) A, made once an update. */
#include "adapter/default_targets.h"
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LACKED(name_, fallback_, lacks_)                                                           \
    { .name = name_, .kind = KEY_LACKED, .fallback = fallback_, .lacks = lacks_ }

static const config_key adalora_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    EXCLUDE_KEY,
    FAN_IN_FAN_OUT_KEY,
    {.name = "r", .kind = KEY_STATED, .fallback = "8"}, /* init_r counts */
    {.name = "init_r", .kind = KEY_INTEGER, .fallback = "12", .min = 1, .max = LORA_RANK_MAX},
    {.name = "target_r", .kind = KEY_INTEGER, .fallback = "8", .min = 0, .max = LORA_RANK_MAX},
    {.name = "lora_alpha", .kind = KEY_OURS, .fallback = "8"},
    {.name = "lora_dropout", .kind = KEY_OURS, .fallback = "0"},
    {.name = "init_lora_weights", .kind = KEY_OURS},
    {.name = "tinit", .kind = KEY_INTEGER, .fallback = "0", .min = 0, .max = 1 << 30},
    {.name = "tfinal", .kind = KEY_INTEGER, .fallback = "0", .min = 0, .max = 1 << 30},
    {.name = "deltaT", .kind = KEY_INTEGER, .fallback = "1", .min = 1, .max = 1 << 30},
    {.name = "beta1", .kind = KEY_NUMBER, .fallback = "0.85", .min = 0, .max = 1},
    {.name = "beta2", .kind = KEY_NUMBER, .fallback = "0.85", .min = 0, .max = 1},
    {.name = "orth_reg_weight", .kind = KEY_NUMBER, .fallback = "0.5", .min = 0, .max = 1e9},
    {.name = "total_step", .kind = KEY_INTEGER, .fallback = "null", .min = 1, .max = 1 << 30},
    {.name = "rank_pattern", .kind = KEY_ANY, .fallback = "null"},
    LACKED("alora_invocation_tokens", "null", "activated LoRA"),
    LACKED("alpha_pattern", "{}", "alphas by module (PEFT's AdaLoRA does not read them)"),
    LACKED("arrow_config", "null", "Arrow routing"),
    LACKED("bias", "\"none\"", "biases that train"),
    LACKED("corda_config", "null", "CorDA initialisation"),
    LACKED("ensure_weight_tying", "false", "adapters on tied embeddings"),
    LACKED("eva_config", "null", "EVA initialisation"),
    LACKED("kasa_config", "null", "KaSA"),
    LACKED("layer_replication", "null", "layer replication"),
    LACKED("loftq_config", "{}", "LoftQ initialisation"),
    LACKED("lora_bias", "false", "a bias of B"),
    LACKED("lora_ga_config", "null", "LoRA-GA initialisation"),
    LACKED("megatron_config", "null", "Megatron's parallel layers"),
    {.name = "megatron_core", .kind = KEY_STATED, .fallback = "\"megatron.core\""},
    LACKED("monteclora_config", "null", "MonteCLoRA"),
    {.name = "qalora_group_size", .kind = KEY_STATED, .fallback = "16"},
    LACKED("target_parameters", "null", "adapters on bare parameters"),
    LACKED("trainable_token_indices", "null", "trainable token rows"),
    LACKED("use_bdlora", "null", "block-diagonal LoRA"),
    LACKED("use_dora", "false", "DoRA"),
    LACKED("use_qalora", "false", "QALoRA"),
    LACKED("use_rslora", "false", "rank-stabilised scaling"),
    LACKED("velora_config", "null", "VeLoRA"),
    {.name = NULL},
};

enum { PART_A, PART_B, PART_E, PARTS };

/* One tensor and what is known of its importance: moving averages of |value * gradient|, and of how
 * far that strays. Kept as fixed tensors, so that a resumed run goes on with them. */
typedef struct adalora_part {
    const adapter_tensor *value, *sensitivity, *uncertainty;
} adalora_part;

typedef struct adalora_triplets { /* of one module */
    size_t module;
    int64_t rank, in, out;
    adalora_part parts[PARTS];
    const adapter_tensor *kept; /* [rank] 0: the entry of E is held at zero */
    size_t term;                /* SIZE_MAX: no rank is left */
} adalora_triplets;

typedef struct adalora_state {
    adalora_triplets *layers;
    size_t n_layers;
    int64_t n_triplets, rank_max;
    size_t room;       /* derived: [2, largest tensor] */
    size_t covariance; /* derived: [rank_max, rank_max] */
    size_t scores;     /* derived: [rank_max] */
    double *host;      /* [rank_max, rank_max] */
    double *score;     /* [n_triplets], and again, to be sorted */
} adalora_state;

static const char *const names[PARTS] = {"lora_A", "lora_B", "lora_E"};

/* ---- Shape ---- */

/* "model.layers.0.self_attn.q_proj.lora_E" */
static void pattern_key(char *out, size_t capacity, const adapter *a, size_t module) {
    snprintf(out, capacity, "%s.lora_E", a->modules[module].name);
}

/* The module's entry of rank_pattern: a boolean for each of init_r ranks; NULL: all are left. */
static graft_status pattern_of(const json_t **out, const adapter *a, size_t module,
                               graft_error *err) {
    char key[160];
    const json_t *patterns = config_value(&a->config, "rank_pattern");
    pattern_key(key, sizeof key, a, module);
    *out = NULL;
    if (json_is_null(patterns) || (json_is_object(patterns) && !json_object_size(patterns)))
        return GRAFT_OK;
    *out = json_object_get(patterns, key);
    if (!json_is_array(*out) ||
        json_array_size(*out) != (size_t)config_integer(&a->config, "init_r"))
        return error_set(err, GRAFT_E_INPUT,
                         "rank_pattern: expected %lld booleans (init_r) for %s, found %s",
                         (long long)config_integer(&a->config, "init_r"), key,
                         *out ? json_type_name(*out) : "nothing");
    return GRAFT_OK;
}

static int64_t ranks_left(const adapter *a, const json_t *pattern) {
    int64_t left = 0;
    for (size_t i = 0; i < json_array_size(pattern); i++)
        left += json_is_true(json_array_get(pattern, i));
    return pattern ? left : config_integer(&a->config, "init_r");
}

static bool add_statistic(adapter *a, size_t module, const char *part, const char *what,
                          int64_t rows, int64_t cols, graft_error *err) {
    char name[48];
    snprintf(name, sizeof name, "%s.%s", part, what);
    adapter_tensor *t = shape_matrix(a, module, name, rows, cols, err);
    if (!t)
        return false;
    t->is_fixed = t->is_rebuilt = true;
    return true;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    const json_t *pattern;
    graft_status status = pattern_of(&pattern, a, module, err);
    if (status != GRAFT_OK)
        return status;
    int64_t rank = ranks_left(a, pattern);
    const int64_t shapes[PARTS][2] = {{rank, m->cols}, {m->rows, rank}, {rank, 1}};
    bool added = true;
    for (int part = 0; part < PARTS; part++)
        added = added && shape_tensor(a, module, names[part], 2, shapes[part], err) &&
                add_statistic(a, module, names[part], "sensitivity", shapes[part][0],
                              shapes[part][1], err) &&
                add_statistic(a, module, names[part], "uncertainty", shapes[part][0],
                              shapes[part][1], err);
    adapter_tensor *kept =
        added ? shape_integers(a, module, "lora_E.kept", DTYPE_U8, rank, 0, err) : NULL;
    if (!kept)
        return GRAFT_E_MEMORY;
    kept->is_rebuilt = true;
    if (rank == 0)
        return GRAFT_OK;
    double init_r = (double)config_integer(&a->config, "init_r"),
           alpha = a->config.lora_alpha > 0 ? a->config.lora_alpha : init_r;
    return derived_term_add(a, module, (int32_t)rank, alpha / (init_r + 1e-5),
                            (float)a->config.lora_dropout, true, false, err);
}

static void place_layer(adapter *a, size_t module, size_t *terms) {
    adalora_state *s = a->state;
    adalora_triplets *l = &s->layers[s->n_layers++];
    *l = (adalora_triplets){.module = module,
                            .in = a->modules[module].cols,
                            .out = a->modules[module].rows,
                            .kept = adapter_tensor_at(a, module, "lora_E.kept")};
    for (int part = 0; part < PARTS; part++) {
        char name[48];
        l->parts[part].value = adapter_tensor_at(a, module, names[part]);
        snprintf(name, sizeof name, "%s.sensitivity", names[part]);
        l->parts[part].sensitivity = adapter_tensor_at(a, module, name);
        snprintf(name, sizeof name, "%s.uncertainty", names[part]);
        l->parts[part].uncertainty = adapter_tensor_at(a, module, name);
    }
    l->rank = l->parts[PART_E].value->count;
    l->term = l->rank ? (*terms)++ : SIZE_MAX;
    s->n_triplets += l->rank;
    s->rank_max = l->rank > s->rank_max ? l->rank : s->rank_max;
}

static graft_status make_state(adapter *a, graft_error *err) {
    adalora_state *s = a->state = mem_array(1, sizeof *s);
    size_t terms = 0;
    int64_t largest = 0;
    if (!s || !(s->layers = mem_array(a->n_modules, sizeof *s->layers)))
        return error_memory(err, a->n_modules * sizeof *s->layers, "the adapter's triplets");
    for (size_t i = 0; i < a->n_modules; i++)
        if (a->targets[i].is_target)
            place_layer(a, i, &terms);
    for (size_t i = 0; i < a->n_tensors; i++)
        largest = a->tensors[i].count > largest ? a->tensors[i].count : largest;
    s->host = mem_array((size_t)(s->rank_max * s->rank_max), sizeof *s->host);
    s->score = mem_array(2 * (size_t)s->n_triplets, sizeof *s->score);
    s->room = shape_derived(a, 2 * largest, false, err);
    s->covariance = shape_derived(a, s->rank_max * s->rank_max, false, err);
    s->scores = shape_derived(a, s->rank_max, false, err);
    return s->host && s->score && s->room != SIZE_MAX && s->covariance != SIZE_MAX &&
                   s->scores != SIZE_MAX
               ? GRAFT_OK
               : error_memory(err, (size_t)s->n_triplets * sizeof *s->score, "triplets");
}

/* The schedule needs steps between tinit and total - tfinal. */
static graft_status check_schedule(const adapter *a, int64_t total, graft_error *err) {
    int64_t tinit = config_integer(&a->config, "tinit"),
            tfinal = config_integer(&a->config, "tfinal");
    if (tinit < total - tfinal)
        return GRAFT_OK;
    return error_set(err, GRAFT_E_INPUT,
                     "adalora: tinit %lld and tfinal %lld leave none of %lld steps to lower the "
                     "budget in: make them smaller, or train longer",
                     (long long)tinit, (long long)tfinal, (long long)total);
}

static graft_status adalora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    int64_t total = config_integer(&a->config, "total_step");
    graft_status status = total ? check_schedule(a, total, err) : GRAFT_OK;
    if (status == GRAFT_OK)
        status = shape_each_target(a, add_module, sink, err);
    return status == GRAFT_OK ? make_state(a, err) : status;
}

static void adalora_destroy(adapter *a) {
    adalora_state *s = a->state;
    if (!s)
        return;
    free(s->layers);
    free(s->host);
    free(s->score);
    free(s);
    a->state = NULL;
}

/* ---- First values ---- */

static void forget_importance(const adapter *a, backend *dev) {
    const adalora_state *s = a->state;
    for (size_t i = 0; i < s->n_layers; i++)
        for (int part = 0; part < PARTS; part++) {
            const adalora_part *p = &s->layers[i].parts[part];
            dev->ops->fill(dev, p->sensitivity->value, 0, p->sensitivity->count);
            dev->ops->fill(dev, p->uncertainty->value, 0, p->uncertainty->count);
        }
}

static void keep_all(const adapter *a, backend *dev) {
    const adalora_state *s = a->state;
    forget_importance(a, dev);
    for (size_t i = 0; i < s->n_layers; i++)
        for (int64_t k = 0; k < s->layers[i].rank; k++)
            s->layers[i].kept->integers[k] = 1;
}

static graft_status adalora_init(adapter *a, backend *dev, const weight_source *weights,
                                 rng *random, graft_error *err) {
    const adalora_state *s = a->state;
    bool initialises = a->config.init != LORA_INIT_RANDOM;
    for (size_t i = 0; i < s->n_layers; i++)
        for (int part = 0; part < PARTS; part++) {
            const adapter_tensor *t = s->layers[i].parts[part].value;
            if (initialises && part == PART_E)
                shape_fill(t, dev, DRAW_CONSTANT, 0, random);
            else
                shape_fill(t, dev, DRAW_NORMAL, initialises ? 0.02 : 1, random);
        }
    keep_all(a, dev);
    return shape_init_freed(a, dev, weights, err);
}

static graft_status adalora_load(adapter *a, backend *dev, const weight_source *weights,
                                 const char *folder, graft_error *err) {
    keep_all(a, dev);
    return peft_load(a, dev, weights, folder, err);
}

/* ---- The term and the penalty ---- */

static void adalora_bind(adapter *a, model_hooks *hooks) {
    const adalora_state *s = a->state;
    for (size_t i = 0; i < s->n_layers; i++) {
        const adalora_triplets *l = &s->layers[i];
        if (l->term == SIZE_MAX)
            continue;
        a->terms[l->term].b = l->parts[PART_B].value->value;
        a->terms[l->term].db = l->parts[PART_B].value->gradient;
    }
    derived_terms_bind(a, hooks);
}

static graft_status adalora_prepare(adapter *a, backend *dev, weight_source *weights,
                                    graft_error *err) {
    const adalora_state *s = a->state;
    (void)weights;
    (void)err;
    for (size_t i = 0; i < s->n_layers; i++) {
        const adalora_triplets *l = &s->layers[i];
        if (l->term != SIZE_MAX)
            dev->ops->scale_rows(dev, derived_term_a(a, l->term)->value,
                                 l->parts[PART_A].value->value, l->parts[PART_E].value->value,
                                 l->rank, l->in, false);
    }
    return GRAFT_OK;
}

/* |C - I| of C = A A^T or B^T B; its gradient, times weight, is added. */
static double add_penalty(const adapter *a, backend *dev, const adalora_triplets *l, bool is_b,
                          double weight) {
    const adalora_state *s = a->state;
    const adapter_tensor *t = l->parts[is_b ? PART_B : PART_A].value;
    device_array *covariance = a->derived[s->covariance].value;
    int64_t k = l->rank, stride = is_b ? k : l->in;
    double squares = 0;
    dev->ops->matmul(dev, &(matmul_call){.c = covariance,
                                         .c_stride = k,
                                         .rows = k,
                                         .cols = k,
                                         .k = is_b ? l->out : l->in,
                                         .a = {t->value, stride, is_b},
                                         .b = {t->value, stride, !is_b},
                                         .scale = 1});
    dev->ops->download_f64(dev, s->host, covariance, k * k);
    for (int64_t i = 0; i < k * k; i++) {
        s->host[i] -= i / k == i % k;
        squares += s->host[i] * s->host[i];
    }
    if (squares == 0)
        return 0;
    dev->ops->upload(dev, covariance, s->host, DTYPE_F64, k * k);
    const matrix apart = {covariance, k, false}, value = {t->value, stride, false};
    dev->ops->matmul(dev, &(matmul_call){.c = t->gradient,
                                         .c_stride = stride,
                                         .rows = t->shape[0],
                                         .cols = t->shape[1],
                                         .k = k,
                                         .a = is_b ? value : apart,
                                         .b = is_b ? apart : value,
                                         .scale = 2 * weight / sqrt(squares),
                                         .add = true});
    return sqrt(squares);
}

static double adalora_chain(adapter *a, backend *dev) {
    const adalora_state *s = a->state;
    double weight = config_number(&a->config, "orth_reg_weight") / (2 * (double)s->n_layers),
           penalty = 0;
    for (size_t i = 0; i < s->n_layers; i++) {
        const adalora_triplets *l = &s->layers[i];
        if (l->term == SIZE_MAX)
            continue;
        const device_array *d_made = derived_term_a(a, l->term)->gradient;
        const adapter_tensor *right = l->parts[PART_A].value, *e = l->parts[PART_E].value;
        dev->ops->scale_rows(dev, right->gradient, d_made, e->value, l->rank, l->in, true);
        dev->ops->sum_rows(dev, e->gradient, d_made, right->value, l->rank, l->in, true);
        penalty += add_penalty(a, dev, l, false, weight) + add_penalty(a, dev, l, true, weight);
    }
    return weight * penalty;
}

/* ---- The budget ---- */

/* x becomes |x|; room is as large. */
static void make_absolute(backend *dev, device_array *x, device_array *room, int64_t n) {
    dev->ops->copy(dev, room, x, n);
    dev->ops->scale(dev, room, -1, n);
    dev->ops->activation_fwd(dev, x, x, ACTIVATION_RELU, n);
    dev->ops->activation_fwd(dev, room, room, ACTIVATION_RELU, n);
    dev->ops->add(dev, x, room, n);
}

static void measure_part(const adapter *a, backend *dev, const adalora_part *p,
                         double gradient_scale) {
    const adalora_state *s = a->state;
    int64_t n = p->value->count;
    device_array *now = a->derived[s->room].value, *room = array_at(dev, now, n);
    double beta1 = config_number(&a->config, "beta1"), beta2 = config_number(&a->config, "beta2");
    dev->ops->mul(dev, now, p->value->value, p->value->gradient, n, false);
    dev->ops->scale(dev, now, gradient_scale, n);
    make_absolute(dev, now, room, n);
    dev->ops->scale(dev, p->sensitivity->value, beta1, n);
    dev->ops->add_scaled(dev, p->sensitivity->value, now, 1 - beta1, n);
    dev->ops->add_scaled(dev, now, p->sensitivity->value, -1, n);
    make_absolute(dev, now, room, n);
    dev->ops->scale(dev, p->uncertainty->value, beta2, n);
    dev->ops->add_scaled(dev, p->uncertainty->value, now, 1 - beta2, n);
}

/* score [rank] += the mean over a row of A, a column of B, or the entry of E, of sensitivity times
 * uncertainty. */
static void add_score(const adapter *a, backend *dev, const adalora_triplets *l, int part,
                      double *score) {
    const adalora_state *s = a->state;
    const adalora_part *p = &l->parts[part];
    device_array *sums = a->derived[s->scores].value;
    double length = part == PART_A ? (double)l->in : part == PART_B ? (double)l->out : 1;
    dev->ops->fill(dev, sums, 0, l->rank);
    if (part == PART_B)
        dev->ops->sum_cols(dev, sums, p->sensitivity->value, p->uncertainty->value, l->out, l->rank,
                           NULL);
    else
        dev->ops->sum_rows(dev, sums, p->sensitivity->value, p->uncertainty->value, l->rank,
                           p->value->shape[1], false);
    dev->ops->download_f64(dev, s->host, sums, l->rank);
    for (int64_t k = 0; k < l->rank; k++)
        score[k] += s->host[k] / length;
}

static int by_size(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Holds all but `budget` triplets' entries of E at zero: those whose score is at most the
 * (n - budget)th. */
static void choose_triplets(const adapter *a, backend *dev, int64_t budget) {
    const adalora_state *s = a->state;
    double *score = s->score, *sorted = score + s->n_triplets;
    memset(score, 0, (size_t)s->n_triplets * sizeof *score);
    for (size_t i = 0, at = 0; i < s->n_layers; at += (size_t)s->layers[i++].rank)
        for (int part = 0; part < PARTS && s->layers[i].rank; part++)
            add_score(a, dev, &s->layers[i], part, score + at);
    memcpy(sorted, score, (size_t)s->n_triplets * sizeof *sorted);
    qsort(sorted, (size_t)s->n_triplets, sizeof *sorted, by_size);
    int64_t lost = s->n_triplets - budget;
    for (size_t i = 0, at = 0; i < s->n_layers; at += (size_t)s->layers[i++].rank)
        for (int64_t k = 0; k < s->layers[i].rank; k++)
            s->layers[i].kept->integers[k] = lost < 1 || score[at + (size_t)k] > sorted[lost - 1];
}

static void hold_at_zero(const adapter *a, backend *dev) {
    const adalora_state *s = a->state;
    for (size_t i = 0; i < s->n_layers; i++) {
        const adalora_triplets *l = &s->layers[i];
        for (int64_t k = 0; k < l->rank; k++)
            if (!l->kept->integers[k])
                dev->ops->fill(dev, array_at(dev, l->parts[PART_E].value->value, k), 0, 1);
    }
}

/* Between tinit and total - tfinal the budget falls as a cube. */
static int64_t budget_at(const adapter *a, int64_t step, int64_t total) {
    const adalora_state *s = a->state;
    int64_t tinit = config_integer(&a->config, "tinit"),
            tfinal = config_integer(&a->config, "tfinal"),
            target = config_integer(&a->config, "target_r") * (int64_t)s->n_layers;
    if (step <= tinit)
        return s->n_triplets;
    double left = 1 - (double)(step - tinit) / (double)(total - tfinal - tinit);
    return (int64_t)((double)(s->n_triplets - target) * left * left * left + (double)target);
}

static graft_status adalora_updated(adapter *a, backend *dev, adapter_progress progress,
                                    graft_error *err) {
    const adalora_state *s = a->state;
    int64_t total = config_integer(&a->config, "total_step"), step = progress.step,
            tinit = config_integer(&a->config, "tinit"),
            last = (total ? total : progress.total_steps) - config_integer(&a->config, "tfinal");
    if (!total) { /* not said: the run's length, which the file then says */
        total = progress.total_steps;
        graft_status status = check_schedule(a, total, err);
        if (status != GRAFT_OK)
            return status;
        if (json_object_set_new(a->config.fields, "total_step", json_integer(total)) != 0)
            return error_memory(err, 64, "total_step");
    }
    if (step < last)
        for (size_t i = 0; i < s->n_layers; i++)
            for (int part = 0; part < PARTS; part++)
                measure_part(a, dev, &s->layers[i].parts[part], progress.gradient_scale);
    bool is_due = step > tinit && step < last && step % config_integer(&a->config, "deltaT") == 0;
    if (is_due || step == last)
        choose_triplets(a, dev, budget_at(a, step, total));
    if (is_due || step >= last)
        hold_at_zero(a, dev);
    if (step == last)
        forget_importance(a, dev);
    return GRAFT_OK;
}

/* ---- Files ---- */

static bool is_cut(const adapter *a) {
    const adalora_state *s = a->state;
    for (size_t i = 0; i < s->n_layers; i++)
        for (int64_t k = 0; k < s->layers[i].rank; k++)
            if (!s->layers[i].kept->integers[k])
                return true;
    return false;
}

/* The ranks that are left of init_r: those of the file that was read, less what was cut since. */
static json_t *pattern_left(const adapter *a, const adalora_triplets *l) {
    const json_t *before = NULL;
    graft_error ignored;
    json_t *left = json_array();
    int64_t at = 0, init_r = config_integer(&a->config, "init_r");
    pattern_of(&before, a, l->module, &ignored);
    for (int64_t i = 0; i < init_r; i++) {
        bool was_left = !before || json_is_true(json_array_get(before, (size_t)i));
        json_array_append_new(left, json_boolean(was_left && l->kept->integers[at]));
        at += was_left;
    }
    return left;
}

static graft_status write_pattern(adapter_config *config, const adapter *a, graft_error *err) {
    const adalora_state *s = a->state;
    json_t *patterns = json_object();
    bool complete = patterns != NULL;
    for (size_t i = 0; i < s->n_layers; i++) {
        char key[160];
        pattern_key(key, sizeof key, a, s->layers[i].module);
        complete =
            complete && json_object_set_new(patterns, key, pattern_left(a, &s->layers[i])) == 0;
    }
    if (complete && json_object_set_new(config->fields, "rank_pattern", patterns) == 0)
        return GRAFT_OK;
    return error_memory(err, 1024, "rank_pattern");
}

/* to [.., left] = the columns of from [rows, rank] that are kept, or rows (cols > 0: of so many).
 */
static graft_status copy_kept(const adalora_triplets *l, backend *dev, const adapter_tensor *to,
                              const adapter_tensor *from, bool is_b, graft_error *err) {
    int64_t n = 0, rows = from->shape[0], cols = from->shape[1];
    double *values = mem_array((size_t)from->count, sizeof *values);
    if (!values)
        return error_memory(err, (size_t)from->count * sizeof *values, from->key);
    dev->ops->download_f64(dev, values, from->value, from->count);
    for (int64_t i = 0; i < rows * cols; i++)
        if (l->kept->integers[is_b ? i % cols : i / cols])
            values[n++] = values[i];
    dev->ops->upload(dev, to->value, values, DTYPE_F64, to->count);
    free(values);
    return GRAFT_OK;
}

static graft_status copy_left(const adapter *to, const adapter *from, backend *dev,
                              graft_error *err) {
    const adalora_state *s = from->state;
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < s->n_layers && status == GRAFT_OK; i++)
        for (int part = 0; part < PARTS && status == GRAFT_OK; part++)
            status = copy_kept(&s->layers[i], dev,
                               adapter_tensor_at(to, s->layers[i].module, names[part]),
                               s->layers[i].parts[part].value, part == PART_B, err);
    for (size_t i = 0; i < to->n_tensors; i++)
        if (to->tensors[i].role == ROLE_FREED)
            dev->ops->copy(dev, to->tensors[i].value, from->tensors[i].value, to->tensors[i].count);
    return status;
}

/* The adapter without what was cut, as one of its own: it is what a reader will make. */
static graft_status save_left(const adapter *a, backend *dev, const weight_source *weights,
                              const char *folder, const char *base_name, graft_error *err) {
    adapter_config config = {0};
    adapter *left = NULL;
    void *memory = NULL;
    layout counted = layout_counting();
    graft_status status = adapter_config_copy(&config, &a->config, err);
    if (status == GRAFT_OK)
        status = write_pattern(&config, a, err);
    if (status == GRAFT_OK)
        status = adapter_create(&left, &config, a->spec, a->job, NULL, err);
    if (status == GRAFT_OK) {
        adapter_layout(left, &counted, dev->element_bytes, false);
        if (!(memory = dev->ops->alloc(dev, counted.high_water)))
            status = error_memory(err, counted.high_water, "an adapter without its cut ranks");
    }
    if (status == GRAFT_OK) {
        layout assigned = layout_over(memory, counted.high_water);
        adapter_layout(left, &assigned, dev->element_bytes, false);
        status = copy_left(left, a, dev, err);
    }
    if (status == GRAFT_OK)
        status = peft_save(left, dev, weights, folder, base_name, err);
    if (memory)
        dev->ops->release(dev, memory);
    adapter_destroy(&left);
    adapter_config_free(&config);
    return status;
}

static graft_status adalora_save(const adapter *a, backend *dev, const weight_source *weights,
                                 const char *folder, const char *base_name, graft_error *err) {
    return is_cut(a) ? save_left(a, dev, weights, folder, base_name, err)
                     : peft_save(a, dev, weights, folder, base_name, err);
}

const adapter_method adalora_method = {
    .peft_type = "ADALORA",
    .name = "adalora",
    .summary = "low-rank updates that share a falling budget of ranks (AdaLoRA)",
    .family = "low rank",
    .paper = "Zhang et al. 2023, arXiv:2303.10512",
    .target_kinds = TARGET_LINEAR,
    .keys = adalora_keys,
    .default_targets = default_targets_of_older_models,
    .shape = adalora_shape,
    .destroy = adalora_destroy,
    .init = adalora_init,
    .bind = adalora_bind,
    .prepare = adalora_prepare,
    .chain = adalora_chain,
    .updated = adalora_updated,
    .merge = derived_terms_merge,
    .load = adalora_load,
    .save = adalora_save,
};
