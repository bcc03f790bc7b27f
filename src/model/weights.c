#include "model/weights.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many tensors that the model does not use are named before the rest is counted. */
enum { LEFT_OVER_SHOWN = 3 };

struct weight_source {
    backend *dev;
    safetensors *files; /* NULL: shapes only, as the spec has them */
    int32_t n_layers;
    layer_weights *layers; /* [n_layers] */
    outer_weights outer;
    void *uploaded;
    size_t uploaded_bytes;
};

/* What opening needs beside the source. */
typedef struct opening {
    weight_source *source;
    const model_spec *spec;
    const char *folder;
    model_module *modules;
    size_t n_modules;
    device_array **places; /* [n_modules] of what is uploaded: a norm's weight, a linear's bias */
    bool *is_used;         /* [tensors in the files] */
} opening;

/* ---- What is uploaded ---- */

static bool is_uploaded(const model_module *module) {
    return module->kind == MODULE_NORM || module->has_bias;
}

static void upload_layout(device_array **places, layout *l, const model_module *modules, size_t n,
                          size_t element_bytes) {
    for (size_t i = 0; i < n; i++) {
        void *place = NULL;
        if (is_uploaded(&modules[i]))
            place = layout_take(l, COMPONENT_WEIGHTS, (size_t)modules[i].rows, element_bytes);
        if (places)
            places[i] = place;
    }
}

graft_status weight_source_plan_bytes(size_t *bytes, const model_spec *spec, size_t element_bytes,
                                      graft_error *err) {
    model_module *modules;
    size_t n;
    layout l = layout_counting();
    graft_status status = model_modules(&modules, &n, spec, err);
    if (status == GRAFT_OK)
        upload_layout(NULL, &l, modules, n, element_bytes);
    free(modules);
    *bytes = l.high_water;
    return status;
}

static graft_status allocate_uploads(opening *o, graft_error *err) {
    weight_source *source = o->source;
    layout l = layout_counting();
    upload_layout(NULL, &l, o->modules, o->n_modules, source->dev->element_bytes);
    source->uploaded_bytes = l.high_water;
    source->uploaded = source->dev->ops->alloc(source->dev, l.high_water);
    if (!source->uploaded)
        return error_memory(err, l.high_water, "norms and biases");
    l = layout_over(source->uploaded, l.high_water);
    upload_layout(o->places, &l, o->modules, o->n_modules, source->dev->element_bytes);
    return GRAFT_OK;
}

/* ---- Finding and checking tensors ---- */

/* Index by name; names are sorted. n when there is none. */
static size_t tensor_index(const safetensors *files, const char *name) {
    size_t low = 0, high = safetensors_count(files);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(safetensors_name(files, middle), name);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return safetensors_count(files);
}

static graft_status missing_tensor(const opening *o, const char *name, const model_module *module,
                                   graft_error *err) {
    const char *remedy =
        module->kind == MODULE_HEAD
            ? "Set \"tie_word_embeddings\" in config.json if the model has no head "
              "of its own"
            : "config.json and the weights must belong to one model, saved whole";
    return error_set(err, GRAFT_E_INPUT, "%s: the weights have no tensor \"%s\". %s", o->folder,
                     name, remedy);
}

static graft_status find_tensor(tensor_view *out, opening *o, const model_module *module,
                                const char *suffix, graft_error *err) {
    const safetensors *files = o->source->files;
    char name[112], found[96], expected[96];
    if (!files) {
        *out = (tensor_view){.type = o->spec->stored};
        return GRAFT_OK;
    }
    snprintf(name, sizeof name, "%s.%s", module->name, suffix);
    size_t at = tensor_index(files, name);
    if (at == safetensors_count(files))
        return missing_tensor(o, name, module, err);
    o->is_used[at] = true;
    *out = safetensors_at(files, at);
    bool is_matrix = module->cols > 0 && strcmp(suffix, "weight") == 0;
    tensor_view want = {.rank = is_matrix ? 2 : 1, .shape = {module->rows, module->cols}};
    if (out->rank != want.rank || out->shape[0] != want.shape[0] ||
        (is_matrix && out->shape[1] != want.shape[1]))
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: tensor \"%s\": config.json asks for shape %s, the file has %s. They do "
            "not belong to one model",
            safetensors_file_of(files, at), name,
            tensor_shape_text(&want, expected, sizeof expected),
            tensor_shape_text(out, found, sizeof found));
    if (!dtype_is_weight(out->type))
        return error_set(
            err, GRAFT_E_UNSUPPORTED,
            "%s: tensor \"%s\" is stored as %s; supported are F32, BF16 and F16. Convert "
            "the model",
            safetensors_file_of(files, at), name, dtype_name(out->type));
    return GRAFT_OK;
}

static graft_status upload_tensor(opening *o, size_t i, const char *suffix, graft_error *err) {
    backend *dev = o->source->dev;
    tensor_view view;
    graft_status status = find_tensor(&view, o, &o->modules[i], suffix, err);
    if (status == GRAFT_OK && view.data)
        dev->ops->upload(dev, o->places[i], view.data, view.type, o->modules[i].rows);
    return status;
}

static graft_status resolve_matrix(weight_ref *out, opening *o, const model_module *module,
                                   graft_error *err) {
    tensor_view view;
    graft_status status = find_tensor(&view, o, module, "weight", err);
    if (status != GRAFT_OK)
        return status;
    *out = (weight_ref){.data = view.data,
                        .type = view.type,
                        .rows = module->rows,
                        .cols = module->cols,
                        .row_stride = module->cols};
    return GRAFT_OK;
}

static graft_status resolve_module(opening *o, size_t i, graft_error *err) {
    const model_module *module = &o->modules[i];
    weight_source *source = o->source;
    layer_weights *layer = module->layer >= 0 ? &source->layers[module->layer] : NULL;
    graft_status status = GRAFT_OK;
    switch (module->kind) {
    case MODULE_NORM:
        *(layer ? &layer->norm[module->slot] : &source->outer.final_norm) = o->places[i];
        return upload_tensor(o, i, "weight", err);
    case MODULE_EMBEDDING:
        return resolve_matrix(&source->outer.embedding, o, module, err);
    case MODULE_HEAD:
        if (module->is_tied)
            source->outer.head = source->outer.embedding;
        else
            status = resolve_matrix(&source->outer.head, o, module, err);
        if (status == GRAFT_OK && module->has_bias) {
            source->outer.head_bias = o->places[i];
            status = upload_tensor(o, i, "bias", err);
        }
        return status;
    case MODULE_LINEAR:
        status = resolve_matrix(&layer->linear[module->slot], o, module, err);
        if (status == GRAFT_OK && module->has_bias) {
            layer->bias[module->slot] = o->places[i];
            status = upload_tensor(o, i, "bias", err);
        }
        return status;
    }
    return status;
}

/* ---- Tied heads and what is left over ---- */

/* A tied model may still have a head on disk: a copy is skipped, another matrix is the model's
 * head. */
static void check_tied_head(model_spec *spec, const safetensors *files, const message_sink *sink) {
    char head_name[112], embedding_name[112];
    tensor_view head, embedding;
    snprintf(head_name, sizeof head_name, "%s.weight", spec->family->head_name);
    snprintf(embedding_name, sizeof embedding_name, "%s.weight", spec->family->embedding_name);
    if (!spec->is_head_tied || !safetensors_find(&head, files, head_name) ||
        !safetensors_find(&embedding, files, embedding_name))
        return;
    if (head.type == embedding.type && tensor_bytes(&head) == tensor_bytes(&embedding) &&
        memcmp(head.data, embedding.data, tensor_bytes(&head)) == 0)
        return;
    spec->is_head_tied = false;
    message_emit(sink, MESSAGE_WARNING,
                 "config.json ties the head to the embedding, but %s differs from %s: the head is "
                 "taken as a matrix of its own",
                 head_name, embedding_name);
}

static bool is_known_buffer(const char *name) {
    const char *end = strrchr(name, '.');
    return end && strcmp(end, ".inv_freq") == 0;
}

/* A tensor inside the blocks that the config has no place for means another model; others (a reward
 * head) are not used, as Transformers has it. */
static graft_status check_left_over(const opening *o, const message_sink *sink, graft_error *err) {
    const safetensors *files = o->source->files;
    char head_name[112], shown[512] = "";
    size_t n_left = 0, path_length = strlen(o->spec->family->layers_path);
    snprintf(head_name, sizeof head_name, "%s.weight", o->spec->family->head_name);
    for (size_t i = 0; i < safetensors_count(files); i++) {
        const char *name = safetensors_name(files, i);
        if (o->is_used[i] || is_known_buffer(name) || strcmp(name, head_name) == 0)
            continue;
        if (strncmp(name, o->spec->family->layers_path, path_length) == 0 &&
            name[path_length] == '.')
            return error_set(err, GRAFT_E_INPUT,
                             "%s: tensor \"%.100s\" has no place in the %s model of %d layers that "
                             "config.json describes. They do not belong to one model",
                             safetensors_file_of(files, i), name, o->spec->model_type,
                             o->spec->n_layers);
        if (n_left++ < LEFT_OVER_SHOWN)
            snprintf(shown + strlen(shown), sizeof shown - strlen(shown), "%s%.100s",
                     n_left > 1 ? ", " : "", name);
    }
    if (n_left > 0)
        message_emit(sink, MESSAGE_WARNING, "%s: %zu tensor(s) are not used: %s%s", o->folder,
                     n_left, shown, n_left > LEFT_OVER_SHOWN ? ", ..." : "");
    return GRAFT_OK;
}

/* ---- Opening and closing ---- */

static graft_status allocate_tables(opening *o, graft_error *err) {
    weight_source *source = o->source;
    size_t n_tensors = source->files ? safetensors_count(source->files) : 1;
    source->n_layers = o->spec->n_layers;
    source->layers = mem_array((size_t)source->n_layers, sizeof *source->layers);
    o->places = mem_array(o->n_modules, sizeof(device_array *));
    o->is_used = mem_array(n_tensors, sizeof *o->is_used);
    if (!source->layers || !o->places || !o->is_used)
        return error_memory(err, n_tensors + o->n_modules * sizeof(void *), "the table of weights");
    return GRAFT_OK;
}

static graft_status resolve_all(opening *o, graft_error *err) {
    graft_status status = model_modules(&o->modules, &o->n_modules, o->spec, err);
    if (status == GRAFT_OK)
        status = allocate_tables(o, err);
    if (status == GRAFT_OK)
        status = allocate_uploads(o, err);
    for (size_t i = 0; status == GRAFT_OK && i < o->n_modules; i++)
        status = resolve_module(o, i, err);
    return status;
}

/* The source goes to *out, or with a failure away. */
static graft_status opening_end(weight_source **out, opening *o, graft_status status) {
    free(o->modules);
    free(o->places);
    free(o->is_used);
    if (status != GRAFT_OK)
        weight_source_close(&o->source);
    *out = o->source;
    return status;
}

graft_status weight_source_open(weight_source **out, backend *dev, model_spec *spec,
                                const char *folder, const message_sink *sink, graft_error *err) {
    *out = NULL;
    opening o = {.spec = spec, .folder = folder, .source = mem_array(1, sizeof *o.source)};
    if (!o.source)
        return error_memory(err, sizeof *o.source, "weights");
    o.source->dev = dev;
    graft_status status = safetensors_open_model(&o.source->files, folder, sink, err);
    if (status == GRAFT_OK) {
        check_tied_head(spec, o.source->files, sink);
        status = resolve_all(&o, err);
    }
    if (status == GRAFT_OK)
        status = check_left_over(&o, sink, err);
    return opening_end(out, &o, status);
}

graft_status weight_source_open_shapes(weight_source **out, backend *dev, const model_spec *spec,
                                       graft_error *err) {
    *out = NULL;
    opening o = {.spec = spec, .source = mem_array(1, sizeof *o.source)};
    if (!o.source)
        return error_memory(err, sizeof *o.source, "weights");
    o.source->dev = dev;
    return opening_end(out, &o, resolve_all(&o, err));
}

void weight_source_close(weight_source **source_) {
    weight_source *source = *source_;
    if (!source)
        return;
    free(source->layers);
    if (source->uploaded)
        source->dev->ops->release(source->dev, source->uploaded);
    safetensors_close(&source->files);
    free(source);
    *source_ = NULL;
}

/* ---- Use ---- */

graft_status layer_acquire(layer_weights *out, weight_source *source, int32_t layer,
                           int32_t direction, graft_error *err) {
    (void)direction; /* mapped weights need no reading ahead of ours */
    if (layer < 0 || layer >= source->n_layers)
        return error_set(err, GRAFT_E_INTERNAL, "layer %d of %d does not exist", layer,
                         source->n_layers);
    *out = source->layers[layer];
    return GRAFT_OK;
}

void layer_release(weight_source *source, int32_t layer) {
    (void)source;
    (void)layer; /* mapped weights stay */
}

const outer_weights *weight_source_outer(const weight_source *source) {
    return &source->outer;
}

bool weight_source_tensor(tensor_view *out, const weight_source *source, const char *name) {
    return source->files && safetensors_find(out, source->files, name);
}

const safetensors *weight_source_files(const weight_source *source) {
    return source->files;
}

size_t weight_source_mapped_bytes(const weight_source *source) {
    return safetensors_bytes(source->files);
}

size_t weight_source_uploaded_bytes(const weight_source *source) {
    return source->uploaded_bytes;
}
