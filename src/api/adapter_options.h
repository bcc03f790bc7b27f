/* From a recipe's options to an adapter_config. */
#ifndef GRAFT_API_ADAPTER_OPTIONS_H
#define GRAFT_API_ADAPTER_OPTIONS_H

#include "adapter/config.h"
#include "api/recipe.h"

/* --adapter-config FILE as it is; else --init-adapter's own config; else the options of LoRA, or
 * --method full. Two of these that disagree are GRAFT_E_USAGE. */
graft_status adapter_config_from_recipe(adapter_config *, const graft_recipe *,
                                        const message_sink *, graft_error *);
/* Marks the options that adapter_config_from_recipe did not read: a recipe that is written must not
 * name them. */
void adapter_options_omit(graft_recipe *);

#endif
