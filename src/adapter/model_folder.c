#include "adapter/model_folder.h"

#include "adapter/tensor_file.h"
#include "base/atomic_file.h"
#include "base/file_map.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Reading ---- */

static bool has_key(const adapter *a, const char *key) {
    for (size_t i = 0; i < a->n_tensors; i++)
        if (!strcmp(a->tensors[i].key, key))
            return true;
    return false;
}

static graft_status check_tensor(const adapter_tensor *t, const safetensors *files,
                                 const char *folder, graft_error *err) {
    tensor_view view;
    char expected[64], found[128];
    if (!safetensors_find(&view, files, t->key))
        return error_set(err, GRAFT_E_INPUT, "%s: the model lacks %s", folder, t->key);
    if (!tensor_has_shape(&view, t->rank, t->shape))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: %s has shape %s, expected %s: it is another model", folder, t->key,
                         tensor_shape_text(&view, found, sizeof found),
                         tensor_expected_shape(t, expected, sizeof expected));
    return tensor_check_values(&view, t->key, folder, err);
}

graft_status model_folder_load(adapter *a, backend *dev, const char *folder, graft_error *err) {
    safetensors *files = NULL;
    graft_status status = safetensors_open_model(&files, folder, NULL, err);
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++)
        status = check_tensor(&a->tensors[i], files, folder, err);
    for (size_t i = 0; status == GRAFT_OK && i < safetensors_count(files); i++)
        if (!has_key(a, safetensors_name(files, i)))
            status = error_set(err, GRAFT_E_INPUT, "%s: %s is no tensor of this model", folder,
                               safetensors_name(files, i));
    for (size_t i = 0; i < a->n_tensors && status == GRAFT_OK; i++) {
        tensor_view view;
        safetensors_find(&view, files, a->tensors[i].key);
        dev->ops->upload(dev, a->tensors[i].value, view.data, view.type, a->tensors[i].count);
    }
    safetensors_close(&files);
    return status;
}

/* ---- Writing weights ---- */

typedef struct shards {
    named_tensor *named;
    tensor_source *sources;
    size_t *begin; /* [n + 1]: shard s holds tensors begin[s] .. begin[s + 1] - 1 */
    size_t n, bytes;
} shards;

/* Fills shards in order, as Transformers does: a tensor that would make one too large begins the
 * next. */
static void cut_shards(shards *s, size_t n_tensors, size_t shard_bytes_max) {
    size_t in_shard = 0;
    s->n = 1;
    for (size_t i = 0; i < n_tensors; i++) {
        size_t bytes = tensor_bytes(&s->named[i].view);
        if (in_shard && bytes > shard_bytes_max - in_shard) {
            s->begin[s->n++] = i;
            in_shard = 0;
        }
        in_shard = bytes > shard_bytes_max - in_shard ? shard_bytes_max : in_shard + bytes;
        s->bytes += bytes;
    }
    s->begin[s->n] = n_tensors;
}

static graft_status describe(shards *s, const adapter *a, const weight_source *weights,
                             size_t shard_bytes_max, graft_error *err) {
    s->named = mem_array(a->n_tensors, sizeof *s->named);
    s->sources = mem_array(a->n_tensors, sizeof *s->sources);
    s->begin = mem_array(a->n_tensors + 1, sizeof *s->begin);
    if (!s->named || !s->sources || !s->begin)
        return error_memory(err, a->n_tensors * sizeof *s->named, "the model's tensors");
    for (size_t i = 0; i < a->n_tensors; i++) {
        tensor_view stored;
        if (!weights || !weight_source_tensor(&stored, weights, a->tensors[i].key))
            return error_set(err, GRAFT_E_INTERNAL, "the base's %s is not open", a->tensors[i].key);
        s->sources[i].device = a->tensors[i].value;
        tensor_named(&s->named[i], &a->tensors[i], stored.type, &s->sources[i]);
    }
    cut_shards(s, a->n_tensors, shard_bytes_max);
    return GRAFT_OK;
}

static void shard_name(char *out, size_t capacity, size_t shard, size_t n) {
    if (n == 1)
        snprintf(out, capacity, "model.safetensors");
    else
        snprintf(out, capacity, "model-%05zu-of-%05zu.safetensors", shard + 1, n);
}

static graft_status write_index(const shards *s, const char *folder, int64_t parameters,
                                graft_error *err) {
    json_t *map = json_object();
    char name[64];
    for (size_t shard = 0; shard < s->n; shard++) {
        shard_name(name, sizeof name, shard, s->n);
        for (size_t i = s->begin[shard]; i < s->begin[shard + 1]; i++)
            json_object_set_new(map, s->named[i].name, json_string(name));
    }
    json_t *index =
        json_pack("{s:{s:I,s:I},s:o}", "metadata", "total_parameters", (json_int_t)parameters,
                  "total_size", (json_int_t)s->bytes, "weight_map", map);
    char *path = path_join(folder, "model.safetensors.index.json");
    strbuf text = {0};
    json_write(&text, index, JSON_INDENT_2, true);
    strbuf_add_char(&text, '\n');
    bool complete = index && json_object_size(map) == s->begin[s->n];
    graft_status status = !complete || !path || text.failed
                              ? error_memory(err, 4096, "model.safetensors.index.json")
                              : file_write_atomic(path, text.data, text.length, err);
    json_decref(index);
    strbuf_free(&text);
    free(path);
    return status;
}

static graft_status write_shard(const shards *s, size_t shard, backend *dev, const char *folder,
                                graft_error *err) {
    char name[64];
    shard_name(name, sizeof name, shard, s->n);
    char *path = path_join(folder, name);
    if (!path)
        return error_memory(err, strlen(folder) + sizeof name, "a path");
    graft_status status = tensor_file_write(path, dev, s->named + s->begin[shard],
                                            s->begin[shard + 1] - s->begin[shard], err);
    free(path);
    return status;
}

/* ---- What stands beside the weights ---- */

static const char *const companions[] = {
    "config.json",     "generation_config.json",  "tokenizer.json",     "tokenizer_config.json",
    "tokenizer.model", "special_tokens_map.json", "added_tokens.json",  "vocab.json",
    "merges.txt",      "chat_template.jinja",     "chat_template.json",
};

enum { COMPANION_BYTES_MAX = 1 << 30 };

static graft_status copy_companion(const char *from, const char *to, const char *name,
                                   graft_error *err) {
    char *source = path_join(from, name), *target = path_join(to, name), *bytes = NULL;
    size_t n = 0;
    graft_status status = GRAFT_OK;
    if (!source || !target)
        status = error_memory(err, strlen(from), "a path");
    else if (path_exists(source))
        status = file_read_all(&bytes, &n, source, COMPANION_BYTES_MAX, err);
    if (status == GRAFT_OK && bytes)
        status = file_write_atomic(target, bytes, n, err);
    free(source);
    free(target);
    free(bytes);
    return status;
}

static graft_status copy_companions(const weight_source *weights, const char *folder,
                                    graft_error *err) {
    const char *file = safetensors_file_of(weight_source_files(weights), 0);
    const char *slash = strrchr(file, '/');
    char *base = slash ? mem_text(file, (size_t)(slash - file)) : mem_text(".", 1);
    if (!base)
        return error_memory(err, strlen(file), "a path");
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < sizeof companions / sizeof *companions && status == GRAFT_OK; i++)
        status = copy_companion(base, folder, companions[i], err);
    free(base);
    return status;
}

graft_status model_folder_save(const adapter *a, backend *dev, const weight_source *weights,
                               const char *folder, size_t shard_bytes_max, graft_error *err) {
    shards s = {0};
    graft_status status = describe(&s, a, weights, shard_bytes_max, err);
    if (status == GRAFT_OK)
        status = folder_create(folder, err);
    for (size_t shard = 0; status == GRAFT_OK && shard < s.n; shard++)
        status = write_shard(&s, shard, dev, folder, err);
    if (status == GRAFT_OK && s.n > 1)
        status = write_index(&s, folder, adapter_trained_count(a), err);
    if (status == GRAFT_OK)
        status = copy_companions(weights, folder, err);
    free(s.named);
    free(s.sources);
    free(s.begin);
    return status;
}
