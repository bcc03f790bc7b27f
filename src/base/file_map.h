/* A file mapped read-only. */
#ifndef GRAFT_BASE_FILE_MAP_H
#define GRAFT_BASE_FILE_MAP_H

#include "base/status.h"

typedef struct file_map {
    const unsigned char *data; /* NULL when size is 0 */
    size_t size;
    uint64_t device, inode; /* identity when it was opened */
    int64_t modified_ns;
} file_map;

/* Refuses what is not a regular file (a FIFO, a directory, a device) and names it. */
graft_status file_map_open(file_map *, const char *path, graft_error *);
void file_map_close(file_map *);

/* GRAFT_E_INPUT when the file at path is no longer the one that was mapped (replaced, shrunk,
 * edited). */
graft_status file_map_verify(const file_map *, const char *path, graft_error *);

/* For reading piece by piece (data that may be edited while it is read must not be mapped): a
 * descriptor of a regular file, which the caller closes; and up to n bytes from it, *got 0 at the
 * end. */
graft_status file_open_read(int *fd, const char *path, graft_error *);
graft_status file_read_some(size_t *got, int fd, void *out, size_t n, const char *path,
                            graft_error *);

/* The whole file as text in memory, NUL after it (caller frees); at most `limit` bytes, else an
 * error. */
graft_status file_read_all(char **out, size_t *size, const char *path, size_t limit, graft_error *);

#endif
