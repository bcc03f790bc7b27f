#include "train/manifest.h"

#include "base/atomic_file.h"
#include "formats/jsonl.h"
#include "train/folder.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char NAME[] = "manifest.json";
enum { MANIFEST_BYTES_MAX = 1 << 20, HASH_TEXT_BYTES = 17 };

static graft_status describe_file(json_t *files, const char *folder, const char *name,
                                  graft_error *err) {
    char *path = path_join(folder, name);
    struct stat about;
    uint64_t hash = 0;
    graft_status status = GRAFT_OK;
    if (!path)
        status = error_memory(err, strlen(folder), "a file name");
    else if (stat(path, &about) != 0)
        status = error_set(err, GRAFT_E_IO, "%s: cannot be read: %s", path, strerror(errno));
    else if (S_ISREG(about.st_mode))
        status = file_hash(&hash, path, err);
    if (status == GRAFT_OK && S_ISREG(about.st_mode)) {
        char text[HASH_TEXT_BYTES];
        snprintf(text, sizeof text, "%016" PRIx64, hash);
        json_t *entry = json_pack("{s:s, s:I, s:s}", "name", name, "size",
                                  (json_int_t)about.st_size, "xxh3", text);
        if (json_array_append_new(files, entry) != 0)
            status = error_memory(err, sizeof about, "a manifest");
    }
    free(path);
    return status;
}

static int is_described(const struct dirent *entry) {
    return entry->d_name[0] != '.' && strcmp(entry->d_name, NAME) != 0;
}

static graft_status describe_folder(json_t *files, const char *folder, graft_error *err) {
    folder_list list;
    graft_status status = folder_list_read(&list, folder, is_described, err);
    for (int i = 0; i < list.n && status == GRAFT_OK; i++)
        status = describe_file(files, folder, list.entries[i]->d_name, err);
    folder_list_free(&list);
    return status;
}

graft_status manifest_write(const char *folder, const char *run_id, graft_error *err) {
    graft_status status;
    strbuf text = {0};
    json_t *files = json_array();
    json_t *manifest = json_pack("{s:i, s:s, s:O}", "format_version", CHECKPOINT_FORMAT_VERSION,
                                 "run_id", run_id, "files", files);
    if (!manifest) {
        status = error_memory(err, sizeof text, "a manifest");
        goto cleanup;
    }
    status = describe_folder(files, folder, err);
    if (status != GRAFT_OK)
        goto cleanup;
    json_write(&text, manifest, JSON_INDENT_2, false);
    strbuf_add_char(&text, '\n');
    if (text.failed)
        status = error_memory(err, text.length, "a manifest");
    else
        status = folder_write(folder, NAME, text.data, text.length, err);
cleanup:
    json_decref(manifest);
    json_decref(files);
    strbuf_free(&text);
    return status;
}

/* ---- Verifying ---- */

static graft_status verify_file(const json_t *entry, const char *folder, const char *origin,
                                graft_error *err) {
    const char *name, *expected;
    int64_t size;
    graft_status status = json_get_string(&name, entry, "name", "", origin, err);
    if (status == GRAFT_OK)
        status = json_get_string(&expected, entry, "xxh3", "", origin, err);
    if (status == GRAFT_OK)
        status = json_need_i64(&size, entry, "size", 0, INT64_MAX, origin, err);
    if (status != GRAFT_OK)
        return status;
    if (!*name || strchr(name, '/') || *name == '.')
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected the name of a file in the same folder, found \"%s\"", origin,
                         name);
    char *path = path_join(folder, name);
    if (!path)
        return error_memory(err, strlen(folder), "a file name");
    struct stat about;
    uint64_t hash = 0;
    char found[HASH_TEXT_BYTES];
    if (stat(path, &about) != 0)
        status = error_set(err, GRAFT_E_INPUT, "%s: missing, but manifest.json names it", path);
    else if (about.st_size != size)
        status = error_set(err, GRAFT_E_INPUT, "%s: expected %" PRId64 " bytes, found %" PRId64,
                           path, size, (int64_t)about.st_size);
    else
        status = file_hash(&hash, path, err);
    snprintf(found, sizeof found, "%016" PRIx64, hash);
    if (status == GRAFT_OK && strcmp(found, expected) != 0)
        status = error_set(err, GRAFT_E_INPUT,
                           "%s: damaged: expected xxh3 %s as in manifest.json, found %s", path,
                           expected, found);
    free(path);
    return status;
}

static graft_status verify_version(const json_t *manifest, const char *origin, graft_error *err) {
    int64_t version;
    graft_status status =
        json_need_i64(&version, manifest, "format_version", 1, INT32_MAX, origin, err);
    if (status == GRAFT_OK && version > CHECKPOINT_FORMAT_VERSION)
        status = error_set(err, GRAFT_E_INPUT,
                           "%s: format_version: expected at most %d, found %" PRId64
                           ": a newer Graft wrote it; resume with that one",
                           origin, CHECKPOINT_FORMAT_VERSION, version);
    return status;
}

static graft_status verify_parsed(char run_id[RUN_ID_BYTES], const json_t *manifest,
                                  const char *folder, const char *origin, graft_error *err) {
    graft_status status = verify_version(manifest, origin, err);
    if (status != GRAFT_OK)
        return status;
    const char *id;
    status = json_get_string(&id, manifest, "run_id", "", origin, err);
    if (status != GRAFT_OK)
        return status;
    if (strlen(id) != RUN_ID_BYTES - 1)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: run_id: expected %d hexadecimal digits, found \"%s\"", origin,
                         RUN_ID_BYTES - 1, id);
    if (run_id)
        memcpy(run_id, id, RUN_ID_BYTES);
    const json_t *files = json_object_get(manifest, "files");
    if (!json_is_array(files) || json_array_size(files) == 0)
        return error_set(err, GRAFT_E_INPUT, "%s: files: expected a list of files, found %s",
                         origin, files ? json_type_name(files) : "nothing");
    size_t i;
    json_t *entry;
    json_array_foreach(files, i, entry) {
        status = verify_file(entry, folder, origin, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

graft_status manifest_verify(char run_id[RUN_ID_BYTES], const char *folder, graft_error *err) {
    char *path = path_join(folder, NAME);
    json_t *manifest = NULL;
    graft_status status;
    if (!path)
        status = error_memory(err, strlen(folder), "a file name");
    else if (!path_exists(path))
        status =
            error_set(err, GRAFT_E_INPUT, "%s: missing: the checkpoint was not finished", path);
    else
        status = json_read_file(&manifest, path, MANIFEST_BYTES_MAX, err);
    if (status == GRAFT_OK && !json_is_object(manifest))
        status = error_set(err, GRAFT_E_INPUT, "%s: expected an object, found %s", path,
                           json_type_name(manifest));
    if (status == GRAFT_OK)
        status = verify_parsed(run_id, manifest, folder, path, err);
    json_decref(manifest);
    free(path);
    return status;
}
