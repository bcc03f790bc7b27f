/* Which scripts a text is written in: what a data set's languages look like from afar. */
#ifndef GRAFT_TRAIN_DATA_SCRIPTS_H
#define GRAFT_TRAIN_DATA_SCRIPTS_H

#include <stddef.h>
#include <stdint.h>

enum { N_SCRIPTS = 20 };

typedef struct script_counts {
    int64_t letters[N_SCRIPTS]; /* by script_name */
    int64_t total;
} script_counts;

/* Adds the letters of n bytes of UTF-8; digits, marks and white space belong to no script. */
void scripts_count(script_counts *, const char *text, size_t n);
/* "Latin", "Han", ..., the last "other". */
const char *script_name(size_t script);

#endif
