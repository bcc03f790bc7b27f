/* SHiRA (Bhardwaj et al., 2024; as PEFT's tuners/shira): r (in + out) entries of each weight train,
 * at random positions that the file holds. */
#include "adapter/methods.h"
#include "adapter/sparse_weight.h"
#include "base/torch_random.h"

#include <stdlib.h>

static const config_key shira_keys[] = {
    TARGET_KEYS,
    {.name = "r", .kind = KEY_OURS, .fallback = "32"},
    {.name = "mask_type", .kind = KEY_CHOICE, .fallback = "\"random\"", .choices = "random"},
    {.name = "random_seed", .kind = KEY_INTEGER, .fallback = "null", .min = -0x1p63, .max = 0x1p63},
    FAN_IN_FAN_OUT_KEY,
    {.name = "init_weights", .kind = KEY_FLAG, .fallback = "true"},
    {.name = NULL},
};

static const char weight_suffix[] = "shira_weight", indices_suffix[] = "shira_indices";

static const dense_method shira_weight = {
    .suffixes = {weight_suffix},
    .scratch_elements = sparse_scratch_elements,
    .apply = sparse_apply,
    .apply_bwd = sparse_apply_bwd,
};

static int64_t count_of(const adapter *a, size_t module) {
    return (int64_t)a->config.r * (a->modules[module].rows + a->modules[module].cols);
}

static graft_status add_module(adapter *a, size_t module, graft_error *err) {
    const model_module *m = &a->modules[module];
    int64_t n = count_of(a, module);
    graft_status status = sparse_check_size(m, "shira", err);
    if (status != GRAFT_OK)
        return status;
    if (n > m->rows * m->cols)
        return error_set(err, GRAFT_E_INPUT,
                         "r %d asks for %lld entries of %s, which has %lld (PEFT refuses it too): "
                         "choose a smaller r",
                         (int)a->config.r, (long long)n, m->name, (long long)(m->rows * m->cols));
    bool added = shape_matrix(a, module, weight_suffix, n, 0, err) &&
                 shape_integers(a, module, indices_suffix, DTYPE_I32, 2, n, err);
    return added ? GRAFT_OK : GRAFT_E_MEMORY;
}

static graft_status shira_shape(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add_module(a, i, err);
    if (status == GRAFT_OK)
        status = shape_finish(a, sink, err);
    if (status == GRAFT_OK)
        status = dense_create(a, &shira_weight, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        sparse_entries *e = NULL;
        if (!a->targets[i].is_target)
            continue;
        status = sparse_entries_create(&e, a, count_of(a, i), false, err);
        sparse_entries_set(a, i, e);
    }
    return status;
}

/* ---- Positions ---- */

/* From the file's rows and columns; they may be anybody's. */
static graft_status take_positions(adapter *a, size_t module, const char *place, graft_error *err) {
    const model_module *m = &a->modules[module];
    const adapter_tensor *t = adapter_tensor_at(a, module, indices_suffix);
    sparse_entries *e = sparse_entries_of(a, module);
    for (int64_t i = 0; i < e->n; i++) {
        int64_t row = t->integers[i], col = t->integers[e->n + i];
        if (row < 0 || row >= m->rows || col < 0 || col >= m->cols)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: %s: position %lld is [%lld, %lld], outside of the weight's "
                             "[%lld, %lld]",
                             place, t->key, (long long)i, (long long)row, (long long)col,
                             (long long)m->rows, (long long)m->cols);
        e->place[i] = (int32_t)(row * m->cols + col);
    }
    return GRAFT_OK;
}

static graft_status take_all_positions(adapter *a, const char *place, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = take_positions(a, i, place, err);
    return status;
}

static int ascending(const void *left, const void *right) {
    int64_t l = *(const int64_t *)left, r = *(const int64_t *)right;
    return (l > r) - (l < r);
}

/* The head of torch's permutation from the seed, in the weight's order. */
static graft_status draw_positions(adapter *a, size_t module, uint64_t seed, graft_error *err) {
    const model_module *m = &a->modules[module];
    const adapter_tensor *t = adapter_tensor_at(a, module, indices_suffix);
    int64_t n = count_of(a, module);
    torch_random generator;
    torch_random_seed(&generator, seed);
    graft_status status =
        torch_random_permutation(&generator, t->integers, n, m->rows * m->cols, err);
    if (status != GRAFT_OK)
        return status;
    qsort(t->integers, (size_t)n, sizeof *t->integers, ascending);
    for (int64_t i = n - 1; i >= 0; i--) {
        int64_t flat = t->integers[i];
        t->integers[n + i] = flat % m->cols;
        t->integers[i] = flat / m->cols;
    }
    return GRAFT_OK;
}

static graft_status shira_init(adapter *a, backend *dev, const weight_source *weights, rng *random,
                               graft_error *err) {
    bool is_zero = config_flag(&a->config, "init_weights");
    bool is_seeded = !json_is_null(config_value(&a->config, "random_seed"));
    uint64_t seed =
        is_seeded ? (uint64_t)config_integer(&a->config, "random_seed") : TORCH_RANDOM_SEED_DEFAULT;
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        if (!a->targets[i].is_target)
            continue;
        shape_fill(adapter_tensor_at(a, i, weight_suffix), dev,
                   is_zero ? DRAW_CONSTANT : DRAW_NORMAL, is_zero ? 0 : 1, random);
        status = draw_positions(a, i, seed, err);
    }
    if (status == GRAFT_OK)
        status = take_all_positions(a, "the drawn positions", err);
    return status == GRAFT_OK ? shape_init_freed(a, dev, weights, err) : status;
}

static graft_status shira_load(adapter *a, backend *dev, const weight_source *weights,
                               const char *folder, graft_error *err) {
    graft_status status = peft_load(a, dev, weights, folder, err);
    return status == GRAFT_OK ? take_all_positions(a, folder, err) : status;
}

const adapter_method shira_method = {
    .peft_type = "SHIRA",
    .name = "shira",
    .summary = "a few entries of each weight, at random positions (SHiRA)",
    .family = "sparse",
    .paper = "Bhardwaj et al. 2024, arXiv:2406.13175",
    .target_kinds = TARGET_LINEAR,
    .keys = shira_keys,
    .shape = shira_shape,
    .destroy = sparse_destroy,
    .init = shira_init,
    .bind = dense_bind,
    .merge = dense_merge,
    .merge_scratch = dense_merge_scratch,
    .load = shira_load,
    .save = peft_save,
};
