#include "train/checkpoint.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "formats/safetensors.h"
#include "train/folder.h"
#include "train/memory_plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char STATE_JSON[] = "state.json";
static const char STATE_TENSORS[] = "state.safetensors";
enum { STATE_BYTES_MAX = 1 << 20, PARTS = 3, NAME_BYTES = 224 };

static const char *const part_names[PARTS] = {"value", "moment1", "moment2"};

static device_array *part_of(const adapter_tensor *tensor, int part) {
    device_array *const parts[PARTS] = {tensor->value, tensor->moment1, tensor->moment2};
    return parts[part];
}

void checkpoint_state_free(checkpoint_state *state) {
    json_decref(state->settings);
    state->settings = NULL;
}

/* ---- Tensors ---- */

/* A fixed tensor has a value alone. */
typedef struct tensor_part {
    const adapter_tensor *tensor;
    int part;
} tensor_part;

typedef struct tensor_list {
    named_tensor *items;
    tensor_part *parts;
    char (*names)[NAME_BYTES];
    size_t n;
} tensor_list;

static void tensor_list_free(tensor_list *list) {
    free(list->items);
    free(list->parts);
    free(list->names);
    *list = (tensor_list){0};
}

/* All parts of all tensors, tensor by tensor; without data. */
static graft_status tensor_list_create(tensor_list *list, const adapter *a, const backend *dev,
                                       graft_error *err) {
    const size_t most = a->n_tensors * PARTS;
    *list = (tensor_list){.items = mem_array(most, sizeof *list->items),
                          .parts = mem_array(most, sizeof *list->parts),
                          .names = mem_array(most, sizeof *list->names)};
    if (!list->items || !list->parts || !list->names) {
        tensor_list_free(list);
        return error_memory(err, most * sizeof *list->names, "a checkpoint");
    }
    for (size_t i = 0; i < most; i++) {
        const tensor_part part = {&a->tensors[i / PARTS], (int)(i % PARTS)};
        if (part.tensor->is_fixed && part.part > 0)
            continue;
        named_tensor *item = &list->items[list->n];
        snprintf(list->names[list->n], NAME_BYTES, "%s.%s", part_names[part.part],
                 part.tensor->key);
        list->parts[list->n] = part;
        item->name = list->names[list->n++];
        item->view = (tensor_view){
            .type = part.tensor->integers ? DTYPE_I64 : dev->element,
            .rank = part.tensor->rank,
        };
        memcpy(item->view.shape, part.tensor->shape, sizeof part.tensor->shape);
    }
    return GRAFT_OK;
}

static void download(backend *dev, void *to, const device_array *from, int64_t n) {
    if (dev->element == DTYPE_F64)
        dev->ops->download_f64(dev, to, from, n);
    else
        dev->ops->download(dev, to, from, n);
}

static graft_status write_array(safetensors_writer *writer, backend *dev, const device_array *array,
                                int64_t count, void *staging, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (int64_t at = 0; at < count && status == GRAFT_OK; at += STAGING_ELEMENTS) {
        int64_t n = count - at < STAGING_ELEMENTS ? count - at : STAGING_ELEMENTS;
        download(dev, staging, array_at_const(dev, array, at), n);
        status = safetensors_writer_add(writer, staging, (size_t)n * dev->element_bytes, err);
    }
    return status;
}

static graft_status write_tensors(const char *path, const checkpoint_source *source,
                                  graft_error *err) {
    const adapter *a = source->adapter;
    tensor_list list = {0};
    safetensors_writer *writer = NULL;
    graft_status status = tensor_list_create(&list, a, source->dev, err);
    if (status == GRAFT_OK)
        status = safetensors_writer_open(&writer, path, list.items, list.n, err);
    for (size_t i = 0; i < list.n && status == GRAFT_OK; i++) {
        const adapter_tensor *tensor = list.parts[i].tensor;
        if (tensor->integers)
            status = safetensors_writer_add(writer, tensor->integers,
                                            (size_t)tensor->count * sizeof *tensor->integers, err);
        else
            status = write_array(writer, source->dev, part_of(tensor, list.parts[i].part),
                                 tensor->count, source->staging, err);
    }
    if (status == GRAFT_OK)
        status = safetensors_writer_commit(&writer, err);
    else
        safetensors_writer_abandon(&writer);
    tensor_list_free(&list);
    return status;
}

static graft_status check_tensor(const tensor_view *found, const named_tensor *expected,
                                 const char *path, graft_error *err) {
    bool is_same = found->type == expected->view.type && found->rank == expected->view.rank;
    for (int32_t i = 0; is_same && i < found->rank; i++)
        is_same = found->shape[i] == expected->view.shape[i];
    if (is_same)
        return GRAFT_OK;
    char want[64], have[64];
    return error_set(
        err, GRAFT_E_INPUT,
        "%s: %s: expected %s %s as the adapter of this run has it, found %s %s; resume "
        "with the adapter options the checkpoint was made with",
        path, expected->name, dtype_name(expected->view.type),
        tensor_shape_text(&expected->view, want, sizeof want), dtype_name(found->type),
        tensor_shape_text(found, have, sizeof have));
}

static graft_status load_tensors(backend *dev, const safetensors *file, const tensor_list *list,
                                 const char *path, graft_error *err) {
    if (safetensors_count(file) != list->n)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: expected %zu tensors as the adapter of this run has, found %zu; resume "
            "with the adapter options the checkpoint was made with",
            path, list->n, safetensors_count(file));
    for (size_t i = 0; i < list->n; i++) {
        tensor_view found;
        if (!safetensors_find(&found, file, list->items[i].name))
            return error_set(
                err, GRAFT_E_INPUT,
                "%s: expected a tensor %s, found none; resume with the adapter options "
                "the checkpoint was made with",
                path, list->items[i].name);
        graft_status status = check_tensor(&found, &list->items[i], path, err);
        if (status != GRAFT_OK)
            return status;
    }
    for (size_t i = 0; i < list->n; i++) {
        tensor_view found;
        const adapter_tensor *tensor = list->parts[i].tensor;
        safetensors_find(&found, file, list->items[i].name);
        if (tensor->integers)
            memcpy(tensor->integers, found.data, tensor_bytes(&found));
        else
            dev->ops->upload(dev, part_of(tensor, list->parts[i].part), found.data, found.type,
                             tensor->count);
    }
    return GRAFT_OK;
}

graft_status checkpoint_load(const adapter *a, backend *dev, const char *folder, graft_error *err) {
    tensor_list list = {0};
    safetensors *file = NULL;
    char *path = path_join(folder, STATE_TENSORS);
    graft_status status = path ? GRAFT_OK : error_memory(err, strlen(folder), "a file name");
    if (status == GRAFT_OK)
        status = tensor_list_create(&list, a, dev, err);
    if (status == GRAFT_OK)
        status = safetensors_open(&file, path, err);
    if (status == GRAFT_OK)
        status = load_tensors(dev, file, &list, path, err);
    safetensors_close(&file);
    tensor_list_free(&list);
    free(path);
    return status;
}

/* ---- state.json ---- */

/* 64-bit words go as hexadecimal text: JSON's integers are signed. */
static json_t *hex_json(uint64_t value) {
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, value);
    return json_string(text);
}

static graft_status need_hex(uint64_t *out, const json_t *object, const char *key,
                             const char *origin, graft_error *err) {
    const char *text;
    graft_status status = json_get_string(&text, object, key, "", origin, err);
    if (status != GRAFT_OK)
        return status;
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 16);
    if (strlen(text) != 16 || *end || errno)
        return error_set(err, GRAFT_E_INPUT, "%s: %s: expected 16 hexadecimal digits, found \"%s\"",
                         origin, key, text);
    return GRAFT_OK;
}

typedef struct counter {
    const char *key;
    int64_t *value;
} counter;

enum { COUNTERS = 9 };

static void counters_of(counter out[COUNTERS], checkpoint_state *state) {
    run_progress *p = &state->progress;
    const counter all[COUNTERS] = {
        {"step", &p->step},
        {"updates", &p->updates},
        {"skipped_steps", &p->skipped},
        {"skipped_in_a_row", &p->skipped_in_a_row},
        {"tokens", &p->tokens},
        {"supervised_tokens", &p->supervised_tokens},
        {"epoch", &p->cursor.epoch},
        {"rows_taken", &p->cursor.index},
        {"total_steps", &state->total_steps},
    };
    memcpy(out, all, sizeof all);
}

/* Takes the value; false when out of memory. */
static bool add(json_t *object, const char *key, json_t *value) {
    return json_object_set_new(object, key, value) == 0;
}

static graft_status write_state(const char *path, const checkpoint_state *state, graft_error *err) {
    checkpoint_state copy = *state;
    counter counters[COUNTERS];
    counters_of(counters, &copy);
    strbuf text = {0};
    json_t *root = json_object();
    bool is_whole = add(root, "format_version", json_integer(CHECKPOINT_FORMAT_VERSION)) &&
                    add(root, "run_id", json_string(state->run_id));
    for (int i = 0; i < COUNTERS; i++)
        is_whole = is_whole && add(root, counters[i].key, json_integer(*counters[i].value));
    is_whole = is_whole && add(root, "seed", hex_json(state->seed)) &&
               add(root, "data_hash", hex_json(state->data_hash)) &&
               add(root, "base_hash", hex_json(state->base_hash)) &&
               add(root, "settings", json_incref(state->settings));
    graft_status status = is_whole ? GRAFT_OK : error_memory(err, sizeof copy, path);
    if (is_whole) {
        json_write(&text, root, JSON_INDENT_2, false);
        strbuf_add_char(&text, '\n');
    }
    if (text.failed)
        status = error_memory(err, text.length, path);
    if (status == GRAFT_OK)
        status = file_write_atomic(path, text.data, text.length, err);
    strbuf_free(&text);
    json_decref(root);
    return status;
}

static graft_status read_state(checkpoint_state *state, const json_t *root, const char *path,
                               graft_error *err) {
    counter counters[COUNTERS];
    counters_of(counters, state);
    const char *run_id;
    graft_status status = json_get_string(&run_id, root, "run_id", "", path, err);
    for (int i = 0; i < COUNTERS && status == GRAFT_OK; i++)
        status = json_need_i64(counters[i].value, root, counters[i].key, 0, INT64_MAX, path, err);
    if (status == GRAFT_OK)
        status = need_hex(&state->seed, root, "seed", path, err);
    if (status == GRAFT_OK)
        status = need_hex(&state->data_hash, root, "data_hash", path, err);
    if (status == GRAFT_OK)
        status = need_hex(&state->base_hash, root, "base_hash", path, err);
    if (status != GRAFT_OK)
        return status;
    json_t *settings = json_object_get(root, "settings");
    if (!json_is_object(settings) || strlen(run_id) != RUN_ID_BYTES - 1)
        return error_set(err, GRAFT_E_INPUT, "%s: %s: missing or of the wrong kind", path,
                         json_is_object(settings) ? "run_id" : "settings");
    memcpy(state->run_id, run_id, RUN_ID_BYTES);
    state->settings = json_incref(settings);
    return GRAFT_OK;
}

graft_status checkpoint_read(checkpoint_state *state, const char *folder, graft_error *err) {
    *state = (checkpoint_state){0};
    json_t *root = NULL;
    char *path = path_join(folder, STATE_JSON);
    graft_status status = path ? GRAFT_OK : error_memory(err, strlen(folder), "a file name");
    if (status == GRAFT_OK)
        status = json_read_file(&root, path, STATE_BYTES_MAX, err);
    if (status == GRAFT_OK && !json_is_object(root))
        status = error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", path,
                           json_type_name(root));
    if (status == GRAFT_OK)
        status = read_state(state, root, path, err);
    json_decref(root);
    free(path);
    return status;
}

/* ---- Saving ---- */

static graft_status write_files(const char *folder, const checkpoint_state *state,
                                const checkpoint_source *source, graft_error *err) {
    char *tensors = path_join(folder, STATE_TENSORS), *json = path_join(folder, STATE_JSON);
    graft_status status = GRAFT_OK;
    if (!tensors || !json)
        status = error_memory(err, strlen(folder), "a file name");
    if (status == GRAFT_OK)
        status = write_tensors(tensors, source, err);
    if (status == GRAFT_OK)
        status = write_state(json, state, err);
    if (status == GRAFT_OK && source->recipe)
        status = folder_write(folder, "recipe.yaml", source->recipe, strlen(source->recipe), err);
    /* A whole model in the base's type is no use to a resumed run, and large. */
    if (status == GRAFT_OK && strcmp(source->adapter->method->peft_type, "FULL") != 0)
        status = adapter_save(source->adapter, source->dev, source->weights, folder,
                              source->base_name, err);
    if (status == GRAFT_OK)
        status = manifest_write(folder, state->run_id, err);
    if (status == GRAFT_OK)
        status = folder_sync(folder, err);
    free(tensors);
    free(json);
    return status;
}

static graft_status move(const char *from, const char *to, graft_error *err) {
    if (rename(from, to) != 0)
        return error_set(err, GRAFT_E_IO, "%s: cannot be renamed to %s: %s", from, to,
                         strerror(errno));
    return GRAFT_OK;
}

/* A folder of that name may be there: of another run, or damaged. It is moved aside first, not
 * removed: a kill between the two renames leaves every other checkpoint alone. */
static graft_status put_in_place(const char *temporary, const char *path, const char *replaced,
                                 graft_error *err) {
    graft_status status = folder_remove(replaced, err);
    bool is_replacing = status == GRAFT_OK && path_exists(path);
    if (is_replacing)
        status = move(path, replaced, err);
    if (status == GRAFT_OK) {
        status = move(temporary, path, err);
        if (status != GRAFT_OK && is_replacing)
            move(replaced, path, NULL);
    }
    return status;
}

graft_status checkpoint_save(char **out, const char *output_dir, const checkpoint_state *state,
                             const checkpoint_source *source, graft_error *err) {
    char *path = NULL, *temporary = NULL, *replaced = NULL;
    graft_status status = GRAFT_OK;
    *out = NULL;
    if (asprintf(&path, "%s/checkpoint-%" PRId64, output_dir, state->progress.step) < 0)
        path = NULL;
    if (path && asprintf(&temporary, "%s.tmp", path) < 0)
        temporary = NULL;
    if (path && asprintf(&replaced, "%s.replaced.tmp", path) < 0)
        replaced = NULL;
    if (!path || !temporary || !replaced) {
        status = error_memory(err, strlen(output_dir), "a file name");
        goto cleanup;
    }
    status = folder_remove(temporary, err);
    if (status == GRAFT_OK)
        status = folder_create(temporary, err);
    if (status == GRAFT_OK)
        status = write_files(temporary, state, source, err);
    if (status == GRAFT_OK)
        status = put_in_place(temporary, path, replaced, err);
    if (status == GRAFT_OK)
        status = folder_sync(output_dir, err);
    if (status != GRAFT_OK)
        folder_remove(temporary, NULL);
    folder_remove(replaced, NULL);
    if (status == GRAFT_OK) {
        *out = path;
        path = NULL;
    }
cleanup:
    free(replaced);
    free(temporary);
    free(path);
    return status;
}
