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
    weight_ref *experts;   /* what layers' experts point into */
    outer_weights outer;
    size_t prefix_length; /* of "model." and the like, where the files' names leave it out */
    char prefix[32];
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
    device_array **places; /* [n_modules][2] of what is uploaded: a norm's weight, and biases */
    bool *is_used;         /* [tensors in the files] */
} opening;

/* ---- What is uploaded ---- */

/* Norms of a block's heads lie one behind the other, as one array: the first makes room for all. */
static int64_t uploaded_elements(const model_module *modules, size_t n, size_t i) {
    int64_t elements = 0;
    if (modules[i].kind == MODULE_SINKS || modules[i].kind == MODULE_BUFFER)
        return modules[i].rows;
    if (modules[i].kind != MODULE_NORM)
        return 0;
    if (modules[i].part > 0)
        return 0;
    for (size_t j = i; j < n && modules[j].kind == MODULE_NORM && (j == i || modules[j].part > 0) &&
                       modules[j].slot == modules[i].slot;
         j++)
        elements += modules[j].rows * (modules[j].cols > 0 ? modules[j].cols : 1);
    return elements;
}

/* places [n][2]: weight and bias; NULL only counts. */
static void upload_layout(device_array **places, layout *l, const model_module *modules, size_t n,
                          size_t element_bytes) {
    for (size_t i = 0; i < n; i++) {
        int64_t elements = uploaded_elements(modules, n, i);
        void *weight = NULL, *bias = NULL;
        if (elements)
            weight = layout_take(l, COMPONENT_WEIGHTS, (size_t)elements, element_bytes);
        if (modules[i].has_bias)
            bias = layout_take(l, COMPONENT_WEIGHTS, (size_t)model_bias_count(&modules[i]),
                               element_bytes);
        if (!places)
            continue;
        places[2 * i] = weight;
        places[2 * i + 1] = bias;
        if (modules[i].kind == MODULE_NORM && modules[i].part > 0)
            places[2 * i] = (device_array *)((unsigned char *)places[2 * i - 2] +
                                             (size_t)modules[i].rows * element_bytes);
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
                                bool is_bias, graft_error *err) {
    const safetensors *files = o->source->files;
    char name[112], found[96], expected[96];
    if (!files) {
        *out = (tensor_view){.type = o->spec->stored};
        return GRAFT_OK;
    }
    model_tensor_name(name, sizeof name, module, is_bias);
    size_t at = tensor_index(files, weight_source_name(o->source, name));
    if (at == safetensors_count(files))
        return missing_tensor(o, name, module, err);
    o->is_used[at] = true;
    *out = safetensors_at(files, at);
    tensor_view want = {.rank = 1, .shape = {module->rows}};
    if (!is_bias)
        want.rank = model_stored_shape(want.shape, module);
    else if (module->n_stacked)
        want = (tensor_view){.rank = 2, .shape = {module->n_stacked, module->rows}};
    if (!tensor_has_shape(out, want.rank, want.shape))
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

static graft_status upload_tensor(const device_array **out, opening *o, size_t i, bool is_bias,
                                  graft_error *err) {
    backend *dev = o->source->dev;
    tensor_view view;
    device_array *place = o->places[2 * i + is_bias];
    graft_status status = find_tensor(&view, o, &o->modules[i], is_bias, err);
    if (status != GRAFT_OK)
        return status;
    if (view.data)
        dev->ops->upload(dev, place, view.data, view.type, (int64_t)tensor_count(&view));
    if (o->modules[i].kind != MODULE_NORM || o->modules[i].part == 0)
        *out = place;
    return GRAFT_OK;
}

static graft_status resolve_matrix(weight_ref *out, opening *o, const model_module *module,
                                   graft_error *err) {
    tensor_view view;
    graft_status status = find_tensor(&view, o, module, false, err);
    if (status != GRAFT_OK)
        return status;
    *out = (weight_ref){.data = view.data,
                        .type = view.type,
                        .rows = module->rows,
                        .cols = module->cols,
                        .row_stride = module->is_transposed ? module->rows : module->cols,
                        .is_transposed = module->is_transposed};
    return GRAFT_OK;
}

static graft_status resolve_norm(opening *o, size_t i, graft_error *err) {
    const model_module *module = &o->modules[i];
    outer_weights *outer = &o->source->outer;
    layer_weights *layer = module->layer >= 0 ? &o->source->layers[module->layer] : NULL;
    graft_status status = upload_tensor(
        layer ? &layer->norm[module->slot] : &outer->norm[module->slot], o, i, false, err);
    if (status == GRAFT_OK && module->has_bias)
        status =
            upload_tensor(layer ? &layer->norm_bias[module->slot] : &outer->norm_bias[module->slot],
                          o, i, true, err);
    return status;
}

static graft_status resolve_linear(opening *o, size_t i, graft_error *err) {
    const model_module *module = &o->modules[i];
    if (module->layer < 0)
        return resolve_matrix(&o->source->outer.linear[module->slot], o, module, err);
    layer_weights *layer = &o->source->layers[module->layer];
    graft_status status = resolve_matrix(&layer->linear[module->slot], o, module, err);
    if (status == GRAFT_OK && module->has_bias)
        status = upload_tensor(&layer->bias[module->slot], o, i, true, err);
    return status;
}

/* One expert's matrix, or all of them, one behind the other. */
static graft_status resolve_experts(opening *o, size_t i, graft_error *err) {
    const model_module *module = &o->modules[i];
    layer_weights *layer = &o->source->layers[module->layer];
    weight_ref *experts = &o->source->experts[layer->experts - o->source->experts];
    if (module->kind == MODULE_EXPERT)
        return resolve_matrix(&experts[module->part * N_EXPERT_SLOTS + module->slot], o, module,
                              err);
    tensor_view view;
    graft_status status = find_tensor(&view, o, module, false, err);
    for (int32_t e = 0; status == GRAFT_OK && e < module->n_stacked; e++)
        experts[e * N_EXPERT_SLOTS + module->slot] =
            (weight_ref){.data = (const char *)view.data +
                                 (size_t)(e * module->rows * module->cols) * dtype_bytes(view.type),
                         .type = view.type,
                         .rows = module->rows,
                         .cols = module->cols,
                         .row_stride = module->is_transposed ? module->rows : module->cols,
                         .is_transposed = module->is_transposed};
    if (status == GRAFT_OK && module->has_bias)
        status = upload_tensor(&layer->expert_bias[module->slot], o, i, true, err);
    return status;
}

static graft_status resolve_module(opening *o, size_t i, graft_error *err) {
    const model_module *module = &o->modules[i];
    outer_weights *outer = &o->source->outer;
    graft_status status = GRAFT_OK;
    switch (module->kind) {
    case MODULE_NORM:
        return resolve_norm(o, i, err);
    case MODULE_EMBEDDING:
        return resolve_matrix(&outer->embedding, o, module, err);
    case MODULE_POSITIONS:
        return resolve_matrix(&outer->positions, o, module, err);
    case MODULE_HEAD:
        if (module->is_tied)
            outer->head = outer->embedding;
        else
            status = resolve_matrix(&outer->head, o, module, err);
        if (status == GRAFT_OK && module->has_bias)
            status = upload_tensor(&outer->head_bias, o, i, true, err);
        return status;
    case MODULE_LINEAR:
    case MODULE_ROUTER:
        return resolve_linear(o, i, err);
    case MODULE_EXPERT:
    case MODULE_EXPERTS:
        return resolve_experts(o, i, err);
    case MODULE_SINKS:
        return upload_tensor(&o->source->layers[module->layer].sinks, o, i, false, err);
    case MODULE_BUFFER:
        return upload_tensor(&o->source->layers[module->layer].router_correction, o, i, false, err);
    }
    return status;
}

/* ---- Names without the model's prefix: a base model was saved, without its head ---- */

static void find_prefix(weight_source *source, const model_spec *spec) {
    char name[112];
    tensor_view view;
    const char *first = strchr(spec->family->embedding_name, '.');
    snprintf(name, sizeof name, "%s.weight", spec->family->embedding_name);
    if (!first || safetensors_find(&view, source->files, name))
        return;
    size_t length = (size_t)(first - spec->family->embedding_name) + 1;
    if (length >= sizeof source->prefix || !safetensors_find(&view, source->files, name + length))
        return;
    memcpy(source->prefix, spec->family->embedding_name, length);
    source->prefix_length = length;
}

const char *weight_source_name(const weight_source *source, const char *name) {
    size_t length = source->prefix_length;
    return length && !strncmp(name, source->prefix, length) ? name + length : name;
}

/* ---- Tied heads and what is left over ---- */

static void head_tensor_name(char *out, size_t capacity, const model_spec *spec) {
    const model_family *family = spec->family;
    snprintf(out, capacity, "%s.weight",
             family->head_disk_name ? family->head_disk_name : family->head_name);
}

/* A tied model may still have a head on disk: a copy is skipped, another matrix is the model's
 * head. */
static void check_tied_head(model_spec *spec, const safetensors *files, const message_sink *sink) {
    char head_name[112], embedding_name[112];
    tensor_view head, embedding;
    head_tensor_name(head_name, sizeof head_name, spec);
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

/* Buffers of old files: rotary frequencies, and the causal masks of GPT-2 and GPT-NeoX. */
static bool is_known_buffer(const char *name) {
    static const char *const ends[] = {".inv_freq", ".attn.bias", ".attn.masked_bias",
                                       ".attention.bias", ".attention.masked_bias"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t n = strlen(ends[i]);
        if (length >= n && !strcmp(name + length - n, ends[i]))
            return true;
    }
    return false;
}

/* A tensor inside the blocks that the config has no place for means another model; others (a reward
 * head) are not used, as Transformers has it. */
static graft_status check_left_over(const opening *o, const message_sink *sink, graft_error *err) {
    const safetensors *files = o->source->files;
    char head_name[112], shown[512] = "";
    const char *layers_path = weight_source_name(o->source, o->spec->family->layers_path);
    size_t n_left = 0, path_length = strlen(layers_path);
    head_tensor_name(head_name, sizeof head_name, o->spec);
    for (size_t i = 0; i < safetensors_count(files); i++) {
        const char *name = safetensors_name(files, i);
        if (o->is_used[i] || is_known_buffer(name) || strcmp(name, head_name) == 0)
            continue;
        if (strncmp(name, layers_path, path_length) == 0 && name[path_length] == '.')
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
    size_t experts = (size_t)o->spec->n_experts * N_EXPERT_SLOTS, n_sparse = 0;
    for (int32_t layer = 0; layer < source->n_layers; layer++)
        n_sparse += model_layer_is_sparse(o->spec, layer);
    source->experts = n_sparse ? mem_array(n_sparse * experts, sizeof *source->experts) : NULL;
    o->places = mem_array(2 * o->n_modules, sizeof(device_array *));
    o->is_used = mem_array(n_tensors, sizeof *o->is_used);
    if (!source->layers || !o->places || !o->is_used || (n_sparse && !source->experts))
        return error_memory(err, n_tensors + o->n_modules * sizeof(void *), "the table of weights");
    weight_ref *next = source->experts;
    for (int32_t layer = 0; layer < source->n_layers; layer++)
        if (model_layer_is_sparse(o->spec, layer)) {
            source->layers[layer].experts = next;
            next += experts;
        }
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
        find_prefix(o.source, spec);
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
    free(source->experts);
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
    return source->files && safetensors_find(out, source->files, weight_source_name(source, name));
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
