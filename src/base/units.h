/* Numbers as people read them. */
#ifndef GRAFT_BASE_UNITS_H
#define GRAFT_BASE_UNITS_H

enum { BYTES_TEXT = 32 };
/* "1.50 GiB", "12.3 MiB", "17 bytes"; returns out. */
const char *bytes_text(char out[BYTES_TEXT], double bytes);

#endif
