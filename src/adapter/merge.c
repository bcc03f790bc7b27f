#include "adapter/merge.h"

#include "adapter/freed.h"
#include "adapter/model_writer.h"
#include "adapter/targets.h"
#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/strbuf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for the largest module: its weight, bias, and what the method works in. */
typedef struct merge_run {
    adapter *a;
    backend *dev;
    weight_source *weights;
    dtype type; /* of written weights; N_DTYPES: as stored */
    device_array *weight, *bias, *scratch;
    device_array *turned; /* a weight as it is stored, where that is transposed */
    void *memory;
    size_t n, room;
    named_tensor *named;
    tensor_source *sources;
    char (*names)[192];
    merge_summary *summary;
} merge_run;

static bool is_changed(const adapter *a, size_t module) {
    return a->targets && (a->targets[module].is_target || a->targets[module].frees_weight ||
                          a->targets[module].frees_bias || a->targets[module].trains_rows ||
                          a->targets[module].shares_embedding);
}

static const adapter_tensor *freed_of(const adapter *a, size_t module, bool is_bias) {
    for (size_t i = 0; i < a->n_tensors; i++) {
        const adapter_tensor *t = &a->tensors[i];
        if (t->role == ROLE_FREED && t->module == module && t->is_bias == is_bias)
            return t;
    }
    return NULL;
}

/* ---- One module ---- */

/* y [rows, cols] = x [cols, rows] turned. */
static void turn(const merge_run *r, device_array *y, const device_array *x, int64_t rows,
                 int64_t cols) {
    const weight_ref from = {.data = x,
                             .type = r->dev->element,
                             .rows = rows,
                             .cols = cols,
                             .row_stride = rows,
                             .is_transposed = true};
    r->dev->ops->weight_load(r->dev, y, &from);
}

/* The module's weight and bias as they are after merging, in run->weight and run->bias. */
static graft_status make_module(merge_run *r, size_t module, graft_error *err) {
    const model_module *m = &r->a->modules[module];
    backend *dev = r->dev;
    char name[192];
    tensor_view stored;
    int64_t n = model_weight_count(m);
    const adapter_tensor *freed = freed_of(r->a, module, false);
    const adapter_tensor *freed_bias = freed_of(r->a, module, true);
    freed_base_name(name, sizeof name, r->a, module, false);
    if (freed)
        dev->ops->copy(dev, r->weight, freed->value, n);
    else if (weight_source_tensor(&stored, r->weights, name))
        dev->ops->upload(dev, r->weight, stored.data, stored.type, n);
    else
        return error_set(err, GRAFT_E_INTERNAL, "the base's %s is not open", name);
    if (m->has_bias) {
        freed_base_name(name, sizeof name, r->a, module, true);
        if (freed_bias)
            dev->ops->copy(dev, r->bias, freed_bias->value, m->rows);
        else if (weight_source_tensor(&stored, r->weights, name))
            dev->ops->upload(dev, r->bias, stored.data, stored.type, m->rows);
    }
    if (!r->a->targets[module].is_target && !r->a->targets[module].trains_rows)
        return GRAFT_OK;
    if (m->is_transposed) {
        dev->ops->copy(dev, r->turned, r->weight, n);
        turn(r, r->weight, r->turned, m->rows, m->cols);
    }
    graft_status status =
        adapter_merge(r->a, dev, module, r->weight, m->has_bias ? r->bias : NULL, r->scratch, err);
    if (status == GRAFT_OK && m->is_transposed) {
        dev->ops->copy(dev, r->turned, r->weight, n);
        turn(r, r->weight, r->turned, m->cols, m->rows);
    }
    return status;
}

static graft_status check_finite(const merge_run *r, const device_array *values, int64_t n,
                                 const char *name, graft_error *err) {
    if (isfinite(r->dev->ops->sum_squares(r->dev, values, n)))
        return GRAFT_OK;
    return error_set(
        err, GRAFT_E_NUMERIC,
        "%s is not finite after merging: the adapter is damaged; nothing was published", name);
}

static graft_status make_weight(const tensor_source *source, backend *dev, const device_array **out,
                                graft_error *err) {
    merge_run *r = source->context;
    const model_module *m = &r->a->modules[source->module];
    (void)dev;
    graft_status status = make_module(r, source->module, err);
    *out = r->weight;
    return status == GRAFT_OK ? check_finite(r, r->weight, model_weight_count(m), m->name, err)
                              : status;
}

static graft_status make_bias(const tensor_source *source, backend *dev, const device_array **out,
                              graft_error *err) {
    merge_run *r = source->context;
    (void)dev;
    graft_status status = make_module(r, source->module, err);
    *out = r->bias;
    return status == GRAFT_OK ? check_finite(r, r->bias, r->a->modules[source->module].rows,
                                             r->a->modules[source->module].name, err)
                              : status;
}

/* ---- The list of tensors ---- */

static void add(merge_run *r, const char *name, const tensor_view *view, tensor_source source) {
    named_tensor *named = &r->named[r->n];
    r->sources[r->n] = source;
    snprintf(r->names[r->n], sizeof *r->names, "%s", name);
    named->name = r->names[r->n];
    named->view = *view;
    named->view.data = &r->sources[r->n];
    if (r->type != N_DTYPES && dtype_is_weight(view->type))
        named->view.type = r->type;
    r->n++;
}

/* The module that a tensor of the base belongs to, if the adapter changes it. */
static bool find_module(const merge_run *r, const char *name, size_t *module, bool *is_bias) {
    const adapter *a = r->a;
    char of[192];
    for (*module = 0; *module < a->n_modules; (*module)++) {
        if (!is_changed(a, *module) || a->modules[*module].is_tied)
            continue;
        for (int bias = 0; bias < 2; bias++) {
            model_tensor_name(of, sizeof of, &a->modules[*module], bias);
            *is_bias = bias;
            if (!strcmp(weight_source_name(r->weights, of), name))
                return true;
        }
    }
    return false;
}

static graft_status list_tensors(merge_run *r, graft_error *err) {
    const safetensors *files = weight_source_files(r->weights);
    for (size_t i = 0; i < safetensors_count(files); i++) {
        const char *name = safetensors_name(files, i);
        tensor_view view;
        size_t module;
        bool is_bias;
        safetensors_find(&view, files, name);
        if (!find_module(r, name, &module, &is_bias)) {
            bool converts = r->type != N_DTYPES && r->type != view.type;
            if (converts && dtype_is_weight(view.type))
                return error_set(err, GRAFT_E_UNSUPPORTED,
                                 "%s is %s: writing weights the adapter does not change in another "
                                 "type is not supported; leave out --dtype",
                                 name, dtype_name(view.type));
            add(r, name, &view, (tensor_source){.stored = view.data});
            continue;
        }
        add(r, name, &view,
            (tensor_source){
                .make = is_bias ? make_bias : make_weight, .context = r, .module = module});
        r->summary->changed++;
    }
    return GRAFT_OK;
}

/* A tied pair of which one changes, or each in its own way, is one no longer. */
static void untie(merge_run *r) {
    const adapter *a = r->a;
    size_t embedding = 0, head = 0;
    for (size_t i = 0; i < a->n_modules; i++) {
        embedding = a->modules[i].kind == MODULE_EMBEDDING ? i : embedding;
        head = a->modules[i].kind == MODULE_HEAD ? i : head;
    }
    if (!a->modules[head].is_tied || a->targets[head].shares_embedding ||
        a->targets[head].ties_rows || (!is_changed(a, embedding) && !is_changed(a, head)))
        return;
    tensor_view view;
    char name[192];
    freed_base_name(name, sizeof name, a, embedding, false);
    weight_source_tensor(&view, r->weights, name);
    model_tensor_name(name, sizeof name, &a->modules[head], false);
    add(r, name, &view, (tensor_source){.make = make_weight, .context = r, .module = head});
    r->summary->unties = true;
}

static graft_status write_untied_config(const merge_run *r, const char *folder, graft_error *err) {
    (void)r;
    char *path = path_join(folder, "config.json");
    json_t *config = NULL;
    strbuf text = {0};
    graft_status status = path ? json_read_file(&config, path, 16 << 20, err)
                               : error_memory(err, strlen(folder), "a path");
    if (status == GRAFT_OK) {
        json_object_set_new(config, "tie_word_embeddings", json_false());
        json_write(&text, config, JSON_INDENT_2, false);
        strbuf_add_char(&text, '\n');
        status = text.failed ? error_memory(err, 4096, "config.json")
                             : file_write_atomic(path, text.data, text.length, err);
    }
    json_decref(config);
    strbuf_free(&text);
    free(path);
    return status;
}

/* ---- The run ---- */

static graft_status take_memory(merge_run *r, graft_error *err) {
    int64_t weight = 0, bias = 0, scratch = 0;
    for (size_t i = 0; i < r->a->n_modules; i++) {
        const model_module *m = &r->a->modules[i];
        int64_t n = model_weight_count(m);
        if (!is_changed(r->a, i) && !m->is_tied)
            continue;
        weight = n > weight ? n : weight;
        bias = m->rows > bias ? m->rows : bias;
        int64_t own = r->a->targets[i].is_target ? adapter_merge_scratch(r->a, i) : 0;
        scratch = own > scratch ? own : scratch;
    }
    r->room = safetensors_count(weight_source_files(r->weights)) + 1;
    r->named = mem_array(r->room, sizeof *r->named);
    r->sources = mem_array(r->room, sizeof *r->sources);
    r->names = mem_array(r->room, sizeof *r->names);
    int64_t turned = r->a->spec->is_transposed ? weight : 0;
    size_t bytes = (size_t)(weight + bias + turned + scratch) * r->dev->element_bytes;
    r->memory = r->dev->ops->alloc(r->dev, bytes);
    if (!r->named || !r->sources || !r->names || !r->memory)
        return error_memory(err, bytes, "a layer's merged weight");
    r->weight = r->memory;
    r->bias = array_at(r->dev, r->weight, weight);
    r->turned = array_at(r->dev, r->bias, bias);
    r->scratch = array_at(r->dev, r->turned, turned);
    return GRAFT_OK;
}

graft_status adapter_merge_model(merge_summary *summary, adapter *a, backend *dev,
                                 weight_source *weights, dtype type, const char *folder,
                                 const message_sink *sink, graft_error *err) {
    merge_run r = {.a = a, .dev = dev, .weights = weights, .type = type, .summary = summary};
    *summary = (merge_summary){0};
    graft_status status = adapter_check_merge(a, err);
    if (status == GRAFT_OK)
        status = take_memory(&r, err);
    if (status == GRAFT_OK)
        status = list_tensors(&r, err);
    if (status == GRAFT_OK) {
        untie(&r);
        summary->tensors = r.n;
        if (summary->unties)
            message_emit(sink, MESSAGE_INFO,
                         "embedding and head are one in the base, and two in the merged model: "
                         "config.json says tie_word_embeddings false");
        status = model_writer_weights(dev, r.named, r.n, folder, MODEL_SHARD_BYTES_MAX, err);
    }
    if (status == GRAFT_OK)
        status = model_writer_companions(weights, folder, err);
    if (status == GRAFT_OK && summary->unties)
        status = write_untied_config(&r, folder, err);
    if (r.memory)
        dev->ops->release(dev, r.memory);
    free(r.named);
    free(r.sources);
    free(r.names);
    return status;
}
