#include "formats/safetensors.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "formats/json.h"

#include <stdlib.h>
#include <string.h>

struct safetensors_writer {
    atomic_file *file;
    size_t data_bytes, written;
};

/* The order in which the safetensors library lays types out, which keeps every tensor aligned. */
static int type_rank(dtype type) {
    static const dtype order[] = {DTYPE_U64,     DTYPE_I64,     DTYPE_F64, DTYPE_F32, DTYPE_U32,
                                  DTYPE_I32,     DTYPE_BF16,    DTYPE_F16, DTYPE_U16, DTYPE_I16,
                                  DTYPE_F8_E4M3, DTYPE_F8_E5M2, DTYPE_I8,  DTYPE_U8,  DTYPE_BOOL};
    _Static_assert(sizeof order / sizeof order[0] == N_DTYPES, "every type has its place");
    int rank = 0;
    while (order[rank] != type)
        rank++;
    return rank;
}

static int compare_tensors(const void *a, const void *b) {
    const named_tensor *left = a, *right = b;
    int by_type = type_rank(left->view.type) - type_rank(right->view.type);
    return by_type ? by_type : strcmp(left->name, right->name);
}

void safetensors_order(named_tensor *tensors, size_t n) {
    if (n)
        qsort(tensors, n, sizeof *tensors, compare_tensors);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static graft_status check_names(const char *path, const named_tensor *tensors, size_t n,
                                graft_error *err) {
    const char **names = mem_array(n, sizeof *names);
    if (!names)
        return error_memory(err, n * sizeof *names, path);
    for (size_t i = 0; i < n; i++)
        names[i] = tensors[i].name;
    qsort(names, n, sizeof *names, compare_names);
    graft_status status = GRAFT_OK;
    for (size_t i = 0; i < n && status == GRAFT_OK; i++)
        if (!strcmp(names[i], "__metadata__") || (i > 0 && !strcmp(names[i - 1], names[i])))
            status = error_set(err, GRAFT_E_INTERNAL,
                               "%s: the tensor name \"%s\" cannot be written", path, names[i]);
    free(names);
    return status;
}

/* The header's JSON, padded with blanks so that the data begins at a multiple of 8. */
static void write_header(strbuf *out, const named_tensor *tensors, size_t n, size_t *data_bytes) {
    size_t begin = 0;
    strbuf_add_text(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n; i++) {
        const tensor_view *view = &tensors[i].view;
        strbuf_add_char(out, ',');
        json_write_string(out, tensors[i].name, strlen(tensors[i].name));
        strbuf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(view->type));
        for (int d = 0; d < view->rank; d++)
            strbuf_printf(out, "%s%lld", d ? "," : "", (long long)view->shape[d]);
        size_t end = begin + tensor_bytes(view);
        strbuf_printf(out, "],\"data_offsets\":[%zu,%zu]}", begin, end);
        begin = end;
    }
    strbuf_add_char(out, '}');
    while (out->length % 8 && !out->failed)
        strbuf_add_char(out, ' ');
    *data_bytes = begin;
}

static graft_status start_file(safetensors_writer *writer, const char *path, const strbuf *header,
                               graft_error *err) {
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header->length >> 8 * i);
    graft_status status = atomic_file_open(&writer->file, path, err);
    if (status == GRAFT_OK)
        status = atomic_file_write(writer->file, length, sizeof length, err);
    if (status == GRAFT_OK)
        status = atomic_file_write(writer->file, header->data, header->length, err);
    return status;
}

graft_status safetensors_writer_open(safetensors_writer **out, const char *path,
                                     const named_tensor *shapes, size_t n, graft_error *err) {
    *out = NULL;
    strbuf header = {0};
    safetensors_writer *writer = NULL;
    graft_status status = check_names(path, shapes, n, err);
    if (status != GRAFT_OK)
        goto cleanup;
    writer = mem_array(1, sizeof *writer);
    if (writer)
        write_header(&header, shapes, n, &writer->data_bytes);
    if (!writer || header.failed) {
        status = error_memory(err, header.length + sizeof *writer, path);
        goto cleanup;
    }
    status = start_file(writer, path, &header, err);
    if (status == GRAFT_OK) {
        *out = writer;
        writer = NULL;
    }
cleanup:
    strbuf_free(&header);
    safetensors_writer_abandon(&writer);
    return status;
}

graft_status safetensors_writer_add(safetensors_writer *writer, const void *bytes, size_t n,
                                    graft_error *err) {
    if (n > writer->data_bytes - writer->written)
        return error_set(err, GRAFT_E_INTERNAL,
                         "a safetensors file got more data than its header says (%zu bytes)",
                         writer->data_bytes);
    writer->written += n;
    return atomic_file_write(writer->file, bytes, n, err);
}

graft_status safetensors_writer_commit(safetensors_writer **writer, graft_error *err) {
    graft_status status;
    if ((*writer)->written != (*writer)->data_bytes) {
        status = error_set(err, GRAFT_E_INTERNAL,
                           "a safetensors file got %zu bytes of data where its header says %zu",
                           (*writer)->written, (*writer)->data_bytes);
        atomic_file_abandon(&(*writer)->file);
    } else {
        status = atomic_file_commit(&(*writer)->file, err);
    }
    free(*writer);
    *writer = NULL;
    return status;
}

void safetensors_writer_abandon(safetensors_writer **writer) {
    if (!*writer)
        return;
    atomic_file_abandon(&(*writer)->file);
    free(*writer);
    *writer = NULL;
}

graft_status safetensors_write(const char *path, const named_tensor *tensors, size_t n,
                               graft_error *err) {
    safetensors_writer *writer = NULL;
    named_tensor *ordered = mem_array(n, sizeof *ordered);
    if (!ordered)
        return error_memory(err, n * sizeof *ordered, path);
    if (n)
        memcpy(ordered, tensors, n * sizeof *ordered);
    safetensors_order(ordered, n);
    graft_status status = safetensors_writer_open(&writer, path, ordered, n, err);
    for (size_t i = 0; i < n && status == GRAFT_OK; i++)
        status = safetensors_writer_add(writer, ordered[i].view.data,
                                        tensor_bytes(&ordered[i].view), err);
    if (status == GRAFT_OK)
        status = safetensors_writer_commit(&writer, err);
    safetensors_writer_abandon(&writer);
    free(ordered);
    return status;
}
