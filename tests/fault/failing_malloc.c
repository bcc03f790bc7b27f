/* Preloaded into a program: makes its n-th allocation fail (GRAFT_FAIL_AT, from 1), and all after
 * it with GRAFT_FAIL_ALWAYS. GRAFT_FAIL_COUNT names a file that gets the number of allocations when
 * the program ends. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>

#define VISIBLE __attribute__((visibility("default")))

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static atomic_llong count;
static long long failing; /* 0: none */
static int always;

__attribute__((constructor)) static void read_plan(void) {
    const char *at = getenv("GRAFT_FAIL_AT");
    always = getenv("GRAFT_FAIL_ALWAYS") != NULL;
    atomic_store(&count, 0);
    failing = at ? atoll(at) : 0;
}

__attribute__((destructor)) static void write_count(void) {
    const char *path = getenv("GRAFT_FAIL_COUNT");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (file < 0)
        return;
    char text[32];
    int n = snprintf(text, sizeof text, "%lld\n", (long long)atomic_load(&count));
    if (write(file, text, (size_t)n) != n)
        _exit(99);
    close(file);
}

static int fails(void) {
    long long at = atomic_fetch_add(&count, 1) + 1;
    if (!failing || (always ? at < failing : at != failing))
        return 0;
    errno = ENOMEM;
    return 1;
}

VISIBLE void *malloc(size_t n) {
    return fails() ? NULL : __libc_malloc(n);
}

VISIBLE void *calloc(size_t n, size_t bytes) {
    return fails() ? NULL : __libc_calloc(n, bytes);
}

VISIBLE void *realloc(void *old, size_t n) {
    return fails() ? NULL : __libc_realloc(old, n);
}

VISIBLE void *aligned_alloc(size_t alignment, size_t n) {
    return fails() ? NULL : __libc_memalign(alignment, n);
}

VISIBLE int posix_memalign(void **out, size_t alignment, size_t n) {
    void *memory = fails() ? NULL : __libc_memalign(alignment, n);
    if (!memory)
        return ENOMEM;
    *out = memory;
    return 0;
}
