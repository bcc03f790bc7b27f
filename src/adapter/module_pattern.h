/* Keys of adapter_config.json that give some modules another number: {"pattern": number}. */
#ifndef GRAFT_ADAPTER_MODULE_PATTERN_H
#define GRAFT_ADAPTER_MODULE_PATTERN_H

#include "adapter/adapter.h"

/* The number of the first pattern that ends the module's name as PEFT matches it, else fallback. */
graft_status module_pattern_integer(int64_t *out, const adapter *, const char *key,
                                    const char *module, int64_t fallback, graft_error *);

#endif
