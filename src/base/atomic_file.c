#include "base/atomic_file.h"

#include "base/file_map.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18 };

struct atomic_file {
    char *path, *temporary;
    int fd;
    size_t used; /* bytes waiting in buffer */
    unsigned char buffer[BUFFER_BYTES];
};

static graft_status io_failed(const char *path, const char *what, int code, graft_error *err) {
    if (code == ENOSPC || code == EDQUOT)
        return error_set(err, GRAFT_E_IO, "%s: %s: %s; free some space and try again", path, what,
                         strerror(code));
    return error_set(err, GRAFT_E_IO, "%s: %s: %s", path, what, strerror(code));
}

static void destroy(atomic_file **file) {
    if (!*file)
        return;
    if ((*file)->fd >= 0)
        close((*file)->fd);
    free((*file)->path);
    free((*file)->temporary);
    free(*file);
    *file = NULL;
}

/* A file left by an earlier process of the same id is in the way; O_EXCL never follows a link laid
 * there. */
static graft_status create_temporary(atomic_file *file, graft_error *err) {
    if (unlink(file->temporary) != 0 && errno != ENOENT && errno != ENOTDIR)
        return io_failed(file->temporary, "cannot be replaced", errno, err);
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file->fd >= 0)
        return GRAFT_OK;
    if (errno == ENOENT || errno == ENOTDIR)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: cannot be written: its folder does not exist; create it first",
                         file->path);
    return io_failed(file->path, "cannot be written", errno, err);
}

graft_status atomic_file_open(atomic_file **out, const char *path, graft_error *err) {
    *out = NULL;
    if (path_is_folder(path))
        return error_set(err, GRAFT_E_INPUT,
                         "%s: expected the name of a file to write, found a folder", path);
    atomic_file *file = malloc(sizeof *file);
    if (!file)
        return error_memory(err, sizeof *file, path);
    file->fd = -1;
    file->used = 0;
    file->path = mem_text(path, strlen(path));
    if (asprintf(&file->temporary, "%s.tmp-%ld", path, (long)getpid()) < 0)
        file->temporary = NULL;
    graft_status status = GRAFT_OK;
    if (!file->path || !file->temporary)
        status = error_memory(err, strlen(path), "a file name");
    else
        status = create_temporary(file, err);
    if (status != GRAFT_OK)
        destroy(&file);
    *out = file;
    return status;
}

static graft_status write_through(atomic_file *file, const void *bytes, size_t n,
                                  graft_error *err) {
    const unsigned char *at = bytes;
    while (n > 0) {
        ssize_t written = write(file->fd, at, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return io_failed(file->path, "cannot be written", errno, err);
        at += written;
        n -= (size_t)written;
    }
    return GRAFT_OK;
}

static graft_status flush(atomic_file *file, graft_error *err) {
    size_t waiting = file->used;
    file->used = 0;
    return write_through(file, file->buffer, waiting, err);
}

graft_status atomic_file_write(atomic_file *file, const void *bytes, size_t n, graft_error *err) {
    if (n > sizeof file->buffer - file->used) {
        graft_status status = flush(file, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (n >= sizeof file->buffer)
        return write_through(file, bytes, n, err);
    if (n)
        memcpy(file->buffer + file->used, bytes, n);
    file->used += n;
    return GRAFT_OK;
}

/* The folder that holds path; caller frees. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        return mem_text(".", 1);
    return mem_text(path, slash == path ? 1 : (size_t)(slash - path));
}

static graft_status publish(atomic_file *file, graft_error *err) {
    graft_status status = flush(file, err);
    if (status != GRAFT_OK)
        return status;
    if (fsync(file->fd) != 0)
        return io_failed(file->path, "cannot be brought to the disk", errno, err);
    int closed = close(file->fd);
    file->fd = -1;
    if (closed != 0)
        return io_failed(file->path, "cannot be written", errno, err);
    if (rename(file->temporary, file->path) != 0)
        return io_failed(file->path, "cannot be put in place", errno, err);
    return GRAFT_OK;
}

graft_status atomic_file_commit(atomic_file **file, graft_error *err) {
    char *folder = folder_of((*file)->path);
    graft_status status = folder ? publish(*file, err) : error_memory(err, 1, "a file name");
    if (status != GRAFT_OK)
        unlink((*file)->temporary);
    else
        status = folder_sync(folder, err);
    free(folder);
    destroy(file);
    return status;
}

void atomic_file_abandon(atomic_file **file) {
    if (*file)
        unlink((*file)->temporary);
    destroy(file);
}

graft_status file_write_atomic(const char *path, const void *bytes, size_t n, graft_error *err) {
    atomic_file *file = NULL;
    graft_status status = atomic_file_open(&file, path, err);
    if (status == GRAFT_OK)
        status = atomic_file_write(file, bytes, n, err);
    if (status == GRAFT_OK)
        return atomic_file_commit(&file, err);
    atomic_file_abandon(&file);
    return status;
}

static graft_status create_one(const char *path, graft_error *err) {
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && path_is_folder(path)))
        return GRAFT_OK;
    int code = errno;
    if (code == EEXIST || code == ENOTDIR)
        return error_set(
            err, GRAFT_E_INPUT,
            "%s: expected a folder or nothing there, found a file; choose another name", path);
    return io_failed(path, "the folder cannot be created", code, err);
}

graft_status folder_create(const char *path, graft_error *err) {
    char *partial = mem_text(path, strlen(path));
    if (!partial)
        return error_memory(err, strlen(path), "a folder name");
    graft_status status = GRAFT_OK;
    for (char *at = partial + 1; *partial && *at && status == GRAFT_OK; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        if (!path_is_folder(partial))
            status = create_one(partial, err);
        *at = '/';
    }
    if (status == GRAFT_OK && !path_is_folder(path))
        status = create_one(path, err);
    free(partial);
    return status;
}

graft_status folder_sync(const char *path, graft_error *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return io_failed(path, "the folder cannot be opened", errno, err);
    /* EINVAL: a file system that does not sync folders and has nothing more to offer. */
    graft_status status = GRAFT_OK;
    if (fsync(fd) != 0 && errno != EINVAL)
        status = io_failed(path, "the folder cannot be brought to the disk", errno, err);
    close(fd);
    return status;
}

static int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *place) {
    (void)about, (void)kind, (void)place;
    return remove(path);
}

graft_status folder_remove(const char *path, graft_error *err) {
    enum { OPEN_FOLDERS_MAX = 16 };
    struct stat about;
    if (lstat(path, &about) != 0) {
        if (errno == ENOENT)
            return GRAFT_OK;
        return io_failed(path, "cannot be removed", errno, err);
    }
    if (!S_ISDIR(about.st_mode))
        return error_set(err, GRAFT_E_INPUT, "%s: expected a folder to remove, found a file", path);
    if (nftw(path, remove_entry, OPEN_FOLDERS_MAX, FTW_DEPTH | FTW_PHYS) != 0)
        return io_failed(path, "the folder cannot be removed", errno, err);
    return GRAFT_OK;
}

char *path_join(const char *folder, const char *name) {
    size_t length = strlen(folder);
    char *joined = NULL;
    const char *between = length == 0 || folder[length - 1] == '/' ? "" : "/";
    return asprintf(&joined, "%s%s%s", folder, between, name) < 0 ? NULL : joined;
}

bool path_exists(const char *path) {
    struct stat about;
    return stat(path, &about) == 0;
}

bool path_is_folder(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

graft_status folder_copy_file(const char *to, const char *from, const char *name, size_t limit,
                              graft_error *err) {
    char *source = path_join(from, name), *target = path_join(to, name), *bytes = NULL;
    size_t n = 0;
    graft_status status = GRAFT_OK;
    if (!source || !target)
        status = error_memory(err, strlen(from), "a path");
    else if (path_exists(source))
        status = file_read_all(&bytes, &n, source, limit, err);
    if (status == GRAFT_OK && bytes)
        status = file_write_atomic(target, bytes, n, err);
    free(source);
    free(target);
    free(bytes);
    return status;
}
