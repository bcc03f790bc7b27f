/* PEFT's default targets where they are not LoRA's for every model (utils/constants.py). */
#ifndef GRAFT_ADAPTER_DEFAULT_TARGETS_H
#define GRAFT_ADAPTER_DEFAULT_TARGETS_H

/* Of AdaLoRA and VB-LoRA: fewer models, and all layers of opt. NULL: none for this model_type. */
const char *const *default_targets_of_older_models(const char *model_type);

#endif
