#include "formats/safetensors_parts.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "formats/json.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* An index says {"metadata": {"total_size": n}, "weight_map": {"tensor": "shard file", ...}}. Its
 * words are not trusted: a shard is a plain name in the index's folder, and where links lead is
 * looked at too. */

/* A folder of the hub's cache, .../models--org--name/snapshots/REVISION, holds links to
 * ../../blobs: there the repository is the fence, elsewhere the folder itself. `real` is resolved
 * already and is cut in place. */
static void widen_to_cache_root(char *real) {
    char *revision = strrchr(real, '/');
    if (!revision || revision == real)
        return;
    *revision = '\0';
    char *snapshots = strrchr(real, '/');
    if (snapshots && snapshots != real && !strcmp(snapshots, "/snapshots"))
        *snapshots = '\0';
    else
        *revision = '/';
}

static graft_status check_link(const char *folder, const char *path, graft_error *err) {
    char root[PATH_MAX], target[PATH_MAX];
    if (!realpath(folder, root) || !realpath(path, target))
        return GRAFT_OK; /* opening it says what is wrong */
    widen_to_cache_root(root);
    size_t length = strlen(root);
    if (!strncmp(root, target, length) && (target[length] == '/' || root[length - 1] == '/'))
        return GRAFT_OK;
    return error_set(
        err, GRAFT_E_INPUT,
        "%s: expected a shard inside %s, found a symbolic link to %s; copy or hard-link "
        "the file into the folder if you trust it",
        path, root, target);
}

static bool is_plain_name(const char *name, size_t length) {
    return length > 0 && length <= NAME_MAX && strlen(name) == length && strcmp(name, ".") &&
           strcmp(name, "..") && !strpbrk(name, "/\\");
}

typedef struct mapping {
    const char *tensor, *shard; /* borrowed from the index's JSON */
} mapping;

static int compare_by_shard(const void *a, const void *b) {
    return strcmp(((const mapping *)a)->shard, ((const mapping *)b)->shard);
}

static int compare_by_tensor(const void *a, const void *b) {
    return strcmp(((const mapping *)a)->tensor, ((const mapping *)b)->tensor);
}

static graft_status list_mappings(mapping **out, size_t *n, const json_t *index, const char *path,
                                  graft_error *err) {
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: \"weight_map\": expected an object of tensors and their shards, found %s", path,
            json_is_object(map) ? "an empty one" : json_type_name(map));
    *out = mem_array(json_object_size(map), sizeof **out);
    if (!*out)
        return error_memory(err, json_object_size(map) * sizeof **out, path);
    const char *tensor;
    json_t *shard;
    json_object_foreach(map, tensor, shard) {
        if (!json_is_string(shard))
            return error_set(err, GRAFT_E_INPUT,
                             "%s: weight_map: \"%s\": expected the name of a shard, found %s", path,
                             tensor, json_type_name(shard));
        const char *name = json_string_value(shard);
        if (!is_plain_name(name, json_string_length(shard)))
            return error_set(
                err, GRAFT_E_INPUT,
                "%s: weight_map: \"%s\": expected the plain name of a file in the same "
                "folder, found \"%.200s\"; do not use this model",
                path, tensor, name);
        (*out)[(*n)++] = (mapping){tensor, name};
    }
    return GRAFT_OK;
}

/* Opens each distinct shard; mappings are sorted by shard. */
static graft_status open_shards(safetensors *st, const mapping *mappings, size_t n,
                                const char *folder, const char *index_path, graft_error *err) {
    size_t n_shards = 0;
    for (size_t i = 0; i < n; i++)
        n_shards += i == 0 || strcmp(mappings[i].shard, mappings[i - 1].shard) != 0;
    if (n_shards > SAFETENSORS_SHARDS_MAX)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: weight_map: expected at most %d shards, found %zu", index_path,
                         (int)SAFETENSORS_SHARDS_MAX, n_shards);
    st->files = mem_array(n_shards, sizeof *st->files);
    if (!st->files)
        return error_memory(err, n_shards * sizeof *st->files, index_path);
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < n && status == GRAFT_OK; i++) {
        if (i > 0 && !strcmp(mappings[i].shard, mappings[i - 1].shard))
            continue;
        char *path = path_join(folder, mappings[i].shard);
        if (!path)
            return error_memory(err, strlen(folder), "a file name");
        status = check_link(folder, path, err);
        if (status == GRAFT_OK)
            status = safetensors_add_file(st, path, err);
        if (status != GRAFT_OK)
            error_prefix(err, "%s names a shard", index_path);
        free(path);
    }
    return status;
}

/* Every mapped tensor is in the shard named for it, and no shard has a tensor that the index does
 * not know. Both lists are sorted by tensor. */
static graft_status check_mappings(const safetensors *st, const mapping *mappings, size_t n,
                                   const char *index_path, graft_error *err) {
    for (size_t i = 0, j = 0; i < n || j < st->n;) {
        int order = i == n ? 1 : j == st->n ? -1 : strcmp(mappings[i].tensor, st->entries[j].name);
        const char *holder = j < st->n ? st->files[st->entries[j].file].path : "";
        if (order < 0)
            return error_set(
                err, GRAFT_E_INPUT,
                "%s: weight_map: \"%s\" should be in %s, which does not have it; index and "
                "shards are of different downloads: get them again",
                index_path, mappings[i].tensor, mappings[i].shard);
        if (order > 0)
            return error_set(
                err, GRAFT_E_INPUT,
                "%s: tensor \"%s\" is not in the weight_map of %s; index and shards are of "
                "different downloads: get them again",
                holder, st->entries[j].name, index_path);
        const char *base = strrchr(holder, '/');
        if (strcmp(base ? base + 1 : holder, mappings[i].shard))
            return error_set(
                err, GRAFT_E_INPUT,
                "%s: weight_map: \"%s\" should be in %s, but is in %s; index and shards "
                "are of different downloads: get them again",
                index_path, mappings[i].tensor, mappings[i].shard, holder);
        i++;
        j++;
    }
    return GRAFT_OK;
}

/* total_size counts the tensors' bytes; some writers count parameters or get it wrong, and nothing
 * depends on it. */
static void check_total(const safetensors *st, const json_t *index, const char *path,
                        const message_sink *sink) {
    const json_t *total = json_object_get(json_object_get(index, "metadata"), "total_size");
    if (!total || json_is_null(total))
        return;
    size_t bytes = 0;
    for (size_t i = 0; i < st->n; i++)
        bytes += tensor_bytes(&st->entries[i].view);
    if (!json_is_number(total))
        message_emit(sink, MESSAGE_WARNING, "%s: metadata.total_size: expected %zu, found %s", path,
                     bytes, json_type_name(total));
    else if (json_number_value(total) != (double)bytes)
        message_emit(sink, MESSAGE_WARNING, "%s: metadata.total_size: expected %zu, found %.0f",
                     path, bytes, json_number_value(total));
}

static graft_status read_index(safetensors *st, const json_t *index, const char *path,
                               const message_sink *sink, graft_error *err) {
    mapping *mappings = NULL;
    size_t n = 0;
    const char *slash = strrchr(path, '/');
    char *folder = slash ? mem_text(path, (size_t)(slash - path) + 1) : mem_text(".", 1);
    graft_status status = folder ? GRAFT_OK : error_memory(err, strlen(path), "a folder name");
    if (status == GRAFT_OK)
        status = list_mappings(&mappings, &n, index, path, err);
    if (status == GRAFT_OK) {
        qsort(mappings, n, sizeof *mappings, compare_by_shard);
        status = open_shards(st, mappings, n, folder, path, err);
    }
    if (status == GRAFT_OK)
        status = safetensors_sort(st, err);
    if (status == GRAFT_OK) {
        qsort(mappings, n, sizeof *mappings, compare_by_tensor);
        status = check_mappings(st, mappings, n, path, err);
    }
    if (status == GRAFT_OK)
        check_total(st, index, path, sink);
    free(mappings);
    free(folder);
    return status;
}

static graft_status open_index(safetensors **out, const char *path, const message_sink *sink,
                               graft_error *err) {
    *out = NULL;
    json_t *index = NULL;
    graft_status status = json_read_file(&index, path, SAFETENSORS_INDEX_MAX, err);
    if (status != GRAFT_OK)
        return status;
    safetensors *st = mem_array(1, sizeof *st);
    status = st ? read_index(st, index, path, sink, err) : error_memory(err, sizeof *st, path);
    json_decref(index);
    if (status != GRAFT_OK && st)
        safetensors_close(&st);
    *out = st;
    return status;
}

graft_status safetensors_open_index(safetensors **out, const char *index_path, graft_error *err) {
    return open_index(out, index_path, NULL, err);
}

static graft_status refuse_folder(const char *folder, graft_error *err) {
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                          "model.pt", "consolidated.00.pth"};
    for (size_t i = 0; i < sizeof pickles / sizeof pickles[0]; i++) {
        char *path = path_join(folder, pickles[i]);
        bool found = path && path_exists(path);
        free(path);
        if (found)
            return error_set(
                err, GRAFT_E_INPUT,
                "%s: expected model.safetensors, found only %s, a pickle, which can run "
                "code and is never read; get the model in safetensors form, or convert it "
                "with save_pretrained of Transformers",
                folder, pickles[i]);
    }
    return error_set(err, GRAFT_E_INPUT,
                     "%s: expected a model folder with model.safetensors or "
                     "model.safetensors.index.json, found neither; check the path",
                     folder);
}

graft_status safetensors_open_model(safetensors **out, const char *folder, const message_sink *sink,
                                    graft_error *err) {
    *out = NULL;
    char *single = path_join(folder, "model.safetensors");
    char *index = path_join(folder, "model.safetensors.index.json");
    graft_status status;
    if (!single || !index)
        status = error_memory(err, strlen(folder), "a file name");
    else if (path_exists(single))
        status = safetensors_open(out, single, err);
    else if (path_exists(index))
        status = open_index(out, index, sink, err);
    else
        status = refuse_folder(folder, err);
    free(single);
    free(index);
    return status;
}
