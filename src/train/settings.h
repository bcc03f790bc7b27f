/* The settings a checkpoint remembers, and what a resumed run may change. */
#ifndef GRAFT_TRAIN_SETTINGS_H
#define GRAFT_TRAIN_SETTINGS_H

#include "train/trainer.h"

/* Refuses (GRAFT_E_USAGE) what no run can have; names the option. */
graft_status settings_check(const train_config *, graft_error *);

/* Everything that decides the bits of a run, by option name. NULL when out of memory. */
json_t *settings_json(const train_config *, const adapter *, const backend *);

/* Compares the settings at the checkpoint with those now. Another batch, seed, order or adapter
 * would not go on with the same run: GRAFT_E_INPUT, naming both values. Another rate, decay or
 * schedule is the user's choice: a warning. */
graft_status settings_compare(const json_t *then, const json_t *now, const char *path,
                              const message_sink *, graft_error *);

#endif
