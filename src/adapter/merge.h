/* A base and its adapter made one model: the layers' weights become what the adapter makes of them,
 * and the result needs no adapter to run. */
#ifndef GRAFT_ADAPTER_MERGE_H
#define GRAFT_ADAPTER_MERGE_H

#include "adapter/adapter.h"

typedef struct merge_summary {
    size_t changed, tensors; /* how many of the model's tensors changed */
    bool unties;             /* the head got a weight of its own */
} merge_summary;

/* Writes the merged model into `folder`, in the base's types (or all weights as `type`, where that
 * is a weight type). One layer's weight exists at a time. The adapter is prepared. Refuses, before
 * anything is written, adapters that cannot be merged; GRAFT_E_NUMERIC when a merged weight is not
 * finite. */
graft_status adapter_merge_model(merge_summary *, adapter *, backend *, weight_source *, dtype,
                                 const char *folder, const message_sink *, graft_error *);

#endif
