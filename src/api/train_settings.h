/* The part of a training recipe that also decides what a plan says. */
#ifndef GRAFT_API_TRAIN_SETTINGS_H
#define GRAFT_API_TRAIN_SETTINGS_H

#include "api/recipe.h"
#include "train/trainer.h"

/* Batch size, accumulation, packing, checkpointing, memory limit; steps, epochs and the
 * optimizer's numbers. No folder, no schedule. */
void train_config_numbers(train_config *, const graft_recipe *);

#endif
