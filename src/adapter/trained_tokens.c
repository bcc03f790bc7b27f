#include "adapter/trained_tokens.h"

#include "adapter/base_weight.h"
#include "base/memory.h"

#include <stdlib.h>

static device_array *value_row(const trained_tokens *t, const backend *dev, const device_array *of,
                               int64_t row) {
    return array_at(dev, (device_array *)of, row * t->hidden);
}

/* ---- The embedding: looked-up rows are replaced ---- */

static int32_t row_of(const trained_tokens *t, const form_pass *p, int32_t token) {
    return t->rows[p->batch->ids[token]];
}

static void embedding_forward(const void *self, const form_pass *p, device_array *y,
                              const weight_ref *table) {
    const trained_tokens *t = self;
    (void)table;
    for (int32_t token = 0; token < p->tokens->n; token++) {
        int32_t row = row_of(t, p, token);
        if (row >= 0)
            p->dev->ops->copy(p->dev, array_at(p->dev, y, token * t->hidden),
                              value_row(t, p->dev, t->values->value, row), t->hidden);
    }
}

/* Token by token, in the rows' order: sums do not depend on packing. */
static void embedding_backward(const void *self, const form_pass *p, device_array *dy,
                               const weight_ref *table) {
    const trained_tokens *t = self;
    (void)table;
    for (int32_t token = 0; token < p->tokens->n; token++) {
        int32_t row = row_of(t, p, token);
        device_array *d_row = array_at(p->dev, dy, token * t->hidden);
        if (row < 0)
            continue;
        if (t->values->gradient)
            p->dev->ops->add(p->dev, value_row(t, p->dev, t->values->gradient, row), d_row,
                             t->hidden);
        p->dev->ops->fill(p->dev, d_row, 0, t->hidden);
    }
}

static const embedding_form rows_form = {NULL, embedding_forward, embedding_backward};

/* ---- The head: y [n, vocab] = x W^T, and x change^T on the trained columns, run by run of
 * neighbouring ids ---- */

/* Rows [begin, the result) have ids that follow each other. */
static int64_t run_end(const trained_tokens *t, int64_t begin) {
    int64_t end = begin + 1;
    while (end < t->n && t->ids[end] == t->ids[end - 1] + 1)
        end++;
    return end;
}

static void head_forward(const void *self, const form_pass *p, const base_linear *base,
                         device_array *y, const device_array *x, bool add) {
    const trained_tokens *t = self;
    const int64_t vocab = base->call->weight.rows;
    p->dev->ops->linear_fwd(p->dev, y, base->xa, x, base->call, add, base->scratch, p->tokens);
    for (int64_t begin = 0, end; begin < t->n; begin = end) {
        end = run_end(t, begin);
        const device_array *change =
            value_row(t, p->dev, t->adapter->derived[t->change].value, begin);
        p->dev->ops->matmul(p->dev, &(matmul_call){.c = array_at(p->dev, y, t->ids[begin]),
                                                   .c_stride = vocab,
                                                   .rows = p->tokens->n,
                                                   .cols = end - begin,
                                                   .k = t->hidden,
                                                   .a = {x, t->hidden, false},
                                                   .b = {change, t->hidden, true},
                                                   .scale = 1,
                                                   .add = true});
    }
}

static void run_backward(const trained_tokens *t, const form_pass *p, device_array *dx,
                         const device_array *dy, const device_array *x, int64_t vocab,
                         int64_t begin, int64_t end) {
    const device_array *d_columns = array_at_const(p->dev, dy, t->ids[begin]);
    if (t->values->gradient)
        p->dev->ops->matmul(p->dev,
                            &(matmul_call){.c = value_row(t, p->dev, t->values->gradient, begin),
                                           .c_stride = t->hidden,
                                           .rows = end - begin,
                                           .cols = t->hidden,
                                           .k = p->tokens->n,
                                           .a = {d_columns, vocab, true},
                                           .b = {x, t->hidden, false},
                                           .scale = 1,
                                           .tokens = p->tokens});
    if (!dx)
        return;
    const device_array *change = value_row(t, p->dev, t->adapter->derived[t->change].value, begin);
    p->dev->ops->matmul(p->dev, &(matmul_call){.c = dx,
                                               .c_stride = t->hidden,
                                               .rows = p->tokens->n,
                                               .cols = t->hidden,
                                               .k = end - begin,
                                               .a = {d_columns, vocab, false},
                                               .b = {change, t->hidden, false},
                                               .scale = 1,
                                               .add = true});
}

static void head_backward(const void *self, const form_pass *p, const base_linear *base,
                          device_array *dx, const device_array *dy, const device_array *x,
                          bool add) {
    const trained_tokens *t = self;
    p->dev->ops->linear_bwd(p->dev, dx, dy, x, base->xa, base->call, add, base->scratch, p->tokens);
    for (int64_t begin = 0, end; begin < t->n; begin = end) {
        end = run_end(t, begin);
        run_backward(t, p, dx, dy, x, base->call->weight.rows, begin, end);
    }
}

static const linear_form head_form = {.fwd = head_forward, .bwd = head_backward};

void trained_tokens_bind(const trained_tokens *t, model_hooks *hooks) {
    const model_module *modules = t->adapter->modules;
    if (modules[t->module].kind == MODULE_EMBEDDING)
        hooks->embedding_rows = (embedding_hook){&rows_form, t};
    if (t->head == (size_t)MODULE_NONE)
        return;
    linear_hook *hook = model_hooks_linear(hooks, &modules[t->head]);
    hook->form = &head_form;
    hook->form_self = t;
}

/* ---- Shape ---- */

static graft_status read_id(trained_tokens *t, int64_t row, const json_t *value, const char *key,
                            graft_error *err) {
    const int64_t vocab = t->adapter->modules[t->module].rows;
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= vocab)
        return error_set(err, GRAFT_E_INPUT, "%s: expected token ids from 0 to %lld, found %s%lld",
                         key, (long long)vocab - 1,
                         json_is_integer(value) ? "" : json_type_name(value),
                         json_is_integer(value) ? (long long)json_integer_value(value) : 0LL);
    if (t->rows[id] >= 0)
        return error_set(err, GRAFT_E_INPUT, "%s: token %lld is listed twice", key, (long long)id);
    t->ids[row] = (int32_t)id;
    t->rows[id] = (int32_t)row;
    return GRAFT_OK;
}

static graft_status read_ids(trained_tokens *t, const json_t *ids, const char *key,
                             graft_error *err) {
    const int64_t vocab = t->adapter->modules[t->module].rows;
    t->n = (int64_t)json_array_size(ids);
    if (!t->n)
        return error_set(err, GRAFT_E_INPUT, "%s: expected a list of token ids, found %s", key,
                         json_is_array(ids) ? "an empty one" : json_type_name(ids));
    t->ids = mem_array((size_t)t->n, sizeof *t->ids);
    t->rows = mem_array((size_t)vocab, sizeof *t->rows);
    if (!t->ids || !t->rows)
        return error_memory(err, (size_t)vocab * sizeof *t->rows, key);
    for (int64_t i = 0; i < vocab; i++)
        t->rows[i] = -1;
    graft_status status = GRAFT_OK;
    for (int64_t i = 0; i < t->n && status == GRAFT_OK; i++)
        status = read_id(t, i, json_array_get(ids, (size_t)i), key, err);
    return status;
}

graft_status trained_tokens_shape(trained_tokens *t, adapter *a, size_t module, const json_t *ids,
                                  const char *key, const char *suffix, graft_error *err) {
    const model_module *m = &a->modules[module];
    *t = (trained_tokens){.adapter = a,
                          .module = module,
                          .head = m->kind == MODULE_HEAD ? module : (size_t)MODULE_NONE,
                          .hidden = m->cols};
    graft_status status = read_ids(t, ids, key, err);
    if (status != GRAFT_OK)
        return status;
    a->targets[module].trains_rows = true;
    for (size_t i = 0; i < a->n_modules; i++)
        if (m->kind == MODULE_EMBEDDING && a->modules[i].kind == MODULE_HEAD &&
            a->modules[i].is_tied && !a->targets[i].trains_rows) {
            t->head = i;
            a->targets[i].trains_rows = a->targets[i].ties_rows = true;
        }
    if (!shape_matrix(a, module, suffix, t->n, t->hidden, err))
        return GRAFT_E_MEMORY;
    t->original = shape_derived(a, t->n * t->hidden, false, err);
    t->change = t->original == SIZE_MAX ? SIZE_MAX : shape_derived(a, t->n * t->hidden, false, err);
    return t->change == SIZE_MAX ? GRAFT_E_MEMORY : GRAFT_OK;
}

void trained_tokens_find(trained_tokens *t, const char *suffix) {
    t->values = adapter_tensor_at(t->adapter, t->module, suffix);
}

void trained_tokens_free(trained_tokens *t) {
    free(t->ids);
    free(t->rows);
    *t = (trained_tokens){0};
}

/* ---- Values ---- */

static graft_status upload_base(const trained_tokens *t, backend *dev, device_array *to,
                                const weight_source *weights, graft_error *err) {
    double *row = mem_array((size_t)t->hidden, sizeof *row);
    graft_status status =
        row ? GRAFT_OK : error_memory(err, (size_t)t->hidden * sizeof *row, "token rows");
    for (int64_t i = 0; i < t->n && status == GRAFT_OK; i++) {
        status = base_weight_rows(row, t->adapter, t->module, weights, t->ids[i], 1, err);
        if (status == GRAFT_OK)
            dev->ops->upload(dev, value_row(t, dev, to, i), row, DTYPE_F64, t->hidden);
    }
    free(row);
    return status;
}

graft_status trained_tokens_init(const trained_tokens *t, backend *dev,
                                 const weight_source *weights, bool from_base, rng *random,
                                 graft_error *err) {
    if (from_base)
        return upload_base(t, dev, t->values->value, weights, err);
    shape_fill(t->values, dev, DRAW_NORMAL, 1, random);
    return GRAFT_OK;
}

graft_status trained_tokens_prepare(trained_tokens *t, backend *dev, const weight_source *weights,
                                    graft_error *err) {
    device_array *original = t->adapter->derived[t->original].value,
                 *change = t->adapter->derived[t->change].value;
    if (t->made_at != original) {
        graft_status status = upload_base(t, dev, original, weights, err);
        if (status != GRAFT_OK)
            return status;
        t->made_at = original;
    }
    dev->ops->copy(dev, change, t->values->value, t->values->count);
    dev->ops->add_scaled(dev, change, original, -1, t->values->count);
    return GRAFT_OK;
}

void trained_tokens_merge(const trained_tokens *t, backend *dev, size_t module, device_array *w) {
    if (module != t->module && module != t->head)
        return;
    for (int64_t i = 0; i < t->n; i++)
        dev->ops->copy(dev, value_row(t, dev, w, t->ids[i]), value_row(t, dev, t->values->value, i),
                       t->hidden);
}
