/* From a data row to tokens with labels: renders, encodes, and carries the supervised character
 * spans over to tokens. A token is trained when any of its text lies inside a span. */
#ifndef GRAFT_TRAIN_DATA_SUPERVISE_H
#define GRAFT_TRAIN_DATA_SUPERVISE_H

#include "train/data/dataset.h"
#include "train/data/encoded_row.h"

typedef struct supervisor supervisor;

/* Borrows what the options name. */
graft_status supervisor_create(supervisor **, const dataset_options *, graft_error *);
void supervisor_destroy(supervisor **);

/* Fills out's text, tokens and findings from the row, which is used up (its messages change).
 * origin: "data.jsonl:17". */
graft_status supervisor_encode(supervisor *, encoded_row *out, data_row *, const char *origin,
                               graft_error *);

#endif
