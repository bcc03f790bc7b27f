/* Files that are either the old or the new version after any crash: written aside, fsynced,
 * renamed. */
#ifndef GRAFT_BASE_ATOMIC_FILE_H
#define GRAFT_BASE_ATOMIC_FILE_H

#include "base/status.h"

typedef struct atomic_file atomic_file;

/* Opens PATH.tmp-PID for writing (buffered); nothing appears at path before commit. */
graft_status atomic_file_open(atomic_file **, const char *path, graft_error *);
graft_status atomic_file_write(atomic_file *, const void *bytes, size_t n, graft_error *);
/* Flush, fsync, rename, fsync of the folder; destroys the handle in every case, and removes the
 * temporary file when it fails. */
graft_status atomic_file_commit(atomic_file **, graft_error *);
void atomic_file_abandon(atomic_file **); /* removes the temporary file */

graft_status file_write_atomic(const char *path, const void *bytes, size_t n, graft_error *);

/* Creates the folder and its parents. */
graft_status folder_create(const char *path, graft_error *);
graft_status folder_sync(const char *path, graft_error *);
/* Removes a folder with everything in it; a missing one is no error. Does not follow links. */
graft_status folder_remove(const char *path, graft_error *);
/* Copies the file `name` of folder `from` into folder `to`, whole or not at all; a missing one is
 * no error. At most `limit` bytes. */
graft_status folder_copy_file(const char *to, const char *from, const char *name, size_t limit,
                              graft_error *);
/* "a/b" joined; caller frees; NULL when out of memory. */
char *path_join(const char *folder, const char *name);
bool path_exists(const char *path);
bool path_is_folder(const char *path);

#endif
