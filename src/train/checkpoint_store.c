/* Which checkpoints an output folder has, which of them a run may use, and which it may remove. */
#include "train/checkpoint.h"

#include "base/atomic_file.h"
#include "base/memory.h"
#include "train/folder.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static const char PREFIX[] = "checkpoint-";
enum { RUN_BYTES_MAX = 1 << 16, KEEP_MIN = 2 };

/* N of "checkpoint-N"; -1 for every other name. */
static int64_t step_of(const char *name) {
    size_t n = strlen(PREFIX);
    if (strncmp(name, PREFIX, n) != 0 || name[n] < '0' || name[n] > '9')
        return -1;
    char *end;
    errno = 0;
    long long step = strtoll(name + n, &end, 10);
    return *end || errno ? -1 : step;
}

static bool is_leftover(const char *name) {
    size_t n = strlen(name);
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0 && n > 4 && strcmp(name + n - 4, ".tmp") == 0;
}

static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* Steps of all checkpoint folders, newest first. Caller frees. */
static graft_status list_steps(int64_t **out, size_t *n, const char *output_dir, graft_error *err) {
    *out = NULL;
    *n = 0;
    size_t capacity = 0;
    DIR *folder = opendir(output_dir);
    if (!folder && errno == ENOENT)
        return GRAFT_OK;
    if (!folder)
        return error_set(err, GRAFT_E_IO, "%s: cannot be listed: %s", output_dir, strerror(errno));
    graft_status status = GRAFT_OK;
    for (struct dirent *entry; (entry = readdir(folder)) && status == GRAFT_OK;) {
        int64_t step = step_of(entry->d_name);
        if (step < 0)
            continue;
        if (mem_reserve(out, &capacity, *n + 1, sizeof **out))
            (*out)[(*n)++] = step;
        else
            status = error_memory(err, (*n + 1) * sizeof **out, "a list of checkpoints");
    }
    closedir(folder);
    if (*n > 0)
        qsort(*out, *n, sizeof **out, descending);
    return status;
}

static char *checkpoint_path(const char *output_dir, int64_t step) {
    char *path = NULL;
    return asprintf(&path, "%s/%s%" PRId64, output_dir, PREFIX, step) < 0 ? NULL : path;
}

/* Whether a folder verifies, is of this run and has a state that can be read; says why not. */
static graft_status check_usable(const char *path, const char *run_id, graft_error *err) {
    char found[RUN_ID_BYTES];
    graft_status status = manifest_verify(found, path, err);
    if (status != GRAFT_OK)
        return status;
    if (*run_id && strcmp(found, run_id) != 0)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: of run %s, and this folder's run is %s (run.json); to go on from it, "
                         "name it: --resume=%s",
                         path, found, run_id, path);
    checkpoint_state state;
    status = checkpoint_read(&state, path, err);
    if (status == GRAFT_OK && strcmp(state.run_id, found) != 0)
        status =
            error_set(err, GRAFT_E_INPUT, "%s: manifest.json is of run %s, state.json of run %s",
                      path, found, state.run_id);
    checkpoint_state_free(&state);
    return status;
}

graft_status checkpoint_newest(char **out, const char *output_dir, const char *run_id,
                               const message_sink *messages, graft_error *err) {
    int64_t *steps;
    size_t n;
    *out = NULL;
    graft_status status = list_steps(&steps, &n, output_dir, err);
    for (size_t i = 0; i < n && status == GRAFT_OK && !*out; i++) {
        graft_error reason = {0};
        char *path = checkpoint_path(output_dir, steps[i]);
        if (!path) {
            status = error_memory(err, strlen(output_dir), "a file name");
        } else if (check_usable(path, run_id, &reason) == GRAFT_OK) {
            *out = path;
        } else {
            message_emit(messages, MESSAGE_WARNING, "checkpoint skipped: %s", reason.message);
            free(path);
        }
    }
    free(steps);
    if (status != GRAFT_OK || *out)
        return status;
    if (n == 0)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected a checkpoint-N folder to resume from, found none; start "
                         "without --resume",
                         output_dir);
    return error_set(err, GRAFT_E_IO,
                     "%s: none of its %zu checkpoints can be used (the reasons are above); start "
                     "without --resume to begin again at step 0",
                     output_dir, n);
}

/* The run that wrote a checkpoint, without hashing its files; "" when nothing tells. */
static void owner_of(char run_id[RUN_ID_BYTES], const char *path) {
    checkpoint_state state;
    run_id[0] = '\0';
    if (checkpoint_read(&state, path, NULL) == GRAFT_OK)
        memcpy(run_id, state.run_id, RUN_ID_BYTES);
    checkpoint_state_free(&state);
}

static void remove_aloud(const char *path, const message_sink *messages) {
    graft_error reason = {0};
    if (folder_remove(path, &reason) != GRAFT_OK)
        message_emit(messages, MESSAGE_WARNING, "an old checkpoint stays: %s", reason.message);
}

void checkpoint_prune(const char *output_dir, const char *run_id, int64_t step, int32_t keep,
                      const message_sink *messages) {
    int64_t *steps = NULL;
    size_t n = 0, kept = 0;
    if (keep <= 0)
        return;
    if (keep < KEEP_MIN)
        keep = KEEP_MIN;
    list_steps(&steps, &n, output_dir, NULL);
    for (size_t i = 0; i < n; i++) {
        char owner[RUN_ID_BYTES];
        if (steps[i] > step)
            continue;
        char *path = checkpoint_path(output_dir, steps[i]);
        if (path)
            owner_of(owner, path);
        if (path && strcmp(owner, run_id) == 0 && kept++ >= (size_t)keep)
            remove_aloud(path, messages);
        free(path);
    }
    free(steps);
}

void checkpoint_sweep(const char *output_dir) {
    DIR *folder = opendir(output_dir);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!is_leftover(entry->d_name))
            continue;
        char *path = path_join(output_dir, entry->d_name);
        if (path)
            folder_remove(path, NULL);
        free(path);
    }
    closedir(folder);
}

/* ---- run.json ---- */

void run_id_create(char out[RUN_ID_BYTES]) {
    static const char hex[] = "0123456789abcdef";
    unsigned char bytes[RUN_ID_BYTES / 2] = {0};
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        /* Only has to differ from other runs in the same folder. */
        long long pid = getpid();
        memcpy(bytes, &pid, sizeof pid);
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        out[2 * i] = hex[bytes[i] >> 4];
        out[2 * i + 1] = hex[bytes[i] & 15];
    }
    out[RUN_ID_BYTES - 1] = '\0';
}

graft_status run_id_read(char out[RUN_ID_BYTES], const char *output_dir, graft_error *err) {
    out[0] = '\0';
    json_t *root = NULL;
    const char *id = "";
    char *path = path_join(output_dir, "run.json");
    graft_status status = path ? GRAFT_OK : error_memory(err, strlen(output_dir), "a file name");
    if (status == GRAFT_OK && path_exists(path))
        status = json_read_file(&root, path, RUN_BYTES_MAX, err);
    if (status == GRAFT_OK && root)
        status = json_get_string(&id, root, "run_id", "", path, err);
    if (status == GRAFT_OK && strlen(id) == RUN_ID_BYTES - 1)
        memcpy(out, id, RUN_ID_BYTES);
    json_decref(root);
    free(path);
    return status;
}

graft_status run_id_write(const char *output_dir, const char *run_id, graft_error *err) {
    char text[128];
    int n = snprintf(text, sizeof text, "{\"format_version\": %d, \"run_id\": \"%s\"}\n",
                     CHECKPOINT_FORMAT_VERSION, run_id);
    return folder_write(output_dir, "run.json", text, (size_t)n, err);
}
