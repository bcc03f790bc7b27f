/* Names what a file is when it is not what its name promises, and what to do about it. */
#ifndef GRAFT_FORMATS_FOREIGN_H
#define GRAFT_FORMATS_FOREIGN_H

#include <stdbool.h>
#include <stddef.h>

/* "a Git-LFS pointer, not the file itself; run `git lfs pull` in its folder", by the first bytes;
 * NULL when they are none of the known. */
const char *foreign_format(const void *bytes, size_t n);
bool foreign_is_lfs_pointer(const void *bytes, size_t n);

#endif
