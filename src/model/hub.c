#include "model/weights.h"

#include "base/atomic_file.h"
#include "base/file_map.h"
#include "base/memory.h"
#include "base/strbuf.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { REF_BYTES_MAX = 4096 };

/* Repository and revision names become file names: letters, digits, '.', '_', '-' and, in between,
 * '/'; no "..". */
static bool is_repository_text(const char *text, size_t n, size_t slashes_max) {
    size_t slashes = 0;
    if (n == 0 || text[0] == '/' || text[0] == '.' || text[n - 1] == '/')
        return false;
    for (size_t i = 0; i < n; i++) {
        slashes += text[i] == '/';
        if (!isalnum((unsigned char)text[i]) && !strchr("._-/", text[i]))
            return false;
        if (i > 0 && text[i - 1] == text[i] && (text[i] == '.' || text[i] == '/'))
            return false;
    }
    return slashes <= slashes_max;
}

/* As huggingface_hub finds its cache. */
static char *cache_root(void) {
    strbuf root = {0};
    const char *value;
    if ((value = getenv("HF_HUB_CACHE")) && *value)
        strbuf_add_text(&root, value);
    else if ((value = getenv("HF_HOME")) && *value)
        strbuf_printf(&root, "%s/hub", value);
    else if ((value = getenv("XDG_CACHE_HOME")) && *value)
        strbuf_printf(&root, "%s/huggingface/hub", value);
    else
        strbuf_printf(&root, "%s/.cache/huggingface/hub", (value = getenv("HOME")) ? value : "");
    return strbuf_take(&root);
}

/* The folder of "org/name" in the cache: models--org--name. */
static char *repository_folder(const char *root, const char *name, size_t n) {
    strbuf path = {0};
    strbuf_printf(&path, "%s/models--", root);
    for (size_t i = 0; i < n; i++)
        strbuf_add(&path, name[i] == '/' ? "--" : &name[i], name[i] == '/' ? 2 : 1);
    return strbuf_take(&path);
}

/* snapshots/COMMIT, the commit taken from refs/REVISION or being the revision itself. NULL when not
 * there. */
static graft_status find_snapshot(char **out, const char *repository, const char *revision,
                                  graft_error *err) {
    strbuf path = {0};
    char *commit = NULL;
    size_t n = 0;
    graft_status status = GRAFT_OK;
    *out = NULL;
    strbuf_printf(&path, "%s/refs/%s", repository, revision);
    if (!path.failed && path_exists(path.data)) {
        status = file_read_all(&commit, &n, path.data, REF_BYTES_MAX, err);
        if (status != GRAFT_OK)
            goto cleanup;
        n = strcspn(commit, " \t\r\n");
        if (!is_repository_text(commit, n, 0)) {
            status = error_set(err, GRAFT_E_INPUT, "%s: expected a commit's name", path.data);
            goto cleanup;
        }
        commit[n] = '\0';
    }
    strbuf_clear(&path);
    strbuf_printf(&path, "%s/snapshots/%s", repository, commit ? commit : revision);
    if (path.failed)
        status = error_memory(err, strlen(repository), "a path");
    else if (path_is_folder(path.data))
        *out = strbuf_take(&path);
cleanup:
    free(commit);
    strbuf_free(&path);
    return status;
}

static graft_status find_in_hub(char **out, const char *model, graft_error *err) {
    const char *at = strchr(model, '@'), *revision = at ? at + 1 : "main";
    size_t n = at ? (size_t)(at - model) : strlen(model);
    char *root = cache_root(), *repository = root ? repository_folder(root, model, n) : NULL;
    graft_status status = GRAFT_OK;
    if (!repository)
        status = error_memory(err, n, "a path");
    else
        status = find_snapshot(out, repository, revision, err);
    if (status == GRAFT_OK && !*out)
        status =
            error_set(err, GRAFT_E_INPUT,
                      "no model \"%s\": there is no such folder, and revision %s of it is not in "
                      "the hub's cache (%s). Graft downloads nothing: run `hf download %.*s` first",
                      model, revision, repository, (int)n, model);
    free(repository);
    free(root);
    return status;
}

graft_status model_folder_find(char **out, const char *model, graft_error *err) {
    *out = NULL;
    if (path_is_folder(model)) {
        *out = mem_text(model, strlen(model));
        return *out ? GRAFT_OK : error_memory(err, strlen(model), "a path");
    }
    if (path_exists(model))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected a model's folder (config.json, model.safetensors, "
                         "tokenizer.json), found a file",
                         model);
    const char *at = strchr(model, '@');
    size_t n = at ? (size_t)(at - model) : strlen(model);
    if (!is_repository_text(model, n, 1) || (at && !is_repository_text(at + 1, strlen(at + 1), 8)))
        return error_set(err, GRAFT_E_INPUT,
                         "no model folder \"%s\". Give a folder, or ORG/NAME[@REVISION] of a model "
                         "in the hub's cache",
                         model);
    return find_in_hub(out, model, err);
}
