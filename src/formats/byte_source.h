/* A file's bytes in order, unpacked on the way when its name ends in .gz or .zst. */
#ifndef GRAFT_FORMATS_BYTE_SOURCE_H
#define GRAFT_FORMATS_BYTE_SOURCE_H

#include "base/status.h"

typedef struct byte_source byte_source;

/* The length of path without .gz or .zst: where the ending that says what is in it stops. */
size_t byte_source_stem(const char *path);

graft_status byte_source_open(byte_source **, const char *path, graft_error *);
/* Up to n bytes; *got is 0 only at the end. A packed file that is cut off, damaged, or unpacks to
 * implausibly much (DECOMPRESSION_RATIO_MAX of jsonl.h) is refused. */
graft_status byte_source_read(byte_source *, size_t *got, void *out, size_t n, graft_error *);
void byte_source_close(byte_source **);

#endif
