/* The part of a training recipe that also decides what a plan says. */
#ifndef GRAFT_API_TRAIN_SETTINGS_H
#define GRAFT_API_TRAIN_SETTINGS_H

#include "api/recipe.h"
#include "train/trainer.h"

/* Batch size, accumulation, packing, checkpointing, memory limit. */
void train_config_shapes(train_config *, const graft_recipe *);

#endif
