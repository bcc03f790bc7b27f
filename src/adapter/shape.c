#include "adapter/shape.h"

#include "adapter/freed.h"
#include "adapter/peft_keys.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

graft_status shape_targets(adapter *a, const message_sink *sink, graft_error *err) {
    a->targets = mem_array(a->n_modules, sizeof *a->targets);
    if (!a->targets)
        return error_memory(err, a->n_modules * sizeof *a->targets, "the adapter's targets");
    return targets_resolve(a->targets, &a->config, a->method, a->spec, a->modules, a->n_modules,
                           sink, err);
}

/* ---- Tensors ---- */

static void write_key(char *out, size_t capacity, const adapter *a, size_t module,
                      const char *suffix) {
    if (module == (size_t)MODULE_NONE)
        snprintf(out, capacity, "%s", suffix);
    else
        snprintf(out, capacity, PEFT_KEY_PREFIX "%s.%s", a->modules[module].name, suffix);
}

static graft_status make_room(adapter *a, graft_error *err) {
    if (a->n_tensors < a->tensors_room)
        return GRAFT_OK;
    size_t room = a->tensors_room ? 2 * a->tensors_room : 64;
    adapter_tensor *grown = realloc(a->tensors, room * sizeof *grown);
    if (!grown)
        return error_memory(err, room * sizeof *grown, "the adapter's tensors");
    a->tensors = grown;
    a->tensors_room = room;
    return GRAFT_OK;
}

adapter_tensor *shape_tensor(adapter *a, size_t module, const char *suffix, int32_t rank,
                             const int64_t *shape, graft_error *err) {
    if (make_room(a, err) != GRAFT_OK)
        return NULL;
    adapter_tensor *t = &a->tensors[a->n_tensors++];
    *t = (adapter_tensor){
        .role = ROLE_OTHER, .rank = rank, .count = 1, .module = module, .stored = DTYPE_F32};
    for (int32_t i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->count *= shape[i];
    }
    write_key(t->key, sizeof t->key, a, module, suffix);
    return t;
}

adapter_tensor *shape_matrix(adapter *a, size_t module, const char *suffix, int64_t rows,
                             int64_t cols, graft_error *err) {
    const int64_t shape[] = {rows, cols};
    return shape_tensor(a, module, suffix, cols ? 2 : 1, shape, err);
}

adapter_tensor *shape_integers(adapter *a, size_t module, const char *suffix, dtype stored,
                               int64_t rows, int64_t cols, graft_error *err) {
    adapter_tensor *t = shape_matrix(a, module, suffix, rows, cols, err);
    if (!t)
        return NULL;
    t->is_fixed = true;
    t->stored = stored;
    t->integers = mem_array((size_t)t->count, sizeof *t->integers);
    if (!t->integers) {
        error_memory(err, (size_t)t->count * sizeof *t->integers, t->key);
        return NULL;
    }
    return t;
}

size_t shape_derived(adapter *a, int64_t count, bool has_gradient, graft_error *err) {
    if (a->n_derived == a->derived_room) {
        size_t room = a->derived_room ? 2 * a->derived_room : 64;
        derived_array *grown = realloc(a->derived, room * sizeof *grown);
        if (!grown) {
            error_memory(err, room * sizeof *grown, "the adapter's derived values");
            return SIZE_MAX;
        }
        a->derived = grown;
        a->derived_room = room;
    }
    a->derived[a->n_derived] = (derived_array){.count = count, .has_gradient = has_gradient};
    return a->n_derived++;
}

static int by_key(const void *left, const void *right) {
    return strcmp(((const adapter_tensor *)left)->key, ((const adapter_tensor *)right)->key);
}

static int compare_key(const void *key, const void *tensor) {
    return strcmp(key, ((const adapter_tensor *)tensor)->key);
}

adapter_tensor *adapter_tensor_at(const adapter *a, size_t module, const char *suffix) {
    char key[sizeof a->tensors->key];
    write_key(key, sizeof key, a, module, suffix);
    return bsearch(key, a->tensors, a->n_tensors, sizeof *a->tensors, compare_key);
}

/* ---- Freed parameters ---- */

static graft_status add_freed(adapter *a, size_t module, bool is_bias, graft_error *err) {
    const module_target *target = &a->targets[module];
    const char *suffix = !is_bias ? "weight" : target->is_target ? "base_layer.bias" : "bias";
    adapter_tensor described;
    freed_tensor(&described, a, module, is_bias);
    adapter_tensor *t = shape_tensor(a, module, suffix, described.rank, described.shape, err);
    if (!t)
        return GRAFT_E_MEMORY;
    t->role = ROLE_FREED;
    return GRAFT_OK;
}

static void fill(const adapter_tensor *t, backend *dev, distribution from, double mean,
                 double spread, rng *random) {
    float chunk[1024];
    for (int64_t done = 0; done < t->count;) {
        int64_t n = t->count - done < 1024 ? t->count - done : 1024;
        for (int64_t i = 0; i < n; i++)
            chunk[i] = (float)(mean + spread * (from == DRAW_NORMAL ? rng_normal(random)
                                                                    : 2 * rng_uniform(random) - 1));
        dev->ops->upload(dev, array_at(dev, t->value, done), chunk, DTYPE_F32, n);
        done += n;
    }
}

void shape_fill(const adapter_tensor *t, backend *dev, distribution from, double spread,
                rng *random) {
    if (from == DRAW_CONSTANT)
        dev->ops->fill(dev, t->value, spread, t->count);
    else
        fill(t, dev, from, 0, spread, random);
}

void shape_fill_around(const adapter_tensor *t, backend *dev, double mean, double deviation,
                       rng *random) {
    if (deviation == 0)
        dev->ops->fill(dev, t->value, mean, t->count);
    else
        fill(t, dev, DRAW_NORMAL, mean, deviation, random);
}

graft_status shape_init_freed(adapter *a, backend *dev, const weight_source *weights,
                              graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++)
        if (a->tensors[i].role == ROLE_FREED)
            status = freed_init(a, &a->tensors[i], dev, weights, err);
    return status;
}

void shape_bind_freed(adapter *a, model_hooks *hooks) {
    for (size_t i = 0; i < a->n_tensors; i++)
        if (a->tensors[i].role == ROLE_FREED)
            freed_bind(a, &a->tensors[i], hooks);
    for (size_t i = 0; i < a->n_copies; i++)
        if (!a->copies[i].is_base && a->tensors[a->copies[i].tensor].role == ROLE_FREED)
            freed_bind_tied_head(a, &a->tensors[a->copies[i].tensor], hooks);
}

/* ---- What the file holds beside the tensors ---- */

static saved_copy *add_copy(adapter *a, size_t module, const char *suffix) {
    saved_copy *copy = &a->copies[a->n_copies++];
    const model_module *m = &a->modules[module];
    write_key(copy->key, sizeof copy->key, a, module, suffix);
    copy->rank = 2;
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

/* Needs the tensors sorted. */
static graft_status add_copies(adapter *a, graft_error *err) {
    bool save_embeddings;
    a->copies = mem_array(2, sizeof *a->copies); /* of the embedding and the head */
    if (!a->copies)
        return error_memory(err, 2 * sizeof *a->copies, "the adapter's tensors");
    graft_status status =
        targets_save_embeddings(&save_embeddings, &a->config, a->modules, a->n_modules, err);
    for (size_t i = 0; i < a->n_modules; i++)
        save_embeddings = save_embeddings && !a->targets[i].trains_rows;
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++) {
        module_kind kind = a->modules[i].kind;
        if (a->targets[i].shares_embedding) {
            saved_copy *copy = add_copy(a, i, "weight");
            copy->is_written = true;
            copy->tensor = embedding_tensor(a);
        } else if (a->targets[i].is_target && (kind == MODULE_EMBEDDING || kind == MODULE_HEAD)) {
            saved_copy *copy = add_copy(a, i, "base_layer.weight");
            copy->is_base = true;
            copy->is_written = save_embeddings;
            freed_base_name(copy->base_name, sizeof copy->base_name, a, i, false);
        }
    }
    return status;
}

graft_status shape_copy(adapter *a, size_t module, const char *suffix, const adapter_tensor *of,
                        graft_error *err) {
    saved_copy *grown = realloc(a->copies, (a->n_copies + 1) * sizeof *grown);
    if (!grown)
        return error_memory(err, (a->n_copies + 1) * sizeof *grown, "the adapter's tensors");
    a->copies = grown;
    saved_copy *copy = &grown[a->n_copies++];
    *copy = (saved_copy){.rank = of->rank, .is_written = true, .tensor = (size_t)(of - a->tensors)};
    memcpy(copy->shape, of->shape, sizeof copy->shape);
    write_key(copy->key, sizeof copy->key, a, module, suffix);
    return GRAFT_OK;
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

graft_status shape_finish(adapter *a, const message_sink *sink, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < a->n_modules && a->targets && status == GRAFT_OK; i++) {
        if (a->targets[i].frees_weight)
            status = add_freed(a, i, false, err);
        if (status == GRAFT_OK && a->targets[i].frees_bias)
            status = add_freed(a, i, true, err);
    }
    if (status != GRAFT_OK)
        return status;
    qsort(a->tensors, a->n_tensors, sizeof *a->tensors, by_key);
    if (a->targets)
        status = add_copies(a, err);
    if (status == GRAFT_OK)
        tell_copies(a, sink);
    return status;
}

graft_status shape_each_target(adapter *a,
                               graft_status (*add)(adapter *, size_t module, graft_error *),
                               const message_sink *sink, graft_error *err) {
    graft_status status = shape_targets(a, sink, err);
    for (size_t i = 0; i < a->n_modules && status == GRAFT_OK; i++)
        if (a->targets[i].is_target)
            status = add(a, i, err);
    return status == GRAFT_OK ? shape_finish(a, sink, err) : status;
}
