#include "formats/safetensors_parts.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

graft_status safetensors_add_file(safetensors *st, const char *path, graft_error *err) {
    st_file *file = &st->files[st->n_files];
    graft_status status = file_map_open(&file->map, path, err);
    if (status != GRAFT_OK)
        return status;
    st->n_files++; /* from here on safetensors_close releases it */
    file->path = mem_text(path, strlen(path));
    if (!file->path)
        return error_memory(err, strlen(path), "a file name");
    return safetensors_read_header(st, (uint32_t)(st->n_files - 1), err);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const st_entry *)a)->name, ((const st_entry *)b)->name);
}

graft_status safetensors_sort(safetensors *st, graft_error *err) {
    if (st->n)
        qsort(st->entries, st->n, sizeof *st->entries, compare_names);
    for (size_t i = 1; i < st->n; i++) {
        const st_entry *a = &st->entries[i - 1], *b = &st->entries[i];
        if (strcmp(a->name, b->name))
            continue;
        if (a->file == b->file)
            return error_set(err, GRAFT_E_INPUT,
                             "%s: tensor \"%s\" is there twice; the file is damaged: get it again",
                             st->files[a->file].path, a->name);
        return error_set(err, GRAFT_E_INPUT,
                         "tensor \"%s\" is in two shards, %s and %s; the files are of different "
                         "downloads, or damaged: get them again",
                         a->name, st->files[a->file].path, st->files[b->file].path);
    }
    return GRAFT_OK;
}

graft_status safetensors_open(safetensors **out, const char *path, graft_error *err) {
    *out = NULL;
    safetensors *st = mem_array(1, sizeof *st);
    if (!st)
        return error_memory(err, sizeof *st, path);
    graft_status status = GRAFT_OK;
    st->files = mem_array(1, sizeof *st->files);
    if (!st->files)
        status = error_memory(err, sizeof *st->files, path);
    if (status == GRAFT_OK)
        status = safetensors_add_file(st, path, err);
    if (status == GRAFT_OK)
        status = safetensors_sort(st, err);
    if (status != GRAFT_OK)
        safetensors_close(&st);
    *out = st;
    return status;
}

void safetensors_close(safetensors **owner) {
    safetensors *st = *owner;
    if (!st)
        return;
    for (size_t i = 0; i < st->n_files; i++) {
        st_file *file = &st->files[i];
        file_map_close(&file->map);
        free(file->path);
        free(file->names);
        free(file->aligned);
        free(file->pairs);
    }
    free(st->files);
    free(st->entries);
    free(st);
    *owner = NULL;
}

size_t safetensors_count(const safetensors *st) {
    return st->n;
}

const char *safetensors_name(const safetensors *st, size_t i) {
    return st->entries[i].name;
}

bool safetensors_find(tensor_view *out, const safetensors *st, const char *name) {
    st_entry wanted = {.name = name};
    const st_entry *found =
        st->n ? bsearch(&wanted, st->entries, st->n, sizeof wanted, compare_names) : NULL;
    if (found)
        *out = found->view;
    return found != NULL;
}

tensor_view safetensors_at(const safetensors *st, size_t i) {
    return st->entries[i].view;
}

const char *safetensors_file_of(const safetensors *st, size_t i) {
    return st->files[st->entries[i].file].path;
}

const char *safetensors_metadata(const safetensors *st, const char *key) {
    for (size_t f = 0; f < st->n_files; f++)
        for (size_t i = 0; i < st->files[f].n_pairs; i++)
            if (!strcmp(st->files[f].pairs[i].key, key))
                return st->files[f].pairs[i].value;
    return NULL;
}

size_t safetensors_bytes(const safetensors *st) {
    size_t bytes = 0;
    for (size_t i = 0; i < st->n_files; i++)
        bytes += st->files[i].map.size;
    return bytes;
}

graft_status safetensors_verify_unchanged(const safetensors *st, graft_error *err) {
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < st->n_files && status == GRAFT_OK; i++)
        status = file_map_verify(&st->files[i].map, st->files[i].path, err);
    return status;
}
