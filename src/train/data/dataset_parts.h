/* A data set's memory, for the files that build one. */
#ifndef GRAFT_TRAIN_DATA_DATASET_PARTS_H
#define GRAFT_TRAIN_DATA_DATASET_PARTS_H

#include "train/data/dataset.h"
#include "train/data/encoded_row.h"

typedef struct stored_row {
    size_t begin; /* of its tokens */
    int32_t n, supervised;
    float weight;
    int32_t task;
    uint64_t id; /* of data_row_view */
    data_source source;
} stored_row;

struct dataset {
    int32_t *ids, *targets; /* [tokens] of all rows, one after another */
    size_t tokens, ids_capacity, targets_capacity;
    stored_row *rows;
    size_t n_rows, rows_capacity;
    dataset_counts counts;
    char **paths;   /* [n_paths], copies */
    double *shares; /* [n_paths]; NULL: all 1 */
    size_t n_paths;
    gate_report gate;
    script_counts scripts;
};

/* Takes a row through the gate: keeps it, cuts it, splits it into windows, or leaves it out. */
graft_status dataset_take_row(dataset *, const dataset_options *, const encoded_row *,
                              graft_error *);
/* Tokens [first, first + n) of a row, n > 0; the first `context` of them are no targets. */
graft_status dataset_add_tokens(dataset *, const encoded_row *, size_t first, int32_t n,
                                int32_t context, graft_error *);
/* A row as another set holds it, under an id of its own. */
graft_status dataset_add_stored(dataset *, const stored_row *, const int32_t *ids,
                                const int32_t *targets, uint64_t id, graft_error *);
/* Forgets the rows, keeps the memory. */
void dataset_clear_rows(dataset *);
graft_status dataset_copy_paths(dataset *, const char *const *paths, const double *shares, size_t n,
                                graft_error *);

/* What stays together: the rows of one data row (the windows of a document, the two of a pair),
 * which lie one after another. */
typedef struct row_unit {
    size_t first, n;    /* rows */
    unit_tokens tokens; /* of all of them */
} row_unit;
/* *units [*n] is the caller's to free. */
graft_status dataset_units(row_unit **units, size_t *n, const dataset *, graft_error *);
/* Moves the units with taken[i] != 0 to `into` (NULL: away) and closes the gaps. */
graft_status dataset_take_units(dataset *from, dataset *into, const row_unit *units, size_t n,
                                const uint8_t *taken, graft_error *);

#endif
