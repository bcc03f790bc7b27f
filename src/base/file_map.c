#include "base/file_map.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static graft_status open_failed(const char *path, int code, graft_error *err) {
    switch (code) {
    case ENOENT:
    case ENOTDIR:
        return error_set(err, GRAFT_E_INPUT, "%s: there is no such file; check the path", path);
    case ELOOP:
        return error_set(err, GRAFT_E_INPUT, "%s: its symbolic links lead in a circle", path);
    case EACCES:
    case ENAMETOOLONG:
    case ENXIO:
    case ENODEV:
        return error_set(err, GRAFT_E_INPUT, "%s: cannot be opened: %s", path, strerror(code));
    case EMFILE:
    case ENFILE:
        return error_set(err, GRAFT_E_IO,
                         "%s: cannot be opened: the limit of open files (%ld) is reached; raise it "
                         "with `ulimit -n`",
                         path, sysconf(_SC_OPEN_MAX));
    default:
        return error_set(err, GRAFT_E_IO, "%s: cannot be opened: %s", path, strerror(code));
    }
}

static const char *file_kind(mode_t mode) {
    if (S_ISDIR(mode))
        return "a folder";
    if (S_ISFIFO(mode))
        return "a pipe (FIFO)";
    if (S_ISCHR(mode) || S_ISBLK(mode))
        return "a device";
    return "a socket or other special file";
}

/* O_NONBLOCK: a FIFO must be refused, not waited for. */
static graft_status open_regular(int *out, struct stat *about, const char *path, graft_error *err) {
    int fd;
    do
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return open_failed(path, errno, err);
    graft_status status = GRAFT_OK;
    if (fstat(fd, about) != 0)
        status = error_set(err, GRAFT_E_IO, "%s: cannot be read: %s", path, strerror(errno));
    else if (!S_ISREG(about->st_mode))
        status = error_set(err, GRAFT_E_INPUT, "%s: expected a regular file, found %s", path,
                           file_kind(about->st_mode));
    if (status != GRAFT_OK)
        close(fd);
    else
        *out = fd;
    return status;
}

static int64_t modified_ns(const struct stat *about) {
    return (int64_t)about->st_mtim.tv_sec * 1000000000 + about->st_mtim.tv_nsec;
}

graft_status file_open_read(int *out, const char *path, graft_error *err) {
    struct stat about;
    return open_regular(out, &about, path, err);
}

graft_status file_read_some(size_t *got, int fd, void *out, size_t n, const char *path,
                            graft_error *err) {
    ssize_t count;
    do
        count = read(fd, out, n);
    while (count < 0 && errno == EINTR);
    if (count < 0)
        return error_set(err, GRAFT_E_IO, "%s: cannot be read: %s", path, strerror(errno));
    *got = (size_t)count;
    return GRAFT_OK;
}

graft_status file_map_open(file_map *out, const char *path, graft_error *err) {
    *out = (file_map){0};
    struct stat about;
    int fd = -1;
    graft_status status = open_regular(&fd, &about, path, err);
    if (status != GRAFT_OK)
        return status;
    void *data = NULL;
    if (about.st_size > 0) {
        data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            int code = errno;
            close(fd);
            return error_set(err, code == ENOMEM ? GRAFT_E_MEMORY : GRAFT_E_IO,
                             "%s: cannot be mapped (%lld bytes): %s", path,
                             (long long)about.st_size, strerror(code));
        }
    }
    close(fd);
    *out = (file_map){.data = data,
                      .size = (size_t)about.st_size,
                      .device = (uint64_t)about.st_dev,
                      .inode = (uint64_t)about.st_ino,
                      .modified_ns = modified_ns(&about)};
    return GRAFT_OK;
}

void file_map_close(file_map *map) {
    if (!map)
        return;
    if (map->data) {
        /* munmap takes a pointer to what may be written; this mapping never is. */
        void *data;
        memcpy(&data, &map->data, sizeof data);
        munmap(data, map->size);
    }
    *map = (file_map){0};
}

graft_status file_map_verify(const file_map *map, const char *path, graft_error *err) {
    struct stat now;
    if (stat(path, &now) != 0)
        return error_set(err, GRAFT_E_INPUT, "%s: has vanished since it was opened (%s)", path,
                         strerror(errno));
    if ((uint64_t)now.st_dev != map->device || (uint64_t)now.st_ino != map->inode)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: was replaced by another file since it was opened; start again", path);
    if ((uint64_t)now.st_size != map->size)
        return error_set(err, GRAFT_E_INPUT,
                         "%s: had %zu bytes when it was opened and has %lld now; start again", path,
                         map->size, (long long)now.st_size);
    if (modified_ns(&now) != map->modified_ns)
        return error_set(err, GRAFT_E_INPUT, "%s: was written to since it was opened; start again",
                         path);
    return GRAFT_OK;
}

/* Reads until the end rather than to the size of a moment ago: files under /proc say 0. */
static graft_status read_to_end(char **text, size_t *length, int fd, size_t first_capacity,
                                size_t limit, const char *path, graft_error *err) {
    size_t capacity = 0;
    if (!mem_reserve(text, &capacity, first_capacity, 1))
        return error_memory(err, first_capacity, path);
    for (;;) {
        size_t got = 0;
        graft_status status =
            file_read_some(&got, fd, *text + *length, capacity - 1 - *length, path, err);
        if (status != GRAFT_OK)
            return status;
        *length += got;
        if (*length > limit)
            return error_set(err, GRAFT_E_INPUT, "%s: expected at most %zu bytes, found more", path,
                             limit);
        if (got == 0) {
            (*text)[*length] = '\0';
            return GRAFT_OK;
        }
        if (*length == capacity - 1 && !mem_reserve(text, &capacity, capacity + 1, 1))
            return error_memory(err, capacity + 1, path);
    }
}

graft_status file_read_all(char **out, size_t *size, const char *path, size_t limit,
                           graft_error *err) {
    *out = NULL;
    *size = 0;
    struct stat about;
    int fd = -1;
    graft_status status = open_regular(&fd, &about, path, err);
    if (status != GRAFT_OK)
        return status;
    char *text = NULL;
    size_t length = 0;
    if ((uint64_t)about.st_size > limit)
        status = error_set(err, GRAFT_E_INPUT, "%s: expected at most %zu bytes, found %lld", path,
                           limit, (long long)about.st_size);
    else /* one byte for the NUL, one so that the end is seen without growing */
        status = read_to_end(&text, &length, fd, (size_t)about.st_size + 2, limit, path, err);
    close(fd);
    if (status != GRAFT_OK) {
        free(text);
        return status;
    }
    *out = text;
    *size = length;
    return GRAFT_OK;
}
