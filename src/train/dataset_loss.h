/* Mean loss over a data set: the rows in an order that fills passes well, the sum in row order. */
#ifndef GRAFT_TRAIN_DATASET_LOSS_H
#define GRAFT_TRAIN_DATASET_LOSS_H

#include "evaluate/loss.h"
#include "train/data/dataset.h"

/* Evaluates all rows in `order` [dataset_rows] (NULL: file order); pass->row_sums is needed, and
 * total->sum adds it up in row order, so that the order changes no bit. weight: of each label, for
 * gradients. */
graft_status dataset_loss(loss_total *, const loss_pass *, const dataset *, const uint64_t *order,
                          float weight, const loss_observer *, graft_error *);

#endif
