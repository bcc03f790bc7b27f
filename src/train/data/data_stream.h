/* Rows that are trained as they are read, for files larger than memory. A buffer of rows shuffles
 * them: it is filled in file order, each row that is taken is drawn from it at random, and the next
 * row of the files takes its place. So a row comes at most a buffer's length too early, and the
 * order depends on the files, seed, epoch and buffer alone.
 *
 * A cursor is a place in this order. To go back to one, the epoch is read again up to it. */
#ifndef GRAFT_TRAIN_DATA_DATA_STREAM_H
#define GRAFT_TRAIN_DATA_DATA_STREAM_H

#include "train/data/dataset.h"

typedef struct data_stream data_stream;

/* Reads no row yet. buffer_rows 1: file order. Copies paths and columns, borrows what else the
 * options name. Shares and dedup need all rows at once: GRAFT_E_USAGE. */
graft_status data_stream_open(data_stream **, const dataset_options *, int64_t buffer_rows,
                              uint64_t seed, graft_error *);
void data_stream_close(data_stream **);

/* The rows of the next step: `wanted` of them, fewer at an epoch's end. */
typedef struct stream_rows {
    const dataset *data;  /* holds these rows alone */
    const uint64_t *rows; /* [n] 0, 1, ... */
    int64_t n;
} stream_rows;
/* Lent until the next call. GRAFT_E_INPUT for a row that cannot be read, and for an epoch without a
 * row to train. */
graft_status data_stream_next(data_stream *, stream_rows *, int64_t wanted, graft_error *);

data_cursor data_stream_cursor(const data_stream *);
/* Of the rows taken in this epoch. */
uint64_t data_stream_hash(const data_stream *);
/* Reads this far. GRAFT_E_INPUT when the hash there is another. */
graft_status data_stream_seek(data_stream *, data_cursor, uint64_t hash, graft_error *);

/* Epochs done; within the first, 0, as its length is not known yet. */
double data_stream_epochs(const data_stream *);
int32_t data_stream_max_length(const data_stream *);             /* no row is longer */
const char *data_stream_path(const data_stream *, int32_t file); /* NULL past the end */

#endif
