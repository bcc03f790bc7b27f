#include "train/folder.h"

#include "base/atomic_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

graft_status folder_write(const char *folder, const char *name, const char *bytes, size_t n,
                          graft_error *err) {
    char *path = path_join(folder, name);
    if (!path)
        return error_memory(err, strlen(folder), "a file name");
    graft_status status = file_write_atomic(path, bytes, n, err);
    free(path);
    return status;
}

graft_status folder_list_read(folder_list *list, const char *folder,
                              int (*is_wanted)(const struct dirent *), graft_error *err) {
    *list = (folder_list){0};
    int n = scandir(folder, &list->entries, is_wanted, alphasort);
    if (n < 0 && errno == ENOMEM)
        return error_memory(err, sizeof(struct dirent), folder);
    if (n < 0)
        return error_set(err, GRAFT_E_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    list->n = n;
    return GRAFT_OK;
}

void folder_list_free(folder_list *list) {
    for (int i = 0; i < list->n; i++)
        free(list->entries[i]);
    free(list->entries);
    *list = (folder_list){0};
}
