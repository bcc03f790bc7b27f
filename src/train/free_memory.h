/* How much memory a run may take: what the kernel calls available, and what control groups leave.
 */
#ifndef GRAFT_TRAIN_FREE_MEMORY_H
#define GRAFT_TRAIN_FREE_MEMORY_H

#include <stdint.h>

/* Bytes; INT64_MAX when nothing tells. MemAvailable of /proc/meminfo, and of each control group
 * above this process (version 2 or 1) its limit less what it holds and could not drop. `root`
 * stands before /proc and /sys: "" outside tests. */
int64_t free_memory_bytes(const char *root);

#endif
