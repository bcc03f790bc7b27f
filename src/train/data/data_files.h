/* What --data names, as files: a file, a folder (its data files), or a pattern, each with a share.
 *
 *   rows.jsonl          every row once an epoch
 *   rows.jsonl:0.3      three tenths of its rows an epoch
 *   data/train-?.jsonl  all that match, in the order of their names
 *   data/               all data files in it, in the order of their names */
#ifndef GRAFT_TRAIN_DATA_DATA_FILES_H
#define GRAFT_TRAIN_DATA_DATA_FILES_H

#include "base/status.h"

enum { DATA_SHARE_MAX = 1000 };

typedef struct data_files {
    char **paths;   /* [n] */
    double *shares; /* [n] of a file's rows that one epoch takes; above 1: rows come again */
    size_t n, paths_capacity, shares_capacity;
} data_files;

/* Appends the files that `named` stands for. GRAFT_E_INPUT when there are none, or a share is out
 * of (0, DATA_SHARE_MAX]. */
graft_status data_files_add(data_files *, const char *named, graft_error *);
void data_files_free(data_files *);

#endif
