#include "adapter/model_writer.h"

#include "base/atomic_file.h"
#include "base/file_map.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct shards {
    named_tensor *named; /* borrowed */
    size_t *begin;       /* [n + 1]: shard s holds tensors begin[s] .. begin[s + 1] - 1 */
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

graft_status model_writer_companions(const weight_source *weights, const char *folder,
                                     graft_error *err) {
    const char *file = safetensors_file_of(weight_source_files(weights), 0);
    const char *slash = strrchr(file, '/');
    char *base = slash ? mem_text(file, (size_t)(slash - file)) : mem_text(".", 1);
    if (!base)
        return error_memory(err, strlen(file), "a path");
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < sizeof companions / sizeof *companions && status == GRAFT_OK; i++)
        status = folder_copy_file(folder, base, companions[i], COMPANION_BYTES_MAX, err);
    free(base);
    return status;
}

graft_status model_writer_weights(backend *dev, named_tensor *tensors, size_t n, const char *folder,
                                  size_t shard_bytes_max, graft_error *err) {
    shards s = {.named = tensors, .begin = mem_array(n + 1, sizeof *s.begin)};
    if (!s.begin)
        return error_memory(err, n * sizeof *s.begin, "the model's tensors");
    int64_t parameters = 0;
    for (size_t i = 0; i < n; i++)
        parameters += (int64_t)tensor_count(&tensors[i].view);
    cut_shards(&s, n, shard_bytes_max);
    graft_status status = folder_create(folder, err);
    for (size_t shard = 0; status == GRAFT_OK && shard < s.n; shard++)
        status = write_shard(&s, shard, dev, folder, err);
    if (status == GRAFT_OK && s.n > 1)
        status = write_index(&s, folder, parameters, err);
    free(s.begin);
    return status;
}
