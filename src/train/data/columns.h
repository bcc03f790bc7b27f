/* --columns prompt=question,completion=answer: columns under the names that row kinds have. */
#ifndef GRAFT_TRAIN_DATA_COLUMNS_H
#define GRAFT_TRAIN_DATA_COLUMNS_H

#include "formats/json.h"

enum { COLUMNS_MAX = 16, COLUMN_BYTES_MAX = 128 };

typedef struct column_rename {
    char to[COLUMN_BYTES_MAX], from[COLUMN_BYTES_MAX];
    bool is_used; /* a row had it */
} column_rename;

typedef struct column_renames {
    column_rename items[COLUMNS_MAX];
    size_t n;
} column_renames;

/* Texts "prompt=question" [n]. GRAFT_E_USAGE for a name that no row kind knows, or one given twice.
 */
graft_status column_renames_parse(column_renames *, const char *const *texts, size_t n,
                                  graft_error *);
/* Renames a row's members, all at once (names may be swapped). What stood under the new name is
 * dropped; a row without the old one is left as it is. */
graft_status column_renames_apply(column_renames *, json_t *row, graft_error *);
/* After the last row: GRAFT_E_USAGE naming a column that no row had. */
graft_status column_renames_check_used(const column_renames *, graft_error *);

#endif
