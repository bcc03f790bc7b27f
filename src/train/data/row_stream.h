/* The rows of data files one after another, tokenised: what data sets are made of. Rows come as
 * they are read, with their text: not yet cut, and none left out. */
#ifndef GRAFT_TRAIN_DATA_ROW_STREAM_H
#define GRAFT_TRAIN_DATA_ROW_STREAM_H

#include "train/data/dataset.h"
#include "train/data/encoded_row.h"

typedef struct row_stream row_stream;

/* Borrows the options and what they name until it is closed. */
graft_status row_stream_open(row_stream **, const dataset_options *, graft_error *);
/* *row is borrowed until the next call; NULL at the end. GRAFT_E_INPUT for files without rows and
 * for rows of another kind than the file's first. */
graft_status row_stream_next(row_stream *, const encoded_row **row, graft_error *);
/* What was found so far in the rows given out; extra columns, rows read. */
const gate_report *row_stream_gate(const row_stream *);
/* The scripts of what people wrote: messages and texts, not what a template puts around them. */
const script_counts *row_stream_scripts(const row_stream *);
void row_stream_close(row_stream **);

#endif
