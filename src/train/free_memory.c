#include "train/free_memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

/* One kind of control group: where it is mounted, and what its files are called. */
typedef struct group_files {
    const char *mount, *limit, *usage, *droppable;
} group_files;

static const group_files version2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                     "inactive_file "};
static const group_files version1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                     "memory.usage_in_bytes", "total_inactive_file "};

static FILE *open_at(const char *format, ...) __attribute__((format(printf, 1, 2)));
static FILE *open_at(const char *format, ...) {
    char path[PATH_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(path, sizeof path, format, args);
    va_end(args);
    return n > 0 && n < PATH_BYTES ? fopen(path, "re") : NULL;
}

/* The number after the first line that starts with `key`; fallback when there is none ("max" too).
 * Closes the file. */
static int64_t number_after(FILE *file, const char *key, int64_t fallback) {
    char line[256];
    int64_t value = fallback;
    if (!file)
        return fallback;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        if (sscanf(line + strlen(key), "%" SCNd64, &value) != 1)
            value = fallback;
        break;
    }
    fclose(file);
    return value;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* What the group at `path`, and every group above it, leaves. Shortens path. */
static int64_t group_free(const char *root, const group_files *files, char *path) {
    int64_t least = INT64_MAX;
    for (;;) {
        const char *at = files->mount;
        int64_t limit = number_after(open_at("%s%s%s/%s", root, at, path, files->limit), "", -1);
        int64_t usage = number_after(open_at("%s%s%s/%s", root, at, path, files->usage), "", -1);
        int64_t cache =
            number_after(open_at("%s%s%s/memory.stat", root, at, path), files->droppable, 0);
        if (limit >= 0 && usage >= 0)
            least = smaller(least, limit > usage - cache ? limit - (usage - cache) : 0);
        char *slash = strrchr(path, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

/* "0::/path" (version 2) and "9:memory:/path" (version 1) of /proc/self/cgroup. */
static int64_t groups_free(const char *root) {
    int64_t least = INT64_MAX;
    char line[PATH_BYTES];
    FILE *file = open_at("%s/proc/self/cgroup", root);
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':');
        char *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        if (strcmp(path, "/") == 0)
            *path = '\0';
        if (names[1] == '\0')
            least = smaller(least, group_free(root, &version2, path));
        else if (strstr(names + 1, "memory"))
            least = smaller(least, group_free(root, &version1, path));
    }
    if (file)
        fclose(file);
    return least;
}

int64_t free_memory_bytes(const char *root) {
    int64_t kilobytes =
        number_after(open_at("%s/proc/meminfo", root), "MemAvailable:", INT64_MAX / 1024);
    int64_t system = kilobytes >= INT64_MAX / 1024 ? INT64_MAX : kilobytes * 1024;
    return smaller(system, groups_free(root));
}
