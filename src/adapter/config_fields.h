/* The keys of a method's own, as its table describes them. Inside adapter/ only. */
#ifndef GRAFT_ADAPTER_CONFIG_FIELDS_H
#define GRAFT_ADAPTER_CONFIG_FIELDS_H

#include "adapter/adapter.h"

/* Every key of KEY_INTEGER .. KEY_ANY with its checked value, or its default where config (NULL: an
 * empty one) has none. Caller frees. */
graft_status config_fields_read(json_t **out, const adapter_method *, const json_t *config,
                                const char *origin, graft_error *);

#endif
