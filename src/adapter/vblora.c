/* VB-LoRA (Li et al., 2024; as PEFT's tuners/vblora): A and B of every layer are cut into vectors,
 * and each vector is a mixture of k of one shared bank's: those with the largest of its logits,
 * weighted by their softmax. An adapter saved with the k weights only (save_only_topk_weights) can
 * be used, not trained on. */
#include "adapter/default_targets.h"
#include "adapter/derived_terms.h"
#include "adapter/methods.h"
#include "base/memory.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static const config_key vblora_keys[] = {
    TARGET_KEYS,
    LAYER_KEYS,
    EXCLUDE_KEY,
    FAN_IN_FAN_OUT_KEY,
    {.name = "bias", .kind = KEY_OURS},
    {.name = "r", .kind = KEY_OURS, .fallback = "4"},
    {.name = "num_vectors", .kind = KEY_INTEGER, .fallback = "256", .min = 1, .max = 1 << 24},
    {.name = "vector_length", .kind = KEY_INTEGER, .fallback = "256", .min = 1, .max = 1 << 24},
    {.name = "topk", .kind = KEY_INTEGER, .fallback = "2", .min = 1, .max = 256},
    {.name = "save_only_topk_weights", .kind = KEY_FLAG, .fallback = "false"},
    {.name = "init_vector_bank_bound", .kind = KEY_NUMBER, .fallback = "0.02"},
    {.name = "init_logits_std", .kind = KEY_NUMBER, .fallback = "0.1"},
    {.name = "vblora_dropout", .kind = KEY_NUMBER, .fallback = "0.0", .min = 0, .max = 0.999},
    {.name = NULL},
};

static const char bank_key[] = "base_model.vblora_vector_bank";

/* The vectors of one factor, n of them, and what each is made of. */
typedef struct mixture {
    const adapter_tensor *logits;            /* [.., .., num_vectors] */
    const adapter_tensor *indices, *weights; /* of a file with the k largest only; else NULL */
    bool is_b;
    int64_t n;
    int32_t *chosen; /* [k, n] vectors of the bank */
    double *shares;  /* [k, n] */
} mixture;

typedef struct vblora_state {
    int64_t n_vectors, length, k;
    mixture *mixtures;      /* [2 n_terms]: A, B of each term */
    int64_t n_max;          /* of a mixture */
    double *logits;         /* [n_max, n_vectors], and [k, n_max] of shares: room on the host */
    size_t shares, vectors; /* derived: [k, n_max], [2, n_max, length] */
    size_t identity;        /* derived: [r, r] */
} vblora_state;

static const adapter_tensor *bank_of(const adapter *a) {
    return adapter_tensor_at(a, (size_t)MODULE_NONE, bank_key);
}

/* ---- Shape ---- */

static bool has_whole_logits(const adapter *a) {
    return !config_flag(&a->config, "save_only_topk_weights");
}

static dtype index_type(int64_t n_vectors) {
    return n_vectors < 1 << 8 ? DTYPE_U8 : n_vectors < 1 << 15 ? DTYPE_I16 : DTYPE_I32;
}

static bool add_logits(adapter *a, size_t module, char letter, int64_t rows, int64_t cols,
                       graft_error *err) {
    int64_t n_vectors = config_integer(&a->config, "num_vectors"),
            k = config_integer(&a->config, "topk");
    char name[48];
    const int64_t shape[] = {rows, cols, n_vectors}, rest[] = {rows, cols, k - 1};
    snprintf(name, sizeof name, "vblora_logits_%c", letter);
    adapter_tensor *t = shape_tensor(a, module, name, 3, shape, err);
    if (!t || has_whole_logits(a))
        return t;
    t->is_rebuilt = true;
    snprintf(name, sizeof name, "vblora_logits_%c_topk_indices", letter);
    if (!(t = shape_integers(a, module, name, index_type(n_vectors), rows * cols, k, err)))
        return false;
    t->rank = 3;
    t->shape[0] = rows;
    t->shape[1] = cols;
    t->shape[2] = k;
    snprintf(name, sizeof name, "vblora_logits_%c_topk_weights", letter);
    if (!(t = shape_tensor(a, module, name, 3, rest, err)))
        return false;
    t->is_fixed = true;
    return true;
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t length = config_integer(&a->config, "vector_length");
    if (m->cols % length || m->rows % length)
        return error_set(err, GRAFT_E_INPUT,
                         "vector_length: %lld divides not both sides of %s [%lld, %lld]",
                         (long long)length, m->name, (long long)m->rows, (long long)m->cols);
    bool added = add_logits(a, module, 'A', a->config.r, m->cols / length, err) &&
                 add_logits(a, module, 'B', m->rows / length, a->config.r, err);
    return added ? derived_term_add(a, module, a->config.r, 1,
                                    (float)config_number(&a->config, "vblora_dropout"), true, true,
                                    err)
                 : GRAFT_E_MEMORY;
}

static graft_status make_mixture(adapter *a, size_t i, graft_error *err) {
    static const char *const names[][3] = {
        {"vblora_logits_A", "vblora_logits_A_topk_indices", "vblora_logits_A_topk_weights"},
        {"vblora_logits_B", "vblora_logits_B_topk_indices", "vblora_logits_B_topk_weights"}};
    vblora_state *s = a->state;
    mixture *m = &s->mixtures[i];
    size_t module = derived_term_at(a, i / 2)->module;
    m->is_b = i % 2;
    m->logits = adapter_tensor_at(a, module, names[i % 2][0]);
    m->indices = adapter_tensor_at(a, module, names[i % 2][1]);
    m->weights = adapter_tensor_at(a, module, names[i % 2][2]);
    m->n = m->logits->shape[0] * m->logits->shape[1];
    s->n_max = m->n > s->n_max ? m->n : s->n_max;
    m->chosen = mem_array((size_t)(s->k * m->n), sizeof *m->chosen);
    m->shares = mem_array((size_t)(s->k * m->n), sizeof *m->shares);
    return m->chosen && m->shares
               ? GRAFT_OK
               : error_memory(err, (size_t)(s->k * m->n) * sizeof *m->shares, m->logits->key);
}

static graft_status make_state(adapter *a, graft_error *err) {
    vblora_state *s = a->state;
    int64_t r = a->config.r;
    if (!(s->mixtures = mem_array(2 * a->n_terms, sizeof *s->mixtures)))
        return error_memory(err, 2 * a->n_terms * sizeof *s->mixtures, "the adapter's mixtures");
    for (size_t i = 0; i < 2 * a->n_terms; i++) {
        graft_status status = make_mixture(a, i, err);
        if (status != GRAFT_OK)
            return status;
    }
    size_t room = (size_t)(s->n_max * (s->n_vectors + s->k));
    if (!(s->logits = mem_array(room, sizeof *s->logits)))
        return error_memory(err, room * sizeof *s->logits, "logits");
    s->shares = shape_derived(a, s->k * s->n_max, false, err);
    s->vectors = shape_derived(a, 2 * s->n_max * s->length, false, err);
    s->identity = shape_derived(a, r * r, false, err);
    return s->shares == SIZE_MAX || s->vectors == SIZE_MAX || s->identity == SIZE_MAX
               ? GRAFT_E_MEMORY
               : GRAFT_OK;
}

static graft_status vblora_shape(adapter *a, const message_sink *sink, graft_error *err) {
    vblora_state *s = a->state = mem_array(1, sizeof *s);
    if (!s)
        return error_memory(err, sizeof *s, "the adapter's mixtures");
    s->n_vectors = config_integer(&a->config, "num_vectors");
    s->length = config_integer(&a->config, "vector_length");
    s->k = config_integer(&a->config, "topk");
    if (s->k > s->n_vectors)
        return error_set(err, GRAFT_E_INPUT, "topk: %lld is more than num_vectors %lld",
                         (long long)s->k, (long long)s->n_vectors);
    if (!shape_matrix(a, (size_t)MODULE_NONE, bank_key, s->n_vectors, s->length, err))
        return GRAFT_E_MEMORY;
    graft_status status = shape_each_target(a, add_module, sink, err);
    return status == GRAFT_OK ? make_state(a, err) : status;
}

static void vblora_destroy(adapter *a) {
    vblora_state *s = a->state;
    if (!s)
        return;
    for (size_t i = 0; s->mixtures && i < 2 * a->n_terms; i++) {
        free(s->mixtures[i].chosen);
        free(s->mixtures[i].shares);
    }
    free(s->mixtures);
    free(s->logits);
    free(s);
    a->state = NULL;
}

/* ---- Mixing ---- */

/* The k largest logits of each vector, largest first, and their softmax. */
static void choose(const vblora_state *s, backend *dev, const mixture *m) {
    dev->ops->download_f64(dev, s->logits, m->logits->value, m->logits->count);
    for (int64_t n = 0; n < m->n; n++) {
        const double *logits = s->logits + n * s->n_vectors;
        double sum = 0, largest = 0;
        for (int64_t i = 0; i < s->k; i++) {
            int32_t best = -1;
            for (int32_t v = 0; v < s->n_vectors; v++) {
                bool is_taken = false;
                for (int64_t j = 0; j < i; j++)
                    is_taken = is_taken || m->chosen[j * m->n + n] == v;
                if (!is_taken && (best < 0 || logits[v] > logits[best]))
                    best = v;
            }
            largest = i == 0 ? logits[best] : largest;
            m->chosen[i * m->n + n] = best;
            m->shares[i * m->n + n] = exp(logits[best] - largest);
            sum += m->shares[i * m->n + n];
        }
        for (int64_t i = 0; i < s->k; i++)
            m->shares[i * m->n + n] /= sum;
    }
}

/* B's vectors [tiles, r, length] are its columns' pieces: B [tiles, length, r]; and back. */
static void turn(const adapter *a, backend *dev, const mixture *m, device_array *to,
                 const device_array *from, bool back) {
    const vblora_state *s = a->state;
    const device_array *identity = a->derived[s->identity].value;
    int64_t r = a->config.r;
    matmul_call call = {.c = to,
                        .c_stride = back ? s->length : r,
                        .rows = back ? r : s->length,
                        .cols = back ? s->length : r,
                        .k = r,
                        .a = {from, s->length, true},
                        .b = {identity, r, false},
                        .scale = 1,
                        .batch = m->n / r,
                        .c_step = r * s->length,
                        .a_step = r * s->length};
    if (back) {
        call.a = (matrix){identity, r, false};
        call.b = (matrix){from, r, true};
        call.a_step = 0;
        call.b_step = r * s->length;
    }
    dev->ops->matmul(dev, &call);
}

static void mix(const adapter *a, backend *dev, const mixture *m, device_array *made) {
    const vblora_state *s = a->state;
    device_array *vector = a->derived[s->vectors].value,
                 *sum = m->is_b ? array_at(dev, vector, s->n_max * s->length) : made,
                 *shares = a->derived[s->shares].value;
    dev->ops->upload(dev, shares, m->shares, DTYPE_F64, s->k * m->n);
    for (int64_t i = 0; i < s->k; i++) {
        dev->ops->gather_rows(dev, vector, bank_of(a)->value, m->chosen + i * m->n, m->n,
                              s->length);
        dev->ops->scale_rows(dev, sum, vector, array_at(dev, shares, i * m->n), m->n, s->length,
                             i > 0);
    }
    if (m->is_b)
        turn(a, dev, m, made, sum, false);
}

static graft_status vblora_prepare(adapter *a, backend *dev, weight_source *weights,
                                   graft_error *err) {
    const vblora_state *s = a->state;
    int32_t r = a->config.r;
    (void)weights;
    (void)err;
    for (int32_t i = 0; i < r; i++) {
        device_array *row = array_at(dev, a->derived[s->identity].value, (int64_t)i * r);
        dev->ops->fill(dev, row, 0, r);
        dev->ops->fill(dev, array_at(dev, row, i), 1, 1);
    }
    for (size_t i = 0; i < 2 * a->n_terms; i++) {
        const mixture *m = &s->mixtures[i];
        choose(s, dev, m);
        mix(a, dev, m, (m->is_b ? derived_term_b(a, i / 2) : derived_term_a(a, i / 2))->value);
    }
    return GRAFT_OK;
}

/* ---- Backward ---- */

/* Through the softmax: d_shares [k, n] become the gradient of the logits. */
static void chain_logits(const vblora_state *s, backend *dev, const mixture *m,
                         const double *d_shares) {
    double *d_logits = s->logits;
    for (int64_t i = 0; i < m->logits->count; i++)
        d_logits[i] = 0;
    for (int64_t n = 0; n < m->n; n++) {
        double mean = 0;
        for (int64_t i = 0; i < s->k; i++)
            mean += m->shares[i * m->n + n] * d_shares[i * m->n + n];
        for (int64_t i = 0; i < s->k; i++)
            d_logits[n * s->n_vectors + m->chosen[i * m->n + n]] =
                m->shares[i * m->n + n] * (d_shares[i * m->n + n] - mean);
    }
    /* Nothing else adds to the logits' gradient. */
    dev->ops->upload(dev, m->logits->gradient, d_logits, DTYPE_F64, m->logits->count);
}

static void chain_mixture(const adapter *a, backend *dev, const mixture *m,
                          const device_array *d_made) {
    const vblora_state *s = a->state;
    device_array *vector = a->derived[s->vectors].value,
                 *turned = array_at(dev, vector, s->n_max * s->length),
                 *shares = a->derived[s->shares].value;
    const device_array *d_sum = d_made;
    if (m->is_b) {
        turn(a, dev, m, turned, d_made, true);
        d_sum = turned;
    }
    dev->ops->upload(dev, shares, m->shares, DTYPE_F64, s->k * m->n);
    for (int64_t i = 0; i < s->k; i++) {
        const int32_t *chosen = m->chosen + i * m->n;
        device_array *share = array_at(dev, shares, i * m->n);
        dev->ops->scale_rows(dev, vector, d_sum, share, m->n, s->length, false);
        dev->ops->scatter_add_rows(dev, bank_of(a)->gradient, vector, chosen, m->n, s->length);
        dev->ops->gather_rows(dev, vector, bank_of(a)->value, chosen, m->n, s->length);
        dev->ops->sum_rows(dev, share, vector, d_sum, m->n, s->length, false);
    }
    double *d_shares = s->logits + s->n_max * s->n_vectors;
    dev->ops->download_f64(dev, d_shares, shares, s->k * m->n);
    chain_logits(s, dev, m, d_shares);
}

static double vblora_chain(adapter *a, backend *dev) {
    const vblora_state *s = a->state;
    for (size_t i = 0; i < 2 * a->n_terms; i++) {
        const mixture *m = &s->mixtures[i];
        chain_mixture(a, dev, m,
                      (m->is_b ? derived_term_b(a, i / 2) : derived_term_a(a, i / 2))->gradient);
    }
    return 0;
}

/* ---- First values, files ---- */

static graft_status vblora_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                                graft_error *err) {
    const vblora_state *s = a->state;
    shape_fill(bank_of(a), dev, DRAW_UNIFORM, config_number(&a->config, "init_vector_bank_bound"),
               random);
    for (size_t i = 0; i < 2 * a->n_terms; i++)
        shape_fill(s->mixtures[i].logits, dev, DRAW_NORMAL,
                   config_number(&a->config, "init_logits_std"), random);
    return shape_init_freed(a, dev, weights, err);
}

/* Logits that give the file's weights: their logarithms, and no chance for the other vectors. */
static graft_status restore_logits(const adapter *a, backend *dev, const mixture *m,
                                   graft_error *err) {
    const vblora_state *s = a->state;
    double *shares = mem_array((size_t)(m->n * s->k), sizeof *shares);
    if (!shares)
        return error_memory(err, (size_t)(m->n * s->k) * sizeof *shares, m->weights->key);
    graft_status status = GRAFT_OK;
    dev->ops->download_f64(dev, shares, m->weights->value, m->weights->count);
    for (int64_t i = 0; i < m->logits->count; i++)
        s->logits[i] = -INFINITY;
    for (int64_t n = 0; n < m->n && status == GRAFT_OK; n++) {
        double rest = 1;
        for (int64_t i = 0; i < s->k && status == GRAFT_OK; i++) {
            int64_t vector = m->indices->integers[n * s->k + i];
            double share = i + 1 < s->k ? shares[n * (s->k - 1) + i] : rest;
            rest -= share;
            if (vector >= s->n_vectors)
                status = error_set(err, GRAFT_E_INPUT, "%s: vector %lld of %lld", m->indices->key,
                                   (long long)vector, (long long)s->n_vectors);
            else
                s->logits[n * s->n_vectors + vector] = log(share);
        }
    }
    if (status == GRAFT_OK)
        dev->ops->upload(dev, m->logits->value, s->logits, DTYPE_F64, m->logits->count);
    free(shares);
    return status;
}

static graft_status vblora_load(adapter *a, backend *dev, const weight_source *weights,
                                const char *folder, graft_error *err) {
    const vblora_state *s = a->state;
    graft_status status = peft_load(a, dev, weights, folder, err);
    for (size_t i = 0; i < 2 * a->n_terms && status == GRAFT_OK && !has_whole_logits(a); i++)
        status = restore_logits(a, dev, &s->mixtures[i], err);
    return status;
}

/* The file's indices, and all weights but the last. */
static graft_status keep_largest(const adapter *a, backend *dev, const mixture *m,
                                 graft_error *err) {
    const vblora_state *s = a->state;
    double *shares = mem_array((size_t)(m->n * s->k), sizeof *shares);
    if (!shares)
        return error_memory(err, (size_t)(m->n * s->k) * sizeof *shares, m->weights->key);
    choose(s, dev, m);
    for (int64_t n = 0; n < m->n; n++)
        for (int64_t i = 0; i < s->k; i++) {
            m->indices->integers[n * s->k + i] = m->chosen[i * m->n + n];
            if (i + 1 < s->k)
                shares[n * (s->k - 1) + i] = m->shares[i * m->n + n];
        }
    dev->ops->upload(dev, m->weights->value, shares, DTYPE_F64, m->weights->count);
    free(shares);
    return GRAFT_OK;
}

static graft_status vblora_save(const adapter *a, backend *dev, const weight_source *weights,
                                const char *folder, const char *base_name, graft_error *err) {
    const vblora_state *s = a->state;
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < 2 * a->n_terms && status == GRAFT_OK && !has_whole_logits(a); i++)
        status = keep_largest(a, dev, &s->mixtures[i], err);
    return status == GRAFT_OK ? peft_save(a, dev, weights, folder, base_name, err) : status;
}

static const char *vblora_training_obstacle(const adapter *a) {
    return has_whole_logits(a) ? NULL
                               : "its file has only the weights of the chosen vectors "
                                 "(save_only_topk_weights), no logits to train";
}

const adapter_method vblora_method = {
    .peft_type = "VBLORA",
    .name = "vblora",
    .summary = "LoRA made of vectors of one shared bank (VB-LoRA)",
    .family = "low rank",
    .paper = "Li et al. 2024, arXiv:2405.15179",
    .target_kinds = TARGET_LINEAR,
    .keys = vblora_keys,
    .default_targets = default_targets_of_older_models,
    .shape = vblora_shape,
    .destroy = vblora_destroy,
    .init = vblora_init,
    .bind = derived_terms_bind,
    .prepare = vblora_prepare,
    .chain = vblora_chain,
    .merge = derived_terms_merge,
    .load = vblora_load,
    .save = vblora_save,
    .training_obstacle = vblora_training_obstacle,
};
