/* README.md beside an adapter or a model: what it is, what it was trained on and how, what was
 * measured, how to load it. */
#ifndef GRAFT_ADAPTER_MODEL_CARD_H
#define GRAFT_ADAPTER_MODEL_CARD_H

#include "adapter/adapter.h"

typedef struct model_card {
    const char *base_name;   /* as a user gave it; NULL: unknown */
    const char *const *data; /* [n_data] files it was trained on; their base names are shown */
    size_t n_data;
    int64_t rows, supervised_tokens; /* trained on, all epochs together */
    int64_t steps;
    double epochs, learning_rate;
    const char *schedule, *optimizer; /* "cosine", "adamw" */
    int64_t rows_per_step, max_length;
    uint64_t seed;
    double first_loss, last_loss; /* of training steps; NaN: not measured */
    double eval_loss;             /* NaN: nothing was evaluated */
} model_card;

/* Writes folder/README.md. */
graft_status model_card_write(const model_card *, const adapter *, const char *folder,
                              graft_error *);

#endif
