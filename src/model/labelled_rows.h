/* Which rows of a micro-batch have a label. Inside model/ only. */
#ifndef GRAFT_MODEL_LABELLED_ROWS_H
#define GRAFT_MODEL_LABELLED_ROWS_H

#include "model/transformer.h"

/* Fills buffers->labelled but its device arrays; without targets no row has one. */
graft_status labelled_rows_find(step_buffers *, const batch *, graft_error *);

#endif
