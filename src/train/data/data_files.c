#include "train/data/data_files.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "formats/jsonl.h"

#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

void data_files_free(data_files *files) {
    for (size_t i = 0; i < files->n; i++)
        free(files->paths[i]);
    free(files->paths);
    free(files->shares);
    *files = (data_files){0};
}

static graft_status add_file(data_files *files, const char *path, double share, graft_error *err) {
    if (!mem_reserve(&files->paths, &files->paths_capacity, files->n + 1, sizeof *files->paths) ||
        !mem_reserve(&files->shares, &files->shares_capacity, files->n + 1, sizeof *files->shares))
        return error_memory(err, files->n * sizeof *files->paths, "the list of data files");
    files->paths[files->n] = mem_text(path, strlen(path));
    files->shares[files->n] = share;
    if (!files->paths[files->n])
        return error_memory(err, strlen(path), "a file name");
    files->n++;
    return GRAFT_OK;
}

/* ---- Folders ----------------------------------------------------------------------------------
 */

static int compare_paths(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What datasets.save_to_disk and the hub put beside data. */
static bool describes_data(const char *name) {
    static const char *const names[] = {"dataset_info.json", "dataset_infos.json",
                                        "dataset_dict.json", "state.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

/* Adds the entry when it is a data file; the first Parquet, Arrow, ... file is remembered. */
static graft_status take_entry(data_files *files, char **foreign, const char *folder,
                               const char *name, double share, graft_error *err) {
    if (name[0] == '.' || describes_data(name))
        return GRAFT_OK;
    char *path = path_join(folder, name);
    if (!path)
        return error_memory(err, strlen(folder), "a file name");
    graft_status status = GRAFT_OK;
    if (!path_is_folder(path)) {
        row_path_kind kind = row_path_kind_of(path);
        if (kind == ROW_PATH_READABLE) {
            status = add_file(files, path, share, err);
        } else if (kind == ROW_PATH_CONVERTIBLE && !*foreign) {
            *foreign = path;
            path = NULL;
        }
    }
    free(path);
    return status;
}

/* A folder's own data files; what lies in folders below it must be named. */
static graft_status add_folder(data_files *files, const char *folder, double share,
                               graft_error *err) {
    size_t first = files->n;
    char *foreign = NULL;
    graft_status status = GRAFT_OK;
    DIR *listing = opendir(folder);
    if (!listing)
        return error_set(err, GRAFT_E_INPUT, "%s: cannot be listed: %s", folder, strerror(errno));
    for (struct dirent *entry; status == GRAFT_OK && (entry = readdir(listing)) != NULL;)
        status = take_entry(files, &foreign, folder, entry->d_name, share, err);
    closedir(listing);
    if (status == GRAFT_OK && files->n == first)
        status = foreign ? add_file(files, foreign, share, err) /* its reader says how to convert */
                         : error_set(err, GRAFT_E_INPUT,
                                     "%s: expected data files (.jsonl, .ndjson, .json, .txt) in "
                                     "this folder, found none; folders below it must be named",
                                     folder);
    free(foreign);
    /* readdir's order is the file system's. */
    if (files->n > first)
        qsort(files->paths + first, files->n - first, sizeof *files->paths, compare_paths);
    return status;
}

/* ---- Names ------------------------------------------------------------------------------------
 */

static bool is_pattern(const char *path) {
    return strpbrk(path, "*?[") != NULL;
}

static graft_status add_pattern(data_files *files, const char *pattern, double share,
                                graft_error *err) {
    glob_t found = {0};
    int failed = glob(pattern, 0, NULL, &found);
    graft_status status = GRAFT_OK;
    if (failed == GLOB_NOMATCH)
        status = error_set(err, GRAFT_E_INPUT, "%s: no file matches this pattern", pattern);
    else if (failed == GLOB_NOSPACE)
        status = error_memory(err, strlen(pattern), "the files of a pattern");
    else if (failed)
        status = error_set(err, GRAFT_E_INPUT, "%s: its folder cannot be read", pattern);
    for (size_t i = 0; status == GRAFT_OK && i < found.gl_pathc; i++)
        status = path_is_folder(found.gl_pathv[i])
                     ? add_folder(files, found.gl_pathv[i], share, err)
                     : add_file(files, found.gl_pathv[i], share, err);
    globfree(&found);
    return status;
}

/* "rows.jsonl:0.3": the length without the share. A file whose name is all of it wins. */
static graft_status split_share(const char *named, size_t *length, double *share,
                                graft_error *err) {
    *length = strlen(named);
    *share = 1;
    const char *colon = strrchr(named, ':');
    if (!colon || !colon[1] || path_exists(named))
        return GRAFT_OK;
    char *end;
    double value = strtod(colon + 1, &end);
    if (*end || strspn(colon + 1, "0123456789.eE+-") != strlen(colon + 1))
        return GRAFT_OK;
    if (!(value > 0 && value <= DATA_SHARE_MAX))
        return error_set(err, GRAFT_E_USAGE,
                         "%s: the share after the colon is %s; expected more than 0 and at most %d "
                         "(0.3: three tenths of the rows an epoch; 2: every row twice)",
                         named, colon + 1, DATA_SHARE_MAX);
    *length = (size_t)(colon - named);
    *share = value;
    return GRAFT_OK;
}

graft_status data_files_add(data_files *files, const char *named, graft_error *err) {
    size_t length;
    double share;
    graft_status status = split_share(named, &length, &share, err);
    if (status != GRAFT_OK)
        return status;
    char *path = mem_text(named, length);
    if (!path)
        return error_memory(err, length, "a file name");
    if (path_is_folder(path))
        status = add_folder(files, path, share, err);
    else if (is_pattern(path) && !path_exists(path))
        status = add_pattern(files, path, share, err);
    else
        status = add_file(files, path, share, err); /* a missing file is named when it is opened */
    free(path);
    return status;
}
