/* Folders as a run writes and reads them. */
#ifndef GRAFT_TRAIN_FOLDER_H
#define GRAFT_TRAIN_FOLDER_H

#include "base/status.h"

#include <dirent.h>

/* Writes FOLDER/NAME atomically. */
graft_status folder_write(const char *folder, const char *name, const char *bytes, size_t n,
                          graft_error *);

/* Entries in the order of their names. */
typedef struct folder_list {
    struct dirent **entries;
    int n;
} folder_list;

/* All entries that `is_wanted` answers with non-zero. */
graft_status folder_list_read(folder_list *, const char *folder,
                              int (*is_wanted)(const struct dirent *), graft_error *);
void folder_list_free(folder_list *);

#endif
