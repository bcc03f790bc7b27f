/* What this process used. */
#ifndef GRAFT_BASE_PEAK_MEMORY_H
#define GRAFT_BASE_PEAK_MEMORY_H

#include <stdint.h>

/* Bytes this process had resident at most; 0 when the system does not tell. */
int64_t peak_memory_bytes(void);

#endif
