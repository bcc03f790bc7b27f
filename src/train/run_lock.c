#include "train/run_lock.h"

#include "base/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

static graft_status open_failed(const char *path, int code, graft_error *err) {
    struct rlimit limit;
    if (code == EMFILE && getrlimit(RLIMIT_NOFILE, &limit) == 0)
        return error_set(err, GRAFT_E_IO,
                         "%s: cannot be opened: this process may open %llu files and has them all "
                         "open; raise the limit (ulimit -n)",
                         path, (unsigned long long)limit.rlim_cur);
    return error_set(err, GRAFT_E_IO, "%s: cannot be written: %s", path, strerror(code));
}

static graft_status refused(int fd, const char *path, const char *folder, graft_error *err) {
    char holder[32] = "";
    ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
    holder[n > 0 ? n : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    return error_set(err, GRAFT_E_INPUT,
                     "%s: expected a free lock, found it held by process %s, which trains into %s; "
                     "wait for it, stop it, or choose another output_dir",
                     path, *holder ? holder : "(unknown)", folder);
}

/* The id is for people: the kernel keeps the lock itself. */
static void write_holder(int fd) {
    char text[32];
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) < 0)
        return;
}

graft_status run_lock_take(run_lock *lock, const char *folder, graft_error *err) {
    lock->fd = -1;
    char *path = path_join(folder, ".lock");
    if (!path)
        return error_memory(err, strlen(folder), "a file name");
    graft_status status = GRAFT_OK;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) {
        status = open_failed(path, errno, err);
    } else if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        write_holder(fd);
        lock->fd = fd;
    } else {
        status =
            errno == EWOULDBLOCK ? refused(fd, path, folder, err) : open_failed(path, errno, err);
        close(fd);
    }
    free(path);
    return status;
}

void run_lock_release(run_lock *lock) {
    if (lock->fd >= 0)
        close(lock->fd);
    lock->fd = -1;
}
